package spool

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The reserve is room that a spool has taken ahead, for sidecars alone. On a
// full disk no file could go on without it, since its sidecar goes first; and
// as long as none goes on none is sent, or deleted to make room.
const (
	reserveName  = ".reserve"
	reserveBytes = 256 << 10
	// reserveStep is how much of it is given away at a time: others, who write
	// larger things, may take what is free.
	reserveStep = 16 << 10
	// reservePart is the part of a small file system that it takes at most.
	reservePart = 16
)

// reserveOf is how much the reserve of a spool is to have.
func (s *Spool) reserveOf() int64 {
	room, err := s.Room()
	if err != nil {
		return 0
	}
	return min(reserveBytes, room.Total/reservePart/reserveStep*reserveStep)
}

// fillReserve takes what the reserve lacks, as far as there is room.
func (s *Spool) fillReserve() {
	if s.reserve == 0 {
		return
	}
	if st, err := s.root.Lstat(reserveName); err == nil && st.Size() >= s.reserve {
		return
	}
	f, err := s.openRegular(reserveName, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.root.OpenFile(reserveName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	}
	if err != nil {
		return // the disk says so to whoever writes to it
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return
	}
	for size := st.Size(); size < s.reserve; size += reserveStep {
		if allocate(f, size, reserveStep) != nil {
			_ = f.Truncate(size) // what it may have taken of this step
			return
		}
	}
}

// allocate takes room at the end of a file; where a file system cannot take it
// ahead, by writing to it.
func allocate(f *os.File, at, bytes int64) error {
	err := uninterrupted(func() error { return unix.Fallocate(int(f.Fd()), 0, at, bytes) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.WriteAt(make([]byte, bytes), at)
	}
	return err
}

// spend gives a step of the reserve away, and says whether there was one.
func (s *Spool) spend() bool {
	f, err := s.openRegular(reserveName, os.O_RDWR)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false
	}
	left := max(st.Size()-reserveStep, 0)
	// The room is free when the file system has written down that it is.
	if f.Truncate(left) != nil || f.Sync() != nil {
		return false
	}
	return left > 0 || s.root.Remove(reserveName) == nil // it may be that only an inode was lacking
}

// Insist does a small thing of a worker's own that must go on when the disk is
// full, in room of the reserve.
func (s *Spool) Insist(do func() error) error { return s.insist(do) }

// insist does a small thing that must go on when the disk is full, in room of
// the reserve.
func (s *Spool) insist(do func() error) error {
	err := do()
	for errors.Is(err, syscall.ENOSPC) && s.spend() {
		err = do()
	}
	return err
}
