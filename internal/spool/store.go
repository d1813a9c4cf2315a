package spool

import (
	"errors"
	"fmt"
	"io/fs"
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
	written    int64 // by spools before this one
}

// NewStore is the store in dir. mount is the mount point that dir must be on;
// "" is whatever is there.
func NewStore(dir, mount string, states ...State) *Store {
	if mount != "" {
		mount = filepath.Clean(mount)
	}
	return &Store{dir: filepath.Clean(dir), mount: mount, states: states}
}

// Mount is the mount point that the store must be on; "" is whatever is there.
func (s *Store) Mount() string { return s.mount }

// Spool is the open store. It fails with ErrNotMounted while the mount is not
// there; call it before each use, and do not keep what it returns. A file that is
// held may outlive it: where the disk is another one its steps fail with
// os.ErrClosed.
func (s *Store) Spool() (*Spool, error) {
	err := s.look()
	if err == nil && s.spool != nil && s.spool.is(s.dir) {
		return s.spool, nil
	}
	if s.spool != nil { // of a disk that is gone
		s.written += s.spool.Written()
		// A file that is held in it stays held until it is released, and its next
		// step fails: no step can find another disk in place of this one.
		_ = s.spool.Close()
		s.spool = nil
	}
	if err != nil {
		return nil, err
	}
	s.spool, err = s.open()
	return s.spool, err
}

// is says whether the spool's folder is still the one of that path.
func (s *Spool) is(dir string) bool {
	named, err := os.Stat(dir)
	if err != nil {
		return false
	}
	opened, err := s.root.Stat(".")
	return err == nil && os.SameFile(named, opened)
}

// open opens the spool by way of its mount: should the disk go meanwhile,
// nothing is made in the folder that it was mounted on.
func (s *Store) open() (*Spool, error) {
	if s.mount == "" {
		return Open(s.dir, s.states...)
	}
	disk, err := os.OpenRoot(s.mount)
	if err != nil {
		return nil, s.absent(err)
	}
	defer disk.Close()
	mounted, err := disk.Stat(".")
	if err == nil {
		err = s.isMount(mounted)
	}
	if err != nil {
		return nil, s.absent(err)
	}
	below, err := filepath.Rel(s.mount, s.dir)
	if err == nil {
		err = disk.MkdirAll(below, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	root, err := disk.OpenRoot(below)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	return openIn(root, s.states)
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

// look fails unless the store is on its mount, where one is declared.
func (s *Store) look() error {
	if s.mount == "" {
		return nil
	}
	if !within(s.mount, s.dir) {
		return s.absent(fmt.Errorf("it is not below its mount %s", s.mount))
	}
	mounted, err := os.Stat(s.mount)
	if err == nil {
		err = s.isMount(mounted)
	}
	if err != nil {
		return s.absent(err)
	}
	if at, err := os.Stat(s.dir); err == nil && device(at) != device(mounted) { // absent is to be made
		return s.absent(fmt.Errorf("it is on another disk than %s", s.mount))
	}
	return nil
}

// isMount fails for the folder that a disk is to be mounted on.
func (s *Store) isMount(st fs.FileInfo) error {
	above, err := os.Stat(filepath.Dir(s.mount))
	if err == nil && (!st.IsDir() || device(st) == device(above)) {
		err = fmt.Errorf("nothing is mounted at %s", s.mount)
	}
	return err
}

func (s *Store) absent(err error) error {
	return fmt.Errorf("store %s: %w: %w", s.dir, ErrNotMounted, err)
}

func device(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Dev
	}
	return 0
}

// within says whether dir is a folder or below it.
func within(folder, dir string) bool {
	rest, err := filepath.Rel(folder, dir)
	return err == nil && rest != ".." && !strings.HasPrefix(rest, "../")
}
