package backlog

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
)

// found is what recovery reads: the blocks that count, by position, and what is damaged.
type found struct {
	segments []*segment
	broken   []block         // of them, with a header that is intact
	stale    []uint32        // segments of which no block counts
	damaged  map[uint32]bool // segments that end in damage
	high     Position        // no intact header has a higher one
	stored   state           // as the state file has it
}

// readSegments reads all segments. The number of a segment decides which of two blocks
// counts that cover the same positions.
func readSegments(dir *folder) (*found, error) {
	sizes, err := dir.names(segmentExt)
	if err != nil {
		return nil, err
	}
	f := &found{damaged: map[uint32]bool{}}
	var covered spans
	for _, seq := range slices.Backward(slices.Sorted(maps.Keys(sizes))) {
		data, unread, err := dir.read(fileName(seq, segmentExt))
		if errors.Is(err, fs.ErrNotExist) { // by another process: who looks will look again
			continue
		}
		if err != nil {
			return nil, err
		}
		c := scan(data, seq)
		f.damaged[seq] = c.suspect || unread > 0
		s := &segment{seq: seq, size: sizes[seq]}
		for _, b := range c.blocks {
			f.high = max(f.high, b.last)
			if !covered.overlaps(b.prev+1, b.last) {
				s.add(b)
			}
		}
		for _, b := range s.blocks {
			covered = covered.add(b.prev+1, b.last)
		}
		f.addBroken(c.broken, s, covered)
		if s.end = c.end; len(s.blocks) > 0 || f.lastBroken(seq) {
			f.segments = append(f.segments, s)
		} else {
			f.stale = append(f.stale, seq)
		}
	}
	slices.SortFunc(f.segments, func(a, b *segment) int { return compare(a.prev, b.prev) })
	return f, nil
}

func (f *found) addBroken(list []block, s *segment, covered spans) {
	for _, b := range list {
		f.high = max(f.high, b.last)
		if !covered.overlaps(b.prev+1, b.last) {
			f.broken = append(f.broken, b)
			if len(s.blocks) == 0 && s.last == 0 {
				s.prev = b.prev
			}
			s.last = max(s.last, b.last)
		}
	}
}

func (f *found) lastBroken(seq uint32) bool {
	return len(f.broken) > 0 && f.broken[len(f.broken)-1].seq == seq
}

// recover reads what the folder holds into the log. It writes nothing.
func (l *Log) recover() (f *found, number uint64, slot int64, known bool, err error) {
	if f, err = readSegments(l.dir); err != nil {
		return nil, 0, 0, false, err
	}
	if l.spares, err = l.dir.names(spareExt); err != nil {
		return nil, 0, 0, false, err
	}
	if l.state, number, slot, known, err = readState(l.dir); err != nil {
		return nil, 0, 0, false, err
	}
	l.before = slices.Clone(l.state.Losses)
	f.stored = l.state
	f.stored.Losses = slices.Clone(l.state.Losses)
	l.segments = f.segments
	if l.seq, err = l.dir.highest(); err != nil {
		return nil, 0, 0, false, err
	}
	l.foldPending(f)
	if !known && len(f.segments) > 0 {
		l.state.Rewound++
		l.state.Floor = f.segments[0].prev
		l.unwritten = true
	}
	l.missing(f)
	return f, number, slot, known, l.count()
}

// foldPending counts the losses of a rewriting that came to its end.
func (l *Log) foldPending(f *found) {
	p := l.state.Pending
	if p == nil {
		return
	}
	l.seq = max(l.seq, p.Seq)
	there := slices.ContainsFunc(f.segments, func(s *segment) bool { return s.seq == p.Seq })
	if there || slices.Contains(f.stale, p.Seq) {
		l.lose(p.Losses...)
	}
	l.state.Pending, l.unwritten = nil, true
}

// missing counts the positions that no block covers. They are gone from then on, so
// that they are counted once.
func (l *Log) missing(f *found) {
	for _, b := range f.broken {
		l.damaged(b.prev, b.last, uint64(b.count))
	}
	at := l.state.Floor
	for _, s := range l.segments {
		for _, b := range s.blocks {
			if b.prev > at {
				l.damaged(at, b.prev, uint64(b.prev-at)>>b.level+1)
			}
			at = max(at, b.last)
		}
	}
	end := max(l.state.Next-1, f.high)
	unknown := at >= end || l.state.Acked.without(at+1, end) == 0
	l.damaged(at, end, uint64(end-min(at, end)))
	l.state.Next = end + 1
	l.settleImport()
	if f.damaged[l.lastNumber()] && !l.settled(end+1) {
		l.skipPositions(unknown)
	}
}

// unknownTail is how many positions a damaged end of the log may have held.
const unknownTail = 1 << 24

// skipPositions leaves out those that records may have had of which nothing is left,
// and counts one, unless missing ones are known.
func (l *Log) skipPositions(count bool) {
	if count {
		l.lose(Loss{Reason: Damaged, Records: 1, First: l.state.Next, Last: l.state.Next})
	}
	last := l.state.Next + unknownTail
	l.state.Acked, l.state.Floor = l.state.Acked.add(l.state.Next, last).above(l.state.Floor)
	l.state.Next, l.unwritten = last+1, true
}

// lastNumber is the number of the last segment; 0 is none.
func (l *Log) lastNumber() uint32 {
	if len(l.segments) == 0 {
		return 0
	}
	return l.segments[len(l.segments)-1].seq
}

// count counts the records that wait.
func (l *Log) count() error {
	l.waiting = 0
	for _, s := range l.segments {
		for _, b := range s.blocks {
			if b.last <= l.state.Floor {
				continue
			}
			if b.prev >= l.state.Floor && !l.state.Acked.overlaps(b.prev+1, b.last) {
				l.waiting += uint64(b.count)
				continue
			}
			list, err := l.readBlock(s, b)
			if err != nil {
				return err
			}
			for _, r := range list {
				if !l.settled(r.Position) {
					l.waiting++
				}
			}
		}
	}
	return nil
}

// start reads the folder and makes it ready to be written to.
func (l *Log) start() error {
	f, number, slot, known, err := l.recover()
	if err != nil {
		return err
	}
	if l.file, err = openState(l.dir, number, slot, known); err != nil {
		return err
	}
	err = l.resume(f)
	if err == nil {
		err = l.tidy(f.stale)
	}
	if err == nil {
		err = l.syncState()
	}
	if err == nil {
		err = l.retire()
	}
	if err == nil {
		err = l.reserve()
	}
	if err != nil {
		return errors.Join(err, l.file.close())
	}
	return nil
}

// resume goes on behind the last block, unless its segment is damaged or was rewritten.
func (l *Log) resume(f *found) error {
	l.torn = true // the names of a killed process may not be durable
	for i, s := range l.segments {
		if i < len(l.segments)-1 {
			s.blocks = nil
		}
	}
	if len(l.segments) == 0 {
		return nil
	}
	s := l.segments[len(l.segments)-1]
	if err := l.renumber(s); err != nil {
		return err
	}
	out, err := l.dir.open(s.name(), os.O_RDWR)
	if err != nil {
		return err
	}
	if err := fdatasync(out); err != nil {
		return errors.Join(err, out.Close())
	}
	if f.damaged[s.seq] || s.size != int64(l.cfg.SegmentBytes) || slices.ContainsFunc(f.broken, func(b block) bool { return b.seq == s.seq }) {
		return out.Close()
	}
	l.out = out
	return nil
}

// renumber goes on with the numbers of the streams.
func (l *Log) renumber(s *segment) error {
	for _, b := range s.blocks {
		list, err := l.readBlock(s, b)
		if err != nil {
			return err
		}
		for _, r := range list {
			l.ordinal[r.Key] = r.ordinal + 1
		}
	}
	return nil
}

// tidy removes what killed processes have left: files in the making, and segments of
// which another one has everything.
func (l *Log) tidy(stale []uint32) error {
	for _, seq := range stale {
		if err := l.dir.remove(fileName(seq, segmentExt)); err != nil {
			return err
		}
	}
	made, err := l.dir.names(newExt)
	if err != nil {
		return err
	}
	for seq := range made {
		if err := l.dir.remove(fileName(seq, newExt)); err != nil {
			return err
		}
	}
	for seq, size := range l.spares {
		if size != int64(l.cfg.SegmentBytes) {
			delete(l.spares, seq)
			if err := l.dir.remove(fileName(seq, spareExt)); err != nil {
				return err
			}
		}
	}
	return l.dir.remove(stateName + newExt)
}

// reserve makes the spare with which thinning works on a full disk, if there is room for
// it now.
func (l *Log) reserve() error {
	if len(l.spares) > 0 {
		return nil
	}
	seq := l.seq + 1
	f, err := l.dir.zero(fileName(seq, spareExt), int64(l.cfg.SegmentBytes))
	if full(err) {
		return nil
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("make spare: %w", err)
	}
	l.spares[seq], l.seq = int64(l.cfg.SegmentBytes), seq
	return nil
}
