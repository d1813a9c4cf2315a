package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/msg"
)

// journal is what a later run must know and cannot see from the files themselves: which
// file each stream is written to, and which ones are being completed.
type journal struct {
	Version int     `json:"v"`
	Open    []draft `json:"open"`
	Ending  []draft `json:"ending,omitempty"`
	Program string  `json:"program"`
}

func (b *book) journalFile() string { return b.w.Name() + ".journal" }

func (b *book) journalName() string { return "work/" + b.journalFile() }

// freshenJournal writes the journal if it is out of date. Nothing is written to a file or
// taken from work/ before the journal names it, so a kill at any moment neither loses
// nor repeats a row.
func (b *book) freshenJournal() error {
	if !b.stale {
		return nil
	}
	j := journal{Version: 1, Program: "csvwriter " + version.String()}
	for _, d := range b.days {
		j.Open = append(j.Open, d.draft)
	}
	for _, d := range b.ending {
		j.Ending = append(j.Ending, d.draft)
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

// readJournal reads the journal. One that cannot be read is moved to quarantine/ and known
// is false: recording must not wait for a person, and the files can be read without it.
func (b *book) readJournal() (j journal, known bool, err error) {
	text, err := b.spool.ReadAtom(b.journalName())
	if errors.Is(err, fs.ErrNotExist) {
		return journal{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	if err == nil {
		err = j.check()
	}
	if err == nil {
		return j, true, nil
	}
	id := b.files.NewID(b.now())
	b.w.Counter("damaged_journals").Add(1)
	b.w.Log.Warn("cannot read the journal: moved to quarantine/ and rebuilt from the files", "err", err, "as", string(id)+".journal")
	b.notice(fmt.Errorf("cannot read the journal %s (%w): moved to quarantine/; its files are completed", b.journalName(), err))
	if err := b.spool.SetAsideAs(b.journalFile(), string(id)+".journal"); err != nil {
		return journal{}, false, fmt.Errorf("cannot read the journal %s, nor move it to quarantine/: %w", b.journalName(), err)
	}
	return journal{}, false, nil
}

// check refuses what no csvwriter has written: the drafts name files.
func (j *journal) check() error {
	if j.Version != 1 {
		return fmt.Errorf("version %d: want 1", j.Version)
	}
	for _, d := range slices.Concat(j.Open, j.Ending) {
		if err := d.ID.Check(); err != nil {
			return err
		}
	}
	return nil
}

// now is the present moment, as one of data.
func (b *book) now() sidecar.Moment {
	now := b.w.Now()
	return sidecar.Moment{Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: b.w.BootID(), Synced: now.Synced}
}

// restore resumes the files that an earlier run left.
func (b *book) restore() error {
	j, known, err := b.readJournal()
	if err != nil {
		return err
	}
	if err := b.finishSalvage(); err != nil {
		return err
	}
	for _, d := range j.Ending {
		b.ending = append(b.ending, &day{draft: d})
	}
	for _, d := range j.Open {
		if err := b.reopen(d); err != nil {
			return err
		}
	}
	return b.adoptStrays(known)
}

// finishSalvage gives a new file the name that it was made for, where nothing has
// it: an earlier run was killed in between, and the old file was removed.
func (b *book) finishSalvage() error {
	names, err := b.spool.List(spool.Work, b.w.Name())
	if err != nil {
		return err
	}
	for _, name := range names {
		to, ok := strings.CutSuffix(name, salvageExt)
		if !ok || slices.Contains(names, to+".csv") {
			continue
		}
		if err := b.spool.Replace(name, to+".csv"); err != nil {
			return err
		}
	}
	return nil
}

// reopen continues a file after its last whole row. If the file is missing, a new one
// takes its place: the journal says how far the stream was before it.
func (b *book) reopen(known draft) error {
	d, err := b.load(known)
	if errors.Is(err, fs.ErrNotExist) {
		b.w.Counter("damaged_files").Add(1)
		b.w.Log.Warn("open file is missing", "file", known.name())
		b.notice(fmt.Errorf("%s was removed while csvwriter was not running: its rows are recovered as far back as the publisher's history goes", known.name()))
		_, err = b.begin(nil, known)
		return err
	}
	if err != nil {
		return err
	}
	b.days[known.Topic] = d
	if d.Format == newFormat || d.damage != "" {
		return nil
	}
	if d.rows.len() == 0 { // only its head, if that
		b.ending = append(b.ending, d)
	} else {
		d.Over = "an earlier version of csvwriter began it"
	}
	next := draft{Topic: d.Topic, Columns: d.Columns, Before: d.last(), First: b.now()}
	if d.rows.len() > 0 {
		_, err = b.begin(d, next)
	} else {
		_, err = b.begin(nil, next)
	}
	return err
}

// load opens and reads a file of an earlier run, and cuts it after its last whole row.
func (b *book) load(known draft) (*day, error) {
	b.w.Progress()
	d := &day{draft: known, synced: b.started}
	f, err := b.spool.Reopen(known.name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, spool.ErrHeld) {
		d.damage = err.Error()
		if f, err = b.spool.OpenDamaged(known.name()); err != nil && !errors.Is(err, spool.ErrHeld) {
			b.w.Counter("quarantined_files").Add(1)
			b.w.Log.Warn("cannot open what has an open file's name: moved to quarantine/", "file", known.name(), "err", err)
			if err := b.spool.SetAsideAs(known.name(), known.damagedName()); err != nil {
				return nil, err
			}
			return nil, fs.ErrNotExist
		}
	}
	if err != nil {
		return nil, err
	}
	d.file = f
	c, err := scan(f, &known, b.w.Progress)
	if err == nil {
		d.rows, d.start, d.end, d.sum, d.missing = c.rows, c.start, c.end, c.sum, c.missing
		d.size, d.safe = c.size, c.size
		if d.damage == "" {
			d.damage = c.damaged
		}
		if d.damage == "" {
			err = b.cut(f, c)
		}
	}
	if err == nil && d.damage == "" {
		err = fdatasync(f) // what the earlier run had no time for
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d.watch.touched(f)
	return d, nil
}
