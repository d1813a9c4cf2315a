package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/sidecar"
)

// WriteAtom replaces a small file of the worker's own, which is no spooled
// file: it appears whole, and is durable.
func (s *Spool) WriteAtom(name string, text []byte) error {
	if err := s.put(name+".new", name, text); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// ReadAtom reads what WriteAtom wrote; it fails with fs.ErrNotExist before that.
func (s *Spool) ReadAtom(name string) ([]byte, error) {
	text, err := s.readRegular(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return text, nil
}

// Claim is the right to a name in the spool's own folder, where people look: as
// long as it is held no other process can claim it.
type Claim struct {
	spool *Spool
	name  string
	lock  *lockfile.Lock
}

// Claim takes a name. It fails with a *lockfile.HeldError.
func (s *Spool) Claim(name string) (*Claim, error) {
	lock, err := lockfile.Acquire(s.root, "."+name+".lock")
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", name, err)
	}
	return &Claim{s, name, lock}, nil
}

// Write replaces the claimed file.
func (c *Claim) Write(text []byte) error { return c.spool.WriteAtom(c.name, text) }

// Release gives the name up; the file stays.
func (c *Claim) Release() error { return c.lock.Release() }

// Sidecar reads the sidecar of a file in a state.
func (s *Spool) Sidecar(state State, id sidecar.ID) (*sidecar.Sidecar, error) {
	if err := id.Check(); err != nil {
		return nil, fmt.Errorf("read sidecar: %w", err)
	}
	text, err := s.readRegular(sidecarIn(state, id))
	if err != nil {
		return nil, fmt.Errorf("read sidecar: %w", err)
	}
	return sidecar.Decode(text)
}

// RemoveUnfinished removes what an earlier run of a worker left in work/ on its
// way to a state, for workers that cannot go on with an unfinished file, and
// returns how many files. A file's sidecar may be in the state already, and
// goes first: killed in between, the next run finds the file again.
func (s *Spool) RemoveUnfinished(worker string, to State) (int, error) {
	names, err := s.List(Work, worker)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, s.Discard(name, to))
	}
	return len(names), errors.Join(errs...)
}

// Discard removes an unfinished file from work/ for good, with whatever
// Complete has made of its sidecar.
func (s *Spool) Discard(name string, to State) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	id, _ := splitName(name)
	gone := func(p string) error {
		if err := s.root.Remove(p); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if there, err := s.has(to, name); err != nil || there { // then the sidecar is of that file
		return errors.Join(err, gone(path.Join(string(Work), name)))
	}
	return errors.Join(gone(unfinishedSidecar(id)), gone(sidecarIn(to, id)), gone(path.Join(string(Work), name)))
}
