package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// retry is a verb: it takes what was rejected to where it waits to be sent. A
// running uploader finds it there within a minute.
func retry(_ context.Context, of worker.Asked, _ Config) (err error) {
	n := of.Topology.Node
	store := spool.NewStore(n.StoreDir, n.StoreMount, spool.Ready, spool.Rejected)
	defer func() { err = errors.Join(err, store.Close()) }()
	sp, err := store.Spool()
	if err != nil {
		return err
	}
	c, err := clock.System()
	if err != nil {
		return err
	}
	entries, err := sp.Entries(spool.Rejected)
	if err != nil {
		return err
	}
	moved := 0
	var errs []error
	for _, e := range entries {
		if err := again(sp, e.ID, eventOf(c, of.Entry.Name)); err != nil {
			errs = append(errs, err)
			continue
		}
		moved++
	}
	_, printErr := fmt.Fprintf(of.Out, "%d of %d rejected files wait to be sent again\n", moved, len(entries))
	return errors.Join(append(errs, printErr)...)
}

func eventOf(c *clock.Clock, by string) sidecar.Event {
	now := c.Now()
	return sidecar.Event{State: string(spool.Ready), Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: c.BootID(),
		Synced: now.Synced, By: by, Reason: "to be sent again: uploader retry"}
}

// again moves one file, whose refusals are forgotten.
func again(sp *spool.Spool, id sidecar.ID, e sidecar.Event) (err error) {
	h, err := sp.Hold(spool.Rejected, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Release()) }()
	side := h.Sidecar()
	side.Upload = nil
	side.Add(e)
	return h.Move(spool.Ready, side)
}
