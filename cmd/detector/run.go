package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/internal/yolo"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/worker"
)

const (
	// grace is how long a run that was told to stop may take to do so.
	grace = 2 * time.Second
	// silence is how long the camera may have nothing new before that is trouble.
	silence = 10 * time.Second
	step    = 500 * time.Millisecond
	// again is how often it is looked whether there is a library now.
	again = 2 * time.Second
)

// stuckError says that a run of the network did not stop when it was told to. It
// still uses the session, which must not be closed.
type stuckError struct{ told error }

func (e *stuckError) Error() string {
	return "the network is stuck within one of its nodes: " + e.told.Error()
}
func (e *stuckError) Unwrap() error { return e.told }

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	d := &detector{w: w, cfg: cfg, gate: newGate(cfg)}
	if d.out, err = w.PublishDetections(); err != nil {
		return err
	}
	if d.frames, err = w.Frames(cfg.Pins()); err != nil {
		return err
	}
	if err := awaitRuntime(ctx, w, cfg); err != nil {
		return err
	}
	var n *network
	if err := patiently(ctx, w, time.Hour, func(ctx context.Context) (err error) { n, err = openNetwork(ctx, cfg); return }); err != nil {
		return err
	}
	d.network = n
	defer func() {
		if stuck := (*stuckError)(nil); !errors.As(err, &stuck) {
			err = errors.Join(err, d.close())
		}
	}()
	w.Trouble(nil)
	w.Log.Info("model", "model", cfg.Model, "family", n.layout.Family, "input", n.in.String(), "classes", len(n.labels),
		"runtime", n.runtime.Version())
	d.status("")
	w.Ready(ctx)
	return d.look(ctx)
}

// status says what the model is; more is added to that.
func (d *detector) status(more string) {
	classes := "1 class"
	if n := len(d.network.labels); n != 1 {
		classes = fmt.Sprintf("%d classes", n)
	}
	d.w.Status("%s, %s, %s, at most %g Hz%s", d.cfg.Model, d.network.layout.Size, classes, d.cfg.MaxHz, more)
}

// awaitRuntime waits until there is a library, if that is what is to be done.
func awaitRuntime(ctx context.Context, w *worker.Worker, cfg Config) error {
	for waited := false; cfg.Without == Await; waited = true {
		_, err := onnx.Find(cfg.Library)
		if err == nil {
			return nil
		}
		w.Trouble(err)
		if !waited {
			w.Status("waiting for ONNX Runtime")
			w.Ready(ctx) // the rest of the fleet need not wait
		}
		if err := w.Wait(ctx, time.Now().Add(again)); err != nil {
			return err
		}
	}
	return nil
}

// detector looks at frames.
type detector struct {
	w       *worker.Worker
	cfg     Config
	network *network
	gate    *gate
	frames  *worker.FrameInbox
	out     *msg.DetectionStream
	jpeg    *turbojpeg.Decoder
	limit   pixel.Size // of the jpeg decoder
	decoded []byte
	seen    []msg.Object // when the model looked last
	quiet   quiet
}

// look looks at the newest frame, again and again, at most max_hz times a second.
func (d *detector) look(ctx context.Context) error {
	pause := time.Duration(float64(time.Second) / d.cfg.MaxHz)
	ended := false // the stream: then to see no frame is no trouble
	for next := time.Now(); ; {
		if err := d.frames.Wait(ctx, next); err != nil {
			return err
		}
		frame, ok, err := d.frames.Newest(ctx, time.Now().Add(silence))
		if err != nil && !errors.Is(err, msg.ErrEnded) {
			return err
		}
		ended = errors.Is(err, msg.ErrEnded) || ended && !ok
		switch {
		case ended:
			d.w.Trouble(nil)
			continue
		case !ok:
			d.w.Trouble(noFrame(d.frames))
			continue
		}
		// From the tick, so that the rate is kept; when late, from now.
		if next = next.Add(pause); time.Since(next) > 0 {
			next = time.Now()
		}
		if err := d.see(ctx, frame); err != nil {
			return err
		}
	}
}

func noFrame(frames *worker.FrameInbox) error {
	if why := frames.Waiting(); why != nil {
		return fmt.Errorf("no new frame: %w", why)
	}
	return fmt.Errorf("no new frame for %s", silence)
}

// see looks at one frame and says what is in it. A frame that is no picture is
// trouble; what else fails ends the worker.
func (d *detector) see(ctx context.Context, frame msg.Frame) error {
	d.w.Gauge("frame_age_ms", milliseconds(d.w.Now().Boot-frame.Stamp.Boot))
	begun := time.Now()
	still, err := d.take(frame)
	frame.Release()
	if err != nil {
		d.w.Counter("bad_frames").Add(1)
		d.w.Trouble(fmt.Errorf("frame %d: %w", frame.Seq, err))
		return nil
	}
	d.w.Gauge("preprocess_ms", milliseconds(time.Since(begun)))
	if still {
		d.w.Counter("frames_still").Add(1)
		return d.publish(frame, "still")
	}
	used := cpuTime()
	begun = time.Now()
	if err := patiently(ctx, d.w, d.cfg.Deadline.D(), d.network.run); err != nil {
		return err
	}
	d.w.Gauge("inference_ms", milliseconds(time.Since(begun)))
	d.w.Counter("inference_cpu_us").Add(int((cpuTime() - used).Microseconds()))
	begun = time.Now()
	objects, err := d.network.objects()
	if err != nil {
		return err
	}
	seen := d.network.decoder.Seen()
	if err := seen.Err(); err != nil {
		// Not published: that nothing was found is not known of this frame.
		d.w.Counter("bad_outputs").Add(1)
		d.w.Trouble(fmt.Errorf("frame %d: %w", frame.Seq, err))
		return nil
	}
	d.seen = d.named(objects)
	d.listen(frame.Stamp.Boot, seen)
	d.w.Counter("frames_seen").Add(1)
	d.w.Counter("objects").Add(len(d.seen))
	err = d.publish(frame, "")
	d.w.Gauge("postprocess_ms", milliseconds(time.Since(begun)))
	return err
}

// listen reports once when the model seems to be unable to find anything.
func (d *detector) listen(at time.Duration, seen yolo.Seen) {
	reported := d.quiet.reported
	if d.quiet.add(at, d.gate.change, len(d.seen), d.cfg.MinScore, seen) {
		d.w.Log.Warn(d.quiet.report(d.network, d.cfg.MinScore))
		d.status("; it has found nothing yet: see the log")
	} else if reported && len(d.seen) > 0 {
		d.quiet = quiet{found: true}
		d.status("")
	}
}

// take brings a frame into the network's input, unless nothing has moved in it.
func (d *detector) take(frame msg.Frame) (still bool, err error) {
	img, err := d.image(frame)
	if err != nil {
		return false, err
	}
	if d.cfg.Gate == GateMotion || d.quiet.watching() {
		still, err = d.gate.still(img, frame.Stamp.Boot)
		if err != nil || still && d.cfg.Gate == GateMotion {
			return still, err
		}
	}
	return false, d.network.take(img)
}

// image is the frame as a picture: in place, or decoded once.
func (d *detector) image(frame msg.Frame) (img pixel.Image, err error) {
	if frame.Format != string(pixel.MJPEG) {
		return frame.Image()
	}
	size := pixel.Size{Width: frame.Width, Height: frame.Height}
	if d.jpeg == nil || d.limit != size {
		if d.jpeg != nil {
			err = d.jpeg.Close()
			d.jpeg = nil
		}
		if err == nil {
			d.jpeg, err = turbojpeg.NewDecoder(size)
		}
		if err != nil {
			return img, err
		}
		d.limit, d.decoded = size, make([]byte, turbojpeg.DecodedBytes(size))
	}
	img, err = d.jpeg.Decode(frame.Bytes(), d.decoded)
	img.Colour = frame.Colour() // JFIF's, unless the camera is known for another
	return img, err
}

// named are objects as they are told: places to a tenth of a pixel, scores to four digits.
func (d *detector) named(objects []yolo.Object) []msg.Object {
	list := make([]msg.Object, len(objects))
	for i, o := range objects {
		list[i] = msg.Object{Label: d.network.labels[o.Class], Score: rounded(o.Score, 10000)}
		for j, v := range o.Box {
			list[i].Box[j] = rounded(v, 10)
		}
	}
	return list
}

// publish says what is in a frame. It was the newest: nothing older will come.
func (d *detector) publish(frame msg.Frame, why string) error {
	_, source, _, err := d.frames.Topic().Split()
	if err != nil {
		return err
	}
	_, err = d.out.Publish(frame.Stamp, msg.Detection{FrameSource: source, FrameEpoch: frame.Epoch, FrameSeq: frame.Seq,
		FrameTime: msg.Time{Time: frame.Stamp.Wall}, FrameBootNS: int64(frame.Stamp.Boot), CoveredUntil: int64(frame.Stamp.Boot),
		Objects: d.seen, Gate: why})
	if err == nil {
		d.w.Trouble(nil)
	}
	return err
}

func (d *detector) close() error {
	err := d.network.close()
	if d.jpeg != nil {
		err = errors.Join(err, d.jpeg.Close())
	}
	return err
}

// patiently does something long, and shows meanwhile that the worker is alive.
// When it takes longer than limit, or ctx is done, it is told to stop; when it
// does not within grace, it is left running and the error is a *stuckError.
func patiently(ctx context.Context, w *worker.Worker, limit time.Duration, do func(context.Context) error) error {
	late := fmt.Errorf("the network runs for more than %s: see deadline", limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	tick := time.NewTicker(step)
	defer tick.Stop()
	told := ctx.Done()
	var giveUp <-chan time.Time
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			w.Progress()
		case <-told:
			told, giveUp = nil, time.After(grace)
		case <-giveUp:
			return &stuckError{context.Cause(ctx)}
		}
	}
}

// cpuTime is what the whole process has taken, so that it holds for any number
// of threads: while the network runs, there is little else.
func cpuTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0 // no kernel that we run on is without it
	}
	return time.Duration(ts.Nano())
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
