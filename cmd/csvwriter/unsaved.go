package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// Rows that could not be written to disk before the end of a run are kept in cache_dir
// for the next one: the publisher's history is shorter, and ends with the publisher. If
// the next run is killed before it has removed them there, the last row on disk tells
// the one after it which of them are already written.

// unsaved is the list of those files.
type unsaved struct {
	Version int     `json:"v"`
	Files   []draft `json:"files"`
}

func (b *book) unsavedName() string { return "work/" + b.w.Name() + ".unsaved" }

// keepUnsaved saves the rows that are not on disk. Its error says how many there are, and
// where they are.
func (b *book) keepUnsaved() error {
	rows, left := b.unsavedRows()
	if left.len() == 0 {
		return nil
	}
	b.w.Counter("unsaved_rows").Add(left.len())
	err := b.writeUnsaved(rows)
	if err != nil {
		b.w.Log.Error("rows are lost, except those that the publisher's history still has at the next start",
			"rows", left.len(), "numbers", left.text(), "err", err)
		return fmt.Errorf("%d rows are not on disk (seq %s) and cannot be kept for the next run: %w", left.len(), left.text(), err)
	}
	b.w.Log.Error("rows are not on disk: kept in cache_dir for the next start; a reboot loses them",
		"rows", left.len(), "numbers", left.text(), "dir", b.meter.cache.Dir())
	return fmt.Errorf("%d rows are not on disk (seq %s): kept in %s for the next start", left.len(), left.text(), b.meter.cache.Dir())
}

// unsavedRows returns the rows that only this process has, as if they were held.
func (b *book) unsavedRows() (rows []*day, all rowLog) {
	for _, d := range slices.Concat(b.orphans, b.ending, b.open(), b.held) {
		h := &day{draft: d.draft, waiting: d.waiting}
		if d.damage != "" && d.unlinked() {
			h = b.readOut(d)
		}
		if len(h.waiting) == 0 {
			continue
		}
		h.First = momentOf(h.waiting, &d.draft)
		for text := h.waiting; len(text) > 0; {
			line := text[:lineEnd(text)]
			if text = text[len(line):]; len(line) == 0 {
				break
			}
			if at, err := parseRow(line, len(h.Columns), h.Format); err == nil {
				all.add(cursorOf(at), sumOf(line))
			}
		}
		rows = append(rows, h)
	}
	return rows, all
}

// readOut reads the rows of an unlinked file.
func (b *book) readOut(d *day) *day {
	h := &day{draft: d.draft}
	old := &damaged{day: d}
	err := b.collect(d, old).each(func(_ msg.Cursor, line []byte) error {
		h.waiting = append(h.waiting, line...)
		return nil
	})
	if err != nil {
		b.w.Log.Warn("cannot read a removed file", "file", d.name(), "err", err)
	}
	h.waiting = append(h.waiting, d.waiting...)
	return h
}

func (b *book) writeUnsaved(rows []*day) error {
	cache := b.meter.cache
	if cache == nil {
		return errors.New("there is no cache_dir")
	}
	list := unsaved{Version: 1}
	for _, h := range rows {
		h.ID, h.Over, h.Notes = b.files.NewID(h.First), "", nil
		f, err := cache.Create(h.name())
		if err != nil {
			return err
		}
		_, err = f.WriteString(h.head() + string(h.waiting))
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return errors.Join(err, cache.Remove(h.name()))
		}
		list.Files = append(list.Files, h.draft)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return cache.WriteAtom(b.unsavedName(), append(text, '\n'))
}

// takeUnsaved holds the rows that an earlier run could not write. A run starts even if
// they cannot be read.
func (b *book) takeUnsaved() {
	cache := b.meter.cache
	if cache == nil {
		return
	}
	text, err := cache.ReadAtom(b.unsavedName())
	if errors.Is(err, fs.ErrNotExist) { // a run that was killed may have left files without their list
		names, err := cache.List(spool.Work, b.w.Name())
		b.unsaved = err == nil && len(names) > 0
		return
	}
	b.unsaved = true
	var list unsaved
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err == nil && list.Version != 1 {
		err = fmt.Errorf("version %d: want 1", list.Version)
	}
	for _, d := range list.Files {
		h, one := readUnsaved(cache, d)
		err = errors.Join(err, one)
		if h == nil || h.rows.len() == 0 {
			continue
		}
		b.w.Log.Info("resumed rows of an earlier run", "topic", d.Topic, "rows", h.rows.len())
		b.held, b.asked = append(b.held, h), append(b.asked, d.Topic)
	}
	if err != nil {
		b.w.Log.Error("cannot read rows of an earlier run", "err", err)
	}
}

func readUnsaved(cache *spool.Spool, d draft) (*day, error) {
	f, err := cache.Reopen(d.name())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := scan(f, &d, func() {})
	if err != nil {
		return nil, err
	}
	head := int64(len(d.head()))
	if c.damaged != "" || c.size < head {
		return nil, fmt.Errorf("%s: %s", d.name(), c.damaged)
	}
	text := make([]byte, c.size-head)
	if _, err := f.ReadAt(text, head); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	first := d.First
	h := &day{draft: draft{Topic: d.Topic, Columns: d.Columns, Format: d.Format, First: first}, waiting: text, rows: c.rows, start: c.start, end: c.end}
	return h, nil
}

// dropUnsaved removes the kept rows once they are on disk.
func (b *book) dropUnsaved() error {
	if !b.unsaved || len(b.held) > 0 {
		return nil
	}
	for _, d := range b.days {
		if d.unsynced() || len(d.waiting) > 0 || d.doubted {
			return nil
		}
	}
	cache := b.meter.cache
	names, err := cache.List(spool.Work, b.w.Name())
	if err != nil {
		return err
	}
	// The list goes first: files without one are nobody's.
	if err := cache.RemoveAtom(b.unsavedName()); err != nil {
		return err
	}
	for _, name := range names {
		err = errors.Join(err, cache.Remove(name))
	}
	b.unsaved = err != nil
	return err
}
