package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	a, err := openAlbum(w, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	frames, err := w.Frames(cfg.Pins())
	if err != nil {
		return err
	}
	a.topic = frames.Topic()
	w.Status("a picture every %s into %s", cfg.Every, a.spool.Dir())
	w.Ready(ctx)
	// The first picture is of the first frame; the ticks count from there.
	for begun := false; !begun; {
		if begun, err = a.shoot(ctx, frames, time.Now().Add(min(cfg.Every.D(), 10*time.Second))); err != nil {
			return err
		}
	}
	for tick := time.Now(); ; {
		tick = tick.Add(cfg.Every.D())
		if late := time.Since(tick); late > 0 {
			missed := late / cfg.Every.D()
			w.Counter("missed_ticks").Add(int(missed))
			tick = tick.Add(missed * cfg.Every.D())
		}
		if err := a.wait(ctx, frames, tick); err != nil {
			return err
		}
		if _, err := a.shoot(ctx, frames, tick); err != nil {
			return err
		}
	}
}

// shoot makes a picture of the newest frame there is, or comes until then, and
// reports whether there was one.
func (a *album) shoot(ctx context.Context, frames *worker.FrameInbox, until time.Time) (bool, error) {
	frame, ok, err := frames.Newest(ctx, until)
	if errors.Is(err, msg.ErrEnded) { // its next run may be there already
		frame, ok, err = frames.Newest(ctx, until)
	}
	if err != nil && !errors.Is(err, msg.ErrEnded) {
		return false, err
	}
	if !ok {
		a.w.Counter("ticks_without_frame").Add(1)
		if a.ended = a.ended || err != nil; a.ended {
			a.tell(nil)
		} else {
			a.tell(noFrame(frames))
		}
		return false, nil
	}
	a.ended = false
	age := a.w.Now().Boot - frame.Stamp.Boot
	a.w.Gauge("frame_age_ms", float64(age.Microseconds())/1000)
	if err := a.add(frame); err != nil {
		a.w.Counter("lost_pictures").Add(1)
		a.tell(fmt.Errorf("picture lost: %w", err))
		return true, nil
	}
	a.w.Counter("pictures").Add(1)
	a.tell(nil)
	return true, nil
}

// wait waits for a tick. Meanwhile it tries again to announce what could not be.
func (a *album) wait(ctx context.Context, frames *worker.FrameInbox, tick time.Time) error {
	for len(a.notices.waiting) > 0 && time.Until(tick) > tellAgain {
		if err := frames.Wait(ctx, time.Now().Add(tellAgain)); err != nil {
			return err
		}
		a.tell(a.trouble)
	}
	return frames.Wait(ctx, tick)
}

func noFrame(frames *worker.FrameInbox) error {
	if why := frames.Waiting(); why != nil {
		return fmt.Errorf("no new frame: %w", why)
	}
	return errors.New("no new frame since the last picture")
}

// album is where pictures go.
type album struct {
	w       *worker.Worker
	cfg     Config
	spool   *spool.Spool
	latest  *spool.Claim
	files   *worker.Files
	notices notices
	trouble error // of the last tick
	encoder *turbojpeg.Encoder
	topic   msg.Topic
	picture []byte // reused
	decoded []byte // reused
	ended   bool   // the stream: then to see no frame is no trouble
}

func openAlbum(w *worker.Worker, cfg Config) (*album, error) {
	dir := cfg.Dir
	if dir == "" {
		dir = w.Node().CacheDir
	}
	sp, err := spool.Open(dir, spool.Work, spool.Born)
	if err != nil {
		return nil, err
	}
	a := &album{w: w, cfg: cfg, spool: sp}
	if err := a.open(); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *album) open() (err error) {
	if a.cfg.Latest != "" {
		if a.latest, err = a.spool.Claim(a.cfg.Latest); err != nil {
			return fmt.Errorf("give each jpegwriter a latest of its own: %w", err)
		}
	}
	if a.encoder, err = turbojpeg.NewEncoder(); err != nil {
		return err
	}
	if a.files, err = a.w.PublishFiles(); err != nil {
		return err
	}
	a.notices.announce = a.files.Announce
	removed, err := a.spool.RemoveUnfinished(a.w.Name(), spool.Born)
	a.w.Counter("unfinished_removed").Add(removed)
	return err
}

func (a *album) close() error {
	a.tellLast()
	var errs []error
	if a.latest != nil {
		errs = append(errs, a.latest.Release())
	}
	if a.encoder != nil {
		errs = append(errs, a.encoder.Close())
	}
	return errors.Join(append(errs, a.spool.Close())...)
}
