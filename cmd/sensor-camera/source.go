package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// step is how long a read may wait before the loop shows that it is alive.
const step = 500 * time.Millisecond

// errSilent says that nothing came for too long.
var errSilent = errors.New("silent")

// source is a pipe from another process, read with patience.
type source struct {
	pipe     readable
	patience time.Duration // how long it may say nothing
	slack    time.Duration // and how much longer before its first byte
	now      func() msg.Stamp
	alive    func()
}

// readable is an *os.File of a pipe; tests look at the memory it is given.
type readable interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// read waits for bytes and reads as many as there are into dst: one read(2) from
// the pipe to that memory. Its errors are io.EOF, ctx's, errSilent.
func (s *source) read(ctx context.Context, dst []byte) (int, error) {
	patience := s.patience + s.slack
	for waited := time.Duration(0); waited < patience; waited += step {
		if err := s.pipe.SetReadDeadline(time.Now().Add(min(step, patience-waited))); err != nil {
			return 0, fmt.Errorf("read pipe: %w", err)
		}
		n, err := s.pipe.Read(dst)
		switch {
		case n > 0:
			s.slack = 0
			return n, nil
		case ctx.Err() != nil: // which also ended the process: no end of its own
			return 0, ctx.Err()
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, err
		}
		s.alive()
	}
	return 0, fmt.Errorf("%w: nothing came for %v", errSilent, patience)
}

// rawFrames reads frames of one size that follow each other without anything
// in between.
type rawFrames struct {
	source
	bytes int
	over  error // after a frame that was cut short nothing is known of the next
}

func (r *rawFrames) next(ctx context.Context, slot []byte) (shot, error) {
	if r.over != nil {
		return shot{}, r.over
	}
	got := shot{bytes: r.bytes}
	for n := 0; n < r.bytes; {
		more, err := r.read(ctx, slot[n:r.bytes])
		if err != nil {
			r.over = err
			if n > 0 && ctx.Err() == nil {
				return shot{corrupt: fmt.Errorf("cut short: %d of %d bytes", n, r.bytes)}, nil
			}
			return shot{}, err
		}
		if n == 0 {
			got.stamp = r.now()
		}
		n += more
	}
	return got, nil
}
