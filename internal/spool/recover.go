package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
)

// Entry is a complete file in a state.
type Entry struct {
	ID    sidecar.ID
	Name  string
	Bytes int64
	Told  time.Time // when its sidecar was written; zero: it has none
}

// Entries lists the files of a state in the order of their names: by worker, and
// of one worker by time. A state without a folder has none. What has no business
// there is not listed.
func (s *Spool) Entries(state State) ([]Entry, error) {
	in, err := s.folder(state)
	for i := range in.files {
		in.files[i].Told = in.told[in.files[i].ID]
	}
	return in.files, err
}

// folder is what lies in a state's folder.
type folder struct {
	files    []Entry
	sidecars []sidecar.ID
	told     map[sidecar.ID]time.Time // when they were written
	foreign  []string
}

func (s *Spool) folder(state State) (in folder, err error) {
	in.told = map[sidecar.ID]time.Time{}
	list, err := fs.ReadDir(s.root.FS(), string(state))
	if errors.Is(err, fs.ErrNotExist) {
		return in, nil
	}
	if err != nil {
		return in, fmt.Errorf("list spool: %w", err)
	}
	for _, e := range list {
		id, ext := splitName(e.Name())
		st, err := e.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist): // moved on meanwhile
		case err != nil:
			return in, fmt.Errorf("list spool: %w", err)
		case id.Check() != nil || plain(st) != nil || len(ext) < 2 || ext == partSuffix:
			in.foreign = append(in.foreign, path.Join(string(state), e.Name()))
		case ext == ".json":
			in.sidecars = append(in.sidecars, id)
			in.told[id] = st.ModTime()
		default:
			in.files = append(in.files, Entry{ID: id, Name: e.Name(), Bytes: st.Size()})
		}
	}
	return in, nil
}

// Recovery is how Recover speaks of what it does.
type Recovery struct {
	// Describe begins the sidecar of a file that has none: its id, name and node.
	Describe func(id sidecar.ID, name string) *sidecar.Sidecar
	// Event is a transition that happens now.
	Event func(state, reason string) sidecar.Event
	// Alive is called between steps.
	Alive func()
	// Deep also reads each sidecar and compares it with its file's length: for
	// the first look after a start.
	Deep bool
}

// Report is what a recovery found and did.
type Report struct {
	Unfinished int                // copies that were never completed: removed
	Orphans    int                // sidecars without a file: removed
	Finished   int                // moves that were interrupted: finished, or taken back
	Recovered  []*sidecar.Sidecar // files without a readable sidecar: hashed, and given one
	Damaged    []*sidecar.Sidecar // files of another length than their sidecar tells: in quarantine
	Foreign    []string           // what is none of ours: left alone
}

// Recover settles what kills and power cuts left. What another process is at
// work on it leaves alone. It does all it can; the error joins what it could not.
func (s *Spool) Recover(how Recovery) (Report, error) {
	r := recoverer{Spool: s, how: how, in: map[State]folder{}, names: map[sidecar.ID]string{}}
	var errs []error
	for _, state := range Stages() {
		in, err := s.folder(state)
		errs = append(errs, err)
		r.in[state] = in
		r.report.Foreign = append(r.report.Foreign, in.foreign...)
		for _, f := range in.files {
			r.names[f.ID] = f.Name
		}
	}
	errs = append(errs, r.work())
	for _, state := range Stages() {
		errs = append(errs, r.state(state))
	}
	s.fillReserve()
	return r.report, errors.Join(errs...)
}

type recoverer struct {
	*Spool
	how    Recovery
	in     map[State]folder
	names  map[sidecar.ID]string // of all files that were found
	text   []byte                // of the last sidecar that deep read
	report Report
}

// work removes copies and sidecars that nobody is writing any more. The
// other files of work/ are their writers' own.
func (r *recoverer) work() error {
	list, err := fs.ReadDir(r.root.FS(), string(Work))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list spool: %w", err)
	}
	var errs []error
	for _, e := range list {
		r.how.Alive()
		if id, ext := splitName(e.Name()); checkName(e.Name()) == nil {
			r.names[id] = e.Name()
		} else if ext == partSuffix || strings.HasSuffix(e.Name(), newSuffix) {
			errs = append(errs, tolerate(r.unfinished(e.Name())))
		}
	}
	return errors.Join(errs...)
}

func (r *recoverer) unfinished(name string) error {
	p := path.Join(string(Work), name)
	st, err := r.root.Lstat(p)
	if err != nil {
		return err
	}
	id, _ := splitName(strings.TrimSuffix(name, ".new"))
	if id.Check() != nil || plain(st) != nil {
		r.report.Foreign = append(r.report.Foreign, p)
		return nil
	}
	if err := r.removeUnheld(p); err != nil {
		return err
	}
	r.report.Unfinished++
	return nil
}

// tolerate forgets that somebody else was faster.
func tolerate(err error) error {
	if errors.Is(err, ErrHeld) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// state looks at each sidecar that has no file, and each file that has no
// sidecar, or a bad one.
func (r *recoverer) state(state State) error {
	in := r.in[state]
	files, sidecars := map[sidecar.ID]bool{}, map[sidecar.ID]bool{}
	for _, f := range in.files {
		files[f.ID] = true
	}
	var errs []error
	for _, id := range in.sidecars {
		sidecars[id] = true
		if !files[id] {
			r.how.Alive()
			errs = append(errs, tolerate(r.orphan(state, id)))
		}
	}
	deep, err := r.deep(state)
	errs = append(errs, err)
	for _, f := range in.files {
		if sidecars[f.ID] && (deep == nil || r.tells(deep, f)) {
			continue
		}
		r.how.Alive()
		errs = append(errs, tolerate(r.check(state, f)))
	}
	if deep != nil {
		deep.Close()
	}
	return errors.Join(errs...)
}

// deep opens a state's folder, if sidecars are to be read.
func (r *recoverer) deep(state State) (*os.Root, error) {
	if !r.how.Deep {
		return nil, nil
	}
	root, err := r.root.OpenRoot(string(state))
	return root, tolerate(err)
}

// tells says whether a file's sidecar is as Encode writes it, and of that
// length. To decode all of them would take longer than all else; that is left
// for those where this is not so.
func (r *recoverer) tells(folder *os.Root, e Entry) bool {
	r.how.Alive()
	text, err := readInto(r.text, folder, string(e.ID)+".json")
	if err != nil {
		return false
	}
	r.text = text
	head := fmt.Appendf(nil, "{\n  \"v\": %d,\n  \"id\": %q,\n  \"name\": %q,\n", sidecar.Version, e.ID, e.Name)
	length := fmt.Appendf(nil, "\n  \"bytes\": %d,\n", e.Bytes) // so far to the left it is the file's own
	return bytes.HasPrefix(text, head) && bytes.Contains(text, length) && len(text) <= sidecar.MaxBytes && json.Valid(text)
}

// orphan settles a sidecar whose file is not beside it: a move that was
// interrupted leaves one, and so does a removal.
func (r *recoverer) orphan(state State, id sidecar.ID) error {
	name, err := r.nameOf(state, id)
	if err != nil {
		return err
	}
	from, err := r.whereIs(name)
	switch {
	case err != nil:
		return err
	case from == state: // it has come meanwhile
		return nil
	case from == "":
		return r.removeOrphan(state, id, name)
	}
	file := path.Join(string(from), name)
	f, err := r.openHeld(file, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	// Whoever had the file until now may have been done with the sidecar too.
	if there, err := r.has(state, string(id)+".json"); err != nil || !there {
		return err
	}
	old, further := state, false
	if from != Work && from != Quarantine { // only a person takes a file out of there
		further, err = r.further(state, from, id)
	}
	if err == nil && further {
		old = from
		_, err = r.rename(file, path.Join(string(state), name))
	}
	if err == nil {
		err = r.unlink(sidecarIn(old, id))
	}
	if err == nil {
		r.report.Finished++
	}
	return err
}

// removeOrphan removes a sidecar whose file is nowhere. A file that is coming
// from another spool has a copy in work/: who holds that name keeps it away.
func (r *recoverer) removeOrphan(state State, id sidecar.ID, name string) error {
	if err := r.makeState(Work); err != nil {
		return err
	}
	part := unfinishedCopy(id)
	f, err := r.createHeld(part)
	if err != nil {
		return err
	}
	at, err := r.whereIs(name)
	if err == nil && at == "" {
		if err = r.unlink(sidecarIn(state, id)); err == nil {
			r.report.Orphans++
		}
	}
	return errors.Join(err, r.unlink(part), f.Close())
}

// nameOf is the name of the file that a sidecar is of: by its text, or where
// that is none by the file's id. It is "" where there is no such file.
func (r *recoverer) nameOf(state State, id sidecar.ID) (string, error) {
	side, err := r.Sidecar(state, id)
	if errors.Is(err, errMalformed) {
		return r.names[id], nil
	}
	if err != nil {
		return "", err
	}
	return side.Name, nil
}

// whereIs finds a file. Files go from work/ to a state and from there to a
// later one: looking in that order misses none that moves meanwhile.
func (r *recoverer) whereIs(name string) (State, error) {
	if name == "" {
		return "", nil
	}
	for _, state := range append([]State{Work}, Stages()...) {
		if there, err := r.has(state, name); err != nil || there {
			return state, err
		}
	}
	return "", nil
}

// further says whether the sidecar in one state tells more than that in
// another: then the file was on its way there.
func (r *recoverer) further(to, from State, id sidecar.ID) (bool, error) {
	next, err := r.Sidecar(to, id)
	if err != nil {
		if lacking(err) {
			err = nil
		}
		return false, err
	}
	now, err := r.Sidecar(from, id)
	if lacking(err) {
		return true, nil
	}
	return err == nil && len(next.History) > len(now.History), err
}

// check gives a file a sidecar that has none, and sets one aside that is not
// as long as its own tells.
func (r *recoverer) check(state State, e Entry) error {
	if slices.Contains(r.in[state].foreign, sidecarIn(state, e.ID)) {
		return nil // what stands in its sidecar's place is reported
	}
	side, err := r.Sidecar(state, e.ID)
	switch {
	case lacking(err):
		return r.describe(state, e)
	case err != nil:
		return err
	case side.Name != e.Name: // a second file of that id
		r.report.Foreign = append(r.report.Foreign, path.Join(string(state), e.Name))
		return nil
	case side.Bytes == e.Bytes || state == Quarantine:
		return nil
	}
	return r.setAside(state, e)
}

func (r *recoverer) describe(state State, e Entry) error {
	f, err := r.openHeld(path.Join(string(state), e.Name), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	why := "it had no sidecar"
	_, err = r.Sidecar(state, e.ID) // as it is now that nobody changes it
	if !lacking(err) {
		return err
	}
	if errors.Is(err, errMalformed) {
		why = fmt.Sprintf("its sidecar could not be read: %.200v", err)
	}
	side := r.how.Describe(e.ID, e.Name)
	if side.Bytes, side.SHA256, err = hash(f, r.how.Alive); err != nil {
		return err
	}
	side.Add(r.how.Event(string(state), "recovered: "+why))
	text, err := side.Encode()
	if err == nil {
		err = r.writeSidecar(state, e.ID, text)
	}
	if err == nil {
		r.report.Recovered = append(r.report.Recovered, side)
	}
	return err
}

func (r *recoverer) setAside(state State, e Entry) error {
	h, err := r.Hold(state, e.ID)
	if err != nil {
		return err
	}
	st, err := h.File().Stat()
	if err == nil && st.Size() != h.side.Bytes {
		side := h.Sidecar()
		side.Add(r.how.Event(string(Quarantine), fmt.Sprintf("it has %d bytes, and had %d when it was made", st.Size(), side.Bytes)))
		if err = h.Move(Quarantine, side); err == nil {
			r.report.Damaged = append(r.report.Damaged, side)
		}
	}
	return errors.Join(err, h.Release())
}
