// Package redact keeps secrets out of errors, logs and stored answers.
//
//	receiver's answer --> Transport or Hide --> the same, or "hidden:…" where it repeats a secret
//
// Some receivers echo what they were asked with, and what they answer may go into the log, the state
// and a sidecar. A secret is recognised as it is, and as an address, HTML or JSON would spell it.
// What repeats one is replaced whole.
package redact

import (
	"html"
	"regexp"
	"strconv"
	"strings"
)

// Hidden replaces a text that repeats a secret. As an address it is nobody's.
const Hidden = "hidden:it-repeats-our-secret"

// Secrets must not be repeated in an error, a tag or an address.
type Secrets []string

// Hide returns the text, or Hidden.
func (s Secrets) Hide(text string) string {
	if s.In(text) {
		return Hidden
	}
	return text
}

// In reports whether a text repeats a secret, also in the spelling of an address, of HTML or of JSON.
func (s Secrets) In(text string) bool {
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
