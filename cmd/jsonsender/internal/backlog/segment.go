package backlog

import (
	"errors"
	"io/fs"
	"slices"
)

// segment is a file of blocks.
type segment struct {
	seq        uint32
	size, end  int64
	prev, last Position // of the blocks that count
	readings   int      // of these blocks, acknowledged ones too
	events     int
	level      uint8   // the least of its blocks with readings
	blocks     []block // nil unless they are in use
}

func (s *segment) name() string { return fileName(s.seq, segmentExt) }

// add counts a block.
func (s *segment) add(b block) {
	if len(s.blocks) == 0 && s.readings+s.events == 0 && s.last == s.prev {
		s.prev, s.level = b.prev, b.level
	}
	s.level = min(s.level, b.level)
	s.last = max(s.last, b.last)
	s.readings += b.count - b.events
	s.events += b.events
	s.blocks = append(s.blocks, b)
	s.end = max(s.end, b.end())
}

// load finds the blocks of a segment that count. What has become unreadable since Open is
// among the broken ones, or missing.
func (l *Log) load(s *segment) (contents, error) {
	data, _, err := l.dir.read(s.name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a missing file is a segment without blocks
		return contents{}, err
	}
	c := scan(data, s.seq)
	outside := func(b block) bool { return b.prev < s.prev || b.last > s.last }
	c.blocks, c.broken = slices.DeleteFunc(c.blocks, outside), slices.DeleteFunc(c.broken, outside)
	return c, nil
}

// size is what all files of the log take.
func (l *Log) size() int64 {
	total := int64(2 * slotBytes)
	for _, s := range l.segments {
		total += s.size
	}
	for _, n := range l.spares {
		total += n
	}
	return total
}

// tail is the segment that is appended to; nil when the next append begins one.
func (l *Log) tail() *segment {
	if l.out == nil {
		return nil
	}
	return l.segments[len(l.segments)-1]
}

// free makes a spare of a segment's file where one is wanted, and removes it otherwise.
// Its records must be acknowledged durably, or be in another segment. A file that cannot
// be removed now is found at the next start.
func (l *Log) free(s *segment) error {
	l.torn = true
	if s.size != int64(l.cfg.SegmentBytes) || len(l.spares) >= maxSpares {
		return l.dir.remove(s.name())
	}
	err := l.dir.rename(s.name(), fileName(s.seq, spareExt))
	if err == nil {
		l.spares[s.seq] = s.size
	}
	if errors.Is(err, fs.ErrNotExist) { // somebody removed it
		return nil
	}
	return err
}

// maxSpares is how many spares are kept: one to write to next, and one for thinning
// on a full disk.
const maxSpares = 2

// takeSpare gives a spare another name, unless there are no more than keep.
func (l *Log) takeSpare(keep int, to string) (taken bool, err error) {
	for seq := range l.spares {
		if len(l.spares) <= keep {
			return false, nil
		}
		err := l.dir.rename(fileName(seq, spareExt), to)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		delete(l.spares, seq)
		if err == nil {
			l.torn = true
			return true, nil
		}
	}
	return false, nil
}
