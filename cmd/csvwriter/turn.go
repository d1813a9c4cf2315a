package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// turnIdle turns files whose day is over though no reading came to say so. It
// waits a little past midnight for readings of the old day.
func (b *book) turnIdle() error {
	now := b.w.Now()
	past := msg.Stamp{Wall: now.Wall.Add(-idleEvery), Boot: now.Boot - idleEvery}
	for topic, d := range b.days {
		why := d.overAt(now, b.w.BootID())
		if d.empty() || why == "" || d.overAt(past, b.w.BootID()) == "" {
			continue
		}
		d, err := b.secure(d, true)
		if err != nil {
			return err
		}
		d.Over = why
		next := draft{Topic: topic, Columns: d.Columns, Before: d.last(), First: b.now()}
		if _, err := b.begin(d, next); err != nil {
			return err
		}
	}
	return nil
}

// begin makes next the stream's file, and the one before an ending one. All
// that is wanted of that one is on disk.
func (b *book) begin(old *day, next draft) (*day, error) {
	next.ID, next.Over, next.Format, next.Notes = b.files.NewID(next.First), "", newFormat, nil
	if err := b.spool.MakeStates(spool.Work); err != nil {
		return nil, err
	}
	f, err := b.spool.Create(next.name())
	if err != nil {
		return nil, err
	}
	d := &day{draft: next, file: f, sum: sha256.New(), synced: time.Now()}
	d.watch.touched(f)
	b.days[next.Topic], b.stale = d, true
	if old != nil {
		b.ending, b.endAt = append(b.ending, old), atOnce()
	}
	return d, nil
}

// startOver takes the rows that a failed sync left in doubt to a new file, and
// ends the old one where it was last known to be good.
func (b *book) startOver(d *day) (*day, error) {
	if err := d.file.Truncate(d.safe); err != nil {
		return nil, fmt.Errorf("cut the file at its last good sync: %w", err)
	}
	d.watch.touched(d.file)
	safe := d.rows.len() - countRows(d.since) - countRows(d.waiting)
	old := &day{draft: d.draft, file: d.file, rows: *d.rows.before(safe), start: d.start, size: d.safe, safe: d.safe, watch: watch{changed: d.watch.changed}}
	old.Over = "the disk failed to sync it"
	next := d.draft
	next.Before = old.last()
	fresh, err := b.begin(old, next)
	if err != nil {
		return nil, err
	}
	fresh.waiting = append(slices.Clone(d.since), d.waiting...)
	fresh.rows = *d.rows.from(safe)
	fresh.start, fresh.end = momentOf(fresh.waiting, &d.draft), d.end
	return fresh, nil
}

// endAll completes the files that are over. One that fails does not keep the
// others from it.
func (b *book) endAll() error {
	if len(b.ending) == 0 {
		return nil
	}
	if err := b.freshenJournal(); err != nil {
		return err
	}
	var errs []error
	for _, d := range slices.Clone(b.ending) {
		if slices.Contains(b.adopted, d) {
			continue // its stream is not known yet
		}
		d, err := b.end(d)
		if errs = append(errs, err); err != nil {
			continue
		}
		if d.file != nil {
			d.file.Close()
		}
		b.ending, b.stale = slices.DeleteFunc(b.ending, func(e *day) bool { return e == d }), true
	}
	return errors.Join(append(errs, b.freshenJournal())...)
}

// end completes a file and tells the bus. It goes on wherever an earlier try,
// perhaps of an earlier run, was cut off: where only the message is missing,
// it is sent again, and its id tells receivers. It returns the file as it is
// then: a damaged one is replaced.
func (b *book) end(d *day) (*day, error) {
	if d.file == nil {
		loaded, err := b.load(d.draft)
		if errors.Is(err, fs.ErrNotExist) {
			return d, b.announceAgain(d)
		}
		if err != nil {
			return d, err
		}
		*d = *loaded
	}
	b.w.Progress()
	if d.Topic == "" {
		d.Topic, b.stale = b.likelyTopic(), true
	}
	err := error(nil)
	if d.damage == "" {
		d.damage, err = b.inspect(d)
	}
	if err == nil && d.damage == "" && d.end == (sidecar.Moment{}) && d.rows.len() > 0 {
		err = b.findEnd(d)
	}
	if err != nil {
		return d, err
	}
	if d.damage == "" && d.rows.len() > 0 {
		err = b.complete(d)
		if !errors.Is(err, spool.ErrDamaged) {
			return d, err
		}
		d.damage = "its contents were changed"
	}
	if d.damage != "" {
		fresh, err := b.salvage(d)
		if err != nil {
			return d, err
		}
		if err := b.freshenJournal(); err != nil {
			return fresh, err
		}
		if fresh.rows.len() > 0 {
			return fresh, b.complete(fresh)
		}
		d = fresh
	}
	return d, b.spool.Discard(d.name(), spool.Ready)
}

// findEnd reads the last row's moment, and the hash of the whole, of a file that
// was cut.
func (b *book) findEnd(d *day) error {
	c, err := scan(d.file, &d.draft, b.w.Progress)
	if err != nil {
		return err
	}
	if c.rows.len() != d.rows.len() || c.torn > 0 {
		d.damage = "its rows were changed"
		return nil
	}
	d.start, d.end, d.sum = c.start, c.end, c.sum
	return nil
}

// complete moves a file whose rows are all on disk to ready/.
func (b *book) complete(d *day) error {
	side := b.files.Describe(d.ID, ".csv", csvMedia, d.Topic, d.start, d.end, uint64(d.rows.len()))
	for _, note := range d.Notes {
		side.Add(b.files.Event(string(spool.Work), note))
	}
	side.Add(b.files.Event(string(spool.Ready), d.Over))
	if d.sum != nil {
		side.SHA256 = hex.EncodeToString(d.sum.Sum(nil))
	}
	if err := b.spool.Complete(d.file, spool.Ready, side); err != nil {
		return err
	}
	b.w.Counter("files").Add(1)
	b.w.Log.Info("file complete", "file", side.Name, "rows", side.Items, "bytes", side.Bytes)
	return b.files.Announce(side)
}

const csvMedia = "text/csv"

func (b *book) announceAgain(d *day) error {
	side, err := b.spool.Sidecar(spool.Ready, d.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has gone on to a later state
	}
	if err != nil {
		return err
	}
	return b.files.Announce(side)
}

// cut ends a file at its last whole row.
func (b *book) cut(f *os.File, c contents) error {
	if c.torn == 0 {
		return nil
	}
	if err := f.Truncate(c.size); err != nil {
		return fmt.Errorf("cut off a torn row: %w", err)
	}
	b.w.Counter("repaired_files").Add(1)
	b.w.Counter("repaired_bytes").Add(int(c.torn))
	b.w.Log.Warn("torn end cut off", "file", f.Name(), "bytes", c.torn)
	return nil
}
