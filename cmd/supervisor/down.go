package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/pkg/worker"
)

type downCmd struct {
	place
	Timeout time.Duration `default:"2m" help:"How long to wait for the fleet to end."`
	Discard bool          `help:"Remove the histories that are kept for workers which have not saved all that was sent."`
}

// Run stops the fleet. Where no supervisor runs any more, it removes what one
// has left.
func (c *downCmd) Run(ctx context.Context, to worker.Streams) error {
	if err := c.find(); err != nil {
		return err
	}
	answer, err := c.ask(ctx, request{Verb: "down", Discard: c.Discard}, c.Timeout)
	absent := (*notRunningError)(nil)
	for until := time.Now().Add(maxFailures * guardEvery); errors.As(err, &absent) && len(supervisorsOf(c.RunDir)) > 0 && time.Now().Before(until); {
		time.Sleep(guardEvery / 10) //nolint:forbidigo // it looks each second whether its socket is still there
		answer, err = c.ask(ctx, request{Verb: "down", Discard: c.Discard}, c.Timeout)
	}
	if errors.As(err, &absent) {
		for _, pid := range supervisorsOf(c.RunDir) {
			fmt.Fprintf(to.Err, "supervisor: process %d does not answer in %s: it is told to stop by a signal\n", pid, c.RunDir)
			if err := endSupervisor(ctx, pid, c.Timeout); err != nil {
				return err
			}
		}
		return c.sweep(to.Out)
	}
	if err != nil {
		return err
	}
	if answer.Ending == nil { // of an earlier version
		answer.Ending = &Ending{}
	}
	return answer.Ending.print(to.Out, to.Err)
}

func (c *downCmd) sweep(out io.Writer) error {
	root, err := os.OpenRoot(c.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(out, "nothing runs in %s\n", c.RunDir)
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	if err := usable(c.RunDir, "run_dir", 0o022); err != nil { // what others could have written says whom to kill
		return fmt.Errorf("sweep %s: %w", c.RunDir, err)
	}
	lock, err := lockfile.Acquire(root, lockName)
	if err != nil {
		return fmt.Errorf("a supervisor does not answer: %w", err)
	}
	rec := readRecord(root)
	shmDir := cmp.Or(c.node.ShmDir, rec.ShmDir)
	var kept []Kept
	if !c.Discard {
		kept = keptFor(shmDir, rec.Unread)
	}
	found, err := sweep(root, c.RunDir, shmDir, keeper(kept))
	err = errors.Join(err, recordKept(root, rec.BootID, shmDir, rec.Unread, kept), lock.Release())
	if len(kept) > 0 {
		defer func() { fmt.Fprintln(out, keptText(shmDir, kept)) }()
	}
	if found.any() {
		fmt.Fprintf(out, "no supervisor runs in %s; swept %d processes, %d rings, %d files that one left\n",
			c.RunDir, len(found.Processes), len(found.Rings), len(found.Files))
	} else if err == nil {
		fmt.Fprintf(out, "nothing runs in %s\n", c.RunDir)
	}
	return err
}
