// Package lockfile lets one process own a name: a ring, an endpoint, a run folder.
//
//	Acquire(dir, name) --> open --> lock (F_OFD_SETLK) --> still the file of that name? --> write pid
//
// The lock is an open file description lock (fcntl(2)): the kernel drops it
// when its holder dies, however it dies, and it is not inherited by children
// that are started with close-on-exec files, as Go starts them. The file's
// text, the holder's process id, is for people and for error messages; only
// the lock decides.
//
// Acquire fails with a *HeldError when another process holds the name.
package lockfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is a held lock. Release gives the name back and removes its file.
type Lock struct {
	root *os.Root
	name string
	file *os.File
}

// HeldError says who holds a name.
type HeldError struct {
	Path string
	PID  int // 0 when the holder did not say
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is held by another process", e.Path)
	}
	return fmt.Sprintf("%s is held by process %d%s", e.Path, e.PID, program(e.PID))
}

func program(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return " (" + strings.TrimSpace(string(comm)) + ")"
}

// Acquire takes the lock of the file name inside root, creating the file
// (0600) where it is absent. It never waits.
func Acquire(root *os.Root, name string) (*Lock, error) {
	for {
		file, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		if err := Try(file, 0); err != nil {
			held := &HeldError{Path: root.Name() + "/" + name, PID: readPID(file)}
			file.Close()
			if errors.Is(err, ErrHeld) {
				return nil, held
			}
			return nil, err
		}
		// The last holder may have removed the file between our open and our
		// lock: then we hold a name that no longer exists, and try again.
		if !current(root, name, file) {
			file.Close()
			continue
		}
		lock := &Lock{root: root, name: name, file: file}
		if err := lock.writePID(); err != nil {
			return nil, errors.Join(err, lock.Release())
		}
		return lock, nil
	}
}

// Held says whether some process holds the lock of the file name inside root.
func Held(root *os.Root, name string) bool {
	_, held := Holder(root, name)
	return held
}

// Holder says whether some process holds the lock of the file name inside
// root, and which; the process id is 0 when the holder did not say.
func Holder(root *os.Root, name string) (pid int, held bool) {
	file, err := root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, false
	}
	defer file.Close()
	if !IsHeld(file, 0) {
		return 0, false
	}
	return readPID(file), true
}

// HolderOf says which process holds the lock of a file, by its own word; 0 is none.
// The path may be one that still leads to a removed file, as /proc/PID/fd/N.
func HolderOf(path string) (pid int) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0
	}
	defer file.Close()
	if !IsHeld(file, 0) {
		return 0
	}
	return readPID(file)
}

// Release removes the file and gives up the lock.
func (l *Lock) Release() error {
	return errors.Join(l.root.Remove(l.name), l.file.Close())
}

// Current says whether the lock still protects its name: whoever removes the file
// makes room for another holder.
func (l *Lock) Current() bool { return current(l.root, l.name, l.file) }

// Drop gives up the lock and leaves the name alone, since it may be another's.
func (l *Lock) Drop() error { return l.file.Close() }

func (l *Lock) writePID() error {
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if _, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

func readPID(file *os.File) int {
	text, _ := io.ReadAll(io.NewSectionReader(file, 0, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func current(root *os.Root, name string, file *os.File) bool {
	there, err := root.Stat(name)
	if err != nil {
		return false
	}
	ours, err := file.Stat()
	return err == nil && os.SameFile(there, ours)
}

// ErrHeld is what Try returns for a byte that another open file has locked.
var ErrHeld = errors.New("lock is held")

// Try locks one byte of an open file, exclusively and without waiting; the
// lock ends with Unlock, with the file's close, or with the process.
func Try(file *os.File, at int64) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrHeld
	}
	if err != nil {
		return fmt.Errorf("lock byte %d of %s: %w", at, file.Name(), err)
	}
	return nil
}

// Unlock gives up a byte that Try took.
func Unlock(file *os.File, at int64) error {
	lock := unix.Flock_t{Type: unix.F_UNLCK, Start: at, Len: 1}
	return unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
}

// IsHeld says whether another open file has locked the byte at that moment.
// It decides nothing that a newcomer could change: who must be sure takes the
// lock with Try.
func IsHeld(file *os.File, at int64) bool {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	err := unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, &lock)
	return err == nil && lock.Type != unix.F_UNLCK
}
