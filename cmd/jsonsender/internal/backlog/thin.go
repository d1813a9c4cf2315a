package backlog

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// Levels of thinning: at level n a segment has kept the readings whose numbers in
// their stream are multiples of 2^n, then none, then no events either.
const (
	lastLevel  = 10
	noReadings = lastLevel + 1
	nothing    = noReadings + 1

	maxGroup = 4 // segments that become one
)

// keeps reports whether thinning to a level leaves a record.
func keeps(r record, level uint8) bool {
	if r.Class == Event {
		return level < nothing
	}
	return level <= lastLevel && r.ordinal&(1<<level-1) == 0
}

func why(level uint8) Reason {
	if level <= lastLevel {
		return Thinned
	}
	return Dropped
}

// thin takes one step in the order of loss; freed is false when nothing is left to
// lose. The last segment must be sealed.
func (l *Log) thin() (freed bool, err error) {
	l.window, l.high = nil, l.state.Floor
	group, level := l.choose()
	if len(group) == 0 {
		return false, nil
	}
	if err := l.rewrite(group, level); err != nil {
		return false, err
	}
	return true, l.retire()
}

// choose is which segments to thin next, and how far: the oldest ones with readings at the
// least level there is, or else the oldest with events.
func (l *Log) choose() (group []*segment, level uint8) {
	first := -1
	for i, s := range l.segments {
		if s.readings > 0 && (first < 0 || s.level < l.segments[first].level) {
			first = i
		}
	}
	if first >= 0 {
		return l.neighbours(first)
	}
	for i, s := range l.segments {
		if s.events > 0 {
			return l.segments[i : i+1], nothing
		}
	}
	return nil, 0
}

// neighbours adds to a segment those that may become one with it: the following ones of
// its level, and the one before where that is small and at the new level.
func (l *Log) neighbours(first int) (group []*segment, level uint8) {
	from := l.segments[first].level
	end := first + 1
	for end < len(l.segments) && end-first < maxGroup && (l.segments[end].readings == 0 || l.segments[end].level == from) {
		end++
	}
	if first > 0 {
		before := l.segments[first-1]
		if before.size <= int64(l.cfg.SegmentBytes/2) && (before.readings == 0 || before.level == from+1) {
			first--
		}
	}
	return l.segments[first:end], from + 1
}

// builder makes the blocks of a rewritten segment.
type builder struct {
	l      *Log
	level  uint8
	prev   Position // of the next block
	list   []record
	raw    int
	frames []frame
	size   int64
	losses []Loss
	lost   uint64
}

// blockRaw is how many bytes of payload a rewritten block has.
const blockRaw = 64 << 10

// add keeps a segment's records, or counts them as lost.
func (b *builder) add(s *segment) error {
	if s.blocks == nil {
		if err := b.l.revisit(s); err != nil {
			return err
		}
	}
	for _, one := range s.blocks {
		list, err := b.l.readBlock(s, one)
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := b.record(r); err != nil {
				return err
			}
		}
	}
	s.blocks = nil
	return b.flush(s.last)
}

func (b *builder) record(r record) error {
	if b.l.settled(r.Position) {
		return nil
	}
	if !keeps(r, b.level) {
		b.losses, b.lost = merge(b.losses, lossOf(r.Entry, why(b.level))), b.lost+1
		return nil
	}
	b.list, b.raw = append(b.list, r), b.raw+len(r.Payload)
	if b.raw < blockRaw && len(b.list) < maxRecords {
		return nil
	}
	return b.flush(r.Position)
}

// flush makes a block that covers the positions up to last, if only by their absence.
func (b *builder) flush(last Position) error {
	if last <= b.prev {
		return nil
	}
	f, err := b.l.frame(b.list, b.prev, last, b.level)
	if err != nil {
		return err
	}
	f.block.off = b.size
	b.frames = append(b.frames, f)
	b.size = roundUp(b.size+int64(len(f.bytes)), 8)
	b.prev, b.list, b.raw = last, nil, 0
	return nil
}

// build thins as many segments of a group as fit into one.
func (l *Log) build(group []*segment, level uint8) (b builder, used int, err error) {
	b = builder{l: l, level: level, prev: group[0].prev}
	for _, s := range group {
		before := b
		before.losses = slices.Clone(b.losses)
		if err := b.add(s); err != nil {
			return b, used, err
		}
		if b.size > int64(l.cfg.SegmentBytes) && used > 0 {
			return before, used, nil
		}
		used++
	}
	return b, used, nil
}

// rewrite replaces segments by one with less in it. The new one is whole and durable before
// it gets its name, and with the name it counts, since its number is the highest. Then
// the others go. Its losses are on disk before, and count if its file is there.
func (l *Log) rewrite(group []*segment, level uint8) error {
	b, used, err := l.build(group, level)
	if err != nil {
		return err
	}
	group = group[:used]
	l.seq++
	s := &segment{seq: l.seq, prev: group[0].prev, last: group[0].prev, size: max(pageBytes, roundUp(b.size, pageBytes))}
	l.state.Pending, l.unwritten = &rewrite{Seq: s.seq, Losses: b.losses}, true
	err = l.syncState()
	if err == nil {
		err = l.writeSegment(s, b.frames)
	}
	l.state.Pending, l.unwritten = nil, true
	if err != nil {
		return fmt.Errorf("rewrite %d segments: %w", len(group), err)
	}
	s.blocks = nil
	l.lose(b.losses...)
	l.waiting -= min(b.lost, l.waiting)
	old := slices.Clone(group)
	at := slices.Index(l.segments, group[0])
	l.segments = slices.Replace(l.segments, at, at+used, s)
	l.closeIn()
	for _, o := range old {
		err = errors.Join(err, l.free(o))
	}
	return err
}

// writeSegment makes a segment of blocks: of a spare, so that it works on a full disk,
// or else of a new file.
func (l *Log) writeSegment(s *segment, frames []frame) error {
	text := make([]byte, s.size)
	for _, f := range frames {
		f.block.seq = s.seq
		f.block.put(f.bytes)
		copy(text[f.block.off:], f.bytes)
		s.add(f.block)
	}
	name := fileName(s.seq, newExt)
	if _, err := l.takeSpare(0, name); err != nil {
		return err
	}
	err := l.writeFile(name, text)
	if err == nil {
		err = l.dir.rename(name, s.name())
	}
	if err == nil {
		if err = l.dir.sync(); err == nil {
			l.torn = false
			return nil
		}
		name = s.name()
	}
	return errors.Join(err, l.dir.remove(name))
}

// writeFile makes a file hold a text and nothing else, durably.
func (l *Log) writeFile(name string, text []byte) error {
	f, err := l.dir.open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	err = l.dir.writeAt(f, text, 0)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
