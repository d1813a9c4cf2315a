package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Look opens a spool that is there, to be looked at: it makes no folder, and so
// fails with fs.ErrNotExist where there is none.
func Look(dir string) (*Spool, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	return &Spool{root: root}, nil
}

// Look opens the store as Look does, for the caller to close. It fails with
// ErrNotMounted while the declared mount is not there.
func (s *Store) Look() (*Spool, error) {
	if err := s.look(); err != nil {
		return nil, err
	}
	return Look(s.dir)
}

// Peek opens a node's cache, or its store on its mount, to be looked at, for the
// caller to close. there is false, without an error, where nothing has been
// made yet. It fails with ErrNotMounted while the mount is not there; "" is none.
func Peek(dir, mount string) (s *Spool, there bool, err error) {
	s, err = NewStore(dir, mount).Look()
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNotMounted) {
		return nil, false, nil
	}
	return s, err == nil, err
}

// Room is how much a file system holds, in bytes.
type Room struct {
	Total int64 `json:"total_bytes"`
	Free  int64 `json:"free_bytes"` // for those who are not root
}

// Room is that of the file system that the spool is on.
func (s *Spool) Room() (Room, error) {
	dir, err := s.root.Open(".")
	if err != nil {
		return Room{}, fmt.Errorf("look for room: %w", err)
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return Room{}, fmt.Errorf("look for room in %s: %w", s.Dir(), err)
	}
	// Blocks are counted in fragments (statvfs(3)). On most file systems those are
	// as large as Bsize; where they are not, as with FUSE, Bsize would be wrong.
	return Room{Total: int64(st.Blocks) * st.Frsize, Free: int64(st.Bavail) * st.Frsize}, nil
}

// Folder opens a folder beside the states, for what is no spooled file, making
// it where it is absent.
func (s *Spool) Folder(name string) (*os.Root, error) {
	if err := s.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	root, err := s.root.OpenRoot(name)
	if err == nil {
		err = s.sync(".")
	}
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	return root, nil
}
