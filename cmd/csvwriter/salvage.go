package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// salvage replaces a file that somebody removed, renamed, replaced or changed with a new
// one of the same name. Its rows come from the open file, from the publisher's history
// and from RAM; rows that none of them has are lost, and counted. It returns the new
// file; if it fails, it is tried again.
//
// The damaged part of the old file is set aside first, and the new file is complete and
// durable before it takes the name. So a kill at any moment neither loses nor repeats a
// row that is in a file.
func (b *book) salvage(d *day) (*day, error) {
	b.noteDamage(d)
	now := time.Now()
	if s := b.salvages[d.Topic]; now.Before(s.next) {
		return nil, fmt.Errorf("%s: %s, several times in a row: rows wait in RAM for %.0f s; find out which program changes it", d.name(), d.damage, s.next.Sub(now).Seconds()+1)
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

// pace limits how often a stream's file is salvaged, since each time all of it is
// rewritten.
type pace struct {
	last, next time.Time
	n          int
}

const (
	// paceFrom is how many salvages in a row may follow each other without a wait.
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

// salvageOrphans salvages files that were removed together with their folder: their
// rows exist only as long as they are open.
func (b *book) salvageOrphans() error {
	var errs []error
	b.orphans = slices.DeleteFunc(b.orphans, func(d *day) bool {
		_, err := b.salvage(d)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

// damaged is a file that is being replaced.
type damaged struct {
	day      *day
	parts    []extent // the parts that are not as written
	kept     int      // rows taken from it, or from RAM
	refilled int      // rows taken from the publisher's history
	lost     rowLog   // rows found nowhere
	note     string
}

// noteDamage reports a damaged file once.
func (b *book) noteDamage(d *day) {
	if d.reported {
		return
	}
	d.reported = true
	b.w.Counter("damaged_files").Add(1)
	b.w.Log.Warn("somebody else changed an open file", "file", d.name(), "why", d.damage)
}

func (b *book) report(old *damaged) {
	d := old.day
	b.w.Counter("salvaged_rows").Add(old.kept)
	b.w.Counter("refilled_rows").Add(old.refilled)
	b.w.Counter("lost_rows").Add(old.lost.len())
	b.w.Log.Warn("replaced by a new file", "file", d.name(), "salvaged", old.kept, "refilled", old.refilled, "lost", old.lost.len(), "rows", old.lost.text())
	b.notice(fmt.Errorf("%s", old.note))
}

// noticeFor is how long the state's trouble mentions a damaged file that has been
// replaced. The counters and the log keep it.
const noticeFor = 10 * time.Minute

func (b *book) notice(err error) {
	b.w.TroubleWith("file", err)
	b.noticed = time.Now()
}

// rewrite writes all rows that can be found to a new file.
func (b *book) rewrite(d *day) (*day, *damaged, error) {
	old := &damaged{day: d}
	rows := b.collect(d, old)
	old.note = fmt.Sprintf("%s: %s; %d rows salvaged, %d from the publisher's history, %d lost", d.name(), d.damage, old.kept, old.refilled, old.lost.len())
	if old.lost.len() > 0 {
		old.note += " (seq " + old.lost.text() + ")"
	}
	if old.kept > 0 && b.keepsName(d) {
		old.note += "; " + atLeastOnce
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
	if err = reserve(f, d.size); err == nil {
		err = b.fill(fresh, rows)
	}
	if err != nil {
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

// atLeastOnce stands in the sidecar of a file whose rows another file may have too.
const atLeastOnce = "at least once: the rows may also be in another file, wherever that is now; tell duplicates by epoch and seq"

// keepsName says whether the old file stays on the disk under another name.
func (b *book) keepsName(d *day) bool {
	var st unix.Stat_t
	if d.file == nil || unix.Fstat(int(d.file.Fd()), &st) != nil || st.Nlink == 0 {
		return false
	}
	named, err := b.spool.Stat(spool.Work, d.name())
	return st.Nlink > 1 || err != nil || !d.is(named)
}

// reserve allocates a file's room, so that a full disk refuses it before anything is
// written: salvage is retried each second, and an SD card wears out.
func reserve(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINTR) {
		return nil
	}
	return os.NewSyscallError("fallocate", err)
}

// rescue is what was found of a damaged file's rows, in their order.
type rescue struct {
	day  *day
	off  []int64               // where in the old file the line of a row is
	size []uint32              // its length; 0: it is not there
	text map[msg.Cursor][]byte // lines from RAM, and from the publisher's history
	buf  []byte                // a part of the old file
	at   int64                 // where that is
}

// collect finds the intact lines of a damaged file, and the others in RAM and in the
// publisher's history.
func (b *book) collect(d *day, old *damaged) *rescue {
	n := d.rows.len() - countRows(d.waiting)
	r := &rescue{day: d, off: make([]int64, n), size: make([]uint32, n), text: map[msg.Cursor][]byte{}}
	if err := b.findLines(r, old); err != nil {
		b.w.Log.Warn("cannot read the rest of a damaged file", "file", d.name(), "err", err)
	}
	// The last ones are still in RAM.
	for i, text := n-countRows(d.since), d.since; len(text) > 0; i++ {
		line := text[:lineEnd(text)]
		if text = text[len(line):]; i >= 0 && r.size[i] == 0 {
			r.text[d.rows.cursor(i)] = line
			old.kept++
		}
	}
	var missing rowLog
	for i, size := range r.size {
		if c := d.rows.cursor(i); size == 0 && r.text[c] == nil {
			missing.add(c, 0)
		}
	}
	missing.append(&d.missing)
	old.refilled = b.refill(r, &missing)
	for i := range missing.len() {
		if c := missing.cursor(i); r.text[c] == nil {
			old.lost.add(c, 0)
		}
	}
	return r
}

// findLines looks in the file itself.
func (b *book) findLines(r *rescue, old *damaged) error {
	d := r.day
	st, err := d.file.Stat()
	if err != nil {
		return err
	}
	head := d.head()
	return eachLine(d.file, st.Size(), b.w.Progress, func(off int64, line []byte) {
		if off == 0 && string(line) == head {
			return
		}
		if hole := bytes.LastIndexByte(line, 0) + 1; hole > 0 && hole < len(line) { // a row may follow one
			old.parts = addExtent(old.parts, off, off+int64(hole))
			off, line = off+int64(hole), line[hole:]
		}
		if at, err := parseRow(line, len(d.Columns), d.Format); err == nil {
			i, ok := d.rows.find(cursorOf(at))
			if ok && i < len(r.size) && r.size[i] == 0 && d.rows.sums[i] == sumOf(line) {
				r.off[i], r.size[i] = off, uint32(len(line))
				old.kept++
				return
			}
		}
		old.parts = addExtent(old.parts, off, off+int64(len(line)))
	})
}

// each visits the rows in order. What the file lacked before a row when it was
// opened goes before that.
func (r *rescue) each(visit func(c msg.Cursor, line []byte) error) error {
	gaps := r.day.missing.spans
	for i := range r.size {
		c := r.day.rows.cursor(i)
		for len(gaps) > 0 && gaps[0].epoch == c.Epoch && gaps[0].first < c.Seq {
			if err := r.span(gaps[0], visit); err != nil {
				return err
			}
			gaps = gaps[1:]
		}
		line, err := r.line(i, c)
		if err == nil && line != nil {
			err = visit(c, line)
		}
		if err != nil {
			return err
		}
	}
	for _, gap := range gaps {
		if err := r.span(gap, visit); err != nil {
			return err
		}
	}
	return nil
}

func (r *rescue) span(s span, visit func(msg.Cursor, []byte) error) error {
	for k := range s.n {
		c := msg.Cursor{Epoch: s.epoch, Seq: s.first + msg.Seq(k)}
		if text := r.text[c]; text != nil {
			if err := visit(c, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// line is the line of a row; nil where it is lost. It is good until the next call.
func (r *rescue) line(i int, c msg.Cursor) ([]byte, error) {
	size, from := int(r.size[i]), r.off[i]
	if size == 0 {
		return r.text[c], nil
	}
	if skip := from - r.at; r.buf == nil || skip < 0 || skip+int64(size) > int64(len(r.buf)) {
		if r.buf == nil {
			r.buf = make([]byte, lineBytes)
		}
		n, err := r.day.file.ReadAt(r.buf[:lineBytes], from)
		if n < size {
			return nil, fmt.Errorf("read row %d: %w", c.Seq, err)
		}
		r.buf, r.at = r.buf[:n], from
	}
	return r.buf[from-r.at:][:size], nil
}

// refill fetches rows from the publisher's history and returns how many.
func (b *book) refill(r *rescue, missing *rowLog) (rows int) {
	d := r.day
	if b.in == nil || d.Topic == "" {
		return 0
	}
	for _, s := range missing.spans {
		err := b.in.Replay(d.Topic, s.epoch, s.first, s.first+msg.Seq(s.n-1), func(m msg.Message) {
			if got, err := m.Reading(); err == nil && slices.Equal(got.Columns, d.Columns) {
				r.text[msg.Cursor{Epoch: got.Epoch, Seq: got.Seq}] = appendRow(nil, &got, d.Format)
				rows++
			}
		})
		if err != nil {
			b.w.Log.Warn("cannot read the publisher's history", "topic", d.Topic, "err", err)
		}
		b.w.Progress()
	}
	return rows
}

// fill writes the rows to a new file, and syncs it.
func (b *book) fill(d *day, from *rescue) error {
	w := bufio.NewWriterSize(io.MultiWriter(d.file, d.sum), 64<<10)
	err := from.each(func(c msg.Cursor, line []byte) error {
		at, err := parseRow(line, len(d.Columns), d.Format)
		if err == nil && cursorOf(at) != c {
			err = errTorn
		}
		if err != nil { // changed while it was copied
			return fmt.Errorf("row %d: %w", c.Seq, err)
		}
		at.BootID = d.First.BootID
		if d.end = at; d.rows.len() == 0 {
			d.start = at
			n, err := w.WriteString(d.head())
			if d.size += int64(n); err != nil {
				return err
			}
		}
		d.rows.add(c, sumOf(line))
		if d.rows.len()%4096 == 0 {
			b.w.Progress()
		}
		n, err := w.Write(line)
		d.size += int64(n)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = d.file.Sync()
	}
	b.meter.rows += d.size
	d.watch.touched(d.file)
	return err
}

// replace gives the new file the name of the damaged one. Before that the damaged part,
// or whatever has taken the name, goes to quarantine/.
func (b *book) replace(old *damaged) error {
	d := old.day
	named, err := b.spool.Stat(spool.Work, d.name())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err != nil:
	case !d.is(named):
		b.w.Counter("quarantined_files").Add(1)
		b.w.Log.Warn("moved what has taken a file's name to quarantine/", "file", d.name(), "as", d.damagedName())
		err = b.spool.SetAsideAs(d.name(), d.damagedName())
	case len(old.parts) > 0:
		err = b.keepParts(old)
	}
	if err != nil {
		return err
	}
	return b.spool.Replace(d.salvageName(), d.name())
}

// is reports whether a file is the open one.
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
	// salvageExt names a file that is to replace a damaged one.
	salvageExt = ".salvage"
	// maxParts is how much of it is kept.
	maxParts = 1 << 20
)

// keepParts writes the damaged parts of a file to quarantine/ for a person to look at,
// each with its position in the file.
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
	w := bufio.NewWriter(f) // keeps the first error for Flush
	room := int64(maxParts)
	for _, part := range old.parts {
		_, _ = fmt.Fprintf(w, "# bytes %d to %d of %s\n", part.from, part.to-1, d.name())
		n := min(part.to-part.from, room)
		if _, err := io.Copy(w, io.NewSectionReader(d.file, part.from, n)); err != nil {
			_, _ = fmt.Fprintf(w, "# cannot be read: %v", err)
		}
		if room -= n; n < part.to-part.from {
			_, _ = fmt.Fprintf(w, "\n# and %d bytes more", part.to-part.from-n)
		}
		_, _ = fmt.Fprintln(w)
	}
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		return err
	}
	b.w.Counter("quarantined_files").Add(1)
	b.w.Log.Warn("moved the damaged part of a file to quarantine/", "file", d.name(), "as", name)
	return b.spool.SetAside(name)
}
