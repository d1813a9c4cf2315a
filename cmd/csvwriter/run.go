package main

import (
	"context"
	"errors"
	"time"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	b, err := openBook(w, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	in, err := w.Messages(b.cursor)
	if err != nil {
		return err
	}
	w.Status("writing to %s", b.spool.Dir())
	w.Ready(ctx)
	for {
		m, ok, err := in.Next(ctx, b.due())
		if err != nil {
			return errors.Join(err, b.settle())
		}
		if ok {
			err = b.take(ctx, m)
		} else {
			err = b.keep(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// book is the worker's open files, one a stream.
type book struct {
	w     *worker.Worker
	cfg   Config
	spool *spool.Spool
	files *worker.Files
	days  map[msg.Topic]*day
	idle  time.Time
}

// idleEvery is how often a file without new rows is looked at: its day may be over.
const idleEvery = 10 * time.Second

func openBook(w *worker.Worker, cfg Config) (*book, error) {
	dir := cfg.Dir
	if dir == "" {
		dir = w.Node().StoreDir
	}
	sp, err := spool.Open(dir, spool.Work, spool.Ready)
	if err != nil {
		return nil, err
	}
	b := &book{w: w, cfg: cfg, spool: sp, days: map[msg.Topic]*day{}, idle: time.Now().Add(idleEvery)}
	if b.files, err = w.PublishFiles(); err == nil {
		err = b.restore()
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *book) close() error {
	var errs []error
	for _, d := range b.days {
		errs = append(errs, d.file.Close())
	}
	return errors.Join(append(errs, b.spool.Close())...)
}

// cursor is the last row of a stream that is on disk.
func (b *book) cursor(topic msg.Topic) (msg.Cursor, bool) {
	d := b.days[topic]
	if d == nil || d.last == nil {
		return msg.Cursor{}, false
	}
	return *d.last, true
}

// take appends a reading to its stream's file.
func (b *book) take(ctx context.Context, m msg.Message) error {
	r, err := m.Reading()
	if err != nil {
		b.w.Counter("malformed_readings").Add(1)
		b.w.Log.Warn("skip reading", "err", err)
		return nil
	}
	d := b.days[r.Topic()]
	if d == nil || d.over(&r) {
		if d, err = b.turn(ctx, d, &r); err != nil {
			return err
		}
	}
	d.append(&r)
	b.w.Counter("rows").Add(1)
	if len(d.waiting) >= maxWaiting {
		return b.keep(ctx)
	}
	return nil
}

// due is when keep has something to do: at once where rows wait, since it is
// called only when no further message does.
func (b *book) due() time.Time {
	next := b.idle
	for _, d := range b.days {
		switch {
		case len(d.waiting) > 0:
			return time.Unix(1, 0)
		case d.unsynced() && d.synced.Add(time.Second).Before(next):
			next = d.synced.Add(time.Second)
		}
	}
	return next
}

// keep writes what waits, syncs what is due, and ends files whose day is over.
// A disk that fails is tried again each second, for as long as ctx lasts.
func (b *book) keep(ctx context.Context) error {
	for {
		err := b.keepOnce()
		b.w.Trouble(err)
		if err == nil {
			return nil
		}
		if err := b.w.Wait(ctx, time.Now().Add(time.Second)); err != nil {
			return err
		}
	}
}

// settle is the last word: everything written and synced, or an error.
func (b *book) settle() error {
	var errs []error
	for _, d := range b.days {
		if err := d.write(); err != nil {
			errs = append(errs, err)
		} else if d.unsynced() {
			errs = append(errs, b.sync(d, time.Now()))
		}
	}
	return errors.Join(errs...)
}

func (b *book) keepOnce() error {
	now := time.Now()
	for _, d := range b.days {
		if err := d.write(); err != nil {
			return err
		}
		if d.unsynced() && (b.cfg.Flush == Instant || now.Sub(d.synced) >= time.Second) {
			if err := b.sync(d, now); err != nil {
				return err
			}
		}
	}
	if now.After(b.idle) {
		b.idle = now.Add(idleEvery)
		return b.endIdle()
	}
	return nil
}

// sync makes rows durable. A sync that failed must not be trusted to a second
// one on the same file: the kernel marks the pages clean either way. So the
// rows since the last good one are written again, to a new file.
func (b *book) sync(d *day, now time.Time) error {
	err := d.sync(now)
	if err == nil {
		return nil
	}
	b.w.Counter("failed_syncs").Add(1)
	if again := b.startOver(d); again != nil {
		return errors.Join(err, again)
	}
	return err
}
