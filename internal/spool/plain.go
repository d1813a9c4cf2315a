package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
)

// ErrHeld says that another process is at work on a file.
var ErrHeld = errors.New("another process is at work on it")

// errExchanged says that a name has come to mean another file.
var errExchanged = errors.New("it was exchanged")

// tries is how often something is begun again that another process can spoil
// by being at the same file in the same microseconds.
const tries = 10

// OpenRegular opens a file of a folder that others can write to as well: a
// regular one that has no other name, and is still the one of that name when it
// is open. It looks before it opens and again after: a FIFO would hang, a device
// act, a link lead elsewhere. A small file may be replaced meanwhile.
func OpenRegular(root *os.Root, p string, flag int) (f *os.File, err error) {
	for range tries {
		if f, err = openOnce(root, p, flag); !errors.Is(err, errExchanged) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path.Join(root.Name(), p), err)
	}
	return f, nil
}

func openOnce(root *os.Root, p string, flag int) (*os.File, error) {
	before, err := root.Lstat(p)
	if err != nil {
		return nil, err
	}
	if err := plain(before); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(p, flag|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := isOnly(root, f, p); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *Spool) openRegular(p string, flag int) (*os.File, error) {
	return OpenRegular(s.root, p, flag)
}

// plain fails for what is not a regular file with one name.
func plain(st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !st.Mode().IsRegular():
		return fmt.Errorf("it is no regular file (%s)", st.Mode())
	case sys.Nlink > 1:
		return fmt.Errorf("it has %d names (hard links)", sys.Nlink)
	}
	return nil
}

// isOnly fails where an open file is not the one of that name, or has another.
func isOnly(root *os.Root, f *os.File, p string) error {
	named, err := root.Lstat(p)
	if err != nil {
		return err
	}
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(named, opened) {
		return errExchanged
	}
	return plain(opened)
}

func (s *Spool) isOnly(f *os.File, p string) error { return isOnly(s.root, f, p) }

// readRegular reads a small file whole, or enough of it to see that it is none.
func (s *Spool) readRegular(p string) ([]byte, error) { return readInto(nil, s.root, p) }

// readInto reads a small file into buf, or a larger one where that is too small.
func readInto(buf []byte, root *os.Root, p string) ([]byte, error) {
	f, err := OpenRegular(root, p, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	bytes := int(min(st.Size(), sidecar.MaxBytes)) + 1 // one more would be noticed
	text := slices.Grow(buf[:0], bytes)[:bytes]
	n, err := io.ReadFull(f, text)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return text[:n], err
}

// lock takes a file for this process, as long as it is open.
func lock(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var locked error
	if err := conn.Control(func(fd uintptr) { locked = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		return err
	}
	if errors.Is(locked, unix.EWOULDBLOCK) {
		return ErrHeld
	}
	return os.NewSyscallError("flock", locked)
}

// openHeld opens a file that nobody else holds, and holds it.
func (s *Spool) openHeld(p string, flag int) (*os.File, error) {
	f, err := s.openRegular(p, flag)
	if err != nil {
		return nil, err
	}
	if err = lock(f); err == nil {
		err = s.isOnly(f, p) // it may have been moved on before it was ours
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", p, err), f.Close())
	}
	return f, nil
}

// createHeld makes a file that is needed on the way only, and holds it. It
// fails with ErrHeld where somebody has the name; what else has it is of a
// run that was killed, or a trap: it is removed, and not written to.
func (s *Spool) createHeld(p string) (*os.File, error) {
	if err := s.removeUnheld(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := s.root.OpenFile(p, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create %s: %w", p, ErrHeld)
	}
	if err != nil {
		return nil, err
	}
	if err = lock(f); err == nil {
		err = s.isOnly(f, p)
	}
	if errors.Is(err, fs.ErrNotExist) { // Recover took it before it was ours
		err = ErrHeld
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", p, err), f.Close())
	}
	return f, nil
}

// removeUnheld removes a file that nobody holds, or a trap, which is not opened.
func (s *Spool) removeUnheld(p string) error {
	f, err := s.openHeld(p, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrHeld) {
		return err
	}
	if err != nil {
		return s.root.RemoveAll(p) // it may be a folder with something in it
	}
	return errors.Join(s.unlink(p), f.Close())
}

// unlink removes a name that may be gone already.
func (s *Spool) unlink(p string) error {
	if err := s.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
