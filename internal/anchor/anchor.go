// Package anchor tells when a file was really made that was born before the
// box knew the time.
//
//	first synchronised stamp of a boot --Note--> <store_dir>/clock.jsonl
//	sidecar + anchor of its boot --Correct--> time_corrected = anchor's time + difference of boot times
//
// A box without a battery clock starts at some moment of the past. Boot time
// runs evenly all the same, so that one moment of a boot at which the wall
// clock was right, its anchor, tells the time of all others of that boot.
//
// clock.jsonl holds the anchors of the last 64 boots, one JSON object a line,
// oldest first. It is replaced whole, once a boot. Any number of processes may
// have it open: who writes takes a lock and reads what others wrote before. A
// line that is no anchor is dropped, and Note says so. While the store is
// absent, full or read-only Note fails, holds the anchor in memory, where
// Correct finds it, and writes it when it is called again later.
package anchor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

const (
	// file is the anchors' in the store.
	file = "clock.jsonl"
	// most is how many boots are remembered.
	most = 64
	// retry is how long after a failure the next attempt comes.
	retry = time.Second
)

// Anchors are moments at which the wall clock was right, one a boot. Their
// methods are safe for concurrent use.
type Anchors struct {
	store func() (*spool.Spool, error)

	mu    sync.Mutex
	from  *spool.Spool // that known was read from
	known []sidecar.Anchor
	dirty bool // the store lacks some of known
	tried time.Duration
	err   error // of that attempt
}

// Open is the anchors of a store, which may be absent for now: store is
// called before each use, as spool.Store's Spool wants it. They are read by
// the first Note.
func Open(store func() (*spool.Spool, error)) *Anchors { return &Anchors{store: store} }

// Note takes the present moment. The first one of a boot that is synchronised
// is remembered; all others cost nothing. Call it now and then.
func (a *Anchors) Note(now msg.Stamp, bootID string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := sidecar.Anchor{BootID: bootID, BootNS: int64(now.Boot), Time: msg.Time{Time: now.Wall.UTC().Round(0)}} // no monotonic part
	if now.Synced && a.of(bootID) == nil && plausible(k) {
		a.merge([]sidecar.Anchor{k})
		a.dirty = true
	}
	if a.err != nil && now.Boot-a.tried < retry {
		return a.err
	}
	a.tried = now.Boot
	a.err = a.settle()
	return a.err
}

// settle makes memory and store agree.
func (a *Anchors) settle() error {
	s, err := a.store()
	if err != nil {
		return fmt.Errorf("note the time: %w", err)
	}
	if s != a.from { // at first, or another disk
		there, bad, err := read(s)
		if err != nil {
			return fmt.Errorf("note the time: %w", err)
		}
		a.merge(there)
		a.from, a.dirty = s, bad > 0 || !slices.Equal(a.known, there)
	}
	if !a.dirty {
		return nil
	}
	if err := a.write(s); err != nil {
		return fmt.Errorf("note the time: %w", err)
	}
	return nil
}

// write adds what the store lacks.
func (a *Anchors) write(s *spool.Spool) (err error) {
	claim, err := s.Claim(file)
	if held := (*lockfile.HeldError)(nil); errors.As(err, &held) {
		return nil // another process is writing: the next Note looks again
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, claim.Release()) }()
	there, bad, err := read(s)
	if err != nil {
		return err
	}
	a.merge(there)
	if err := claim.Write(encode(a.known)); err != nil {
		return err
	}
	a.dirty = false
	if bad > 0 {
		return fmt.Errorf("%s: %d lines told of no moment, and are dropped", file, bad)
	}
	return nil
}

// merge takes anchors in. Of two of one boot the first in time stays; of too
// many the last ones.
func (a *Anchors) merge(more []sidecar.Anchor) {
	for _, m := range more {
		if have := a.of(m.BootID); have == nil {
			a.known = append(a.known, m)
		} else if m.BootNS < have.BootNS {
			*have = m
		}
	}
	slices.SortStableFunc(a.known, func(x, y sidecar.Anchor) int { return x.Time.Compare(y.Time.Time) })
	a.known = a.known[max(0, len(a.known)-most):]
}

// of is the anchor of a boot; nil where none is known.
func (a *Anchors) of(bootID string) *sidecar.Anchor {
	i := slices.IndexFunc(a.known, func(k sidecar.Anchor) bool { return k.BootID == bootID })
	if i < 0 {
		return nil
	}
	return &a.known[i]
}

// Correct fills in when the data of a file were really made, if that was not
// known when they were and is now, and says whether it did. A file whose two
// ends are from different boots, both without the time, is left as it is.
func (a *Anchors) Correct(side *sidecar.Sidecar) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	start, end := side.Start, side.End
	unsure := start
	switch {
	case side.TimeCorrected != nil || start.Synced && end.Synced:
		return false
	case start.Synced:
		unsure = end
	case !end.Synced && start.BootID != end.BootID:
		return false
	}
	k := a.of(unsure.BootID)
	if k == nil {
		return false
	}
	side.TimeCorrected = &sidecar.Correction{Start: when(start, k), End: when(end, k), Anchor: *k}
	return true
}

// when is the true time of a moment.
func when(m sidecar.Moment, k *sidecar.Anchor) msg.Time {
	if m.Synced {
		return m.Time
	}
	return msg.Time{Time: k.Time.Add(time.Duration(m.BootNS - k.BootNS))}
}

func encode(anchors []sidecar.Anchor) []byte {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	for _, k := range anchors {
		if err := enc.Encode(k); err != nil {
			panic("anchor: " + err.Error()) // strings and numbers
		}
	}
	return text.Bytes()
}

// read reads the store's file, and counts the lines that hold no anchor.
func read(s *spool.Spool) (anchors []sidecar.Anchor, bad int, err error) {
	text, err := s.ReadAtom(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	anchors, bad = decode(text)
	return anchors, bad, err
}

func decode(text []byte) (anchors []sidecar.Anchor, bad int) {
	for line := range bytes.Lines(text) {
		var k sidecar.Anchor
		if json.Unmarshal(line, &k) != nil || !plausible(k) {
			bad++
			continue
		}
		anchors = append(anchors, k)
	}
	return anchors, bad
}

// plausible keeps out what no clock shows, and no correction could be made of.
func plausible(k sidecar.Anchor) bool {
	return k.BootID != "" && len(k.BootID) <= 64 && k.BootNS >= 0 && k.Time.Year() > 1970 && k.Time.Year() < 3000
}
