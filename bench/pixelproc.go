package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// What a worker would do without a ring: the whole frame in a message of the
// same ZeroMQ binding, which copies it on both sides. Testdata/peer.c does it
// as well as it can be done.

// pixelPlace is where the frames go through.
type pixelPlace struct {
	place
	Bytes int `required:""`
}

func (p pixelPlace) socket(kind zmq4.Type) (*zmq4.Context, *zmq4.Socket, error) {
	ctx, err := zmq4.NewContext()
	if err != nil {
		return nil, nil, fmt.Errorf("open ZeroMQ: %w", err)
	}
	soc, err := ctx.NewSocket(kind)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open ZeroMQ: %w", err), ctx.Term())
	}
	return ctx, soc, errors.Join(soc.SetLinger(0), soc.SetSndhwm(1), soc.SetRcvhwm(1))
}

func (p pixelPlace) address() string { return "ipc://" + p.Dir + "/whole.ipc" }

// pixelWriterCommand sends frames. It is told "gate N" and "pixels N".
type pixelWriterCommand struct {
	pixelPlace
	Hz float64 `required:""`

	soc    *zmq4.Socket
	next   uint64
	source []byte
}

// Run obeys until stdin ends.
func (w *pixelWriterCommand) Run(ctx context.Context) (err error) {
	zmq, soc, err := w.socket(zmq4.XPUB)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, soc.Close(), zmq.Term()) }()
	if err := errors.Join(soc.SetXpubVerbose(1), soc.Bind(w.address())); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	w.soc, w.source = soc, make([]byte, w.Bytes)
	ctx, lines := orders(ctx)
	if err := answer(report{}); err != nil {
		return err
	}
	for line := range lines {
		var r report
		verb, n := split(line)
		if verb == "gate" {
			err = w.gate(n)
		} else {
			r, err = w.block(ctx, n)
		}
		if err == nil {
			err = answer(r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}

// gate waits for the readers' subscriptions.
func (w *pixelWriterCommand) gate(readers int) error {
	for range readers {
		if _, err := w.soc.RecvBytes(0); err != nil {
			return fmt.Errorf("wait for readers: %w", err)
		}
	}
	return nil
}

func (w *pixelWriterCommand) block(ctx context.Context, n int) (report, error) {
	return paced(ctx, w.Hz, n, func(watch stopwatch, tick func() error) ([3]int64, error) {
		number := w.next
		mark(w.source, number)
		if err := tick(); err != nil {
			return [3]int64{}, err
		}
		start := watch.now()
		w.next++
		// The copy is made within: there is no moment at which it is filled.
		_, err := w.soc.SendBytes(w.source, zmq4.DONTWAIT)
		return [3]int64{int64(number), start, start}, err
	})
}

// pixelReaderCommand receives frames. It is told "begin", and "end".
type pixelReaderCommand struct{ pixelPlace }

// Run obeys until stdin ends.
func (c *pixelReaderCommand) Run(ctx context.Context) (err error) {
	zmq, soc, err := c.socket(zmq4.SUB)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, soc.Close(), zmq.Term()) }()
	// It looks now and then whether it is to end; while frames come it never does.
	if err := errors.Join(soc.SetRcvtimeo(100*time.Millisecond), soc.SetSubscribe(""), soc.Connect(c.address())); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return obeyReader(ctx, func(ctx context.Context, r *report) error { return c.read(ctx, soc, r) })
}

func (c *pixelReaderCommand) read(ctx context.Context, soc *zmq4.Socket, r *report) error {
	watch, before := startWatch(), cpuMicros()
	for ctx.Err() == nil {
		frame, err := soc.RecvBytes(0)
		if errors.Is(err, zmq4.Errno(syscall.EAGAIN)) {
			continue
		}
		if err != nil || len(frame) != c.Bytes {
			return fmt.Errorf("receive %d bytes: %w", len(frame), err)
		}
		held, number := watch.now(), binary.LittleEndian.Uint64(frame)
		r.Bad += verify(frame, number)
		r.Times = append(r.Times, [3]int64{int64(number), held, watch.now()})
	}
	r.CPU = cpuMicros() - before
	return nil
}
