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
// finishes that, or takes it back. What is in quarantine/ no program takes out of
// there; a broken file takes the place of an earlier one of its id.
//
// Who moves a file on holds it: a lock on the file itself (flock(2)), which
// the kernel drops with the process. Held's methods are the only ways on, so two
// processes cannot disagree about a file, and Recover leaves alone what is held.
//
// All access goes through one os.Root. Names are ids of ours; what is not a
// regular file with one link is refused, whoever put it there. It fails when
// the disk does, and a step that failed can be tried again: a file that could
// not be synced is written anew, since the kernel forgets a failure. On a full
// disk files still go from state to state: a little room is kept for their
// sidecars, in the file .reserve.
package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"

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
	doubts  sync.Map // name of a file in work/ whose sync failed: its hash before that
	reserve int64    // bytes that are kept for sidecars
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
	return openIn(root, states)
}

// openIn opens the spool in a folder, which it closes where that fails.
func openIn(root *os.Root, states []State) (*Spool, error) {
	s := &Spool{root: root}
	s.reserve = s.reserveOf()
	var errs []error
	for _, state := range states {
		errs = append(errs, s.makeState(state))
	}
	errs = append(errs, s.sync(".")) // an earlier run may have been killed before it did
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	s.fillReserve()
	return s, nil
}

// Dir is the spool's path, for messages.
func (s *Spool) Dir() string { return path.Clean(s.root.Name()) }

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
	if len(ext) < 2 || ext == ".json" || ext == partSuffix {
		return fmt.Errorf("file name %.100q: want an id and an extension", name)
	}
	return nil
}

// ErrDamaged says that a file's bytes are not those its sidecar tells of.
var ErrDamaged = errors.New("damaged")

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

// Remove removes a file from work/.
func (s *Spool) Remove(name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := s.root.Remove(path.Join(string(Work), name)); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	s.doubts.Delete(name)
	return nil
}

// SetAside moves a file that cannot be gone on with from work/ to quarantine/.
func (s *Spool) SetAside(name string) error { return s.SetAsideAs(name, name) }

// RemoveUnfinished removes what an earlier run of a worker left in work/ on its
// way to a state, for workers that cannot go on with an unfinished file, and
// returns how many files. A file's sidecar may be in the state already, and
// goes first: killed in between, the next run finds the file again.
func (s *Spool) RemoveUnfinished(worker string, to State) (int, error) {
	names, err := s.List(Work, worker)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, s.Discard(name, to))
	}
	return len(names), errors.Join(errs...)
}

// Discard removes an unfinished file from work/ for good, with whatever
// Complete has made of its sidecar.
func (s *Spool) Discard(name string, to State) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	s.doubts.Delete(name)
	id, _ := splitName(name)
	file := path.Join(string(Work), name)
	if there, err := s.has(to, name); err != nil || there { // then the sidecar is of that file
		return errors.Join(err, s.unlink(file))
	}
	return errors.Join(s.unlink(unfinishedSidecar(id)), s.unlink(unfinishedCopy(id)), s.unlink(sidecarIn(to, id)), s.unlink(file))
}

// Complete moves a finished file from work/ to a state, with its sidecar, whose
// bytes and hash it fills in. Where the sidecar has a hash already, of what was
// written, a file with another one fails with ErrDamaged. The file stays open for
// the caller to close. It fails with fs.ErrExist where the state has that file.
// Where it fails it can be called again, with the file opened anew if it is still
// in work/.
func (s *Spool) Complete(f *os.File, to State, side *sidecar.Sidecar) error {
	if err := s.complete(f, to, side); err != nil {
		return fmt.Errorf("complete %s: %w", side.Name, err)
	}
	s.doubts.Delete(side.Name)
	return nil
}

func (s *Spool) complete(f *os.File, to State, side *sidecar.Sidecar) error {
	file := path.Join(string(Work), side.Name)
	if err := checkName(side.Name); err != nil {
		return err
	}
	err := s.isOnly(f, file)
	if errors.Is(err, fs.ErrNotExist) && s.isOnly(f, path.Join(string(to), side.Name)) == nil {
		return s.sync(string(to)) // which is what failed the last time
	}
	if err != nil {
		return err
	}
	bytes, sum, err := hash(f, func() {})
	if err == nil && side.SHA256 != "" && side.SHA256 != sum {
		err = fmt.Errorf("%w: it has %d bytes with sha256 %s, and %s was written", ErrDamaged, bytes, sum, side.SHA256)
	}
	if err != nil {
		return err
	}
	side.Bytes, side.SHA256 = bytes, sum
	durable, err := s.secure(f, side)
	if err != nil {
		return err
	}
	if _, err = s.place(file, to, side); durable != f {
		err = errors.Join(err, durable.Close())
	}
	return err
}

// secure makes a file in work/ durable. One whose sync failed cannot be made
// so any more: the kernel takes its pages for written ones (fsync(2)). Then
// a copy takes its place, if it still has the bytes that it had.
func (s *Spool) secure(f *os.File, side *sidecar.Sidecar) (durable *os.File, err error) {
	sum, doubtful := s.doubts.Load(side.Name)
	switch {
	case !doubtful:
		if err := f.Sync(); err != nil {
			s.doubts.Store(side.Name, side.SHA256)
			return nil, fmt.Errorf("sync: %w", err)
		}
		return f, nil
	case sum != "" && sum != side.SHA256:
		return nil, fmt.Errorf("%w: its bytes changed when it could not be synced", ErrDamaged)
	}
	part := unfinishedCopy(side.ID)
	c, err := s.createHeld(part)
	if err != nil {
		return nil, err
	}
	err = s.copyInto(c, f, side, func() {})
	if err == nil {
		err = s.root.Rename(part, path.Join(string(Work), side.Name))
	}
	if err != nil {
		return nil, errors.Join(err, s.unlink(part), c.Close())
	}
	s.doubts.Delete(side.Name)
	return c, nil
}

// Distrust says that a sync of a file in work/ failed elsewhere: Complete then
// copies it, since the kernel reports such a failure once.
func (s *Spool) Distrust(name string) { s.doubts.Store(name, "") }

// SyncFolder makes the names in a state durable, for who relies on a file in
// work/ that Create made.
func (s *Spool) SyncFolder(state State) error { return s.sync(string(state)) }
