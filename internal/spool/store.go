package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrNotMounted says that a store's disk is not there.
var ErrNotMounted = errors.New("not mounted")

// Store is a spool on a disk that may be absent, and come, and go again: a USB
// stick, say. What is not on the declared mount is never filled. It is for one
// goroutine.
type Store struct {
	dir, mount string
	states     []State
	spool      *Spool
	device     uint64 // that the open spool is on
	written    int64  // by spools before this one
}

// NewStore is the store in dir. mount is the mount point that dir must be on;
// "" is whatever is there.
func NewStore(dir, mount string, states ...State) *Store {
	return &Store{dir: dir, mount: mount, states: states}
}

// Spool is the open store. It fails with ErrNotMounted while the mount is not
// there; call it before each use, and do not keep what it returns.
func (s *Store) Spool() (*Spool, error) {
	device, err := s.look()
	if err == nil && s.spool != nil && device == s.device {
		return s.spool, nil
	}
	if s.spool != nil { // of a disk that is gone
		s.written += s.spool.Written()
		_ = s.spool.Close() // nothing is held in it
		s.spool = nil
	}
	if err != nil {
		return nil, err
	}
	if s.spool, err = Open(s.dir, s.states...); err != nil {
		return nil, err
	}
	if s.device, err = s.look(); err != nil { // it went between the two looks
		return nil, errors.Join(err, s.Close())
	}
	return s.spool, nil
}

// Written is how many bytes were written, on all disks that were there.
func (s *Store) Written() int64 {
	if s.spool == nil {
		return s.written
	}
	return s.written + s.spool.Written()
}

// Close closes the spool, if it is open.
func (s *Store) Close() error {
	if s.spool == nil {
		return nil
	}
	err := s.spool.Close()
	s.spool = nil
	return err
}

// look finds the device that the store is on. Where a mount is declared, that
// must be one, and hold the folder.
func (s *Store) look() (device uint64, err error) {
	if s.mount == "" {
		return 0, nil
	}
	if !within(s.mount, s.dir) {
		return 0, fmt.Errorf("store %s is not below its mount %s: %w", s.dir, s.mount, ErrNotMounted)
	}
	device, err = deviceOf(s.mount)
	if err != nil {
		return 0, fmt.Errorf("store %s: %w: %w", s.dir, ErrNotMounted, err)
	}
	above, err := deviceOf(filepath.Dir(s.mount))
	if err != nil {
		return 0, fmt.Errorf("store %s: %w: %w", s.dir, ErrNotMounted, err)
	}
	if device == above {
		return 0, fmt.Errorf("store %s: nothing is mounted at %s: %w", s.dir, s.mount, ErrNotMounted)
	}
	if at, err := deviceOf(s.dir); err == nil && at != device { // absent is to be made
		return 0, fmt.Errorf("store %s is on another disk than %s: %w", s.dir, s.mount, ErrNotMounted)
	}
	return device, nil
}

func deviceOf(path string) (uint64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() {
		return 0, fmt.Errorf("%s is no folder", path)
	}
	return sys.Dev, nil
}

// within says whether dir is a folder or below it.
func within(folder, dir string) bool {
	rest, err := filepath.Rel(folder, dir)
	return err == nil && rest != ".." && !strings.HasPrefix(rest, "../")
}
