package spool

import (
	"errors"
	"fmt"
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
	dir, err := s.root.Open(path.Dir(name))
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ReadAtom reads what WriteAtom wrote; it fails with fs.ErrNotExist before that.
func (s *Spool) ReadAtom(name string) ([]byte, error) {
	text, err := s.root.ReadFile(name)
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
	text, err := s.root.ReadFile(path.Join(string(state), string(id)+".json"))
	if err != nil {
		return nil, fmt.Errorf("read sidecar: %w", err)
	}
	return sidecar.Decode(text)
}

// RemoveUnfinished removes what an earlier run of a worker left in work/, for
// workers that cannot go on with an unfinished file, and returns how many files.
func (s *Spool) RemoveUnfinished(worker string) (int, error) {
	names, err := s.List(Work, worker)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, s.Remove(name))
	}
	return len(names), errors.Join(errs...)
}
