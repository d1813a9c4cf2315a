package redact

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// MaxText is how much is read of an answer's text that is no success.
const MaxText = 16 << 10

// Transport lets no answer repeat the secrets of its request: neither in its header nor, where it is
// no success, in its text, of which there are at most MaxText bytes.
type Transport struct {
	http.RoundTripper
	// Secrets returns those of a request; nil is what its Authorization header holds.
	Secrets func(*http.Request) Secrets
}

// RoundTrip hides what it must.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	secretsOf := t.Secrets
	if secretsOf == nil {
		secretsOf = Authorization
	}
	s := secretsOf(req) // as they are when the request is made
	res, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		if s.In(err.Error()) {
			err = errors.New("the receiver's answer is malformed, and repeats our secret")
		}
		return nil, err
	}
	res.Status = fmt.Sprintf("%d %s", res.StatusCode, http.StatusText(res.StatusCode))
	for _, values := range res.Header {
		for i, v := range values {
			values[i] = s.Hide(v)
		}
	}
	if res.StatusCode >= 300 { // the body of 101 is the connection
		res.Body = &muffled{ReadCloser: res.Body, secrets: s}
	}
	return res, nil
}

// Authorization returns the secrets in a request's Authorization header (RFC 9110 section 11.6.2):
// the token, or the password of the Basic scheme and its base64.
func Authorization(req *http.Request) Secrets {
	_, value, found := strings.Cut(req.Header.Get("Authorization"), " ")
	if !found {
		return Secrets{req.Header.Get("Authorization")}
	}
	s := Secrets{value}
	if pair, err := base64.StdEncoding.DecodeString(value); err == nil && strings.HasPrefix(req.Header.Get("Authorization"), "Basic ") {
		if _, password, found := strings.Cut(string(pair), ":"); found {
			s = append(s, password)
		}
	}
	return s
}

// muffled is an answer's text, which is searched before any of it is passed on.
type muffled struct {
	io.ReadCloser
	secrets Secrets
	text    io.Reader // nil: not read yet
}

// Read returns the text, or Hidden.
func (m *muffled) Read(p []byte) (int, error) {
	if m.text == nil {
		text, err := io.ReadAll(io.LimitReader(m.ReadCloser, MaxText))
		if err != nil {
			return 0, err
		}
		m.text = strings.NewReader(m.secrets.Hide(string(text)))
	}
	return m.text.Read(p)
}
