package spool

import (
	"fmt"

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
	if err == nil && len(text) > sidecar.MaxBytes {
		err = fmt.Errorf("more than %d bytes", sidecar.MaxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return text, nil
}

// RemoveAtom removes what WriteAtom wrote, if it is there.
func (s *Spool) RemoveAtom(name string) error {
	if err := s.unlink(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
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
