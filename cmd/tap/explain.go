package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/worker"
)

// explain tells a file's whole history.
type explain struct {
	Topology string   `short:"t" placeholder:"FILE" help:"The fleet's topology, for its folders."`
	Output   string   `short:"o" enum:"text,json" default:"text" help:"text, or json: one object."`
	Verify   bool     `help:"Read the file and compare it with its sha256; exit code 1 where they differ."`
	What     []string `arg:"" help:"The file's id, its name, or a path to it; and a topology (FILE.toml)."`
}

// Run finds the file and tells what is known of it.
func (c *explain) Run(_ context.Context, to worker.Streams) error {
	top, names, err := loadAmong(c.Topology, c.What)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return worker.BadConfig(fmt.Errorf("%d files %q: want one id, name or path", len(names), names))
	}
	a := openArchive(top.Node)
	defer a.close()
	a.addFolderOf(names[0])
	id := idIn(names[0])
	if err := id.Check(); err != nil {
		return worker.BadConfig(fmt.Errorf("%w%s", err, a.hint(id)))
	}
	f := a.find(id)
	if f == nil {
		return a.notFound(id)
	}
	for _, why := range a.closed {
		fmt.Fprintf(to.Err, "tap: not looked into: %v\n", why)
	}
	var damaged error
	if c.Verify {
		damaged = f.verify()
	}
	if c.Output == "json" {
		return errors.Join(f.printJSON(to.Out), damaged)
	}
	return errors.Join(f.print(to.Out), damaged)
}

// idIn is the id in a file's name, or at the end of a path. Only addFolderOf
// looks at the rest of it.
func idIn(arg string) sidecar.ID {
	name := filepath.Base(arg)
	return sidecar.ID(strings.TrimSuffix(name, filepath.Ext(name)))
}

// notFound is the end for a file of which nothing is known.
func (a *archive) notFound(id sidecar.ID) error {
	dirs := slices.DeleteFunc(slices.Clone(a.dirs), func(dir string) bool { return dir == "" })
	err := fmt.Errorf("nothing is known of %s in %s%s", id, strings.Join(dirs, " and "), a.hint(id))
	if len(a.closed) > 0 {
		return worker.Temporary(fmt.Errorf("%w; not looked into: %w", err, errors.Join(a.closed...)))
	}
	return worker.Unavailable(err)
}

// finding is what is known of a file.
type finding struct {
	ID      sidecar.ID       `json:"id"`
	Now     place            `json:"now"`
	Copies  []place          `json:"copies,omitempty"` // elsewhere, on their way to being removed
	Sidecar *sidecar.Sidecar `json:"sidecar"`          // null where none can be read
	Problem string           `json:"problem,omitempty"`
	Loss    *sidecar.Loss    `json:"loss,omitempty"` // its line in a losses file

	spool *spool.Spool // that it is in; nil where it is in none
}

// place is where a file is.
type place struct {
	Where  string      `json:"where"` // cache, store, folder; or where it is not any more: gone, losses
	State  spool.State `json:"state,omitempty"`
	Path   string      `json:"path,omitempty"`
	Bytes  *int64      `json:"bytes"`  // as it lies there; null: only its sidecar does
	Intact *bool       `json:"intact"` // whether it is as its sidecar tells; null: not verified
}

// verify reads the file where it is now. That a file is gone is no damage.
func (f *finding) verify() error {
	if f.spool == nil || f.Sidecar == nil || f.Now.Bytes == nil {
		return nil
	}
	err := f.spool.Verify(f.Now.State, f.Sidecar, func() {})
	if err != nil && !errors.Is(err, spool.ErrDamaged) {
		return err
	}
	intact := err == nil
	f.Now.Intact = &intact
	return err
}

func (f *finding) printJSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(f); err != nil {
		return fmt.Errorf("print %s: %w", f.ID, err)
	}
	return nil
}
