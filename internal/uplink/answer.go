package uplink

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Verdict is what the status of an answer means, where that is no success.
type Verdict int

const (
	Unavailable Verdict = iota // the receiver cannot at the moment
	Denied                     // the receiver does not let us, whatever we send
	Refused                    // the receiver does not take what was sent
)

// Judge returns what a status means, where that is no success. A status about the address or about our
// rights is Denied: it is no verdict on what was sent.
func Judge(status int) Verdict {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired,
		http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest:
		return Denied
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusLocked, http.StatusTooEarly, http.StatusTooManyRequests:
		return Unavailable
	}
	if status >= 400 && status < 500 {
		return Refused
	}
	return Unavailable
}

// Advice is what to look at where a receiver does not let us; "" after other answers.
func Advice(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return " (look at token_file: is what is in it known there, and may it write?)"
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest:
		return " (look at the address: is that folder or bucket there, and may we write to it?)"
	}
	return ""
}

// IsPage reports whether an answer's text is a page for a browser, which is of no use in a log.
func IsPage(h http.Header) bool {
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (media == "text/html" || media == "application/xhtml+xml")
}

// MaxLine is how many bytes of a receiver's text are repeated.
const MaxLine = 160

// OneLine is a receiver's text in one short line that can do no harm in a log.
func OneLine(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
	line := strings.Join(words, " ")
	if len(line) > MaxLine {
		line = line[:MaxLine] + "…"
	}
	return strconv.Quote(line)
}

// LongestAfter bounds how long a receiver can silence us.
const LongestAfter = time.Hour

// RetryAfter reads Retry-After (RFC 9110 section 10.2.3): seconds, or a date. It is 0 where there is none.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if s, err := strconv.Atoi(text); err == nil {
		return min(time.Duration(max(s, 0)), LongestAfter/time.Second) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date // our clock may be wrong: the receiver's own counts
	}
	return min(max(at.Sub(now), 0), LongestAfter)
}
