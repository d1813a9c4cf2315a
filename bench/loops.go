package main

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/perch-edge/perch/pkg/shm"
)

// loop is what one operation takes, repeated in a hot loop.
type loop struct {
	Nanos  float64 `json:"ns"`
	Allocs float64 `json:"allocs"`
}

// loops are the ring's operations without any message.
type loops struct {
	ClaimPublish loop `json:"claim_publish"`
	PinUnpin     loop `json:"pin_unpin"`
}

// ringLoopsCommand measures the ring's operations, in a process of its own so
// that nothing else allocates.
type ringLoopsCommand struct {
	place
}

// Run answers once.
func (c *ringLoopsCommand) Run() (err error) {
	dir, err := shm.OpenDir(c.Dir + "/loops")
	if err != nil {
		return err
	}
	w, err := shm.Create(dir, "loops", 1, shm.Options{Slots: slots, SlotBytes: page})
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	defer func() { err = errors.Join(err, w.Close(), dir.Close()) }()
	if err := answer(struct{}{}); err != nil {
		return err
	}
	var l loops
	if l.ClaimPublish, err = timeLoop(func() error {
		slot, err := w.Claim()
		if err == nil {
			slot.Publish(page, shm.Info{Boot: 1})
		}
		return err
	}); err != nil {
		return err
	}
	r, err := shm.OpenReader(dir, "loops", "loops", 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if l.PinUnpin, err = timeLoop(func() error {
		lease, err := r.Latest()
		lease.Release()
		return err
	}); err != nil {
		return err
	}
	return answer(l)
}

// timeLoop is the median of nine batches.
func timeLoop(op func() error) (loop, error) {
	const batch = 100_000
	var nanos []float64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 9 {
		start := time.Now()
		for range batch {
			if err := op(); err != nil {
				return loop{}, err
			}
		}
		nanos = append(nanos, float64(time.Since(start).Nanoseconds())/batch)
	}
	runtime.ReadMemStats(&after)
	// What the runtime allocates for itself meanwhile is far below one a call.
	allocs := float64((after.Mallocs - before.Mallocs) / (9 * batch))
	return loop{Nanos: median(nanos), Allocs: allocs}, nil
}

func measureLoops(ctx context.Context, dir string) (l loops, err error) {
	c, err := self(ctx, "ring-loops", "--dir", dir)
	if err != nil {
		return l, err
	}
	return l, errors.Join(c.hear(&l), c.stop())
}
