package backlog

import (
	"fmt"
	"slices"
	"time"
)

// ackSync is how often acknowledging syncs by itself.
const ackSync = time.Second

func (l *Log) acknowledge(positions []Position, lost bool) error {
	if len(positions) == 0 {
		return nil
	}
	positions = slices.Sorted(slices.Values(positions))
	if last := positions[len(positions)-1]; last >= l.state.Next {
		return fmt.Errorf("position %d is not in the log: the last one is %d", last, l.state.Next-1)
	}
	for l.high < positions[len(positions)-1] {
		if more, err := l.readOn(); err != nil {
			return err
		} else if !more {
			break
		}
	}
	if err := l.mark(positions, lost); err != nil {
		return err
	}
	return l.settle()
}

// mark adds positions to those that are acknowledged. All positions between two
// records that follow each other are nobody's, so they join the ranges.
func (l *Log) mark(positions []Position, lost bool) error {
	acked, floor, done := slices.Clone(l.state.Acked), l.state.Floor, map[Position]bool{}
	for _, p := range positions {
		i, found := slices.BinarySearchFunc(l.window, p, func(e Entry, p Position) int { return compare(e.Position, p) })
		if !found || done[p] {
			continue
		}
		before := floor
		if i > 0 {
			before = l.window[i-1].Position
		}
		acked, done[p] = acked.add(before+1, p), true
	}
	if acked, floor = acked.above(floor); len(acked) > maxSpans {
		return fmt.Errorf("%d ranges of records would be acknowledged before older ones: want at most %d; acknowledge the older ones", len(acked), maxSpans)
	}
	for _, e := range l.window {
		if lost && done[e.Position] {
			l.lose(lossOf(e, Skipped))
		}
	}
	l.window = slices.DeleteFunc(l.window, func(e Entry) bool { return done[e.Position] })
	l.state.Acked, l.state.Floor = acked, floor
	l.waiting -= min(uint64(len(done)), l.waiting)
	l.unwritten = l.unwritten || len(done) > 0
	return nil
}

func compare(a, b Position) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// settle writes what is acknowledged, syncs it from time to time, and frees the
// segments that are done with.
func (l *Log) settle() error {
	if err := l.writeState(); err != nil {
		return err
	}
	if time.Since(l.synced) >= ackSync {
		if err := l.syncState(); err != nil {
			return err
		}
	}
	return l.retire()
}

// writeState writes the state if it has changed.
func (l *Log) writeState() error {
	if !l.unwritten && !l.file.broken {
		return nil
	}
	if err := l.file.write(&l.state); err != nil {
		return err
	}
	l.unwritten = false
	return nil
}

// syncState makes the state durable.
func (l *Log) syncState() error {
	if err := l.writeState(); err != nil {
		return err
	}
	if err := l.file.sync(&l.state); err != nil {
		return err
	}
	l.synced = time.Now()
	return nil
}

// retire frees the oldest segments of which all is acknowledged. The state is durable
// before.
func (l *Log) retire() error {
	for len(l.segments) > 0 && l.segments[0] != l.tail() {
		s := l.segments[0]
		if s.readings+s.events == 0 && s.prev <= l.state.Floor && s.last > l.state.Floor { // all of it was dropped
			l.state.Floor = s.last
			l.state.Acked, l.state.Floor = l.state.Acked.above(l.state.Floor)
			l.unwritten = true
		}
		if s.last > l.state.Floor || len(l.pending) > 0 && l.out == nil {
			return nil
		}
		if err := l.syncState(); err != nil {
			return err
		}
		if err := l.free(s); err != nil {
			return err
		}
		l.segments = l.segments[1:]
	}
	return nil
}
