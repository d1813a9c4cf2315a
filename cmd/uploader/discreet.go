package main

import (
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// hidden stands in the place of what a receiver said, where that repeats our
// secret. As an address it is nobody's.
const hidden = "hidden:it-repeats-our-secret"

// secrets are what must not be repeated in an error, a tag or an address.
type secrets []string

// hide returns the text, or hidden.
func (s secrets) hide(text string) string {
	if s.in(text) {
		return hidden
	}
	return text
}

// in says whether a text repeats a secret, also in the spelling of an address,
// of HTML or of JSON.
func (s secrets) in(text string) bool {
	for _, secret := range s {
		for _, spelt := range []string{text, unescaped(text), html.UnescapeString(text), strings.ReplaceAll(text, `\`, "")} {
			if secret != "" && strings.Contains(spelt, secret) {
				return true
			}
		}
	}
	return false
}

var escapeRE = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// unescaped is a text that may be no address at all.
func unescaped(text string) string {
	return escapeRE.ReplaceAllStringFunc(text, func(e string) string {
		n, err := strconv.ParseUint(e[1:], 16, 8)
		if err != nil {
			return e
		}
		return string([]byte{byte(n)})
	})
}

// discreet is the way to the receiver. Nothing that comes back by it repeats our
// secret: some receivers echo what they were asked with, and what they say may
// go into the log, the state and the sidecar.
type discreet struct {
	http.RoundTripper
	keys string // the file with the keys of s3; "" where a token goes along
}

// secrets are those of a request, as they were when it was made.
func (d *discreet) secrets(req *http.Request) secrets {
	if d.keys == "" {
		return secrets{strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")}
	}
	k, err := readKeys(d.keys)
	if err != nil { // it was made with keys that are no more
		return nil
	}
	return secrets{k.secret, k.session}
}

// RoundTrip hides what it must of the answer's header, and of the text of one
// that is no success.
func (d *discreet) RoundTrip(req *http.Request) (*http.Response, error) {
	s := d.secrets(req)
	res, err := d.RoundTripper.RoundTrip(req)
	if err != nil {
		if s.in(err.Error()) {
			err = errors.New("the receiver's answer is malformed, and repeats our secret")
		}
		return nil, err
	}
	res.Status = fmt.Sprintf("%d %s", res.StatusCode, http.StatusText(res.StatusCode))
	for _, values := range res.Header {
		for i, v := range values {
			values[i] = s.hide(v)
		}
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		res.Body = &muffled{ReadCloser: res.Body, secrets: s}
	}
	return res, nil
}

// muffled is an answer's text, which is looked through before any of it is given
// away. The first maxText bytes are all of it.
type muffled struct {
	io.ReadCloser
	secrets secrets
	text    io.Reader // nil: not read yet
}

// Read gives the text, or hidden.
func (m *muffled) Read(p []byte) (int, error) {
	if m.text == nil {
		text, err := io.ReadAll(io.LimitReader(m.ReadCloser, maxText))
		if err != nil {
			return 0, err
		}
		m.text = strings.NewReader(m.secrets.hide(string(text)))
	}
	return m.text.Read(p)
}
