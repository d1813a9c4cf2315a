// Package spool keeps files through their states. A state is a folder, a
// transition is one rename, and a file that can be seen in a state is complete.
//
//	work/ --Complete--> born/ (cache, in RAM) --Held.MoveTo--> ready/ (store, on disk) --Held.Move--> sent/, rejected/
//	                      └─Held.Move--> dropped/ --Held.Remove--> nothing
//
// Each step writes the sidecar where the file goes, renames the file, never over
// another, and only then removes the sidecar where it was. From RAM to disk the
// file is copied and hashed, and the original is removed last. On disk, files
// and folders are synced before the step that relies on them (fsync(2); a rename
// is safe only with its folder synced). So a power cut leaves a complete file
// with its sidecar in one state, or traces that say what was under way: Recover
// finishes that, or takes it back.
//
// Who moves a file on holds it: a lock on the file itself (flock(2)), which
// the kernel drops with the process. Held's methods are the only ways on, so two
// processes cannot disagree about a file, and Recover leaves alone what is held.
//
// All access goes through one os.Root. Names are ids of ours; what is not a
// regular file with one link is refused, whoever put it there. It fails when
// the disk does, and a step that failed can be tried again: nothing is synced
// twice by the same descriptor, since the kernel forgets a failure.
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
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
)

// State is a folder of the spool.
type State string

// The states.
const (
	Work       State = "work"       // being written
	Born       State = "born"       // complete, in RAM
	Dropped    State = "dropped"    // a rule does not keep it; to be removed
	Ready      State = "ready"      // complete, on disk
	Sent       State = "sent"       // the receiver has it
	Rejected   State = "rejected"   // the receiver will not have it
	Quarantine State = "quarantine" // broken, kept for a person to look at
)

// Stages lists the states of complete files, in the order of a file's life.
func Stages() []State { return []State{Born, Dropped, Ready, Sent, Rejected, Quarantine} }

// Spool is a folder of states: a node's cache or its store. Its methods are
// safe for concurrent use.
type Spool struct {
	root    *os.Root
	written atomic.Int64
}

// Written is how many bytes were written into the spool by way of it, the
// files that workers write themselves left out.
func (s *Spool) Written() int64 { return s.written.Load() }

// Open opens the folder, making it and its states where they are absent.
func Open(dir string, states ...State) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{root: root}
	for _, state := range states {
		err = errors.Join(err, s.makeState(state))
	}
	if err = errors.Join(err, s.sync(".")); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

func (s *Spool) makeState(state State) error {
	if err := s.root.Mkdir(string(state), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
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

// Dir is the spool's path, for messages.
func (s *Spool) Dir() string { return s.root.Name() }

// Path is where a file lies, for messages to people.
func (s *Spool) Path(state State, name string) string {
	return path.Join(s.root.Name(), string(state), name)
}

// Close closes the folder.
func (s *Spool) Close() error { return s.root.Close() }

// List names a worker's files in a state, sidecars left out, oldest name first.
func (s *Spool) List(state State, worker string) ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), string(state))
	if err != nil {
		return nil, fmt.Errorf("list spool: %w", err)
	}
	var names []string
	for _, e := range entries {
		id, ext := splitName(e.Name())
		if strings.HasPrefix(e.Name(), worker+"_") && id.Check() == nil && ext != ".json" && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func splitName(name string) (sidecar.ID, string) {
	ext := path.Ext(name)
	return sidecar.ID(strings.TrimSuffix(name, ext)), ext
}

func checkName(name string) error {
	id, ext := splitName(name)
	if err := id.Check(); err != nil {
		return err
	}
	if len(ext) < 2 || ext == ".json" {
		return fmt.Errorf("file name %.100q: want an id and an extension", name)
	}
	return nil
}

// Create makes a new file in work/, and holds it as long as it is open.
func (s *Spool) Create(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	f, err := s.root.OpenFile(path.Join(string(Work), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("create: %w", err), f.Close())
	}
	return f, nil
}

// Reopen opens a file in work/ to go on with it, and holds it as long as it is
// open. It fails with ErrHeld where another process does.
func (s *Spool) Reopen(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return s.openHeld(path.Join(string(Work), name), os.O_RDWR)
}

// OpenRegular opens a file of a folder that others can write to as well: a
// regular one that has no other name, and is still the one of that name when it
// is open. It looks before it opens and again after: a FIFO would hang, a device
// act, a link lead elsewhere.
func OpenRegular(root *os.Root, p string, flag int) (*os.File, error) {
	before, err := root.Lstat(p)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: it is no regular file (%s)", path.Join(root.Name(), p), before.Mode())
	}
	f, err := root.OpenFile(p, flag|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := isOnly(root, f, p); err != nil {
		f.Close()
		return nil, fmt.Errorf("open: %w", err)
	}
	return f, nil
}

func (s *Spool) openRegular(p string, flag int) (*os.File, error) {
	return OpenRegular(s.root, p, flag)
}

// isOnly says whether an open file is the one of that name, and has no other.
func isOnly(root *os.Root, f *os.File, p string) error {
	named, err := root.Lstat(p)
	if err != nil {
		return err
	}
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := opened.Sys().(*syscall.Stat_t)
	if !ok || !os.SameFile(named, opened) || st.Nlink != 1 {
		return fmt.Errorf("%s was exchanged, or has several links", path.Join(root.Name(), p))
	}
	return nil
}

func (s *Spool) isOnly(f *os.File, p string) error { return isOnly(s.root, f, p) }

// readRegular reads a small file whole.
func (s *Spool) readRegular(p string) ([]byte, error) {
	f, err := s.openRegular(p, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, sidecar.MaxBytes+1))
	if err == nil && len(text) > sidecar.MaxBytes {
		err = fmt.Errorf("read %s: more than %d bytes", f.Name(), sidecar.MaxBytes)
	}
	return text, err
}

// Remove removes a file from work/.
func (s *Spool) Remove(name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := s.root.Remove(path.Join(string(Work), name)); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// SetAside moves a file that cannot be gone on with from work/ to quarantine/.
func (s *Spool) SetAside(name string) error {
	err := checkName(name)
	if err == nil {
		err = s.makeState(Quarantine)
	}
	if err == nil {
		err = s.rename(Work, Quarantine, name)
	}
	if err != nil {
		return fmt.Errorf("set aside: %w", err)
	}
	return nil
}

// Complete moves a finished file from work/ to a state, with its sidecar, whose
// bytes and hash it fills in. The file stays open for the caller to close. It
// fails with fs.ErrExist where the state has that file. As long as the file is
// in work/ it can be called again.
func (s *Spool) Complete(f *os.File, to State, side *sidecar.Sidecar) error {
	if err := s.complete(f, to, side); err != nil {
		return fmt.Errorf("complete %s: %w", side.Name, err)
	}
	return nil
}

func (s *Spool) complete(f *os.File, to State, side *sidecar.Sidecar) error {
	err := checkName(side.Name)
	if err == nil {
		err = s.isOnly(f, path.Join(string(Work), side.Name))
	}
	if err != nil {
		return err
	}
	// The rename would refuse as well, but after the sidecar there is replaced.
	if err := s.vacant(to, side.Name); err != nil {
		return err
	}
	if side.Bytes, side.SHA256, err = hash(f, func() {}); err != nil {
		return err
	}
	text, err := side.Encode()
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := s.writeSidecar(to, side.ID, text); err != nil {
		return err
	}
	return s.rename(Work, to, side.Name)
}

func (s *Spool) has(state State, name string) (bool, error) {
	_, err := s.root.Lstat(path.Join(string(state), name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func sidecarIn(state State, id sidecar.ID) string {
	return path.Join(string(state), string(id)+".json")
}

// unfinishedSidecar is a sidecar's name before it is one.
func unfinishedSidecar(id sidecar.ID) string { return sidecarIn(Work, id) + ".new" }

func hash(f *os.File, alive func()) (int64, string, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	sum := sha256.New()
	for at := int64(0); at < st.Size(); alive() {
		n, err := io.Copy(sum, io.NewSectionReader(f, at, min(copyStep, st.Size()-at)))
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, "", fmt.Errorf("hash: %w", err)
		}
		at += n
	}
	return st.Size(), hex.EncodeToString(sum.Sum(nil)), nil
}

// writeSidecar makes the sidecar appear whole, or not at all.
func (s *Spool) writeSidecar(state State, id sidecar.ID, text []byte) error {
	if err := s.put(unfinishedSidecar(id), sidecarIn(state, id), text); err != nil {
		return fmt.Errorf("write sidecar: %w", err)
	}
	return nil
}

// put writes a file under a temporary name, syncs it, renames it, and syncs
// its folder. What has the temporary name is of a run that was killed, or a
// trap: it is not opened.
func (s *Spool) put(tmp, final string, text []byte) error {
	if err := s.root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	s.written.Add(int64(len(text)))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.root.Rename(tmp, final)
	}
	if err != nil {
		return errors.Join(err, s.root.Remove(tmp))
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
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// SyncFolder makes the names in a state durable, for who relies on a file in
// work/ that Create made.
func (s *Spool) SyncFolder(state State) error { return s.sync(string(state)) }

// rename moves a file between states, not over another one, and makes both
// folders durable.
func (s *Spool) rename(from, to State, name string) error { return s.renameAs(from, name, to, name) }

func (s *Spool) renameAs(from State, name string, to State, newName string) error {
	source, err := s.root.Open(string(from))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := s.root.Open(string(to))
	if err != nil {
		return err
	}
	defer target.Close()
	if err := unix.Renameat2(int(source.Fd()), name, int(target.Fd()), newName, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("rename to %s: %w", to, err)
	}
	if err := target.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", to, err)
	}
	if err := source.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", from, err)
	}
	return nil
}
