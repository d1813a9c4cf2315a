package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/mjpeg"
	"github.com/perch-edge/perch/internal/v4l2cam"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// device is a V4L2 camera.
type device struct {
	w     *worker.Worker
	cam   *v4l2cam.Camera
	mjpeg bool
	since time.Duration // CLOCK_MONOTONIC of start
	fresh bool          // a frame of after that has been seen
}

func openV4L2(ctx context.Context, w *worker.Worker, cfg Config) (input, settled, error) {
	name, s := cfg.stream()
	cam, err := v4l2cam.Open(ctx, v4l2cam.Config{Path: cfg.Input.Rest, Width: s.Size.Width, Height: s.Size.Height,
		FourCC: s.Format.FourCC(), FPS: s.CaptureHz, StallAfter: cfg.patience(s.CaptureHz), Settings: cfg.settings()})
	if errors.Is(err, v4l2cam.ErrMode) {
		return nil, settled{}, topology.Problems{w.Entry().Table.Problem("stream."+name+".size", "%v", err)}
	}
	if bad := (v4l2cam.ControlErrors)(nil); errors.As(err, &bad) {
		return nil, settled{}, problems(w, bad)
	}
	if err != nil {
		return nil, settled{}, deviceError(err)
	}
	for _, c := range cam.Controls() {
		tellControl(w, c)
	}
	info := cam.Info()
	hz := s.CaptureHz
	if hz == 0 || (info.FPS > 0 && info.FPS < hz) {
		hz = info.FPS
	}
	frames, err := settle(s.Format, s.Size, hz, fmt.Sprintf("%s (%s)", cfg.Input, info.Card))
	if err != nil {
		return nil, settled{}, errors.Join(err, cam.Close())
	}
	frames.setColour(s.Colour.Or(info.Colour).Or(pixel.DefaultColour(s.Format)))
	if s.CaptureHz > hz*1.001 {
		w.Log.Warn("the camera is slower than asked", "capture_hz", s.CaptureHz, "camera_hz", hz)
	}
	// The driver may have more room for a JPEG than a frame should need.
	frames.slotBytes = max(frames.slotBytes, info.FrameBytes)
	if s.Format == pixel.MJPEG {
		frames.slotBytes += mjpeg.MostAdded
	}
	return &device{w: w, cam: cam, mjpeg: s.Format == pixel.MJPEG}, frames, nil
}

// problems points at the keys that the camera cannot fulfil.
func problems(w *worker.Worker, bad v4l2cam.ControlErrors) topology.Problems {
	var ps topology.Problems
	for _, e := range bad {
		ps = append(ps, w.Entry().Table.Problem(e.Key, "%v", e.Err))
	}
	ps.Sort()
	return ps
}

func tellControl(w *worker.Worker, c v4l2cam.Control) {
	if c.Got != c.Asked {
		w.Log.Warn("the camera took another value", "key", c.Key, "control", c.Name, "asked", c.Asked, "value", c.Got)
		return
	}
	w.Log.Info("control set", "key", c.Key, "control", c.Name, "value", c.Got)
}

// deviceError says what an error of the camera means for the worker.
func deviceError(err error) error {
	switch {
	case errors.Is(err, v4l2cam.ErrNoDevice), errors.Is(err, v4l2cam.ErrGone):
		return worker.NoDevice(err)
	case errors.Is(err, v4l2cam.ErrBusy):
		return worker.Temporary(err)
	}
	return err
}

func (d *device) start(context.Context) error {
	d.since = clock.Monotonic()
	return nil
}

func (d *device) next(ctx context.Context, _ msg.Seq, slot []byte) (shot, error) {
	for {
		frame, err := d.wait(ctx, slot)
		switch {
		case ctx.Err() != nil:
			return shot{}, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			d.w.Progress()
		case err != nil:
			return shot{}, deviceError(err)
		case frame.CapturedMonotonic >= d.since: // older ones waited in the driver for the readers
			return d.shot(frame, slot), nil
		}
	}
}

// wait waits no longer than the loop may without a sign of life.
func (d *device) wait(ctx context.Context, slot []byte) (v4l2cam.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, step)
	defer cancel()
	return d.cam.Next(ctx, slot)
}

func (d *device) shot(frame v4l2cam.Frame, slot []byte) shot {
	got := shot{bytes: frame.Bytes, stamp: at(d.w.Now(), clock.Monotonic()-frame.CapturedMonotonic)}
	if d.fresh {
		got.missed = int(frame.Missed)
	}
	d.fresh = true
	if frame.Corrupt {
		got.corrupt = errors.New(frame.Reason)
	} else if d.mjpeg {
		got = buffered(got, slot, frame.Bytes)
	}
	return got
}

// at is the moment that lies that long before now.
func at(now msg.Stamp, ago time.Duration) msg.Stamp {
	ago = min(max(ago, 0), now.Boot)
	return msg.Stamp{Wall: now.Wall.Add(-ago), Boot: now.Boot - ago, Synced: now.Synced}
}

func (d *device) close() error { return d.cam.Close() }
