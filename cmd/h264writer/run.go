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
	found, err := working(ctx, w, cfg.Encoder)
	if err != nil {
		return err
	}
	a, err := openArchive(w, cfg)
	if err != nil {
		return err
	}
	go a.run(ctx)
	r := &recorder{w: w, cfg: cfg, archive: a, encoders: found,
		retry: &backoff.Backoff{First: 200 * time.Millisecond, Most: 30 * time.Second, Healthy: time.Minute}}
	// The last segment is closed when we are told to stop, too.
	defer func() { err = errors.Join(err, r.stop("the writer was told to stop"), a.close(w.Progress)) }()
	frames, err := w.Frames(cfg.Pins())
	if err != nil {
		return err
	}
	r.topic = frames.Topic()
	w.Status("segments of %s by %s into %s", cfg.Segment, found[0], a.spool.Dir())
	w.Ready(ctx)
	return r.record(ctx, frames)
}

// recorder is the work loop: from the ring's slots into ffmpeg.
type recorder struct {
	w        *worker.Worker
	cfg      Config
	topic    msg.Topic
	archive  *archive
	encoders []string // that may be used, the best first
	retry    *backoff.Backoff
	after    time.Time // when ffmpeg may be started again

	take  *take // nil when ffmpeg does not run
	count uint64
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
			r.w.TroubleWith(recording, err)
		}
	}
}

// add sends a frame to ffmpeg, starting one where that is needed. When one that
// made some video is gone, the frame goes to the next at once. Without an error
// the frame's lease is add's.
func (r *recorder) add(ctx context.Context, f msg.Frame) error {
	if why := r.differs(f); why != "" {
		if err := r.stop(why); err != nil {
			r.w.TroubleWith(recording, err)
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
			r.well()
			return nil
		}
		made, ran := r.take.made(), r.take.ran()
		err = r.take.fail(err)
		r.take = nil
		r.w.Counter("restarts").Add(1)
		r.w.TroubleWith(recording, err)
		if !made {
			r.next()
			r.pause(ran)
			return err
		}
		r.retry.Succeeded()
	}
}

// healthy is how long ffmpeg has to run for its predecessor's end to be no
// trouble any more.
const healthy = 2 * time.Second

// well forgets the trouble once ffmpeg has taken frames for a while.
func (r *recorder) well() {
	if ran := r.take.ran(); ran >= healthy {
		r.w.TroubleWith(recording, nil)
	}
}

// pause puts off the next start.
func (r *recorder) pause(ran time.Duration) { r.after = time.Now().Add(r.retry.Failed(ran)) }

// next gives up an encoder that a trial found working and the frames did not,
// where there is another.
func (r *recorder) next() {
	if len(r.encoders) > 1 {
		r.w.Log.Warn("trying another encoder", "failed", r.encoders[0], "next", r.encoders[1])
		r.encoders = r.encoders[1:]
	}
}

// differs says why a frame cannot go into the running video.
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
	}
	return ""
}

func (r *recorder) begin(ctx context.Context, f msg.Frame) error {
	r.count++
	name := fmt.Sprintf("%s_%s-%06d%s", r.w.Name(), r.w.Epoch(), r.count, reelSuffix)
	t, err := r.begun(ctx, name, f)
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
	recording = "recording"
	storing   = "storing"
)
