package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// verdict is what an attempt that failed says.
type verdict int

const (
	unavailable verdict = iota // the receiver cannot at the moment
	denied                     // the receiver does not let us, whatever we send
	refused                    // the receiver does not take this file
)

// failure is an attempt that failed, and what that means.
type failure struct {
	verdict verdict
	after   time.Duration // how long the receiver wants to be left alone
	err     error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(v verdict, format string, args ...any) error {
	return &failure{verdict: v, err: fmt.Errorf(format, args...)}
}

// failureOf is what an error means. One that nobody has judged is of the
// network.
func failureOf(err error) *failure {
	if f := (*failure)(nil); errors.As(err, &f) {
		return &failure{f.verdict, f.after, err}
	}
	return &failure{verdict: unavailable, err: err}
}

// judge says what a status means that is no success. A status about the address
// or about our rights is no word on the file: it never costs a file its place.
func judge(status int) verdict {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired,
		http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest:
		return denied
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusLocked, http.StatusTooEarly, http.StatusTooManyRequests:
		return unavailable
	}
	if status >= 400 && status < 500 {
		return refused
	}
	return unavailable
}

// advice says what to look at where a receiver does not let us; "" after other
// answers.
func advice(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return " (look at token_file: is what is in it known there, and may it write?)"
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest:
		return " (look at the address: is that folder or bucket there, and may we write to it?)"
	}
	return ""
}

// isPage says whether a text is a page for a browser, which tells a log nothing.
func isPage(h http.Header) bool {
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (media == "text/html" || media == "application/xhtml+xml")
}

// maxText is how much of an answer is read, and maxSaid how much of that is
// repeated.
const (
	maxText = 16 << 10
	maxSaid = 160
)

// answer is what a receiver answered.
type answer struct {
	status int
	header http.Header
	text   []byte // the first maxText bytes
}

func (a *answer) ok() bool { return a.status >= 200 && a.status < 300 }

// failure makes an error of an answer that is no success.
func (a *answer) failure() error {
	f := &failure{verdict: judge(a.status), after: retryAfter(a.header, time.Now())}
	what := fmt.Sprintf("the receiver answered %d %s%s", a.status, http.StatusText(a.status), advice(a.status))
	switch {
	case a.status >= 300 && a.status < 400:
		f.err = fmt.Errorf("%s: it sends us elsewhere (%s), where nothing is sent", what, plain(a.header.Get("Location")))
	case len(a.text) > 0 && !isPage(a.header):
		f.err = fmt.Errorf("%s: %s", what, plain(string(a.text)))
	default:
		f.err = errors.New(what)
	}
	return f
}

// plain is a receiver's text in one short line that can do no harm in a log.
func plain(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
	line := strings.Join(words, " ")
	if len(line) > maxSaid {
		line = line[:maxSaid] + "…"
	}
	return strconv.Quote(line)
}

// longestAfter bounds how long a receiver can silence us.
const longestAfter = time.Hour

// retryAfter reads Retry-After (RFC 9110, 10.2.3): seconds, or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if s, err := strconv.Atoi(text); err == nil {
		return min(time.Duration(max(s, 0)), longestAfter/time.Second) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date // our clock may be wrong: the receiver's own counts
	}
	return min(max(at.Sub(now), 0), longestAfter)
}

// digest is the sha256 that an answer tells of a file, in hexadecimal; "" when
// it tells none. A digest of the answer's own text is none of a file. want
// settles what an entity tag of 64 digits is.
func (a *answer) digest(want string) string {
	own := sha256.Sum256(a.text)
	for _, told := range a.digests() {
		if told != hex.EncodeToString(own[:]) || told == want {
			return told
		}
	}
	if strings.EqualFold(strings.Trim(strings.TrimPrefix(a.header.Get("ETag"), "W/"), `"`), want) {
		return want
	}
	return ""
}

// digests lists what an answer says to be a sha256.
func (a *answer) digests() (list []string) {
	for _, name := range []string{"Repr-Digest", "Content-Digest", "Digest"} { // RFC 9530, RFC 3230
		for _, item := range strings.Split(a.header.Get(name), ",") {
			if algorithm, value, _ := strings.Cut(strings.TrimSpace(item), "="); strings.EqualFold(algorithm, "sha-256") {
				list = append(list, hexSum(strings.Trim(value, ":")))
			}
		}
	}
	list = append(list, hexSum(a.header.Get("X-Amz-Checksum-Sha256")))
	var body struct {
		SHA256 string `json:"sha256"`
	}
	if json.Unmarshal(a.text, &body) == nil {
		list = append(list, hexSum(body.SHA256))
	}
	told := list[:0]
	for _, sum := range list {
		if sum != "" {
			told = append(told, sum)
		}
	}
	return told
}

// hexSum is a sha256 in hexadecimal, whether it was told so or in base64; ""
// where it is neither.
func hexSum(text string) string {
	if sum, err := hex.DecodeString(text); err == nil && len(sum) == sha256.Size {
		return strings.ToLower(text)
	}
	if sum, err := base64.StdEncoding.DecodeString(text); err == nil && len(sum) == sha256.Size {
		return hex.EncodeToString(sum)
	}
	return ""
}

// tag is what the receiver itself knows the file by.
func (a *answer) tag() string {
	tag := cmp.Or(a.header.Get("ETag"), a.header.Get("Location"))
	if tag == hidden || len(tag) > maxSaid || strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return tag
}
