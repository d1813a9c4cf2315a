package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/backlog"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// verbs are what the program does besides its work.
func verbs() []worker.Verb[Config] {
	return []worker.Verb[Config]{
		{Name: "status", Summary: "Show what waits on disk for the receiver, and what was lost.", Run: status},
		{Name: "adopt", Summary: "Take over what waits under another worker's name: adopt OLD-NAME.", Arg: true, Run: adopt},
		{Name: "skip", Summary: "Give up what waits on disk for the receiver.", Run: skip},
		{Name: "curve-key", Summary: "Print this box's CURVE public key, for the receiver; make the key where there is none.", Run: curveKey},
	}
}

// openOutbox opens the folder of the backlogs. It fails with fs.ErrNotExist where nothing ever waited.
func openOutbox(of worker.Asked) (*os.Root, error) {
	return os.OpenRoot(filepath.Join(of.Topology.Node.StoreDir, folder))
}

// answer is what status prints.
type answer struct {
	Worker string `json:"worker"`
	backlog.Status
}

// status prints what waits; the worker may be running meanwhile.
func status(_ context.Context, of worker.Asked, _ Config) error {
	a := answer{Worker: of.Entry.Name}
	root, err := openOutbox(of)
	if err == nil {
		defer root.Close()
		a.Status, err = backlog.Inspect(root, of.Entry.Name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if of.JSON {
		a.Losses = append([]backlog.Loss{}, a.Losses...) // a list, also where there are none
		return json.NewEncoder(of.Out).Encode(a)
	}
	if a.Records == 0 {
		fmt.Fprintf(of.Out, "%s: nothing waits on disk\n", a.Worker)
	} else {
		fmt.Fprintf(of.Out, "%s: %d records wait in %s on disk, the oldest of %s\n", a.Worker, a.Records, topology.Bytes(a.Bytes), a.Oldest.UTC().Format(time.RFC3339))
	}
	for _, l := range a.Losses {
		fmt.Fprintf(of.Out, "lost: %d records of %s from %s to %s: %s\n", l.Records, l.Key, l.From.UTC().Format(time.RFC3339), l.To.UTC().Format(time.RFC3339), l.Reason)
	}
	return nil
}

// adopt takes over what waits under another name. Neither worker may be running.
func adopt(_ context.Context, of worker.Asked, cfg Config) error {
	root, err := openOutbox(of)
	if err != nil {
		return fmt.Errorf("nothing to adopt: %w", err)
	}
	defer root.Close()
	old, name := of.Arg, of.Entry.Name
	if old == name {
		return errors.New("that is the worker's own name")
	}
	names, err := backlogs(root)
	if err != nil {
		return err
	}
	if !slices.Contains(names, old) {
		return fmt.Errorf("there is no backlog of %q in %s%s", old, filepath.Join(of.Topology.Node.StoreDir, folder), nearest.Hint(old, names))
	}
	before, err := backlog.Inspect(root, old)
	if err != nil {
		return err
	}
	if err := backlog.Adopt(root, old, name, backlog.Config{MaxBytes: int64(cfg.SpoolMost)}); err != nil {
		return stopFirst(err)
	}
	_, err = fmt.Fprintf(of.Out, "%s has taken over %d records of %s\n", name, before.Records, old)
	return err
}

// stopFirst adds what to do about a worker that has its backlog open.
func stopFirst(err error) error {
	if held := (*lockfile.HeldError)(nil); errors.As(err, &held) {
		return fmt.Errorf("%w: stop the worker first (supervisor stop NAME), and start it again after", err)
	}
	return err
}

// backlogs lists the names that there are backlogs of.
func backlogs(root *os.Root) (names []string, err error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list backlogs: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// skip gives up what waits. The worker must not be running: the log is its own then.
func skip(_ context.Context, of worker.Asked, cfg Config) (err error) {
	root, err := openOutbox(of)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = fmt.Fprintln(of.Out, "nothing waits on disk")
		return err
	}
	if err != nil {
		return err
	}
	defer root.Close()
	log, err := backlog.Open(root, of.Entry.Name, backlog.Config{MaxBytes: int64(cfg.SpoolMost)})
	if err != nil {
		return stopFirst(err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	skipped := 0
	for {
		list, err := log.Peek(0, 1000, 4<<20)
		if err != nil || len(list) == 0 {
			_, printErr := fmt.Fprintf(of.Out, "%d records were given up\n", skipped)
			return errors.Join(err, printErr)
		}
		var positions []backlog.Position
		for _, e := range list {
			positions = append(positions, e.Position)
		}
		if err := log.Skip(positions...); err != nil {
			return err
		}
		skipped += len(positions)
	}
}
