package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Stat tells what stands at a name in a state's folder, without following a link.
func (s *Spool) Stat(state State, name string) (fs.FileInfo, error) {
	return s.root.Lstat(path.Join(string(state), name))
}

// MakeStates makes the folders of states that somebody has removed.
func (s *Spool) MakeStates(states ...State) error {
	var errs []error
	for _, state := range states {
		errs = append(errs, s.makeState(state))
	}
	return errors.Join(errs...)
}

// OpenDamaged opens a file in work/ that Reopen refuses, to read from it what is
// good: one with several names, or that its owner may not write to. It must be a
// regular file all the same.
func (s *Spool) OpenDamaged(name string) (*os.File, error) {
	p := path.Join(string(Work), name)
	st, err := s.root.Lstat(p)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("not a regular file (%s)", st.Mode())
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p, err)
	}
	f, err := s.root.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) {
		if err = s.root.Chmod(p, 0o644); err == nil {
			f, err = s.root.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p, err)
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(st, opened) {
		return nil, errors.Join(fmt.Errorf("open %s: %w", p, errExchanged), err, f.Close())
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", p, err), f.Close())
	}
	return f, nil
}

// SetAsideAs moves whatever stands at a name in work/ to quarantine/, under the
// name of a file.
func (s *Spool) SetAsideAs(from, name string) error {
	err := checkName(name)
	if err == nil {
		err = s.makeState(Quarantine)
	}
	if err == nil {
		err = s.vacate(Quarantine, name)
	}
	if err == nil {
		_, err = s.rename(path.Join(string(Work), from), path.Join(string(Quarantine), name))
	}
	if err != nil {
		return fmt.Errorf("set aside %s: %w", from, err)
	}
	s.doubts.Delete(from)
	return nil
}

// Replace gives a file in work/ the name of another there, whatever stands at it,
// and makes that durable. A kill leaves the one or the other.
func (s *Spool) Replace(from, name string) error {
	err := errors.Join(checkName(from), checkName(name))
	if err == nil {
		err = s.root.Rename(path.Join(string(Work), from), path.Join(string(Work), name))
	}
	if err == nil {
		err = s.sync(string(Work))
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	s.doubts.Delete(name)
	return nil
}
