package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// salvage replaces a file that somebody removed, renamed, replaced or changed by
// a new one of the same name: the rows that the open file still has, those that
// the publisher's history still has, and those in RAM. What neither has is lost,
// and counted. It returns the new file; where that fails it is tried again.
//
// The new file is whole and durable before it takes the name, and what is wrong
// with the old one is kept before that. So a kill at any moment loses no row that
// has a file, and repeats none.
func (b *book) salvage(d *day) (*day, error) {
	b.noteDamage(d)
	now := time.Now()
	if s := b.salvages[d.Topic]; now.Before(s.next) {
		return nil, fmt.Errorf("%s: %s; it happens again and again: rows wait in RAM for %.0f s", d.name(), d.damage, s.next.Sub(now).Seconds()+1)
	}
	if err := b.spool.MakeStates(spool.Work, spool.Ready); err != nil {
		return nil, fmt.Errorf("salvage %s: %w", d.name(), err)
	}
	fresh, old, err := b.rewrite(d)
	if err == nil {
		if err = b.replace(old); err != nil {
			err = errors.Join(err, fresh.file.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("salvage %s: %w", d.name(), errors.Join(err, b.removeUnfinished(d)))
	}
	if d.file != nil {
		d.file.Close()
	}
	b.salvages[d.Topic] = b.salvages[d.Topic].again(now)
	open := b.days[d.Topic]
	switch i := slices.Index(b.ending, d); {
	case i >= 0:
		b.ending[i] = fresh
	case d.Over == "" && (open == d || open == nil):
		b.days[d.Topic] = fresh
	default:
		if fresh.Over == "" {
			fresh.Over = d.damage
		}
		b.ending, b.endAt = append(b.ending, fresh), atOnce()
	}
	if i := slices.Index(b.adopted, d); i >= 0 {
		b.adopted[i] = fresh
	}
	b.stale = true // the note
	b.report(old)
	return fresh, nil
}

// pace slows down where a file is damaged again and again: each time it is
// written anew as a whole.
type pace struct {
	last, next time.Time
	n          int
}

const (
	// paceFrom is how many times in a row there is no wait.
	paceFrom = 3
	// paceMost is the longest wait.
	paceMost = time.Minute
)

func (p pace) again(now time.Time) pace {
	if p.n++; now.Sub(p.last) > 2*paceMost {
		p.n = 1
	}
	p.last, p.next = now, now
	if p.n >= paceFrom {
		p.next = now.Add(min(paceMost, time.Second<<min(p.n-paceFrom, 10)))
	}
	return p
}

// removeUnfinished removes a new file that could not take its name.
func (b *book) removeUnfinished(d *day) error {
	if err := b.spool.Remove(d.salvageName()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// salvageOrphans salvages the files that were removed with their folder: they
// live as long as they are open.
func (b *book) salvageOrphans() error {
	var errs []error
	b.orphans = slices.DeleteFunc(b.orphans, func(d *day) bool {
		_, err := b.salvage(d)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

// damaged is a file that another takes the place of.
type damaged struct {
	day      *day
	parts    []extent // what is not what was written
	kept     int      // rows that the new file has from it
	refilled int      // and from the publisher's history
	lost     rowLog   // and does not have
	note     string
}

// noteDamage reports a damaged file once.
func (b *book) noteDamage(d *day) {
	if d.reported {
		return
	}
	d.reported = true
	b.w.Counter("damaged_files").Add(1)
	b.w.Log.Warn("an open file is not what was written", "file", d.name(), "why", d.damage)
}

func (b *book) report(old *damaged) {
	d := old.day
	b.w.Counter("salvaged_rows").Add(old.kept)
	b.w.Counter("refilled_rows").Add(old.refilled)
	b.w.Counter("lost_rows").Add(old.lost.len())
	b.w.Log.Warn("a new file replaces it", "file", d.name(), "salvaged", old.kept, "refilled", old.refilled, "lost", old.lost.len(), "rows", old.lost.text())
	b.notice(fmt.Errorf("%s", old.note))
}

// noticeFor is how long the state speaks of a damaged file whose rows are in
// another one by then. The counters and the log keep it.
const noticeFor = 10 * time.Minute

func (b *book) notice(err error) {
	b.w.TroubleWith("file", err)
	b.noticed = time.Now()
}

// rewrite writes what can be had of a file to a new one.
func (b *book) rewrite(d *day) (*day, *damaged, error) {
	old := &damaged{day: d}
	lines, err := b.collect(d, old)
	if err != nil {
		return nil, nil, err
	}
	old.note = fmt.Sprintf("%s: %s; %d rows salvaged, %d from the publisher's history, %d lost", d.name(), d.damage, old.kept, old.refilled, old.lost.len())
	if old.lost.len() > 0 {
		old.note += " (seq " + old.lost.text() + ")"
	}
	if err := b.removeUnfinished(d); err != nil { // of an earlier try
		return nil, nil, err
	}
	f, err := b.spool.Create(d.salvageName())
	if err != nil {
		return nil, nil, err
	}
	next := d.draft
	next.Notes = append(slices.Clone(d.Notes), old.note)
	fresh := &day{draft: next, file: f, sum: sha256.New(), synced: time.Now()}
	if err := b.fill(fresh, lines); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	fresh.waiting, fresh.safe = d.waiting, fresh.size
	if n := countRows(d.waiting); n > 0 {
		if fresh.rows.len() == 0 {
			fresh.start = momentOf(d.waiting, &d.draft)
		}
		fresh.end = d.end
		fresh.rows.append(d.rows.from(d.rows.len() - n))
	}
	return fresh, old, nil
}

// lineRef is a line that a new file takes over, or where it is in the old one.
type lineRef struct {
	cursor msg.Cursor
	text   []byte // nil: it is in the old file
	off    int64
	bytes  int
	from   *day
}

func (l *lineRef) line() ([]byte, error) {
	if l.text != nil {
		return l.text, nil
	}
	text := make([]byte, l.bytes)
	_, err := l.from.file.ReadAt(text, l.off)
	return text, err
}

// collect finds the lines of a damaged file that are what was written, and from
// the history those that are not, in the order in which they were written.
func (b *book) collect(d *day, old *damaged) ([]lineRef, error) {
	n := d.rows.len() - countRows(d.waiting)
	lines := make([]lineRef, n)
	found := make([]bool, n)
	if d.file != nil {
		st, err := d.file.Stat()
		if err != nil {
			return nil, fmt.Errorf("look at it: %w", err)
		}
		first := true
		head := d.head()
		err = eachLine(d.file, st.Size(), b.w.Progress, func(off int64, line []byte) {
			if first {
				first = false
				if string(line) == head {
					return
				}
			}
			if at, err := parseRow(line, len(d.Columns), d.Format); err == nil {
				i, ok := d.rows.find(cursorOf(at))
				if ok && i < n && !found[i] && d.rows.sums[i] == sumOf(line) {
					lines[i], found[i] = lineRef{cursor: cursorOf(at), off: off, bytes: len(line), from: d}, true
					old.kept++
					return
				}
			}
			old.parts = addExtent(old.parts, off, off+int64(len(line)))
		})
		if err != nil {
			b.w.Log.Warn("a damaged file cannot be read on", "file", d.name(), "err", err)
		}
	}
	// The last ones are still in RAM.
	for i, text := n-countRows(d.since), d.since; len(text) > 0; i++ {
		line := text[:lineEnd(text)]
		if text = text[len(line):]; i >= 0 && !found[i] {
			lines[i], found[i] = lineRef{cursor: d.rows.cursor(i), text: line}, true
			old.kept++
		}
	}
	var missing rowLog
	for i := range n {
		if !found[i] {
			missing.add(d.rows.cursor(i), d.rows.sums[i])
		}
	}
	missing.append(&d.missing)
	again, err := b.refill(d, &missing)
	if err != nil {
		return nil, err
	}
	old.refilled = len(again)
	return b.merge(d, old, lines, found, &missing, again), nil
}

// merge puts the lines in order, and counts what is not there.
func (b *book) merge(d *day, old *damaged, lines []lineRef, found []bool, missing *rowLog, again map[msg.Cursor][]byte) []lineRef {
	for i := range missing.len() {
		if c := missing.cursor(i); again[c] == nil {
			old.lost.add(c, 0)
		}
	}
	all := make([]lineRef, 0, len(lines)+len(again))
	gaps := d.missing.spans
	for i, l := range lines {
		c := d.rows.cursor(i)
		// What the scan missed before this row goes before it.
		for len(gaps) > 0 && gaps[0].epoch == c.Epoch && gaps[0].first < c.Seq {
			all = appendSpan(all, gaps[0], again)
			gaps = gaps[1:]
		}
		if found[i] {
			all = append(all, l)
		} else if text := again[c]; text != nil {
			all = append(all, lineRef{cursor: c, text: text})
		}
	}
	for _, gap := range gaps {
		all = appendSpan(all, gap, again)
	}
	return all
}

func appendSpan(all []lineRef, r span, again map[msg.Cursor][]byte) []lineRef {
	for k := range r.n {
		c := msg.Cursor{Epoch: r.epoch, Seq: r.first + msg.Seq(k)}
		if text := again[c]; text != nil {
			all = append(all, lineRef{cursor: c, text: text})
		}
	}
	return all
}

// refill fetches rows from the publisher's history.
func (b *book) refill(d *day, missing *rowLog) (map[msg.Cursor][]byte, error) {
	again := map[msg.Cursor][]byte{}
	if b.in == nil || d.Topic == "" {
		return again, nil
	}
	for _, r := range missing.spans {
		err := b.in.Replay(d.Topic, r.epoch, r.first, r.first+msg.Seq(r.n-1), func(m msg.Message) {
			if got, err := m.Reading(); err == nil && slices.Equal(got.Columns, d.Columns) {
				again[msg.Cursor{Epoch: got.Epoch, Seq: got.Seq}] = appendRow(nil, &got, d.Format)
			}
		})
		if err != nil {
			b.w.Log.Warn("the publisher's history cannot be read", "topic", d.Topic, "err", err)
		}
		b.w.Progress()
	}
	return again, nil
}

// fill writes lines to a new file, and syncs it.
func (b *book) fill(d *day, lines []lineRef) error {
	if len(lines) == 0 {
		return nil
	}
	w := bufio.NewWriterSize(io.MultiWriter(d.file, d.sum), 64<<10)
	put := func(text []byte) error {
		n, err := w.Write(text)
		d.size += int64(n)
		return err
	}
	if err := put([]byte(d.head())); err != nil {
		return err
	}
	for i, l := range lines {
		text, err := l.line()
		if err != nil {
			return err
		}
		if err := put(text); err != nil {
			return err
		}
		d.rows.add(l.cursor, sumOf(text))
		at, err := parseRow(text, len(d.Columns), d.Format)
		if err != nil { // changed while it was copied
			return fmt.Errorf("row %d: %w", l.cursor.Seq, err)
		}
		at.BootID = d.First.BootID
		if d.end = at; i == 0 {
			d.start = at
		}
		if i%4096 == 0 {
			b.w.Progress()
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	b.meter.rows += d.size
	if err := d.file.Sync(); err != nil {
		return err
	}
	d.watch.touched(d.file)
	return nil
}

// replace gives the new file the name of the damaged one. The damaged part of that,
// or what has taken its name, goes to quarantine/ before.
func (b *book) replace(old *damaged) error {
	d := old.day
	named, err := b.spool.Stat(spool.Work, d.name())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err != nil:
	case !d.is(named):
		b.w.Counter("quarantined_files").Add(1)
		b.w.Log.Warn("what has taken a file's name is moved to quarantine/", "file", d.name(), "as", d.damagedName())
		err = b.spool.SetAsideAs(d.name(), d.damagedName())
	case len(old.parts) > 0:
		err = b.keepParts(old)
	}
	if err != nil {
		return err
	}
	return b.spool.Replace(d.salvageName(), d.name())
}

// is says whether a file is the one that is open.
func (d *day) is(named fs.FileInfo) bool {
	if d.file == nil {
		return false
	}
	opened, err := d.file.Stat()
	return err == nil && os.SameFile(named, opened)
}

func (d *draft) damagedName() string { return string(d.ID) + damagedExt }

func (d *draft) salvageName() string { return string(d.ID) + salvageExt }

const (
	// damagedExt names what is left of a file that was damaged.
	damagedExt = ".damaged"
	// salvageExt names a file that is to take a damaged one's name.
	salvageExt = ".salvage"
	// maxParts is how much of it is kept.
	maxParts = 1 << 20
)

// keepParts writes the damaged parts of a file to quarantine/, for a person to
// look at, each with the place where it was.
func (b *book) keepParts(old *damaged) error {
	d := old.day
	name := d.damagedName()
	if err := b.spool.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := b.spool.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	room := int64(maxParts)
	for _, part := range old.parts {
		fmt.Fprintf(w, "# bytes %d to %d of %s\n", part.from, part.to-1, d.name())
		n := min(part.to-part.from, room)
		if _, err := io.Copy(w, io.NewSectionReader(d.file, part.from, n)); err != nil {
			fmt.Fprintf(w, "# cannot be read: %v", err)
		}
		if room -= n; n < part.to-part.from {
			fmt.Fprintf(w, "\n# and %d bytes more", part.to-part.from-n)
		}
		fmt.Fprintln(w)
	}
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		return err
	}
	b.w.Counter("quarantined_files").Add(1)
	b.w.Log.Warn("the damaged part of a file is moved to quarantine/", "file", d.name(), "as", name)
	return b.spool.SetAside(name)
}
