package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	encoders, err := findEncoders(ctx, w, cfg.Encoder)
	if err != nil {
		return err
	}
	a, err := openFiler(w, cfg)
	if err != nil {
		return err
	}
	r := &recorder{w: w, cfg: cfg, filer: a, encoders: encoders,
		retry: newRetry()}
	r.recordedEpoch, r.recordedEnd = a.recorded()
	a.start(ctx)
	defer encoders.trials.Wait() // they end with ctx
	// The last segment is closed when we are told to stop, too.
	defer func() { err = errors.Join(err, r.stop("the writer was told to stop"), a.close(w.Progress)) }()
	frames, err := w.Frames(cfg.Pins())
	if err != nil {
		return err
	}
	r.topic = frames.Topic()
	r.status()
	w.Ready(ctx)
	return r.record(ctx, frames)
}

// recorder is the work loop: from the ring's slots into ffmpeg.
type recorder struct {
	w        *worker.Worker
	cfg      Config
	topic    msg.Topic
	filer    *filer
	encoders *encoders
	retry    *backoff.Backoff
	after    time.Time // when ffmpeg may be started again

	// Frames of this run of the source before this one were recorded by an earlier
	// run of the writer: a reader that comes again begins with the newest frame.
	recordedEpoch msg.Epoch
	recordedEnd   msg.Seq

	take *take // nil when ffmpeg does not run
}

// maxPause is how long recording pauses at most before ffmpeg is started again.
const maxPause = 5 * time.Second

func newRetry() *backoff.Backoff {
	return &backoff.Backoff{First: 200 * time.Millisecond, Most: maxPause, Healthy: time.Minute}
}

// status sets the worker's status.
func (r *recorder) status() {
	r.w.Status("segments of %s by %s into %s", r.cfg.Segment, r.encoders.current(), r.filer.spool.Dir())
}

// record reads frames until ctx is done.
func (r *recorder) record(ctx context.Context, frames *worker.FrameInbox) error {
	silent := time.Time{} // when the source will have been silent for a segment's length
	for {
		if !r.after.IsZero() { // meanwhile the ring keeps what it can
			if err := r.w.Wait(ctx, r.after); err != nil {
				return err
			}
			r.after = time.Time{}
		}
		frame, ok, err := frames.Next(ctx, silent)
		switch {
		case errors.Is(err, msg.ErrEnded):
			err = r.stop("the source ended")
			silent = time.Time{}
		case err != nil:
			return err
		case !ok:
			err = r.stop(fmt.Sprintf("no frame for %s", r.cfg.Segment))
			silent = time.Time{}
		case frame.Epoch == r.recordedEpoch && frame.Seq < r.recordedEnd:
			frame.Release()
		default:
			if err = r.add(ctx, frame); err != nil {
				frame.Release()
			}
			silent = time.Now().Add(r.cfg.Segment.D())
		}
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.w.TroubleWith(whileRecording, err)
		}
	}
}

// add sends a frame to ffmpeg, starting one where that is needed. When one that
// made some video is gone, the frame goes to the next at once. Without an error
// the frame's lease is add's.
func (r *recorder) add(ctx context.Context, f msg.Frame) error {
	if why := r.differs(f); why != "" {
		if err := r.stop(why); err != nil {
			r.w.TroubleWith(whileRecording, err)
		}
	}
	list, bytes, err := parts(f)
	if err != nil {
		r.w.Counter("refused_frames").Add(1)
		return err
	}
	for {
		if r.take == nil {
			if err := r.begin(ctx, f); err != nil {
				r.pause(0)
				return err
			}
		}
		err = r.take.send(f, list, bytes)
		if err == nil {
			r.take.keep(f)
			r.w.Counter("frames").Add(1)
			r.well(ctx)
			return nil
		}
		made, ran := r.take.made(), r.take.ran()
		err = r.take.fail(err)
		r.take = nil
		r.w.Counter("restarts").Add(1)
		r.w.TroubleWith(whileRecording, err)
		if !made {
			r.failedEarly()
			r.pause(ran)
			return err
		}
		r.encoders.succeeded()
		r.retry.Succeeded()
	}
}

// healthy is how long ffmpeg has to run for its predecessor's end to be no
// trouble any more.
const healthy = 2 * time.Second

// well forgets the trouble once ffmpeg has taken frames for a while, and looks
// from time to time whether a better encoder works again.
func (r *recorder) well(ctx context.Context) {
	if r.take.ran() >= healthy {
		r.w.TroubleWith(whileRecording, nil)
		r.encoders.succeeded()
	}
	r.encoders.look(ctx, time.Now(), r.w.Log)
}

// pause puts off the next start.
func (r *recorder) pause(ran time.Duration) { r.after = time.Now().Add(r.retry.Failed(ran)) }

// failedEarly counts an ffmpeg that ended before its first fragment against the
// encoder.
func (r *recorder) failedEarly() {
	if from, to, changed := r.encoders.failed(time.Now()); changed {
		r.w.Log.Warn("trying another encoder for a while", "failed", from, "next", to, "for", encoderRetry.String())
		r.status()
	}
}

// differs returns why a frame cannot go into the running video.
func (r *recorder) differs(f msg.Frame) string {
	if r.take == nil {
		return ""
	}
	last := r.take.last
	switch {
	case f.Epoch != r.take.epoch:
		return "the source started again"
	case f.Stamp.Boot-last >= r.cfg.Segment.D():
		return fmt.Sprintf("no frame for %s", f.Stamp.Boot-last)
	case last-f.Stamp.Boot >= r.cfg.Segment.D():
		return "the frames' times went back"
	case r.take.border(f, r.cfg.Segment.D()) && r.encoders.better():
		return "a better encoder works again"
	}
	return ""
}

func (r *recorder) begin(ctx context.Context, f msg.Frame) error {
	if from, to, changed := r.encoders.improve(); changed {
		r.w.Log.Info("back to the better encoder", "from", from, "to", to)
		r.status()
	}
	t, err := r.begun(ctx, r.encoders.current(), f)
	if err != nil {
		return fmt.Errorf("begin a video: %w", err)
	}
	r.take = t
	return nil
}

// stop ends the running video, if there is one, with its last segment complete.
func (r *recorder) stop(why string) error {
	if r.take == nil {
		return nil
	}
	t := r.take
	r.take = nil
	if err := t.finish(why); err != nil {
		r.w.Counter("restarts").Add(1)
		return err
	}
	return nil
}

// What may be in trouble by itself.
const (
	whileRecording = "recording"
	whileStoring   = "storing"
	whileSyncing   = "syncing"
)
