package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/msg"
)

// journal is what csvwriter knows of its files across its own death: which
// one each stream is written to, and which ones are being completed.
type journal struct {
	Version int     `json:"v"`
	Open    []draft `json:"open"`
	Ending  []draft `json:"ending,omitempty"`
	Program string  `json:"program"`
}

func (b *book) journalName() string { return "work/" + b.w.Name() + ".journal" }

// freshenJournal writes the journal where it does not say what is so. Nothing
// is written to a file, or taken from work/, before the journal knows of it: so
// a kill at any moment loses no row and repeats none.
func (b *book) freshenJournal() error {
	if !b.stale {
		return nil
	}
	j := journal{Version: 1, Program: "csvwriter " + version.String(), Ending: b.ending}
	for _, d := range b.days {
		j.Open = append(j.Open, d.draft)
	}
	text, err := json.Marshal(j)
	if err == nil {
		err = b.spool.WriteAtom(b.journalName(), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	b.stale = false
	return nil
}

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
		next := draft{Topic: topic, Columns: d.Columns, Before: d.last,
			First: sidecar.Moment{Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: b.w.BootID(), Synced: now.Synced}}
		if _, err := b.begin(d, next); err != nil {
			return err
		}
	}
	return nil
}

// begin makes next the stream's file, and the one before an ending one. All
// that is wanted of that one is on disk.
func (b *book) begin(old *day, next draft) (*day, error) {
	next.ID, next.Over = b.files.NewID(next.First), ""
	f, err := b.spool.Create(next.name())
	if err != nil {
		return nil, err
	}
	d := &day{draft: next, file: f, last: next.Before, synced: time.Now()}
	b.days[next.Topic], b.stale = d, true
	if old != nil {
		old.file.Close()
		b.ending, b.endAt = append(b.ending, old.draft), atOnce()
	}
	return d, nil
}

// startOver takes the rows that a failed sync left in doubt to a new file, and
// ends the old one where it was last known to be good.
func (b *book) startOver(d *day) (*day, error) {
	if err := d.file.Truncate(d.safe); err != nil {
		return nil, fmt.Errorf("cut the file at its last good sync: %w", err)
	}
	rows, err := surveyTail(d.file, &d.draft)
	if err != nil {
		return nil, err
	}
	d.Over = "the disk failed to sync it"
	next := d.draft
	next.Before = rows.last
	fresh, err := b.begin(d, next)
	if err != nil {
		return nil, err
	}
	fresh.waiting, fresh.last = append(slices.Clone(d.since), d.waiting...), d.last
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
	b.ending = slices.DeleteFunc(b.ending, func(d draft) bool {
		err := b.end(d)
		errs = append(errs, err)
		b.stale = b.stale || err == nil
		return err == nil
	})
	return errors.Join(append(errs, b.freshenJournal())...)
}

// end completes a file and tells the bus. It goes on wherever an earlier try,
// perhaps of an earlier run, was cut off: where only the message is missing,
// it is sent again, and its id tells receivers.
func (b *book) end(d draft) error {
	f, err := b.spool.Reopen(d.name())
	if errors.Is(err, fs.ErrNotExist) {
		return b.announceAgain(d)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b.w.Progress()
	rows, err := survey(f, &d)
	switch {
	case err != nil:
		return err
	case rows.damaged:
		return b.setAside(d)
	case rows.count == 0:
		return b.spool.Discard(d.name(), spool.Ready)
	}
	if err := b.cut(f, rows); err != nil {
		return err
	}
	b.w.Progress()
	side := b.files.Describe(d.ID, ".csv", "text/csv", d.Topic, rows.start, rows.end, rows.count)
	side.History = []sidecar.Event{b.files.Event(string(spool.Ready), d.Over)}
	err = b.spool.Complete(f, spool.Ready, side)
	if errors.Is(err, spool.ErrDamaged) { // a sync failed, and cost some of it
		return b.setAside(d)
	}
	if err != nil {
		return err
	}
	b.w.Counter("files").Add(1)
	b.w.Log.Info("file complete", "file", side.Name, "rows", side.Items, "bytes", side.Bytes)
	return b.files.Announce(side)
}

func (b *book) announceAgain(d draft) error {
	side, err := b.spool.Sidecar(spool.Ready, d.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has gone on to a later state
	}
	if err != nil {
		return err
	}
	return b.files.Announce(side)
}

// setAside puts away a file that is not what was written: it is for a person
// to look at, and no reason to stop.
func (b *book) setAside(d draft) error {
	b.w.Counter("quarantined_files").Add(1)
	b.w.Log.Warn("a file is not what was written: moved to quarantine/", "file", d.name())
	return b.spool.SetAside(d.name())
}

// cut ends a file at its last whole row.
func (b *book) cut(f *os.File, rows contents) error {
	if rows.torn == 0 {
		return nil
	}
	if err := f.Truncate(rows.size); err != nil {
		return fmt.Errorf("cut off a torn row: %w", err)
	}
	b.w.Counter("repaired_files").Add(1)
	b.w.Counter("repaired_bytes").Add(int(rows.torn))
	b.w.Log.Warn("torn end cut off", "file", f.Name(), "bytes", rows.torn)
	return nil
}

// restore takes up the files that an earlier run left.
func (b *book) restore() error {
	text, err := b.spool.ReadAtom(b.journalName())
	if errors.Is(err, fs.ErrNotExist) {
		return b.dropUnbegun()
	}
	if err != nil {
		return err
	}
	var j journal
	if err = json.Unmarshal(text, &j); err == nil && j.Version != 1 {
		err = fmt.Errorf("version %d: want 1", j.Version)
	}
	if err != nil {
		return fmt.Errorf("read journal %s in %s: %w; move it away to begin new files", b.journalName(), b.spool.Dir(), err)
	}
	b.ending = j.Ending
	for _, d := range j.Open {
		b.w.Progress()
		if err := b.reopen(d); err != nil {
			return err
		}
	}
	return b.dropUnbegun()
}

// reopen goes on with a file after its last whole row. Should the file be gone
// or be another, a new one takes its place: the journal still knows where the
// stream was before it.
func (b *book) reopen(known draft) error {
	f, err := b.spool.Reopen(known.name())
	if errors.Is(err, fs.ErrNotExist) {
		b.w.Log.Warn("an open file is gone", "file", known.name())
		_, err = b.begin(nil, known)
		return err
	}
	if err != nil {
		return err
	}
	rows, err := surveyTail(f, &known)
	if err == nil && rows.damaged {
		known.Before = rows.last
		_, again := b.begin(nil, known)
		return errors.Join(b.setAside(known), again, f.Close())
	}
	if err == nil {
		err = b.cut(f, rows)
	}
	if err == nil {
		err = fdatasync(f) // what the earlier run had no time for
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	b.days[known.Topic] = &day{draft: known, file: f, last: rows.last, size: rows.size, safe: rows.size, synced: time.Now()}
	return nil
}

// dropUnbegun removes files that were made but never came into the journal:
// they have no row.
func (b *book) dropUnbegun() error {
	names, err := b.spool.List(spool.Work, b.w.Name())
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, d := range b.days {
		known[d.name()] = true
	}
	for _, d := range b.ending {
		known[d.name()] = true
	}
	for _, name := range names {
		if known[name] {
			continue
		}
		empty, err := b.hasNoRow(name)
		switch {
		case err != nil:
			return err
		case !empty:
			b.w.Log.Warn("a file with rows that is not in the journal is left alone", "file", name)
		default:
			if err := b.spool.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *book) hasNoRow(name string) (bool, error) {
	f, err := b.spool.Reopen(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	return err == nil && st.Size() == 0, err
}
