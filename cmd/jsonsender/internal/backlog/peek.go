package backlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

func (l *Log) peek(after Position, n, maxBytes int) (list []Entry, err error) {
	for i := 0; len(list) < n; i++ {
		for i < len(l.window) && l.window[i].Position <= after {
			i++
		}
		for i >= len(l.window) {
			if more, err := l.readOn(); err != nil || !more {
				return list, err
			}
		}
		e := l.window[i]
		if e.Position <= after {
			continue
		}
		if len(list) > 0 && len(e.Payload) > maxBytes {
			break
		}
		list = append(list, e)
		maxBytes -= len(e.Payload)
	}
	return list, nil
}

func (l *Log) oldest() time.Time {
	list, err := l.peek(0, 1, 0)
	if err != nil || len(list) == 0 {
		return time.Time{}
	}
	return list[0].Time
}

// readOn reads the next block into the window; more is false behind the last one.
func (l *Log) readOn() (more bool, err error) {
	l.high = max(l.high, l.state.Floor)
	for _, s := range slices.Clone(l.segments) {
		if s.last <= l.high {
			continue
		}
		if s.blocks == nil {
			if err := l.revisit(s); err != nil {
				return false, err
			}
		}
		for _, b := range s.blocks {
			if b.last <= l.high {
				continue
			}
			list, err := l.readBlock(s, b)
			if err != nil {
				return false, err
			}
			l.take(list)
			l.high = b.last
			return true, nil
		}
		l.high = max(l.high, s.last)
	}
	return false, nil
}

func (l *Log) since(after Position, visit func(Entry)) error {
	for _, s := range slices.Clone(l.segments) {
		if s.last <= after {
			continue
		}
		if s.blocks == nil {
			if err := l.revisit(s); err != nil {
				return err
			}
		}
		for _, b := range s.blocks {
			if b.last <= after {
				continue
			}
			list, err := l.readBlock(s, b)
			if err != nil {
				return err
			}
			for _, r := range list {
				if r.Position > after {
					visit(r.Entry)
				}
			}
		}
	}
	return nil
}

// take adds the records that wait to the window.
func (l *Log) take(list []record) {
	for _, r := range list {
		if r.Position > l.high && !l.settled(r.Position) {
			l.window = append(l.window, r.Entry)
		}
	}
}

// settled reports whether a position is acknowledged or lost.
func (l *Log) settled(p Position) bool { return p <= l.state.Floor || l.state.Acked.has(p) }

// revisit finds a segment's blocks again. What has become unreadable since Open is
// counted.
func (l *Log) revisit(s *segment) error {
	c, err := l.load(s)
	if err != nil {
		return err
	}
	for _, b := range c.broken {
		l.damaged(b.prev, b.last, uint64(b.count))
	}
	at := s.prev
	for _, b := range c.blocks {
		l.damaged(at, b.prev, uint64(b.prev-at)>>b.level+1)
		at = b.last
	}
	l.damaged(at, s.last, uint64(s.last-at)>>s.level+1)
	if s.blocks = c.blocks; s.blocks == nil {
		s.blocks = []block{}
	}
	return nil
}

// damaged counts up to n lost records behind prev up to last, as far as these were not
// acknowledged.
func (l *Log) damaged(prev, last Position, n uint64) {
	first := max(prev, l.state.Floor, l.high) + 1 // up to high they are in the window
	if n = min(n, l.state.Acked.without(first, last)); n == 0 {
		return
	}
	l.lose(Loss{Reason: Damaged, Records: n, First: first, Last: last})
	l.waiting -= min(n, l.waiting)
	l.state.Acked, l.state.Floor = l.state.Acked.add(first, last).above(l.state.Floor)
	l.unwritten = true
}

// readBlock reads a block's records; none if it is damaged by now, which is counted.
func (l *Log) readBlock(s *segment, b block) ([]record, error) {
	text := make([]byte, b.size())
	f, err := l.reader(s)
	if err == nil {
		_, err = f.ReadAt(text, b.off)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, io.EOF) && !unreadable(err) {
		return nil, fmt.Errorf("read block: %w", err)
	}
	var list []record
	if err == nil && checksum(text[headerBytes:]) != b.sum {
		err = errDamaged
	}
	if err == nil {
		list, err = l.code.decode(b, text[headerBytes:])
	}
	if err != nil {
		l.damaged(b.prev, b.last, uint64(b.count))
		return nil, nil
	}
	return list, nil
}

// reader is the segment's file, which stays open for the next block.
func (l *Log) reader(s *segment) (*os.File, error) {
	if l.in != nil && l.inSeq == s.seq {
		return l.in, nil
	}
	l.closeIn()
	f, err := l.dir.open(s.name(), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	l.in, l.inSeq = f, s.seq
	return f, nil
}

func (l *Log) closeIn() {
	if l.in != nil {
		_ = l.in.Close() // only read from
		l.in = nil
	}
}
