package ffmpeg

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
)

const (
	maxWords = 8       // lines
	maxLine  = 300     // bytes shown of a line
	maxPart  = 4 << 10 // bytes of a line that are looked at: a secret must not be cut in two
)

// tail keeps the last lines of what is written to it.
type tail struct {
	notice func(line string) bool // see Command.Notice

	mu    sync.Mutex
	lines []string
	part  []byte // a line that has not ended
}

// Write takes all of p; it never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for rest := p; len(rest) > 0; {
		i := bytes.IndexAny(rest, "\r\n")
		if i < 0 {
			t.add(rest)
			break
		}
		t.add(rest[:i])
		t.endLine()
		rest = rest[i+1:]
	}
	return len(p), nil
}

func (t *tail) add(text []byte) {
	t.part = append(t.part, text[:min(len(text), maxPart-len(t.part))]...)
}

func (t *tail) endLine() {
	if line := t.shown(); line != "" && !(t.notice != nil && t.notice(line)) {
		if len(t.lines) == maxWords {
			t.lines = slices.Delete(t.lines, 0, 1)
		}
		t.lines = append(t.lines, line)
	}
	t.part = t.part[:0]
}

// shown is the present line as it may be shown.
func (t *tail) shown() string {
	line := strings.TrimSpace(printable(strings.ToValidUTF8(string(t.part), "?")))
	line = credentials.ReplaceAllString(line, "$1***@")
	if len(line) > maxLine {
		line = strings.ToValidUTF8(line[:maxLine], "") + "..."
	}
	return line
}

// printable is text without what would change a terminal: colours and cursor
// movements (ECMA-48, 5.4) are left out, other control characters replaced.
func printable(text string) string {
	text = escapes.ReplaceAllString(text, "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '?'
	}, text)
}

// credentials are the user and the password of a URL (RFC 3986, section 3.2.1).
var credentials = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/]*@`)

var escapes = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]`)

// last lists the lines, the newest last.
func (t *tail) last() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := slices.Clone(t.lines)
	if line := t.shown(); line != "" {
		lines = append(lines, line)
	}
	return lines
}
