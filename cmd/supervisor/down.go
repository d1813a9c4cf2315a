package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
)

type downCmd struct {
	place
	Timeout time.Duration `default:"2m" help:"How long to wait for the fleet to end."`
}

// Run stops the fleet. Where no supervisor runs any more, it removes what one
// has left.
func (c *downCmd) Run(con *console) error {
	if err := c.find(); err != nil {
		return err
	}
	_, err := c.ask(request{Verb: "down"}, c.Timeout)
	if absent := (*notRunningError)(nil); errors.As(err, &absent) {
		return c.sweep(con)
	}
	if err == nil {
		fmt.Fprintln(con.out, "stopped")
	}
	return err
}

func (c *downCmd) sweep(con *console) error {
	root, err := os.OpenRoot(c.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(con.out, "nothing runs in %s\n", c.RunDir)
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	lock, err := lockfile.Acquire(root, lockName)
	if err != nil {
		return fmt.Errorf("a supervisor does not answer: %w", err)
	}
	found, err := sweep(root, c.RunDir, c.node.ShmDir, nothing)
	err = errors.Join(err, lock.Release())
	if found.any() {
		fmt.Fprintf(con.out, "no supervisor runs in %s; swept %d processes, %d rings, %d files that one left\n",
			c.RunDir, len(found.Processes), len(found.Rings), len(found.Files))
	} else if err == nil {
		fmt.Fprintf(con.out, "nothing runs in %s\n", c.RunDir)
	}
	return err
}
