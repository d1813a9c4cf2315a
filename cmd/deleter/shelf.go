package main

import (
	"errors"
	"io/fs"
	"time"

	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// place is where files are.
type place string

// The places, as their tables are called.
const (
	ram  place = "ram"
	disk place = "disk"
)

// file is what is remembered of a file: there may be many thousands.
type file struct {
	at    place
	state spool.State
	told  time.Time // when its sidecar was written
	bytes int64     // that it takes up
	facts rule.File // its age left out
	end   rule.End
}

// block is what file systems give out room by; a sidecar takes one at least.
const block = 4096

// takes is how much room a file of that length takes up, with its sidecar.
func takes(bytes int64) int64 { return (bytes+block-1)/block*block + block }

func newFile(at place, state spool.State, told time.Time, side *sidecar.Sidecar) *file {
	facts := rule.Of(side, string(state), msg.Stamp{}, "")
	facts.AgeH, facts.AgeKnown = 0, false
	return &file{at, state, told, takes(side.Bytes), facts, rule.EndOf(side)}
}

func (f *file) id() sidecar.ID { return sidecar.ID(f.facts.ID) }

func (f *file) class() sidecar.Class { return sidecar.Class(f.facts.Class) }

// sent says whether a receiver has it.
func (f *file) sent() bool { return f.state == spool.Sent || f.facts.Sent }

// same says whether what was decided about f also goes for g.
func (f *file) same(g *file) bool { return f.facts == g.facts && f.end == g.end }

// shelf is the files of a place. The folders are the truth; it is what was
// seen there last.
type shelf struct {
	at     place
	limits *Limits
	files  map[sidecar.ID]*file
	other  int64      // taken up by what is never deleted
	room   spool.Room // of the file system
	absent error      // why there is nothing to be seen
}

func newShelf(at place, limits *Limits) *shelf {
	return &shelf{at: at, limits: limits, files: map[sidecar.ID]*file{}}
}

// gone forgets everything, since the place is not there.
func (s *shelf) gone(why error) { *s = *newShelf(s.at, s.limits); s.absent = why }

// scan looks at all files. It reads the sidecars that are new to it.
func (s *shelf) scan(sp *spool.Spool, alive func()) error {
	seen, other := map[sidecar.ID]*file{}, int64(0)
	for _, state := range spool.Stages() {
		entries, err := sp.Entries(state)
		if err != nil {
			return err
		}
		for _, e := range entries {
			alive()
			if state == spool.Quarantine { // whatever its sidecar says
				other += takes(e.Bytes)
				continue
			}
			f, err := s.known(sp, state, e)
			switch {
			case errors.Is(err, fs.ErrNotExist) && !e.Told.IsZero(): // moved on meanwhile
			case err != nil:
				other += takes(e.Bytes)
			default:
				seen[e.ID] = f
			}
		}
	}
	s.files, s.other, s.absent = seen, other, nil
	return nil
}

// known is the file as it was seen before, if nobody has written its sidecar
// since.
func (s *shelf) known(sp *spool.Spool, state spool.State, e spool.Entry) (*file, error) {
	if f := s.files[e.ID]; f != nil && f.state == state && !f.told.IsZero() && f.told.Equal(e.Told) {
		return f, nil
	}
	side, err := sp.Sidecar(state, e.ID)
	if err != nil {
		return nil, err
	}
	return newFile(s.at, state, e.Told, side), nil
}

// look looks at one file. When its sidecar was written it does not see: the next
// scan reads it again.
func (s *shelf) look(sp *spool.Spool, id sidecar.ID) {
	delete(s.files, id)
	for _, state := range spool.Stages() {
		if state == spool.Quarantine {
			continue
		}
		if side, err := sp.Sidecar(state, id); err == nil {
			s.files[id] = newFile(s.at, state, time.Time{}, side)
		}
	}
}

// used is what all files take up.
func (s *shelf) used() int64 {
	n := s.other
	for _, f := range s.files {
		n += f.bytes
	}
	return n
}
