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
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// child is a process that writes pictures to its standard output: ffmpeg for
// files and network cameras, a command for exec.
type child struct {
	w       *worker.Worker
	command ffmpeg.Command
	frames  settled
	stall   time.Duration
	ends    bool          // by itself, after its last picture
	spread  time.Duration // the least time from one picture to the next
	even    *evenly       // when each picture is due, where that is known beforehand
	align   *aligner      // of a command's raw frames
	trial   trial         // after frames that were out of step
	patient *patient      // of a command

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
	if got.corrupt == nil {
		c.patient.frame(time.Now())
		got.corrupt = c.trial.frame()
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
	c.trial.failed(err, time.Now())
	err = c.patient.failed(err)
	if errors.Is(err, io.EOF) {
		err = process.Wait(endPatience)
		if err == nil && c.ends {
			return io.EOF
		}
		if err == nil {
			err = fmt.Errorf("%s: exit status 0, and no more pictures", c.command.Argv[0])
		}
	} else {
		words := process.Words() // and not what it says to being stopped
		process.Stop()
		err = &ffmpeg.ExitError{Program: c.command.Argv[0], Err: err, Words: words}
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

// openRTSP asks the camera for its size where the config does not say, again
// and again until it answers.
func openRTSP(ctx context.Context, w *worker.Worker, cfg Config) (input, settled, error) {
	name, s := cfg.stream()
	in, err := ffmpeg.RTSP(cfg.Input.Rest, rtspTimeout)
	if err != nil {
		return nil, settled{}, err
	}
	hz, size := s.CaptureHz, s.Size
	if size == (pixel.Size{}) {
		video, err := askUntilAnswered(ctx, w, in)
		if err != nil {
			return nil, settled{}, err
		}
		size = cfg.turn(video.Size)
		if hz == 0 || (video.Hz > 0 && video.Hz < hz) {
			hz = video.Hz
		}
	}
	frames, err := settle(s.Format, size, hz, in.String())
	if err != nil {
		return nil, settled{}, topology.Problems{w.Entry().Table.Problem("stream."+name+".size", "not set, and the camera's own will not do: %v", err)}
	}
	return newChild(w, cfg, ffmpeg.FFmpeg(in, output(s, size, cfg.filters())...), frames), frames, nil
}

func askUntilAnswered(ctx context.Context, w *worker.Worker, in ffmpeg.Input) (ffmpeg.Video, error) {
	retry := newRetry()
	for {
		w.Status("asking %s for its size", in)
		video, err := ask(ctx, w, in)
		if err == nil {
			w.Trouble(nil)
			return video, nil
		}
		if ctx.Err() != nil {
			return ffmpeg.Video{}, ctx.Err()
		}
		w.Trouble(fmt.Errorf("%w; asking again", err))
		if err := w.Wait(ctx, time.Now().Add(retry.Failed(0))); err != nil {
			return ffmpeg.Video{}, err
		}
	}
}

// ask waits for ffprobe and shows meanwhile that the worker is alive.
func ask(ctx context.Context, w *worker.Worker, in ffmpeg.Input) (video ffmpeg.Video, err error) {
	ctx, cancel := context.WithTimeout(ctx, firstPicture+rtspTimeout)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		video, err = ffmpeg.Probe(ctx, in)
	}()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return video, err
		case <-tick.C:
			w.Progress()
		}
	}
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
