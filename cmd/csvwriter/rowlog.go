package main

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/perch-edge/perch/pkg/msg"
)

// rowLog lists a file's rows in order: which readings they are, and a checksum of each
// line. A day of one reading a second takes 350 KB.
type rowLog struct {
	spans []span
	sums  []uint32 // CRC-32C of each line
	hint  int      // the span that find looked at last
}

// span is consecutive numbers of one epoch.
type span struct {
	epoch msg.Epoch
	first msg.Seq
	n     int
	at    int // the index of its first row
}

func sumOf(line []byte) uint32 { return crc32.Checksum(line, crc32.MakeTable(crc32.Castagnoli)) }

func (l *rowLog) len() int { return len(l.sums) }

func (l *rowLog) add(c msg.Cursor, sum uint32) {
	if last := len(l.spans) - 1; last >= 0 && l.spans[last].epoch == c.Epoch && l.spans[last].first+msg.Seq(l.spans[last].n) == c.Seq {
		l.spans[last].n++
	} else {
		l.spans = append(l.spans, span{epoch: c.Epoch, first: c.Seq, n: 1, at: len(l.sums)})
	}
	l.sums = append(l.sums, sum)
}

func (l *rowLog) append(more *rowLog) {
	for i := range more.len() {
		l.add(more.cursor(i), more.sums[i])
	}
}

// last is the last row; nil where there is none.
func (l *rowLog) last() *msg.Cursor {
	if l.len() == 0 {
		return nil
	}
	r := l.spans[len(l.spans)-1]
	return &msg.Cursor{Epoch: r.epoch, Seq: r.first + msg.Seq(r.n-1)}
}

// cursor is the row at an index.
func (l *rowLog) cursor(i int) msg.Cursor {
	r := l.spans[l.runAt(i)]
	return msg.Cursor{Epoch: r.epoch, Seq: r.first + msg.Seq(i-r.at)}
}

func (l *rowLog) runAt(i int) int {
	at, exact := slices.BinarySearchFunc(l.spans, i, func(r span, i int) int { return r.at - i })
	if !exact {
		at--
	}
	return at
}

// find is the index of a row. Rows are asked for in about their own order.
func (l *rowLog) find(c msg.Cursor) (index int, ok bool) {
	for k := range l.spans {
		n := (l.hint + k) % len(l.spans)
		if r := l.spans[n]; r.epoch == c.Epoch && c.Seq >= r.first && c.Seq-r.first < msg.Seq(r.n) {
			l.hint = n
			return r.at + int(c.Seq-r.first), true
		}
	}
	return 0, false
}

// has reports whether exactly this line is among the rows.
func (l *rowLog) has(c msg.Cursor, sum uint32) bool {
	i, ok := l.find(c)
	return ok && l.sums[i] == sum
}

// from is the rows from an index on, and before those ahead of it.
func (l *rowLog) from(i int) *rowLog { return l.part(i, l.len()) }

func (l *rowLog) before(i int) *rowLog { return l.part(0, i) }

func (l *rowLog) part(from, to int) *rowLog {
	var some rowLog
	for i := from; i < to; i++ {
		some.add(l.cursor(i), l.sums[i])
	}
	return &some
}

// text lists some rows for people, at most a few spans of them.
func (l *rowLog) text() string {
	var parts []string
	for i, r := range l.spans {
		if i == 8 {
			parts = append(parts, fmt.Sprintf("and %d more", l.len()-r.at))
			break
		}
		numbers := fmt.Sprint(uint64(r.first))
		if r.n > 1 {
			numbers += fmt.Sprintf("-%d", uint64(r.first)+uint64(r.n)-1)
		}
		parts = append(parts, fmt.Sprintf("%s of %s", numbers, r.epoch))
	}
	return strings.Join(parts, ", ")
}
