package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/worker"
)

// child is the command of an exec: input, which writes pictures to its standard
// output.
type child struct {
	w       *worker.Worker
	command ffmpeg.Command
	frames  settled
	stall   time.Duration
	align   *aligner // of a command's raw frames
	trial   trial    // after frames that were out of step
	patient *patient // of a command

	process *ffmpeg.Process
	read    func(context.Context, []byte) (shot, error)
}

const (
	firstPicture = 10 * time.Second // how much longer than usual the first picture may take
	endPatience  = 2 * time.Second  // from the end of a child's output to its own
)

func newChild(w *worker.Worker, cfg Config, command ffmpeg.Command, frames settled) *child {
	c := &child{w: w, command: command, frames: frames, stall: cfg.patience(frames.Hz)}
	c.command.Stdout = true
	return c
}

func (c *child) start(ctx context.Context) error {
	process, err := ffmpeg.Start(ctx, c.command)
	if err != nil {
		return err
	}
	c.process = process
	from := source{pipe: process.Stdout, patience: c.stall, slack: firstPicture, now: c.w.Now, alive: c.w.Progress, patient: c.patient}
	if c.frames.Format == string(pixel.MJPEG) {
		c.read = (&jpegFrames{source: from, gap: gap{words: process.Heard}}).next
	} else {
		c.read = (&rawFrames{source: from, bytes: c.frames.slotBytes, align: c.align, words: process.Heard}).next
	}
	if c.align != nil {
		c.align.start(time.Now())
	}
	c.trial.start(time.Now())
	c.patient.start()
	return nil
}

func (c *child) next(ctx context.Context, _ msg.Seq, slot []byte) (shot, error) {
	got, err := c.read(ctx, slot)
	if err != nil {
		return shot{}, c.ended(ctx, err)
	}
	if got.corrupt == nil {
		c.patient.frame(time.Now())
		got.corrupt = c.trial.frame()
	}
	return got, nil
}

// ended says what the end of the pictures means.
func (c *child) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	process := c.process
	c.process = nil
	c.trial.failed(err, time.Now())
	err = c.patient.failed(err)
	if errors.Is(err, io.EOF) {
		err = process.Wait(endPatience)
		if err == nil {
			err = fmt.Errorf("%s: exit status 0, and no more pictures", c.command.Argv[0])
		}
	} else {
		words := process.Words() // and not what it says to being stopped
		process.Stop()
		err = &ffmpeg.ExitError{Program: c.command.Argv[0], Err: err, Words: words}
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

func (c *child) close() error {
	if c.process != nil {
		c.process.Stop()
	}
	return nil
}

func newRetry() *backoff.Backoff {
	return &backoff.Backoff{First: 200 * time.Millisecond, Most: 30 * time.Second, Healthy: time.Minute}
}

// encoding is how ffmpeg writes a picture of that format; of JPEG 2 is best and 31
// smallest.
func encoding(format pixel.Format) []string {
	if format == pixel.MJPEG {
		return []string{"-c:v", "mjpeg", "-q:v", "3"}
	}
	return []string{"-c:v", "rawvideo"}
}
