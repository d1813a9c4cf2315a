package main

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// textError means that a command wrote text between pictures. That is no corrupt
// picture; the text is among the command's last words.
type textError struct{ text string }

func (e *textError) Error() string { return fmt.Sprintf("text instead of a picture: %q", e.text) }

const mostText = 300 // bytes of a line of text that are kept

// gap sorts the bytes between the pictures of a stream: padding and end markers
// are skipped, text is kept, anything else is garbage.
type gap struct {
	words func(line []byte) // is called with each line of text; may be nil
	last  byte
	more  int // bytes of a character that have yet to come
	line  []byte
	said  string // the last line that was no head of a part
}

// read reports whether some of the bytes are garbage, and whether a line of text
// ended among them.
func (g *gap) read(b []byte) (garbage, said bool) {
	for _, c := range b {
		last := g.last
		g.last = c
		switch {
		case g.more > 0 && c&0xc0 == 0x80: // within a character of UTF-8
			g.more--
			g.keep(c)
		case g.more > 0:
			g.more, garbage = 0, true
		case c == '\n':
			said = g.endLine() || said
		case c == 0, c == 0xff, c == '\r', last == 0xff && c == 0xd9: // an end marker twice
		case c >= ' ' && c < 0x7f, isConsole(rune(c)):
			g.keep(c)
		case c >= 0xc2 && c <= 0xf4 && len(g.line) > 0:
			g.more = 1
			if c >= 0xe0 {
				g.more++
			}
			if c >= 0xf0 {
				g.more++
			}
			g.keep(c)
		default:
			garbage = true
		}
	}
	if garbage {
		g.line = g.line[:0]
	}
	return garbage, said
}

func (g *gap) keep(c byte) {
	if len(g.line) < mostText {
		g.line = append(g.line, c)
	}
}

// endLine passes on the line that ends here, unless it belongs to the head of a
// part of a multipart stream (RFC 2046, section 5.1).
func (g *gap) endLine() (said bool) {
	line := bytes.TrimSpace(g.line)
	g.line = g.line[:0]
	if len(line) == 0 || isPartHead(line) {
		return false
	}
	g.said = strings.ToValidUTF8(string(line), "?")
	if g.words != nil {
		g.words(append(line, '\n'))
	}
	return true
}

// isPartHead reports whether a line is a boundary or a header field of a part.
func isPartHead(line []byte) bool {
	if bytes.HasPrefix(line, []byte("--")) || bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return true
	}
	name, _, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
		return false
	}
	lower := bytes.ToLower(name)
	if bytes.HasPrefix(lower, []byte("content-")) || bytes.HasPrefix(lower, []byte("x-")) {
		return true
	}
	switch string(lower) {
	case "date", "server", "connection", "cache-control", "pragma", "expires", "last-modified", "access-control-allow-origin":
		return true
	}
	return false
}

// isConsole reports whether a control character is one that programs write to
// terminals.
func isConsole(r rune) bool {
	return r == '\a' || r == '\b' || r == '\t' || r == '\f' || r == '\r' || r == '\x1b'
}

// words is the text that b is, if it reads as text: printable, and more letters
// than signs, with a space or an end of line. A frame's pixels do not.
func words(b []byte) (text string, ok bool) {
	if !utf8.Valid(b) {
		return "", false
	}
	text = strings.TrimRight(string(b), "\x00")
	letters, others, breaks := 0, 0, 0
	for _, r := range text {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			letters++
		case r == ' ' || r == '\n':
			breaks++
		case unicode.IsPrint(r) || isConsole(r):
			others++
		default:
			return "", false
		}
	}
	return text, letters >= 3 && letters > others && breaks > 0
}
