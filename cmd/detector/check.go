package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/internal/proc"
	"github.com/perch-edge/perch/pkg/topology"
)

const (
	// checkTime is how long --check may take to load the model: the supervisor waits
	// for ten seconds.
	checkTime = 7 * time.Second
	// loadedMemory and modelCopies estimate what loading takes, on the safe side: the
	// file's bytes, the graph parsed from them, the graph optimised, and the library.
	loadedMemory = 64 << 20
	modelCopies  = 3
)

// Check loads the model as the worker does, so that a model it would refuse is reported
// before it runs. A check takes checkTime at most, and no memory that the box does not
// have. If the model is not loaded, a warning says why; the check then only knows that
// the file is complete.
func (c *Config) Check(ctx context.Context) (warning, err error) {
	size := int64(0)
	if c.Model != Simulated {
		info, err := c.inspect()
		if err != nil {
			return nil, topology.Bad("model", "%w", err)
		}
		size = info.Bytes
	}
	if _, err := onnx.Find(c.Library); err != nil {
		if c.Without == Await { // the user expects that
			return nil, nil
		}
		return topology.Bad("model", "not loaded, because there is no ONNX Runtime: %w", err), nil
	}
	if free, need := proc.AvailableRAM(), loadedMemory+modelCopies*size; free < need {
		return topology.Bad("model", "not loaded: that may take %d MB of memory, and %d MB are available", need>>20, free>>20), nil
	}
	return c.try(ctx)
}

// try loads the model within checkTime. If loading takes longer it is left running: the
// process ends after the check.
func (c *Config) try(ctx context.Context) (warning, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	type result struct {
		labels []string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		n, err := load(ctx, *c)
		if err != nil {
			done <- result{err: err}
			return
		}
		done <- result{n.labels, n.close()}
	}()
	slow := fmt.Errorf("not fully checked: loading it takes longer than %s", checkTime)
	select {
	case <-ctx.Done():
		return topology.Bad("model", "%w", slow), nil
	case r := <-done:
		library := (*libraryError)(nil)
		switch {
		case r.err == nil:
			c.found = r.labels
			return nil, nil
		case ctx.Err() != nil:
			return topology.Bad("model", "%w", slow), nil
		case errors.As(r.err, &library):
			return nil, topology.Bad("library", "%w", r.err)
		}
		return nil, topology.Bad("model", "%w", r.err)
	}
}
