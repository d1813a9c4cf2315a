package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
)

// Errors that callers tell apart.
var (
	// ErrHeld says that another process is at work on a file.
	ErrHeld = errors.New("another process is at work on it")
	// ErrDamaged says that a file's bytes are not those its sidecar tells of.
	ErrDamaged = errors.New("damaged")
)

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

// Held is a file in a state that this process alone may move on. It is for one
// goroutine, and must be released.
type Held struct {
	spool *Spool
	state State
	file  *os.File
	side  *sidecar.Sidecar
}

// Hold takes the file of that id in a state. It fails with fs.ErrNotExist where
// there is none (any more), and with ErrHeld where another process has it.
func (s *Spool) Hold(state State, id sidecar.ID) (*Held, error) {
	side, err := s.Sidecar(state, id)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", id, err)
	}
	f, err := s.openHeld(path.Join(string(state), side.Name), os.O_RDONLY)
	if err == nil {
		side, err = s.Sidecar(state, id) // as it is now that nobody changes it
	}
	if err != nil {
		err = fmt.Errorf("hold %s: %w", id, err)
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	return &Held{s, state, f, side}, nil
}

// Release lets others have the file. It is safe to call it twice.
func (h *Held) Release() error {
	if h.file == nil {
		return nil
	}
	f := h.file
	h.file = nil
	return f.Close()
}

// State is where the file is.
func (h *Held) State() State { return h.state }

// File is the open file, to be read; its place in the file is the caller's.
func (h *Held) File() *os.File { return h.file }

// Sidecar is a copy of the file's sidecar, to be changed and given to Move.
func (h *Held) Sidecar() *sidecar.Sidecar {
	side := *h.side
	side.History = slices.Clone(side.History)
	side.Detections = slices.Clone(side.Detections)
	return &side
}

func (h *Held) fail(step string, err error) error {
	return fmt.Errorf("%s %s: %w", step, h.side.Name, err)
}

// Amend replaces the file's sidecar, where it is.
func (h *Held) Amend(side *sidecar.Sidecar) error {
	text, err := side.Encode()
	if err == nil {
		err = h.spool.writeSidecar(h.state, h.side.ID, text)
	}
	if err != nil {
		return h.fail("amend sidecar of", err)
	}
	h.side = side
	return nil
}

// Move brings the file to another state of its spool, with a sidecar that
// tells of it. It fails with fs.ErrExist where the state has that file.
func (h *Held) Move(to State, side *sidecar.Sidecar) error {
	if err := h.move(to, side); err != nil {
		return h.fail("move", err)
	}
	return nil
}

func (h *Held) move(to State, side *sidecar.Sidecar) error {
	if err := h.spool.makeState(to); err != nil {
		return err
	}
	if err := h.spool.vacant(to, h.side.Name); err != nil {
		return err
	}
	text, err := side.Encode()
	if err == nil {
		err = h.spool.writeSidecar(to, side.ID, text)
	}
	if err == nil {
		err = h.spool.rename(h.state, to, h.side.Name)
	}
	if err != nil {
		return err
	}
	from := h.state
	h.state, h.side = to, side
	return h.spool.unlink(sidecarIn(from, side.ID))
}

// vacant fails where a state has a file of that name.
func (s *Spool) vacant(state State, name string) error {
	there, err := s.has(state, name)
	if err == nil && there {
		err = fmt.Errorf("there is a file of that name in %s: %w", state, fs.ErrExist)
	}
	return err
}

// unlink removes a name that may be gone already.
func (s *Spool) unlink(p string) error {
	if err := s.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove deletes the file and then its sidecar, and releases it.
func (h *Held) Remove() error {
	err := h.spool.unlink(path.Join(string(h.state), h.side.Name))
	if err == nil {
		err = h.spool.unlink(sidecarIn(h.state, h.side.ID))
	}
	if err != nil {
		return h.fail("remove", err)
	}
	return h.Release()
}

// copyStep is how much is copied at a time: alive is called between.
const copyStep = 1 << 20

// MoveTo brings the file to a state of another spool: copied, hashed and
// synced there under another name, renamed, and only then removed here; then it
// is released. It fails with ErrDamaged when its bytes are not those that its
// sidecar tells of. As long as it fails the file stays, and it can be called
// again. alive is called now and then.
func (h *Held) MoveTo(dst *Spool, to State, side *sidecar.Sidecar, alive func()) error {
	if err := h.moveTo(dst, to, side, alive); err != nil {
		return h.fail("move to disk", err)
	}
	return h.Remove()
}

func (h *Held) moveTo(dst *Spool, to State, side *sidecar.Sidecar, alive func()) error {
	if err := dst.makeState(to); err != nil {
		return err
	}
	if done, err := dst.settled(to, side, alive); done || err != nil {
		return err
	}
	part := path.Join(string(Work), side.Name+partSuffix)
	if err := dst.unlink(part); err != nil { // of a run that was killed
		return err
	}
	f, err := dst.root.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err = lock(f); err == nil {
		err = h.copyInto(f, dst, alive)
	}
	if err == nil {
		err = dst.finish(f, part, to, side)
	}
	if err != nil {
		return errors.Join(err, f.Close(), dst.unlink(part))
	}
	return f.Close()
}

// partSuffix marks an unfinished copy in work/.
const partSuffix = ".part"

// copyInto copies the file's bytes, and checks that they are the right ones.
func (h *Held) copyInto(f *os.File, dst *Spool, alive func()) error {
	if h.side.Bytes > 0 { // a full disk says so now, and not in the middle
		err := unix.Fallocate(int(f.Fd()), 0, 0, h.side.Bytes)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			return os.NewSyscallError("fallocate", err)
		}
	}
	sum := sha256.New()
	from := io.NewSectionReader(h.file, 0, h.side.Bytes+1) // one more would be noticed
	buf := make([]byte, min(copyStep, h.side.Bytes+1))
	for total := int64(0); ; {
		n, err := from.Read(buf)
		if n > 0 {
			sum.Write(buf[:n])
			if _, err := f.Write(buf[:n]); err != nil {
				return err
			}
			dst.written.Add(int64(n))
			total += int64(n)
			alive()
		}
		switch {
		case err == io.EOF:
			return verify(h.side, total, hex.EncodeToString(sum.Sum(nil)))
		case err != nil:
			return fmt.Errorf("read: %w", err)
		}
	}
}

func verify(side *sidecar.Sidecar, bytes int64, sum string) error {
	if bytes != side.Bytes || sum != side.SHA256 {
		return fmt.Errorf("%w: it has %d bytes with sha256 %s, and had %d with %s when it was made", ErrDamaged,
			bytes, sum, side.Bytes, side.SHA256)
	}
	return nil
}

// finish makes a copy in work/ a file of a state.
func (s *Spool) finish(f *os.File, part string, to State, side *sidecar.Sidecar) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	text, err := side.Encode()
	if err == nil {
		err = s.writeSidecar(to, side.ID, text)
	}
	if err != nil {
		return err
	}
	if err := s.renameAs(Work, path.Base(part), to, side.Name); err != nil {
		return errors.Join(err, s.unlink(sidecarIn(to, side.ID)))
	}
	return nil
}

// settled says whether a state has a good copy of a file already: then a
// move was interrupted after its last step but one. A bad one goes to quarantine.
func (s *Spool) settled(state State, side *sidecar.Sidecar, alive func()) (bool, error) {
	f, err := s.openHeld(path.Join(string(state), side.Name), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	n, sum, err := hash(f, alive)
	if err != nil {
		return false, err
	}
	if n == side.Bytes && sum == side.SHA256 {
		if _, err := s.Sidecar(state, side.ID); err == nil {
			return true, nil
		}
		text, err := side.Encode()
		if err == nil {
			err = s.writeSidecar(state, side.ID, text)
		}
		return err == nil, err
	}
	if err = s.makeState(Quarantine); err == nil {
		err = s.rename(state, Quarantine, side.Name)
	}
	return false, err
}
