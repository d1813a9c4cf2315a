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

// errSilent means that nothing came for too long.
var errSilent = errors.New("silent")

// source is a pipe from another process, read with patience.
type source struct {
	pipe     readable
	patience time.Duration // how long it may say nothing
	slack    time.Duration // and how much longer before its first byte
	patient  *patient      // raises patience for slow commands; may be nil
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
	patience := max(s.patience, s.patient.wait()) + s.slack
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
	align *aligner          // checks the borders of frames; may be nil
	words func(text []byte) // is called with text that came instead of a frame
	begun bool              // a frame of this run has come
	over  error             // final: after a frame that was cut short the next border is unknown
}

func (r *rawFrames) next(ctx context.Context, slot []byte) (shot, error) {
	if r.over != nil {
		return shot{}, r.over
	}
	got := shot{bytes: r.bytes}
	for n := 0; n < r.bytes; {
		asked := time.Now()
		more, err := r.read(ctx, slot[n:r.bytes])
		if err != nil {
			r.over = err
			return r.rest(ctx, slot[:n], err)
		}
		if n == 0 {
			got.stamp = r.now()
		}
		n += more
		if r.align != nil {
			now := time.Now()
			r.align.read(more, now.Sub(asked), now)
		}
	}
	if r.align != nil {
		r.over = r.doubt(slot[:r.bytes])
	}
	r.begun = true
	return got, r.over
}

// doubt returns why what was read is probably no frame.
func (r *rawFrames) doubt(frame []byte) error {
	if !r.begun {
		if what := sniff(frame[:min(len(frame), mostText)]); what != "" {
			return &alignError{what}
		}
	}
	return r.align.check(frame)
}

// rest is what came before the end: nothing, part of a frame, or text.
func (r *rawFrames) rest(ctx context.Context, part []byte, err error) (shot, error) {
	if len(part) == 0 || ctx.Err() != nil {
		return shot{}, err
	}
	if text, ok := words(part); ok && r.words != nil {
		r.words(append([]byte(text), '\n'))
		return shot{}, err
	}
	return shot{corrupt: fmt.Errorf("cut short: %d of %d bytes", len(part), r.bytes)}, nil
}
