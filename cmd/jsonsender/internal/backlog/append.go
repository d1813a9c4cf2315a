package backlog

import (
	"errors"
	"fmt"
	"os"
)

// frame is a block with its header and body, as it can be written to any segment.
type frame struct {
	block block
	bytes []byte
}

// maxKeys bounds the streams that are numbered; beyond, numbering begins anew.
const maxKeys = 4096

func (l *Log) check(entries []Entry) error {
	size := 0
	for _, e := range entries {
		size += len(e.Payload)
		if len(e.Key) > maxKey || e.Class > Event {
			return fmt.Errorf("record of class %d with a key of %d bytes: want class 0 or 1 and at most %d bytes", e.Class, len(e.Key), maxKey)
		}
	}
	if limit := l.cfg.SegmentBytes / 2; size > limit || len(entries) > maxRecords {
		return fmt.Errorf("%d records of %d bytes: want at most %d of %d bytes, one after the other if need be", len(entries), size, maxRecords, limit)
	}
	return nil
}

func (l *Log) append(entries []Entry) (first Position, err error) {
	if err := l.check(entries); err != nil || len(entries) == 0 {
		return l.state.Next, err
	}
	first = l.state.Next
	list := make([]record, len(entries))
	for i, e := range entries {
		e.Position = first + Position(i)
		list[i] = record{Entry: e, ordinal: l.number(e.Key)}
	}
	last := first + Position(len(list)) - 1
	f, err := l.frame(list, first-1, last, 0)
	if err == nil {
		err = l.write(f)
	}
	if err != nil {
		return 0, err
	}
	l.state.Next = last + 1
	l.waiting += uint64(len(list))
	return first, nil
}

// number is a record's number within its stream.
func (l *Log) number(key string) uint64 {
	n, known := l.ordinal[key]
	if !known && len(l.ordinal) >= maxKeys {
		clear(l.ordinal)
	}
	l.ordinal[key] = n + 1
	return n
}

func (l *Log) frame(list []record, prev, last Position, level uint8) (frame, error) {
	b, body, err := l.code.encode(list, prev, last)
	if err != nil {
		return frame{}, err
	}
	b.level = level
	text := make([]byte, headerBytes+len(body))
	copy(text[headerBytes:], body)
	return frame{block: b, bytes: text}, nil
}

// write puts a block behind the last one, in another segment where it does not fit.
func (l *Log) write(f frame) error {
	if l.out == nil && len(l.pending) > 0 { // a write or sync has failed before
		if err := l.rewritePending(); err != nil {
			return err
		}
	}
	at, fits := int64(0), false
	if s := l.tail(); s != nil {
		at, fits = s.place(f)
	}
	if !fits {
		if err := l.nextSegment(); err != nil {
			return err
		}
		at = 0
	}
	return l.put(f, at)
}

// place is where a block goes: behind the last one, or at the begin of the next page
// where it touches fewer pages there.
func (s *segment) place(f frame) (at int64, fits bool) {
	at = s.end
	size := int64(len(f.bytes))
	if roundUp(at+size, pageBytes)-at/pageBytes*pageBytes > roundUp(size, pageBytes) {
		at = roundUp(at, pageBytes)
	}
	return at, at+size <= s.size
}

// put writes a block to the last segment, with zeros up to the page's end: what stands
// behind a block is then never what the file held before.
func (l *Log) put(f frame, at int64) error {
	s := l.tail()
	f.block.off, f.block.seq = at, s.seq
	f.block.put(f.bytes)
	text := make([]byte, roundUp(at+int64(len(f.bytes)), pageBytes)-at)
	copy(text, f.bytes)
	if err := l.dir.writeAt(l.out, text, at); err != nil {
		l.abandon()
		return fmt.Errorf("write block: %w", err)
	}
	s.add(f.block)
	s.size = max(s.size, roundUp(s.end, pageBytes))
	l.pending = append(l.pending, f)
	return nil
}

// nextSegment begins a segment. Where the bound or the disk leaves no room, older
// segments are thinned.
func (l *Log) nextSegment() error {
	if err := l.syncBlocks(); err != nil {
		return err
	}
	if err := l.seal(); err != nil {
		return err
	}
	if err := l.makeRoom(); err != nil {
		return err
	}
	return l.beginWithThinning(l.state.Next - 1)
}

// beginWithThinning thins for as long as the disk is full.
func (l *Log) beginWithThinning(prev Position) error {
	for {
		err := l.beginSegment(prev)
		if !full(err) {
			return err
		}
		if freed, thinErr := l.thin(); thinErr != nil || !freed {
			return errors.Join(err, thinErr)
		}
	}
}

// makeRoom thins until another segment fits, and the one that thinning needs for the
// time being.
func (l *Log) makeRoom() error {
	for len(l.spares) <= 1 && l.size()+2*int64(l.cfg.SegmentBytes) > l.cfg.MaxBytes {
		freed, err := l.thin()
		if err != nil {
			return fmt.Errorf("thin: %w", err)
		}
		if !freed {
			break
		}
	}
	return nil
}

// beginSegment makes the file that is appended to from now on, of a spare, as long as
// one is left for thinning, or of zeros. prev is the last position before it.
func (l *Log) beginSegment(prev Position) error {
	if l.seq >= maxSeq-1 {
		return errors.New("the numbers of segments are used up: move the backlog away")
	}
	s := &segment{seq: l.seq + 1, size: int64(l.cfg.SegmentBytes), prev: prev, last: prev}
	taken, err := l.takeSpare(1, s.name())
	if err != nil {
		return err
	}
	var f *os.File
	if taken {
		f, err = l.dir.open(s.name(), os.O_RDWR)
	} else {
		f, err = l.dir.zero(s.name(), s.size)
	}
	if err != nil {
		return err
	}
	for _, old := range l.segments {
		old.blocks = nil
	}
	l.out, l.seq, l.torn = f, s.seq, true
	l.segments = append(l.segments, s)
	return nil
}

// seal ends the last segment, so that the next block begins another one.
func (l *Log) seal() error {
	if l.out == nil {
		return nil
	}
	err := l.out.Close()
	l.out = nil
	if err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}

// abandon ends the last segment after a failed write or sync. What is not synced
// leaves it, to be written to another one, whose number is higher and therefore counts
// if the blocks are found in both.
func (l *Log) abandon() {
	s := l.tail()
	_ = l.out.Close() // it has failed already
	l.out = nil
	if len(l.pending) > 0 {
		s.cut(l.pending[0].block.prev)
	}
	if s.readings+s.events == 0 {
		l.segments = l.segments[:len(l.segments)-1]
		_ = l.dir.remove(s.name()) // or the next start removes it
	}
}

// cut takes the blocks behind a position out of the last segment.
func (s *segment) cut(back Position) {
	blocks := s.blocks
	s.blocks, s.readings, s.events, s.last = nil, 0, 0, s.prev
	for _, b := range blocks {
		if b.last <= back {
			s.add(b)
		}
	}
}

// syncBlocks makes the appended blocks durable. After a failed sync the kernel takes
// pages for clean that are not on disk (fsync(2)), so they are written anew.
func (l *Log) syncBlocks() error {
	if len(l.pending) == 0 {
		return nil
	}
	if l.out != nil {
		if err := fdatasync(l.out); err == nil {
			l.pending = nil
			return nil
		}
		l.abandon()
	}
	return l.rewritePending()
}

// rewritePending writes the blocks that are not synced to a new segment, durably.
func (l *Log) rewritePending() error {
	frames := l.pending
	if err := l.beginWithThinning(frames[0].block.prev); err != nil {
		return err
	}
	l.pending = nil
	err := l.putAll(frames)
	if err == nil {
		err = fdatasync(l.out)
	}
	if err != nil && l.out != nil {
		l.abandon()
	}
	if err != nil {
		l.pending = frames
		return fmt.Errorf("write anew what was not synced: %w", err)
	}
	l.pending = nil
	return nil
}

func (l *Log) putAll(frames []frame) error {
	for _, f := range frames {
		at, _ := l.tail().place(f) // it may grow a little
		if err := l.put(f, at); err != nil {
			return err
		}
	}
	return nil
}

// sync makes everything durable.
func (l *Log) sync() error {
	if err := l.syncBlocks(); err != nil {
		return err
	}
	if l.torn {
		if err := l.dir.sync(); err != nil {
			return err
		}
		l.torn = false
	}
	return l.syncState()
}
