package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
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
	if b.in, err = w.Messages(b.cursor); err != nil {
		return err
	}
	w.Ready(ctx)
	for {
		m, ok, err := b.in.Next(ctx, b.due())
		if err == nil && ok {
			err = b.take(ctx, m)
		} else if err == nil {
			b.keep()
		}
		if err != nil {
			if left := b.settle(); left != nil {
				err = errors.Join(err, left, b.keepUnsaved())
			}
			return err
		}
	}
}

// book is the worker's files: one a stream that is written to, and those that
// are over and not yet complete.
type book struct {
	w      *worker.Worker
	cfg    Config
	in     *worker.Inbox
	store  *spool.Store
	spool  *spool.Spool       // as the store last opened it; nil while it is absent
	blind  bool               // no disk has been there yet to say what it has
	asked  []msg.Topic        // streams that were asked for all meanwhile
	marks  map[msg.Topic]mark // what a disk turned out to have of these
	meter  *meter
	files  *worker.Files
	days   map[msg.Topic]*day
	held   []*day // rows that have no file yet, of each stream the oldest first
	ending []*day
	endErr error // why they are not complete
	stale  bool  // the journal does not say what days and ending do

	salvages map[msg.Topic]pace
	orphans  []*day // files that were removed together with their folder

	adopted   []*day             // files in ending whose journal is lost
	bound     map[msg.Topic]bool // streams that were compared with them
	bindUntil time.Time

	unsaved bool // rows of an earlier run are in cache_dir

	started  time.Time
	noticed  time.Time // when a damaged file was last reported
	checkAt  time.Time // when the open files are compared with what was written
	checking bool      // they are, this time
	retry    time.Time // when the disk is tried again; zero when it is well
	endAt    time.Time // when the ending files are, again
	idle     time.Time // when files without new rows are looked at
}

const (
	// retryEvery is how often a disk that fails is tried again.
	retryEvery = time.Second
	// idleEvery is how often a file without new rows is looked at: its day may be over.
	idleEvery = 10 * time.Second
)

// atOnce is a moment that has passed.
func atOnce() time.Time { return time.Unix(1, 0) }

func openBook(w *worker.Worker, cfg Config) (*book, error) {
	n, dir := w.Node(), cfg.Dir
	if dir == "" {
		dir = n.StoreDir
	}
	b := &book{w: w, cfg: cfg, store: spool.NewStore(dir, n.MountOf(dir), spool.Work, spool.Ready), blind: true, meter: openMeter(w),
		marks: map[msg.Topic]mark{}, bound: map[msg.Topic]bool{}, salvages: map[msg.Topic]pace{}, started: time.Now(), checkAt: atOnce(), days: map[msg.Topic]*day{}, endAt: atOnce(), idle: time.Now().Add(idleEvery)}
	var err error
	if b.files, err = w.PublishFiles(); err == nil {
		b.takeUnsaved()
		err = b.openStore()
	}
	if errors.Is(err, spool.ErrNotMounted) {
		b.keep() // says so
		return b, nil
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *book) close() error {
	b.meter.show(b.store.Written())
	var errs []error
	for _, d := range slices.Concat(b.open(), b.ending, b.orphans) {
		if d.file != nil {
			errs = append(errs, d.file.Close())
		}
	}
	return errors.Join(append(errs, b.store.Close(), b.meter.close())...)
}

// cursor is the last row of a stream that is on disk, or held. The zero cursor
// asks for all that there is.
func (b *book) cursor(topic msg.Topic) (msg.Cursor, bool) {
	d := b.lastHeld(topic)
	if d == nil {
		d = b.days[topic]
	}
	if d == nil || d.last() == nil {
		if b.blind {
			b.asked = append(b.asked, topic)
		}
		return msg.Cursor{}, b.blind || len(b.adopted) > 0
	}
	return *d.last(), true
}

// take appends a reading to its stream's file.
func (b *book) take(ctx context.Context, m msg.Message) error {
	r, err := m.Reading()
	if err != nil {
		b.w.Counter("malformed_readings").Add(1)
		b.w.Log.Warn("skip reading", "err", err)
		return nil
	}
	if err := b.bind(&r); err != nil {
		return err
	}
	if !b.isNew(r.Topic(), msg.Cursor{Epoch: r.Epoch, Seq: r.Seq}, r.BootID) {
		return nil
	}
	d := b.days[r.Topic()]
	if d == nil || b.lastHeld(r.Topic()) != nil || d.over(r.Columns, r.Stamp(), r.BootID) != "" {
		b.hold(&r)
	} else {
		d.append(&r)
	}
	b.w.Counter("rows").Add(1)
	switch waiting := b.waiting(); {
	case waiting >= maxHeld:
		return b.insist(ctx)
	case waiting >= maxWaiting:
		b.keep()
	}
	return nil
}

// due is when keep has something to do: at once where rows wait, since it is
// called only when no further message does.
func (b *book) due() time.Time {
	if !b.retry.IsZero() {
		return b.retry
	}
	next := b.idle
	if len(b.ending) > 0 && b.endAt.Before(next) {
		next = b.endAt
	}
	if len(b.held) > 0 {
		return atOnce()
	}
	for _, d := range b.days {
		switch {
		case b.stale || d.doubted || d.damage != "" || len(d.waiting) > 0:
			return atOnce()
		case d.unsynced() && d.synced.Add(time.Second).Before(next):
			next = d.synced.Add(time.Second)
		}
	}
	if len(b.orphans) > 0 {
		return atOnce()
	}
	if len(b.days) > 0 && b.checkAt.Before(next) {
		next = b.checkAt
	}
	return next
}

// keep writes what waits, syncs what is due, and ends files whose day is over.
func (b *book) keep() {
	now := time.Now()
	if now.Before(b.retry) {
		return
	}
	if b.checking = !now.Before(b.checkAt); b.checking {
		b.checkAt = now.Add(checkEvery)
	}
	err := b.work(false)
	if err == nil && b.checking {
		err = errors.Join(b.checkJournal(), b.dropUnsaved())
	}
	if !b.noticed.IsZero() && now.Sub(b.noticed) > noticeFor {
		b.w.TroubleWith("file", nil)
		b.noticed = time.Time{}
	}
	b.settleAdopted(now)
	if err == nil && !now.Before(b.idle) {
		b.idle = now.Add(idleEvery)
		b.meter.save()
		err = b.turnIdle()
	}
	if b.retry = (time.Time{}); err != nil {
		b.retry = now.Add(retryEvery)
	}
	b.meter.show(b.store.Written())
	b.w.Gauge("waiting_bytes", float64(b.waiting()))
	if b.spool != nil && !now.Before(b.endAt) {
		if b.endErr = b.endAll(); b.endErr != nil {
			b.endAt = now.Add(idleEvery)
		} else if len(b.adopted) > 0 {
			b.endAt = b.bindUntil
		}
	}
	b.w.Trouble(errors.Join(err, b.endErr))
}

// insist tries until all rows are written, for as long as ctx lasts. Nothing is
// read meanwhile; what is published waits in the sensor's history.
func (b *book) insist(ctx context.Context) error {
	for {
		b.w.Gauge("waiting_bytes", float64(b.waiting()))
		b.checking = true
		err := b.work(false)
		b.w.Trouble(errors.Join(err, b.endErr))
		if err == nil {
			return nil
		}
		if stop := b.w.Wait(ctx, time.Now().Add(retryEvery)); stop != nil {
			return errors.Join(stop, err)
		}
	}
}

// settle is the last word: everything written and synced, or an error. It is
// tried twice, since a sync that fails leaves rows to be written anew. Files
// that are over are completed by the next run.
func (b *book) settle() error {
	if b.work(true) == nil {
		return nil
	}
	if err := b.work(true); b.spool != nil || b.waiting() > 0 || len(b.orphans) > 0 {
		return err
	}
	return nil // the disk is absent, and has all rows
}

// work brings to disk what can be brought there. A stream that fails does not
// keep the others from it.
func (b *book) work(all bool) error {
	if err := b.openStore(); err != nil {
		return fmt.Errorf("rows wait in RAM: %w", err)
	}
	lost := b.salvageOrphans()
	failed := b.place()
	for topic, d := range b.days {
		if failed[topic] == nil {
			_, failed[topic] = b.secure(d, all)
		}
	}
	return errors.Join(append(slices.Collect(maps.Values(failed)), lost)...)
}

// checkJournal writes the journal again if somebody removed it.
func (b *book) checkJournal() error {
	if len(b.days) == 0 {
		return nil
	}
	_, err := b.spool.Stat(spool.Work, b.journalFile())
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.stale = true
	return b.freshenJournal()
}

// secure writes the rows that wait, and syncs where that is due, or all is
// asked for. First the journal must know the file. It returns the stream's file
// as it is after that.
//
// A sync that failed must not be trusted to a second one on the same file: the
// kernel marks the pages clean either way (fsync(2)). So the next try writes
// the rows since the last good one again, to a new file.
func (b *book) secure(d *day, all bool) (_ *day, err error) {
	switch {
	case d.damage != "": // of an earlier run
	case d.doubted: // its contents say nothing
		d, err = b.startOver(d)
	case all || b.checking || len(d.waiting) > 0 && d.resized():
		d.damage, err = b.inspect(d)
	}
	if err == nil && d.damage != "" {
		d, err = b.salvage(d)
	}
	if err != nil {
		return nil, err
	}
	if err := b.freshenJournal(); err != nil {
		return nil, err
	}
	before := d.size
	err = d.write()
	if b.meter.rows += d.size - before; err != nil {
		return nil, err
	}
	now := time.Now()
	if !d.unsynced() || (!all && b.cfg.Flush == OneASecond && now.Sub(d.synced) < time.Second) {
		return d, nil
	}
	if err := d.sync(now); err != nil {
		d.doubted = true
		b.w.Counter("failed_syncs").Add(1)
		return nil, err
	}
	return d, nil
}
