// Package spool keeps files through their states. A state is a folder, a
// transition is one rename, and a file that can be seen in a state is complete.
//
//	work/ --Complete--> born/ (cache, in RAM) or ready/ (store, on disk) --> sent/, rejected/, quarantine/
//
// Complete writes the sidecar first and renames the file last, never over
// another: so a power cut leaves either an unfinished file in work/ or a
// complete one with its sidecar. On disk, files and folders are synced before
// the step that relies on them (fsync(2); a rename is safe only with its
// folder synced).
//
// All access goes through one os.Root. Names are ids of ours; what is not a
// regular file with one link is refused, whoever put it there.
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

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
)

// State is a folder of the spool.
type State string

// The states.
const (
	Work       State = "work"       // being written
	Born       State = "born"       // complete, in RAM
	Ready      State = "ready"      // complete, on disk
	Sent       State = "sent"       // the receiver has it
	Rejected   State = "rejected"   // the receiver will not have it
	Quarantine State = "quarantine" // broken, kept for a person to look at
)

// Spool is a folder of states: a node's cache or its store.
type Spool struct{ root *os.Root }

// Open opens the folder, making it and its states where they are absent.
func Open(dir string, states ...State) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{root}
	for _, state := range states {
		if err := s.makeState(state); err != nil {
			return nil, errors.Join(err, root.Close())
		}
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

// Create makes a new file in work/.
func (s *Spool) Create(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	f, err := s.root.OpenFile(path.Join(string(Work), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	return f, nil
}

// Reopen opens a file in work/ to go on with it.
func (s *Spool) Reopen(name string) (*os.File, error) { return s.open(Work, name, os.O_RDWR) }

// open looks before it opens and again after: a FIFO would hang, a device act,
// a link lead elsewhere.
func (s *Spool) open(state State, name string, flag int) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	p := path.Join(string(state), name)
	before, err := s.root.Lstat(p)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: it is no regular file (%s)", s.Path(state, name), before.Mode())
	}
	f, err := s.root.OpenFile(p, flag|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	var st unix.Stat_t
	after, err := f.Stat()
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err == nil && (!os.SameFile(before, after) || st.Nlink != 1) {
		err = fmt.Errorf("it was exchanged, or has %d links", st.Nlink)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", s.Path(state, name), err)
	}
	return f, nil
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

// Complete moves a finished file from work/ to a state, with its sidecar, whose
// bytes and hash it fills in. The file stays open for the caller to close.
func (s *Spool) Complete(f *os.File, to State, side *sidecar.Sidecar) error {
	if err := s.complete(f, to, side); err != nil {
		return fmt.Errorf("complete %s: %w", side.Name, err)
	}
	return nil
}

func (s *Spool) complete(f *os.File, to State, side *sidecar.Sidecar) error {
	if err := checkName(side.Name); err != nil {
		return err
	}
	var err error
	if side.Bytes, side.SHA256, err = hash(f); err != nil {
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

func hash(f *os.File) (int64, string, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.NewSectionReader(f, 0, st.Size()))
	if err != nil {
		return 0, "", fmt.Errorf("hash: %w", err)
	}
	return n, hex.EncodeToString(sum.Sum(nil)), nil
}

// writeSidecar makes the sidecar appear whole, or not at all.
func (s *Spool) writeSidecar(state State, id sidecar.ID, text []byte) error {
	if err := s.put(path.Join(string(Work), string(id)+".json.new"), path.Join(string(state), string(id)+".json"), text); err != nil {
		return fmt.Errorf("write sidecar: %w", err)
	}
	return nil
}

// put writes a file under a temporary name, syncs it, and renames it.
func (s *Spool) put(tmp, final string, text []byte) error {
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	return s.root.Rename(tmp, final)
}

// rename moves a file between states, not over another one, and makes both
// folders durable.
func (s *Spool) rename(from, to State, name string) error {
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
	if err := unix.Renameat2(int(source.Fd()), name, int(target.Fd()), name, unix.RENAME_NOREPLACE); err != nil {
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
