package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/gone"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/topology"
)

// archive is the folders in which there may be word of a file, opened to be
// looked at: nothing in them is made, held or changed.
type archive struct {
	dirs    []string // that there may be
	shelves []shelf  // that there are, in the order of a file's life
	closed  []error  // why some of it could not be looked into
}

// shelf is a spool.
type shelf struct {
	where string // cache, store or folder
	spool *spool.Spool
}

func openArchive(n topology.Node) *archive {
	a := &archive{dirs: []string{n.CacheDir, n.StoreDir}}
	a.add("cache", n.CacheDir, "")
	a.add("store", n.StoreDir, n.StoreMount)
	return a
}

func (a *archive) add(where, dir, mount string) {
	s, there, err := spool.Peek(dir, mount)
	if there {
		a.shelves = append(a.shelves, shelf{where, s})
	}
	if err != nil {
		a.closed = append(a.closed, err)
	}
}

// addFolderOf adds the spool that a path leads into, if it is none of the
// node's: a disk that was brought to a desk, say.
func (a *archive) addFolderOf(arg string) {
	state := filepath.Dir(arg)
	if !strings.Contains(arg, "/") || !slices.Contains(states(), spool.State(filepath.Base(state))) {
		return
	}
	dir := filepath.Dir(state)
	there, err := os.Stat(dir)
	if err != nil || slices.ContainsFunc(a.shelves, func(s shelf) bool {
		st, err := os.Stat(s.spool.Dir())
		return err == nil && os.SameFile(st, there)
	}) {
		return
	}
	a.dirs = append(a.dirs, dir)
	a.add("folder", dir, "")
}

// states lists where a file can be, in the order of its life.
func states() []spool.State { return append([]spool.State{spool.Work}, spool.Stages()...) }

func (a *archive) close() {
	for _, s := range a.shelves {
		_ = s.spool.Close() // nothing was written
	}
}

// find looks for a file where it may be, in the order in which files move, so
// that one which moves meanwhile is met; then among those that are gone, and
// that were given up. It returns nil where nothing is known of it.
func (a *archive) find(id sidecar.ID) *finding {
	f := &finding{ID: id}
	for _, s := range a.shelves {
		for _, state := range states() {
			a.note(f.lookIn(s, state))
		}
	}
	if f.Now.Where != "" {
		return f
	}
	for _, s := range a.shelves {
		side, err := gone.Find(filepath.Join(s.spool.Dir(), gone.Folder), id)
		if a.note(err); err == nil {
			f.Sidecar, f.Now.Where = side, "gone"
			return f
		}
	}
	for _, s := range a.shelves {
		line, err := s.loss(id)
		if a.note(err); line != nil {
			f.Loss, f.Now.Where = line, "losses"
			return f
		}
	}
	return nil
}

// note remembers why something could not be looked into. That it is not there is
// no such reason.
func (a *archive) note(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.closed = append(a.closed, err)
	}
}

// lookIn looks into one state's folder. Of several places the last one counts.
func (f *finding) lookIn(s shelf, state spool.State) error {
	entries, err := s.spool.Entries(state)
	if err != nil {
		return err
	}
	side, err := s.spool.Sidecar(state, f.ID)
	at := place{Where: s.where, State: state}
	if i := slices.IndexFunc(entries, func(e spool.Entry) bool { return e.ID == f.ID }); i >= 0 {
		at.Path, at.Bytes = s.spool.Path(state, entries[i].Name), &entries[i].Bytes
	} else if err != nil {
		return err
	} else { // its file is on its way here
		at.Path = s.spool.Path(state, side.Name)
	}
	if f.Now.Where != "" {
		f.Copies = append(f.Copies, f.Now)
	}
	f.Now, f.spool = at, s.spool
	if side != nil {
		f.Sidecar, f.Problem = side, ""
	} else if f.Sidecar == nil && state != spool.Work {
		f.Problem = fmt.Sprintf("its sidecar cannot be read: %v", err)
	}
	return nil
}

// loss is a file's line in a losses file; nil where there is none.
func (s shelf) loss(id sidecar.ID) (*sidecar.Loss, error) {
	root, err := os.OpenRoot(s.spool.Dir())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, state := range states() {
		entries, err := s.spool.Entries(state)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if filepath.Ext(e.Name) != sidecar.LossesExt {
				continue
			}
			line, err := lossIn(root, filepath.Join(string(state), e.Name), id)
			if err != nil && !errors.Is(err, fs.ErrNotExist) || line != nil {
				return line, err
			}
		}
	}
	return nil, nil
}

func lossIn(root *os.Root, name string, id sidecar.ID) (*sidecar.Loss, error) {
	f, err := spool.OpenRegular(root, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := sidecar.FindLoss(f, id)
	if errors.Is(err, bufio.ErrTooLong) { // it is no losses file
		return nil, nil
	}
	return l, err
}

// hint names ids that may have been meant.
func (a *archive) hint(id sidecar.ID) string {
	var all, like []sidecar.ID
	for _, s := range a.shelves {
		for _, state := range states() {
			entries, err := s.spool.Entries(state)
			if err != nil {
				continue
			}
			for _, e := range entries {
				all = append(all, e.ID)
				if id != "" && strings.Contains(string(e.ID), string(id)) {
					like = append(like, e.ID)
				}
			}
		}
	}
	const most = 3
	slices.Sort(like)
	like = slices.Compact(like) // one may be in two places
	if len(like) > 0 {
		return nearest.Hint("", like[:min(most, len(like))]) + more(len(like)-most)
	}
	if best, ok := nearest.Word(id, all); ok {
		return fmt.Sprintf("; did you mean %s?", best)
	}
	return ""
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}
