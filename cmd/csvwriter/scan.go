package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// lineBytes bounds a line: a reading has 64 KiB at most.
const lineBytes = 256 << 10

// extent is a damaged part of a file.
type extent struct{ from, to int64 }

// addExtent appends a part, or extends the last one if they are adjacent.
func addExtent(list []extent, from, to int64) []extent {
	if last := len(list) - 1; last >= 0 && list[last].to == from {
		list[last].to = to
		return list
	}
	return append(list, extent{from, to})
}

// eachLine visits a file's lines with their newlines. A line that is too long comes in
// pieces. Parts that cannot be read come as zeros, since the rest of the file may be
// good. It calls alive at regular intervals.
func eachLine(f io.ReaderAt, size int64, alive func(), visit func(off int64, line []byte)) error {
	buf := make([]byte, 0, lineBytes)
	for off := int64(0); off < size; {
		want := min(int64(cap(buf)), size-off)
		buf = buf[:want]
		if err := readAll(f, buf, off); err != nil {
			return err
		}
		alive()
		used := 0
		for {
			n := bytes.IndexByte(buf[used:], '\n') + 1
			if n == 0 {
				break
			}
			visit(off+int64(used), buf[used:used+n])
			used += n
		}
		if used == 0 || off+want == size && used < len(buf) { // longer than any line, or the rest
			visit(off+int64(used), buf[used:])
			used = len(buf)
		}
		off += int64(used)
	}
	return nil
}

const pageBytes = 4 << 10

// readAll fills b. A part of it that the disk cannot read is zeros.
func readAll(f io.ReaderAt, b []byte, off int64) error {
	_, err := f.ReadAt(b, off)
	if err == nil {
		return nil
	}
	good, failed := false, err
	for at := 0; at < len(b); at += pageBytes {
		page := b[at:min(at+pageBytes, len(b))]
		if n, err := f.ReadAt(page, off+int64(at)); err != nil {
			clear(page[n:])
			failed = err
		} else {
			good = true
		}
	}
	if !good && !errors.Is(failed, io.EOF) {
		return fmt.Errorf("read rows: %w", failed)
	}
	return nil
}

// contents is what a file turns out to hold.
type contents struct {
	rows       rowLog         // its whole rows
	start, end sidecar.Moment // the first and the last of them
	size       int64          // bytes up to the end of the last whole row
	torn       int64          // bytes after it
	sum        hash.Hash      // SHA-256 of the bytes up to size; of no use where it is damaged
	damaged    string         // why it is not what was written; "" where it is
	missing    rowLog         // rows that must have stood where it is damaged
}

// scan reads a whole file, up to its last whole row: after a kill or a power cut it may
// end in half a row, or in zeros. Whole rows after such a place, or whole lines that are
// not rows, cannot come from a power cut: then the file is damaged, and is not cut.
func scan(f *os.File, d *draft, alive func()) (contents, error) {
	c := contents{sum: sha256.New()}
	st, err := f.Stat()
	if err != nil {
		return c, fmt.Errorf("scan: %w", err)
	}
	s := scanner{contents: &c, draft: d, head: d.head()}
	if err := eachLine(f, st.Size(), alive, s.line); err != nil {
		return c, fmt.Errorf("scan %s: %w", f.Name(), err)
	}
	if s.bad && s.foreign {
		s.damage()
	}
	c.torn = st.Size() - c.size
	return c, nil
}

type scanner struct {
	*contents
	draft   *draft
	head    string
	bad     bool // the last line was no row
	badAt   int64
	foreign bool // and has text that ends in a newline
}

func (s *scanner) line(off int64, line []byte) {
	if off == 0 && string(line) == s.head {
		s.keep(line)
		return
	}
	at, err := parseRow(line, len(s.draft.Columns), s.draft.Format)
	if err == nil {
		if _, twice := s.rows.find(cursorOf(at)); twice {
			err = errTorn
		}
	}
	if err != nil {
		if !s.bad {
			s.bad, s.badAt, s.foreign = true, off, false
		}
		ended := line[len(line)-1] == '\n' || len(line) == lineBytes
		s.foreign = s.foreign || ended && len(bytes.Trim(line, "\x00\n")) > 0
		return
	}
	if s.bad || off == 0 {
		s.damage()
	}
	at.BootID = s.draft.First.BootID
	if s.rows.len() == 0 {
		s.start = at
	}
	if s.bad {
		s.expect(cursorOf(at))
		s.bad = false
	}
	s.end = at
	s.rows.add(cursorOf(at), sumOf(line))
	s.keep(line)
	s.size = off + int64(len(line))
}

// keep counts a line as one of the file.
func (s *scanner) keep(line []byte) {
	s.size += int64(len(line))
	if s.damaged == "" {
		s.sum.Write(line)
	}
}

func (s *scanner) damage() {
	if s.damaged == "" {
		s.damaged = fmt.Sprintf("its contents were changed at byte %d", s.badAt)
	}
}

// expect records the rows that must have been between the last whole one and the next.
func (s *scanner) expect(next msg.Cursor) {
	last, from := s.rows.last(), msg.Seq(0)
	switch first := s.draft.First; {
	case last != nil && last.Epoch == next.Epoch:
		from = last.Seq + 1
	case last == nil && first.Epoch == next.Epoch:
		from = first.Seq
	case last == nil: // what the file began with is not known
		return
	}
	for n := 0; from < next.Seq && n < maxMissing; from, n = from+1, n+1 {
		s.missing.add(msg.Cursor{Epoch: next.Epoch, Seq: from}, 0)
	}
}

// maxMissing bounds how many rows one damaged place is assumed to have held.
const maxMissing = 1 << 20
