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

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
)

// errMalformed says that what a sidecar's file holds is none, or another file's.
var errMalformed = errors.New("malformed")

// Sidecar reads the sidecar of a file in a state.
func (s *Spool) Sidecar(state State, id sidecar.ID) (*sidecar.Sidecar, error) {
	if err := id.Check(); err != nil {
		return nil, fmt.Errorf("read sidecar: %w", err)
	}
	text, err := s.readRegular(sidecarIn(state, id))
	if err != nil {
		return nil, fmt.Errorf("read sidecar: %w", err)
	}
	side, err := sidecar.Decode(text)
	if err == nil && side.ID != id {
		err = fmt.Errorf("it is of %s", side.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("read sidecar %s: %w: %w", sidecarIn(state, id), errMalformed, err)
	}
	return side, nil
}

// lacking says that a sidecar could not be read because there is none, and not
// because the disk fails or somebody planted something else there.
func lacking(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errMalformed) }

func sidecarIn(state State, id sidecar.ID) string {
	return path.Join(string(state), string(id)+".json")
}

// What is in work/ on the way only: a sidecar before it is one, and a copy.
const (
	newSuffix  = ".json.new"
	partSuffix = ".part"
)

func unfinishedSidecar(id sidecar.ID) string { return path.Join(string(Work), string(id)+newSuffix) }

// unfinishedCopy is the name that whoever brings a file into the spool holds
// meanwhile.
func unfinishedCopy(id sidecar.ID) string { return path.Join(string(Work), string(id)+partSuffix) }

// place brings a file to a state, its sidecar first. Either nothing has moved,
// or it says so, whatever fails afterwards.
func (s *Spool) place(from string, to State, side *sidecar.Sidecar) (moved bool, err error) {
	text, err := side.Encode()
	if err == nil {
		err = s.makeState(to)
	}
	// The rename would refuse as well, but after the sidecar there is replaced.
	if err == nil {
		err = s.vacate(to, side.Name)
	}
	if err != nil {
		return false, err
	}
	if err = s.writeSidecar(to, side.ID, text); err == nil {
		moved, err = s.rename(from, path.Join(string(to), side.Name))
	}
	if !moved {
		return false, errors.Join(err, s.unlink(sidecarIn(to, side.ID)))
	}
	return true, err
}

// vacate fails where a state has a file of that name. In quarantine that one
// goes: it is of the same id, and would keep a broken file where it was for ever.
func (s *Spool) vacate(state State, name string) error {
	if state == Quarantine {
		return s.unlink(path.Join(string(state), name))
	}
	there, err := s.has(state, name)
	if err == nil && there {
		err = fmt.Errorf("there is a file of that name in %s: %w", state, fs.ErrExist)
	}
	return err
}

func (s *Spool) has(state State, name string) (bool, error) {
	_, err := s.root.Lstat(path.Join(string(state), name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (s *Spool) makeState(state State) error {
	err := s.insist(func() error { return s.root.Mkdir(string(state), 0o755) })
	if err == nil {
		return s.sync(".")
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make spool folder: %w", err)
	}
	st, err := s.root.Lstat(string(state))
	if err != nil {
		return fmt.Errorf("open spool folder: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("open spool folder %s in %s: it is no folder (%s)", state, s.root.Name(), st.Mode())
	}
	return nil
}

// writeSidecar makes the sidecar appear whole, or not at all.
func (s *Spool) writeSidecar(state State, id sidecar.ID, text []byte) error {
	err := s.insist(func() error { return s.put(unfinishedSidecar(id), sidecarIn(state, id), text) })
	if err != nil {
		return fmt.Errorf("write sidecar: %w", err)
	}
	return nil
}

// put writes a file under a temporary name, syncs it, renames it, and syncs
// its folder.
func (s *Spool) put(tmp, final string, text []byte) (err error) {
	var f *os.File
	for range tries { // Recover may hold the name while it clears up
		if f, err = s.createHeld(tmp); !errors.Is(err, ErrHeld) {
			break
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(text)
	s.written.Add(int64(len(text)))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.root.Rename(tmp, final)
	}
	if err != nil {
		return errors.Join(err, s.unlink(tmp))
	}
	return s.sync(path.Dir(final))
}

// sync makes the names in a folder durable.
func (s *Spool) sync(folder string) error {
	dir, err := s.root.Open(folder)
	if err != nil {
		return err
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", folder, err)
	}
	return nil
}

// rename moves a file between folders, not over another one, and makes both
// folders durable. Where that fails the file has moved all the same.
func (s *Spool) rename(from, to string) (moved bool, err error) {
	source, err := s.root.Open(path.Dir(from))
	if err != nil {
		return false, err
	}
	defer source.Close()
	target, err := s.root.Open(path.Dir(to))
	if err != nil {
		return false, err
	}
	defer target.Close()
	err = s.insist(func() error {
		return uninterrupted(func() error {
			return unix.Renameat2(int(source.Fd()), path.Base(from), int(target.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
		})
	})
	if err != nil {
		return false, fmt.Errorf("rename %s to %s: %w", from, to, err)
	}
	for _, dir := range []*os.File{target, source} {
		if err := dir.Sync(); err != nil {
			return true, fmt.Errorf("sync folder: %w", err)
		}
	}
	return true, nil
}

// uninterrupted repeats a system call that a signal of the Go runtime cut short.
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// copyStep is how much is read at a time: alive is called between. More would
// cost more than it spares: the kernel clears each page of a new buffer.
const copyStep = 256 << 10

func hash(f *os.File, alive func()) (int64, string, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	n, sum, err := pump(io.Discard, f, st.Size(), alive)
	if err == nil && n != st.Size() {
		err = fmt.Errorf("hash: its length changed from %d bytes meanwhile", st.Size())
	}
	return n, sum, err
}

// pump writes that many bytes of a file, and says how many there were, and
// their hash. Should the file have more, one more is counted.
func pump(to io.Writer, from *os.File, bytes int64, alive func()) (int64, string, error) {
	sum, total := sha256.New(), int64(0)
	in := io.NewSectionReader(from, 0, bytes+1)
	buf := make([]byte, min(copyStep, bytes+1))
	for {
		n, err := in.Read(buf)
		if n > 0 {
			sum.Write(buf[:n])
			if _, err := to.Write(buf[:n]); err != nil {
				return 0, "", err
			}
			total += int64(n)
			alive()
		}
		if err == io.EOF {
			return total, hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return 0, "", fmt.Errorf("read: %w", err)
		}
	}
}

// compare fails with ErrDamaged where a file has other bytes than its sidecar
// tells of.
func compare(side *sidecar.Sidecar, bytes int64, sum string) error {
	if bytes != side.Bytes || sum != side.SHA256 {
		return fmt.Errorf("%w: it has %d bytes with sha256 %s, and had %d with %s when it was made", ErrDamaged,
			bytes, sum, side.Bytes, side.SHA256)
	}
	return nil
}

// verify reads a file, and fails with ErrDamaged where it is not what its sidecar
// tells of.
func verify(f *os.File, side *sidecar.Sidecar, alive func()) error {
	n, sum, err := hash(f, alive)
	if err == nil {
		err = compare(side, n, sum)
	}
	return err
}

// syncStride is how much of a copy is made durable at a time: a slow card takes
// it in a few seconds, and all of a long video at once in more than a worker may
// be silent for.
const syncStride = 4 << 20

// strider writes to a file, and syncs it each stride.
type strider struct {
	*os.File
	since int // bytes since the last sync
}

func (w *strider) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	if w.since += n; err == nil && w.since >= syncStride {
		w.since = 0
		err = w.Sync()
	}
	return n, err
}

// copyInto copies a file of that many bytes into a new one and syncs it. It
// fails with ErrDamaged where that makes another hash.
func (s *Spool) copyInto(to, from *os.File, side *sidecar.Sidecar, alive func()) error {
	st, err := from.Stat()
	if err != nil {
		return err
	}
	// A full disk fails here and not half-way. The sidecar may claim any size.
	if room := min(side.Bytes, st.Size()); room > 0 {
		err := uninterrupted(func() error { return unix.Fallocate(int(to.Fd()), 0, 0, room) })
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			return os.NewSyscallError("fallocate", err)
		}
	}
	n, sum, err := pump(&strider{File: to}, from, side.Bytes, alive)
	s.written.Add(n)
	if err != nil {
		return err
	}
	if err := compare(side, n, sum); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}
