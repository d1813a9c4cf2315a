package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/worker"
)

// child is a process that writes pictures to its standard output: ffmpeg for
// files, a command for exec.
type child struct {
	w       *worker.Worker
	command ffmpeg.Command
	frames  settled
	stall   time.Duration
	ends    bool          // by itself, after its last picture
	spread  time.Duration // the least time from one picture to the next
	even    *evenly       // when each picture is due, where that is known beforehand

	process *ffmpeg.Process
	read    func(context.Context, []byte) (shot, error)
	last    time.Time // when the last picture came
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
	from := source{pipe: process.Stdout, patience: c.stall, slack: firstPicture, now: c.w.Now, alive: c.w.Progress}
	if c.frames.Format == string(pixel.MJPEG) {
		c.read = (&jpegFrames{source: from}).next
	} else {
		c.read = (&rawFrames{source: from, bytes: c.frames.slotBytes}).next
	}
	return nil
}

func (c *child) next(ctx context.Context, _ msg.Seq, slot []byte) (shot, error) {
	switch {
	case c.even != nil:
		if err := c.w.Wait(ctx, c.even.due()); err != nil {
			return shot{}, err
		}
	case c.spread > 0:
		if err := c.w.Wait(ctx, c.last.Add(c.spread)); err != nil {
			return shot{}, err
		}
		c.last = time.Now()
	}
	got, err := c.read(ctx, slot)
	if err != nil {
		return shot{}, c.ended(ctx, err)
	}
	if c.even != nil {
		got.stamp = c.even.stamp(c.w.Now())
	}
	return got, nil
}

// evenly gives the pictures of a file the times that they have in it, counted
// from when the first one came: as they come, they would be early and late by
// what the decoder takes.
type evenly struct {
	hz    float64
	first time.Time // zero before the first picture
	n     int       // of the next picture
}

// due is when the next picture is to be shown.
func (e *evenly) due() time.Time {
	if e.first.IsZero() {
		return time.Now()
	}
	return e.first.Add(time.Duration(float64(e.n) / e.hz * float64(time.Second)))
}

// mostLate is how late a picture may be; then the times begin anew with it.
const mostLate = time.Second

// stamp is the moment of the next picture, which has just come.
func (e *evenly) stamp(now msg.Stamp) msg.Stamp {
	late := time.Since(e.due())
	if e.first.IsZero() || late > mostLate {
		e.first, e.n, late = time.Now(), 0, 0
	}
	e.n++
	return at(now, late)
}

// ended says what the end of the pictures means.
func (c *child) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	process := c.process
	c.process = nil
	if errors.Is(err, io.EOF) {
		err = process.Wait(endPatience)
		if err == nil && c.ends {
			return io.EOF
		}
		if err == nil {
			err = fmt.Errorf("%s: exit status 0, and no more pictures", c.command.Argv[0])
		}
	} else {
		process.Stop()
		err = &ffmpeg.ExitError{Program: c.command.Argv[0], Err: err, Words: process.Words()}
	}
	if c.ends {
		return fmt.Errorf("decode %s: %w", c.frames.from, err)
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

func (c *child) close() error {
	if c.process != nil {
		c.process.Stop()
	}
	return nil
}

// openFile settles a file's frames by what Validate learned of it. They are
// decoded at the file's own pace.
func openFile(w *worker.Worker, cfg Config) (input, settled, error) {
	_, s := cfg.stream()
	hz := cfg.video.Hz
	if s.CaptureHz > 0 {
		hz = s.CaptureHz
	}
	frames, err := settle(s.Format, cfg.size(s), hz, cfg.Input.String())
	if err != nil {
		return nil, settled{}, err
	}
	in := ffmpeg.File(cfg.Input.Rest)
	even := cfg.video.Steady && (s.CaptureHz == 0 || s.CaptureHz >= cfg.video.Hz)
	if !even {
		in = in.With("-re")
	}
	if cfg.Loop {
		in = in.With("-stream_loop", "-1")
	}
	c := newChild(w, cfg, ffmpeg.FFmpeg(in, output(s, cfg.size(s), cfg.filters())...), frames)
	c.ends = true
	if even {
		c.even = &evenly{hz: cfg.video.Hz}
	} else if hz > 0 {
		// A decoder that runs in several threads holds pictures back and lets
		// them go together at the end, more than a ring may have slots.
		c.spread = time.Duration(0.5 / hz * float64(time.Second))
	}
	return c, frames, nil
}

// openExec trusts the command to write what the stream says.
func openExec(w *worker.Worker, cfg Config) (input, settled, error) {
	_, s := cfg.stream()
	frames, err := settle(s.Format, s.Size, s.CaptureHz, "exec:"+cfg.argv()[0])
	if err != nil {
		return nil, settled{}, err
	}
	return newChild(w, cfg, ffmpeg.Command{Argv: cfg.argv()}, frames), frames, nil
}

func newRetry() *backoff.Backoff {
	return &backoff.Backoff{First: 200 * time.Millisecond, Most: 30 * time.Second, Healthy: time.Minute}
}

// output is how ffmpeg is to write a stream's frames to its standard output:
// each as it was decoded, none repeated or left out but by capture_hz, and then
// filtered. capture_hz takes the first frame of each 1/capture_hz seconds of the
// video's own time; a thousandth is added against fractions that are no binary
// numbers.
func output(s StreamConfig, size pixel.Size, filters []string) []string {
	args := []string{"-map", "0:v:0", "-fps_mode", "passthrough", "-s", size.String()}
	if s.CaptureHz > 0 {
		slot := func(t string) string {
			return "floor(" + t + "*" + strconv.FormatFloat(s.CaptureHz, 'f', -1, 64) + "+0.001)"
		}
		filters = slices.Insert(filters, 0, "select='isnan(t)+isnan(prev_t)+gt("+slot("t")+","+slot("prev_t")+")'")
	}
	if len(filters) > 0 {
		args = append(args, "-vf", strings.Join(filters, ","))
	}
	if s.Format == pixel.MJPEG { // full range, as JPEG has it; 2 is best, 31 smallest
		return append(args, "-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p", "-f", "mjpeg", "pipe:1")
	}
	return append(args, "-pix_fmt", s.Format.FFmpeg(), "-f", "rawvideo", "pipe:1")
}
