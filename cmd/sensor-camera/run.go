package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/shm"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	in, frames, err := open(ctx, w, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	name, stream := cfg.stream()
	out, err := w.PublishFrames(name, frames.Geometry, stream.Slots, frames.slotBytes)
	if err != nil {
		return noRoom(w, name, err)
	}
	c := newCamera(w, in, out, frames, cfg)
	if frames.Format == string(pixel.MJPEG) {
		if c.jpeg, err = newJPEGCheck(frames.size()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.jpeg.close()) }()
	}
	w.Status("%s", frames)
	w.AwaitReaders(ctx)
	return c.capture(ctx)
}

// noRoom tells a ring that can never fit from one that has no room at present.
func noRoom(w *worker.Worker, stream string, err error) error {
	full := (*shm.FullError)(nil)
	switch {
	case !errors.As(err, &full):
		return err
	case full.NeedBytes > full.TotalBytes:
		return topology.Problems{w.Entry().Table.Problem("stream."+stream+".slots", "%v", full)}
	}
	return worker.Temporary(err)
}

// camera is the work loop: from the input into the ring's slots.
type camera struct {
	w     *worker.Worker
	in    input
	out   *msg.FrameStream
	pace  pacer
	jpeg  *jpegCheck // nil for raw formats
	stall time.Duration
	retry *backoff.Backoff
	spare []byte // takes a frame for which there is no slot
	room  int    // bytes of a slot

	seq     msg.Seq   // of the next frame
	begun   time.Time // when the input was last started
	good    time.Time // when the last good picture came, or the want of one was told
	trouble bool
	rate    rate

	frames, missed, corrupt, dropped, skipped, restarts *worker.Counter
}

func newCamera(w *worker.Worker, in input, out *msg.FrameStream, frames settled, cfg Config) *camera {
	_, stream := cfg.stream()
	c := &camera{w: w, in: in, out: out, room: frames.slotBytes, stall: cfg.patience(frames.Hz), retry: newRetry(),
		frames: w.Counter("frames"), missed: w.Counter("missed_frames"), corrupt: w.Counter("corrupt_frames"),
		dropped: w.Counter("dropped_frames"), skipped: w.Counter("skipped_frames"), restarts: w.Counter("restarts")}
	if cfg.Input.Scheme == RTSP {
		c.retry.Most = 5 * time.Second // a camera that is back again is to be seen soon
	}
	if cfg.Input.Scheme == V4L2 || cfg.Input.Scheme == Exec { // the others keep the pace themselves
		c.pace.hz = stream.CaptureHz
	}
	return c
}

// capture publishes frames until the input ends, starting it again where that
// can help.
func (c *camera) capture(ctx context.Context) error {
	err := c.start(ctx)
	for {
		switch {
		case err == nil:
			err = c.once(ctx)
		case errors.Is(err, io.EOF):
			return c.finish(ctx)
		case errors.Is(err, errBroken):
			err = c.again(ctx, err)
		default:
			if ctx.Err() == nil {
				c.w.Trouble(err)
			}
			return err
		}
	}
}

func (c *camera) start(ctx context.Context) error {
	c.begun, c.good = time.Now(), time.Now()
	return c.in.start(ctx)
}

// again starts a source that broke off, after a pause.
func (c *camera) again(ctx context.Context, why error) error {
	c.restarts.Add(1)
	c.trouble = true
	c.w.Trouble(fmt.Errorf("%w; starting it again", why))
	if err := c.w.Wait(ctx, time.Now().Add(pauseAfter(why, c.retry.Failed(time.Since(c.begun))))); err != nil {
		return err
	}
	return c.start(ctx)
}

// once publishes one frame.
func (c *camera) once(ctx context.Context) error {
	slot, err := c.out.Claim()
	if errors.Is(err, shm.ErrNoSlot) {
		return c.drop(ctx)
	}
	if err != nil {
		return err
	}
	got, err := c.fill(ctx, slot.Bytes())
	if err != nil {
		slot.Abandon()
		return err
	}
	if _, err := slot.Publish(got.bytes, got.stamp); err != nil {
		return err
	}
	c.seq++
	c.frames.Add(1)
	c.note(got)
	c.w.Ready(ctx) // with its first frame, not before
	return nil
}

// drop takes a frame for which there is no slot, so that the input stays at a
// frame's border.
func (c *camera) drop(ctx context.Context) error {
	if c.spare == nil {
		c.spare = make([]byte, c.room)
	}
	_, err := c.fill(ctx, c.spare)
	if err == nil {
		c.dropped.Add(1)
	}
	return err
}

// fill lets the input fill the slot until it holds a picture to be published.
func (c *camera) fill(ctx context.Context, slot []byte) (shot, error) {
	for {
		c.w.Progress()
		got, err := c.in.next(ctx, c.seq, slot)
		if err != nil {
			return shot{}, err
		}
		c.missed.Add(got.missed)
		c.skipped.Add(got.skipped)
		if c.jpeg != nil && got.corrupt == nil {
			got.corrupt = c.jpeg.check(slot[:got.bytes], got.unended)
		}
		if got.corrupt != nil {
			c.refuse(got.corrupt)
			continue
		}
		c.good = time.Now()
		if c.pace.take(got.stamp.Boot) {
			return got, nil
		}
		c.skipped.Add(1)
	}
}

// refuse counts a picture that is bad. One is nothing; nothing else for a while
// is trouble, which is reported again after the same time. Text is not counted as
// a picture.
func (c *camera) refuse(why error) {
	if text := (*textError)(nil); !errors.As(why, &text) {
		c.corrupt.Add(1)
	}
	c.w.Log.Debug("corrupt frame", "err", why)
	if time.Since(c.good) >= c.stall {
		c.trouble, c.good = true, time.Now()
		c.w.Trouble(fmt.Errorf("no good picture for %v: the last one is %w", c.stall, why))
	}
}

// note keeps the state's figures.
func (c *camera) note(got shot) {
	if c.trouble {
		c.trouble = false
		c.w.Trouble(nil)
	}
	now := c.w.Now().Boot
	if hz, ok := c.rate.count(now); ok {
		c.w.Gauge("capture_hz", hz)
		c.w.Gauge("publish_delay_ms", float64(now-got.stamp.Boot)/1e6)
		c.w.Gauge("frame_bytes", float64(got.bytes))
	}
}

// finish waits until every reader that has come has the ring open: then it has
// all that is in it, however soon this process ends.
func (c *camera) finish(ctx context.Context) error {
	names := c.w.Topology().Readers(c.w.Name())
	late := c.out.Gate(names, 0, ctx.Done())
	limit := time.Now().Add(c.w.Node().StartGate.D())
	for time.Now().Before(limit) {
		reading := c.out.Readers()
		if !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(late, n) && !slices.Contains(reading, n) }) {
			break
		}
		if err := c.w.Wait(ctx, time.Now().Add(10*time.Millisecond)); err != nil {
			return err
		}
	}
	c.w.Log.Info("the last frame has been published", "frames", c.frames.Value())
	return nil
}
