package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// hold keeps a row that has no file yet: its day has just begun, or the disk is
// not there. What is for one file is held together.
func (b *book) hold(r *msg.Reading) {
	h := b.lastHeld(r.Topic())
	if h == nil || h.over(r.Columns, r.Stamp(), r.BootID) != "" {
		h = &day{draft: draft{Topic: r.Topic(), Columns: slices.Clone(r.Columns), Format: newFormat, First: sidecar.MomentOf(&r.Header)}}
		b.held = append(b.held, h)
	}
	h.append(r)
}

// lastHeld is where the last rows are that are held of a stream; nil where none are.
func (b *book) lastHeld(topic msg.Topic) *day {
	for _, h := range slices.Backward(b.held) {
		if h.Topic == topic {
			return h
		}
	}
	return nil
}

// waiting is how many bytes of rows are not on disk.
func (b *book) waiting() (sum int) {
	for _, h := range b.held {
		sum += len(h.waiting)
	}
	for _, d := range b.days {
		sum += len(d.waiting)
	}
	for _, d := range b.orphans {
		sum += len(d.waiting)
	}
	return sum
}

// openStore takes the store up when its disk has come, and gives its files up when
// that has gone.
func (b *book) openStore() error {
	sp, err := b.store.Spool()
	if b.spool != nil && b.spool != sp {
		b.giveUp()
	}
	if err == nil && b.spool == nil {
		err = b.takeUp(sp)
	}
	if err != nil {
		b.w.Status("holding rows in RAM")
	}
	return err
}

// giveUp leaves the files on a disk that has gone. Of their rows those are held
// that are not known to be durable.
func (b *book) giveUp() {
	b.w.Log.Warn("the disk is gone", "dir", b.spool.Dir())
	var held []*day
	for _, d := range b.days {
		if d.unlinked() {
			d.damage = "it was removed, and its folder too"
			b.orphans = append(b.orphans, d)
			continue
		}
		d.waiting, d.since = append(d.since, d.waiting...), nil
		d.rows = *d.rows.from(d.rows.len() - countRows(d.waiting))
		if len(d.waiting) > 0 {
			d.start = momentOf(d.waiting, &d.draft)
		}
		held = append(held, d)
	}
	for _, d := range b.ending {
		if d.unlinked() && d.rows.len() > 0 {
			d.damage = "it was removed, and its folder too"
			b.orphans = append(b.orphans, d)
		}
	}
	b.held = append(held, b.held...)
	if b.store.Mount() == "" && len(held) > 0 { // with a mount the disk comes back, and the state says that it is away
		b.notice(fmt.Errorf("folder %s was replaced: rows written before that are in work/ of the old folder", b.spool.Dir()))
	}
	b.closeAll()
}

// unlinked says whether a file has no name any more, and all that it holds is
// lost when it is closed.
func (d *day) unlinked() bool {
	var st unix.Stat_t
	return d.file != nil && unix.Fstat(int(d.file.Fd()), &st) == nil && st.Nlink == 0
}

// countRows counts the rows of a text.
func countRows(text []byte) int { return bytes.Count(text, []byte("\n")) }

func lineEnd(text []byte) int { return bytes.IndexByte(text, '\n') + 1 }

// momentOf is the moment of a text's first row.
func momentOf(text []byte, d *draft) sidecar.Moment {
	at, err := parseRow(text[:lineEnd(text)], len(d.Columns), d.Format)
	if err != nil {
		return d.First
	}
	at.BootID = d.First.BootID
	return at
}

// closeAll closes the files, and knows of no disk any more.
func (b *book) closeAll() {
	for _, d := range slices.Concat(b.open(), b.ending) {
		if d.file != nil && !slices.Contains(b.orphans, d) {
			d.file.Close() // what is not synced is held, or lost with the disk
		}
	}
	b.spool, b.days, b.ending, b.endErr, b.stale = nil, map[msg.Topic]*day{}, nil, nil, false
	b.adopted = nil
}

// takeUp goes on with what is on a disk: the one that had gone, or another.
func (b *book) takeUp(sp *spool.Spool) error {
	b.spool = sp
	err := b.cutHeld()
	if err == nil {
		err = b.restore()
	}
	if err != nil {
		b.closeAll()
		return err
	}
	if b.blind {
		b.learn()
	}
	b.blind, b.endAt = false, atOnce()
	b.w.Status("writing to %s", sp.Dir())
	return nil
}

// cutHeld ends the files that were given up where they were last known to be
// good: the rows that follow are held.
func (b *book) cutHeld() error {
	for _, h := range b.held {
		if h.ID == "" {
			continue
		}
		if err := b.cutAt(h.name(), h.safe); err != nil && !errors.Is(err, fs.ErrNotExist) { // that is another disk
			return fmt.Errorf("cut the file at its last good sync: %w", err)
		}
	}
	return nil
}

func (b *book) cutAt(name string, size int64) error {
	f, err := b.spool.Reopen(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() <= size {
		return err
	}
	return f.Truncate(size)
}

// mark is the last row that a disk has of a stream which was asked for all that
// there is, since no disk was there to say what it has.
type mark struct {
	msg.Cursor
	boot string // of the row; "" where that is not known
}

// covers says whether a row is on the disk. Runs of one boot are ordered.
func (m mark) covers(row msg.Cursor, boot string) bool {
	return row.Epoch == m.Epoch && row.Seq <= m.Seq || row.Epoch < m.Epoch && boot == m.boot
}

// learn notes what a disk turns out to have, and drops that from what is held.
func (b *book) learn() {
	for _, topic := range b.asked {
		d := b.days[topic]
		if d == nil || d.last() == nil {
			continue
		}
		m := mark{Cursor: *d.last()}
		if d.rows.len() > 0 {
			m.boot = d.First.BootID // otherwise the row is one before the file
		}
		b.marks[topic] = m
	}
	b.held = slices.DeleteFunc(b.held, func(h *day) bool { return !b.goesBeyond(h) })
}

// goesBeyond drops the rows that the disk has, and says whether there are others.
func (b *book) goesBeyond(h *day) bool {
	dropped := 0
	defer func() { h.rows = *h.rows.from(dropped) }()
	for ; len(h.waiting) > 0; dropped++ {
		line := h.waiting[:lineEnd(h.waiting)]
		if at, err := parseRow(line, len(h.Columns), h.Format); err == nil && b.isNew(h.Topic, cursorOf(at), h.First.BootID) {
			at.BootID = h.First.BootID
			h.First, h.start = at, at
			return true
		}
		h.waiting = h.waiting[len(line):]
	}
	return false
}

// isNew says whether the disk does not have a row yet. What is missing between
// that and the first new one is lost.
func (b *book) isNew(topic msg.Topic, row msg.Cursor, boot string) bool {
	m, ok := b.marks[topic]
	if ok && m.covers(row, boot) {
		return false
	}
	if ok && row.Epoch == m.Epoch && row.Seq > m.Seq+1 {
		b.w.Counter("lost_rows").Add(int(row.Seq - m.Seq - 1))
	}
	delete(b.marks, topic) // rows come in order
	return true
}

// place gives what is held its files. Where that fails for a stream the others
// have theirs all the same. It returns the streams that failed.
func (b *book) place() map[msg.Topic]error {
	failed := map[msg.Topic]error{}
	b.held = slices.DeleteFunc(b.held, func(h *day) bool {
		if failed[h.Topic] == nil {
			if err := b.put(h); err != nil {
				failed[h.Topic] = fmt.Errorf("begin a file: %w", err)
			}
		}
		return failed[h.Topic] == nil
	})
	return failed
}

// put adds what is held to its stream's file, or to a new one where that is over.
func (b *book) put(h *day) (err error) {
	if len(h.waiting) == 0 {
		return nil
	}
	d, next := b.days[h.Topic], h.draft
	if d != nil {
		if d, err = b.secure(d, true); err != nil {
			return err
		}
		next.Before = d.last()
		d.Over = h.endOf(d)
	}
	if d == nil || d.Over != "" {
		if d, err = b.begin(d, next); err != nil {
			return err
		}
	}
	d.takeOver(h)
	return nil
}

// endOf says why what is held belongs into another file than d; "" where it does not.
func (h *day) endOf(d *day) string {
	if h.ID != "" {
		return "its disk was away"
	}
	at := msg.Stamp{Wall: h.First.Time.Time, Boot: time.Duration(h.First.BootNS)}
	return d.over(h.Columns, at, h.First.BootID)
}
