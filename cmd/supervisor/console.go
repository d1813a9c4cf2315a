package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/pkg/worker"
)

// console is where a command answers.
type console struct {
	out, err io.Writer
	outTerm  *os.File // the terminal that out is; nil where it is none
	errTerm  *os.File
	colour   bool // on both, where they are terminals
}

func newConsole(to worker.Streams) *console {
	return &console{out: to.Out, err: to.Err, outTerm: to.OutTerm, errTerm: to.ErrTerm,
		colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"} // no-color.org
}

// maxColumns is how wide a table is where there is no terminal to ask.
const maxColumns = 100

// size is the terminal's, or what one may expect.
func (c *console) size() (columns, rows int) {
	if c.outTerm != nil {
		if ws, err := unix.IoctlGetWinsize(int(c.outTerm.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 0 {
			return int(ws.Col), int(ws.Row)
		}
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n >= 40 {
		return n, 50
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
