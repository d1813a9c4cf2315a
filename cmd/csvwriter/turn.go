package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/msg"
)

// journal is what csvwriter knows of its files across its own death: which
// one each stream is written to, and which one is being completed.
type journal struct {
	Version int     `json:"v"`
	Open    []draft `json:"open"`
	Ending  []draft `json:"ending,omitempty"`
	Program string  `json:"program"`
}

func (b *book) journalName() string { return "work/" + b.w.Name() + ".journal" }

// turn begins the file of a reading, and ends the stream's file before it. The
// journal is written between the two: a kill at any moment loses neither.
func (b *book) turn(ctx context.Context, old *day, r *msg.Reading) (*day, error) {
	if old != nil {
		if err := b.keep(ctx); err != nil {
			return nil, err
		}
		if old = b.days[r.Topic()]; old != nil && !old.over(r) {
			return old, nil // a failed sync has begun another file already
		}
	}
	next := draft{Topic: r.Topic(), Columns: slices.Clone(r.Columns), First: sidecar.MomentOf(&r.Header)}
	if old != nil {
		next.Before = old.last
	}
	return b.begin(old, next)
}

// begin makes next the stream's file, and completes the one before.
func (b *book) begin(old *day, next draft) (*day, error) {
	next.ID = b.files.NewID(next.First)
	f, err := b.spool.Create(next.name())
	if err != nil {
		return nil, err
	}
	d := &day{draft: next, file: f, last: next.Before, waiting: []byte(next.head()), synced: time.Now()}
	if err := d.write(); err != nil {
		return nil, errors.Join(err, f.Close(), b.spool.Remove(next.name()))
	}
	b.days[next.Topic] = d
	var ending []draft
	if old != nil {
		ending = append(ending, old.draft)
	}
	if err := b.writeJournal(ending); err != nil {
		return nil, err
	}
	if old == nil {
		return d, nil
	}
	return d, b.end(old)
}

func (b *book) writeJournal(ending []draft) error {
	j := journal{Version: 1, Program: "csvwriter " + version.String(), Ending: ending}
	for _, d := range b.days {
		j.Open = append(j.Open, d.draft)
	}
	text, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return b.spool.WriteAtom(b.journalName(), append(text, '\n'))
}

// end completes a file, tells the bus, and strikes it from the journal.
func (b *book) end(d *day) error {
	defer d.file.Close()
	side, err := b.describe(d)
	if err != nil {
		return err
	}
	if err := b.spool.Complete(d.file, spool.Ready, side); err != nil {
		return err
	}
	if err := b.files.Announce(side); err != nil {
		return err
	}
	b.w.Counter("files").Add(1)
	b.w.Log.Info("file complete", "file", side.Name, "rows", side.Items, "bytes", side.Bytes)
	return b.writeJournal(nil)
}

// describe reads the file's own rows for its sidecar.
func (b *book) describe(d *day) (*sidecar.Sidecar, error) {
	rows, err := survey(d.file, &d.draft)
	if err != nil {
		return nil, err
	}
	side := b.files.Describe(d.ID, ".csv", "text/csv", d.Topic, d.First, rows.end, rows.count)
	side.History = []sidecar.Event{b.files.Event(string(spool.Ready), "the file's day is over")}
	return side, nil
}

// endIdle ends files whose day is over though no reading came to say so. It
// waits a little past midnight for readings of the old day.
func (b *book) endIdle() error {
	at := b.w.Now()
	at.Wall, at.Boot = at.Wall.Add(-idleEvery), at.Boot-idleEvery
	for topic, d := range b.days {
		if d.last == d.Before || !d.overAt(at, b.w.BootID()) {
			continue
		}
		next := draft{Topic: topic, Columns: d.Columns, Before: d.last,
			First: sidecar.Moment{Time: msg.Time{Time: at.Wall.Add(idleEvery)}, BootNS: int64(at.Boot + idleEvery), BootID: b.w.BootID(), Synced: at.Synced}}
		if _, err := b.begin(d, next); err != nil {
			return err
		}
	}
	return nil
}

// startOver writes the rows that a failed sync left in doubt to a new file,
// and ends the old one where it was last known to be good.
func (b *book) startOver(d *day) error {
	doubtful := append(slices.Clone(d.since), d.waiting...)
	last := d.last
	if err := d.file.Truncate(d.safe); err != nil {
		return fmt.Errorf("cut the file at its last good sync: %w", err)
	}
	next := d.draft
	rows, err := survey(d.file, &d.draft)
	if err != nil {
		return err
	}
	next.Before = rows.last
	fresh, err := b.begin(d, next)
	if err != nil {
		return err
	}
	fresh.waiting, fresh.last = append(fresh.waiting, doubtful...), last
	return nil
}

// restore takes up the files that an earlier run left open.
func (b *book) restore() error {
	text, err := b.spool.ReadAtom(b.journalName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var j journal
	if err := json.Unmarshal(text, &j); err != nil || j.Version != 1 {
		return fmt.Errorf("read journal %s of version %d in %s: %w; move it away to begin new files", b.journalName(), j.Version, b.spool.Dir(), err)
	}
	for _, d := range j.Open {
		if err := b.reopen(d); err != nil {
			return err
		}
	}
	for _, d := range j.Ending {
		if err := b.resumeEnding(d); err != nil {
			return err
		}
	}
	return b.dropUnbegun()
}

// dropUnbegun removes files that were made but never came into the journal:
// they have a head and no row.
func (b *book) dropUnbegun() error {
	names, err := b.spool.List(spool.Work, b.w.Name())
	if err != nil {
		return err
	}
	for _, name := range names {
		if slices.ContainsFunc(slices.Collect(maps.Values(b.days)), func(d *day) bool { return d.name() == name }) {
			continue
		}
		f, err := b.spool.Reopen(name)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 64<<10))
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("look into %s: %w", name, err)
		}
		if line := bytes.IndexByte(text, '\n'); line >= 0 && line < len(text)-1 {
			b.w.Log.Warn("a file with rows that is not in the journal is left alone", "file", name)
			continue
		}
		if err := b.spool.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// reopen goes on with a file after its last whole row.
func (b *book) reopen(known draft) error {
	f, err := b.spool.Reopen(known.name())
	if errors.Is(err, fs.ErrNotExist) {
		b.w.Log.Warn("an open file is gone", "file", known.name())
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := surveyTail(f, &known)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	d := &day{draft: known, file: f, last: rows.last, size: rows.size, safe: rows.size, synced: time.Now()}
	if rows.torn > 0 {
		b.w.Counter("repaired_files").Add(1)
		b.w.Counter("repaired_bytes").Add(int(rows.torn))
		b.w.Log.Warn("torn end cut off", "file", known.name(), "bytes", rows.torn)
		if err := f.Truncate(rows.size); err != nil {
			return errors.Join(fmt.Errorf("cut off a torn row: %w", err), f.Close())
		}
	}
	if rows.size == 0 { // not even its head was written
		d.waiting = []byte(known.head())
	}
	b.days[known.Topic] = d
	return nil
}

// resumeEnding completes a file whose completion was cut off. Where only the
// message is missing, it is sent again: its id tells receivers.
func (b *book) resumeEnding(known draft) error {
	f, err := b.spool.Reopen(known.name())
	if errors.Is(err, fs.ErrNotExist) {
		return b.announceAgain(known)
	}
	if err != nil {
		return err
	}
	return b.end(&day{draft: known, file: f})
}

func (b *book) announceAgain(known draft) error {
	side, err := b.spool.Sidecar(spool.Ready, known.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return b.writeJournal(nil) // it has gone on to a later state
	}
	if err != nil {
		return err
	}
	return errors.Join(b.files.Announce(side), b.writeJournal(nil))
}
