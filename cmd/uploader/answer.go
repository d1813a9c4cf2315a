package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/redact"
	"github.com/perch-edge/perch/internal/uplink"
)

// failure is an attempt that failed, and what that means.
type failure struct {
	verdict uplink.Verdict
	after   time.Duration // how long the receiver wants to be left alone
	err     error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(v uplink.Verdict, format string, args ...any) error {
	return &failure{verdict: v, err: fmt.Errorf(format, args...)}
}

// failureOf is what an error means. One that nobody has judged is of the
// network.
func failureOf(err error) *failure {
	if f := (*failure)(nil); errors.As(err, &f) {
		return &failure{f.verdict, f.after, err}
	}
	return &failure{verdict: uplink.Unavailable, err: uplink.Explain(err)}
}

// maxText is how much of an answer is read.
const maxText = redact.MaxText

// answer is what a receiver answered.
type answer struct {
	status int
	header http.Header
	text   []byte // the first maxText bytes
}

func (a *answer) ok() bool { return a.status >= 200 && a.status < 300 }

// failure makes an error of an answer that is no success.
func (a *answer) failure() error {
	f := &failure{verdict: uplink.Judge(a.status), after: uplink.RetryAfter(a.header, time.Now())}
	what := fmt.Sprintf("the receiver answered %d %s%s", a.status, http.StatusText(a.status), uplink.Advice(a.status))
	switch {
	case a.status >= 300 && a.status < 400:
		f.err = fmt.Errorf("%s: it sends us elsewhere (%s), where nothing is sent", what, uplink.OneLine(a.header.Get("Location")))
	case len(a.text) > 0 && !uplink.IsPage(a.header):
		f.err = fmt.Errorf("%s: %s", what, uplink.OneLine(string(a.text)))
	default:
		f.err = errors.New(what)
	}
	return f
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
	if tag == redact.Hidden || len(tag) > uplink.MaxLine || strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return tag
}
