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
// network cameras, a command for exec.
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
		process.Stop()
		err = &ffmpeg.ExitError{Program: c.command.Argv[0], Err: err, Words: process.Words()}
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

func (c *child) close() error {
	if c.process != nil {
		c.process.Stop()
	}
	return nil
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
		s.Colour = colourOf(video, s.Colour)
		if hz == 0 || (video.Hz > 0 && video.Hz < hz) {
			hz = video.Hz
		}
	}
	frames, err := settle(s.Format, size, hz, in.String())
	if err != nil {
		return nil, settled{}, topology.Problems{w.Entry().Table.Problem("stream."+name+".size", "not set, and the camera's own will not do: %v", err)}
	}
	frames.setColour(frameColour(s.Format, s.Colour.Or(pixel.VideoColour(size))))
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
// filtered, and scaled with their colours kept. capture_hz takes the first frame
// of each 1/capture_hz seconds of the video's own time; a thousandth is added
// against fractions that are no binary numbers.
func output(s StreamConfig, size pixel.Size, filters []string) []string {
	args := []string{"-map", "0:v:0", "-fps_mode", "passthrough"}
	if s.CaptureHz > 0 {
		slot := func(t string) string {
			return "floor(" + t + "*" + strconv.FormatFloat(s.CaptureHz, 'f', -1, 64) + "+0.001)"
		}
		filters = slices.Insert(filters, 0, "select='isnan(t)+isnan(prev_t)+gt("+slot("t")+","+slot("prev_t")+")'")
	}
	args = append(args, "-vf", strings.Join(append(filters, scaled(s, size)...), ","))
	container := "rawvideo"
	if s.Format == pixel.MJPEG {
		container = "mjpeg"
	}
	return append(append(args, encoding(s.Format)...), "-f", container, "pipe:1")
}

// encoding is how ffmpeg writes a picture of that format; of JPEG 2 is best and 31
// smallest.
func encoding(format pixel.Format) []string {
	if format == pixel.MJPEG {
		return []string{"-c:v", "mjpeg", "-q:v", "3"}
	}
	return []string{"-c:v", "rawvideo"}
}
