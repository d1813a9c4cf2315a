package main

import (
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// console is where a command answers.
type console struct {
	out, err io.Writer
	outTerm  bool // out is a terminal
	errTerm  bool
	colour   bool // on both, where they are terminals
}

func newConsole(out, err *os.File) *console {
	return &console{out: out, err: err, outTerm: isTerminal(out), errTerm: isTerminal(err),
		colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"} // no-color.org
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// maxColumns is how wide a table may be.
const maxColumns = 100

// size is the terminal's, or what one may expect.
func (c *console) size() (columns, rows int) {
	if f, ok := c.out.(*os.File); ok && c.outTerm {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 0 {
			return min(int(ws.Col), maxColumns), int(ws.Row)
		}
	}
	return maxColumns, 50
}

// Colours of a terminal (ECMA-48, SGR).
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
	bold   = "1"
)

func paint(on bool, colour, text string) string {
	if !on || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// printable takes out what would steer a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r) || r == '\n':
			return r
		default:
			return '\uFFFD'
		}
	}, text)
}

// cut shortens a text to that many columns.
func cut(text string, columns int) string {
	runes := []rune(text)
	if len(runes) <= columns {
		return text
	}
	if columns < 1 {
		return ""
	}
	return string(runes[:columns-1]) + "…"
}
