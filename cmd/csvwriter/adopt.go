package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// unknownBoot is the boot id of rows whose boot cannot be determined.
const unknownBoot = "unknown"

// bindFor is how long a file without a journal waits for readings that show which stream
// it belongs to.
const bindFor = 5 * time.Second

// adoptStrays handles the files in work/ that the journal does not name. A file without
// rows was begun just before a kill, and is removed. A file with rows is completed: the
// journal was lost, or somebody put the file there.
//
// The streams are then read from the beginning of their histories, without the readings
// that are in these files or in completed ones.
func (b *book) adoptStrays(known bool) error {
	names, err := b.spool.List(spool.Work, b.w.Name())
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, d := range b.days {
		ours[d.name()] = true
	}
	for _, d := range b.ending {
		ours[d.name()] = true
	}
	for _, name := range names {
		if ours[name] {
			continue
		}
		if err := b.adopt(name, known); err != nil {
			return fmt.Errorf("adopt %s: %w", name, err)
		}
	}
	if known && len(b.adopted) == 0 {
		return nil
	}
	return b.lookBehind()
}

// adopt handles one of them; known is whether there is a journal.
func (b *book) adopt(name string, known bool) error {
	switch path.Ext(name) {
	case damagedExt:
		return b.spool.SetAside(name)
	case salvageExt: // those whose file is gone have been given its name
		return b.spool.Remove(name)
	case ".csv":
	default:
		return nil
	}
	st, err := b.spool.Stat(spool.Work, name)
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		return b.spool.Remove(name)
	}
	d := draft{ID: sidecar.ID(strings.TrimSuffix(name, ".csv")), Over: "the journal was lost"}
	if known {
		d.Over, d.Notes = "it was not in the journal", []string{atLeastOnce}
	}
	ok, err := b.readHead(&d)
	if err != nil {
		return err
	}
	if !ok {
		b.w.Counter("quarantined_files").Add(1)
		b.w.Log.Warn("file not in the journal has no csvwriter header: moved to quarantine/", "file", name)
		return b.spool.SetAsideAs(name, d.damagedName())
	}
	d.First.BootID = unknownBoot
	if _, taken := b.spool.Stat(spool.Ready, name); known || taken == nil {
		if name, err = b.renew(&d); err != nil {
			return err
		}
	}
	a, err := b.load(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if a.rows.len() == 0 {
		return errors.Join(a.file.Close(), b.spool.Discard(name, spool.Ready))
	}
	if b.haveAll(a) {
		b.w.Counter("quarantined_files").Add(1)
		b.w.Log.Warn("file not in the journal has only rows that another file has: moved to quarantine/", "file", name)
		return errors.Join(a.file.Close(), b.spool.SetAsideAs(name, d.damagedName()))
	}
	a.setBoot(b.bootOf(a.start, a.end))
	a.Topic = b.topicOf()
	b.w.Counter("adopted_files").Add(1)
	b.w.Log.Warn("file with rows is not in the journal: completing it", "file", name, "rows", a.rows.len())
	b.adopted = append(b.adopted, a)
	b.ending, b.stale = append(b.ending, a), true
	b.bindUntil = time.Now().Add(bindFor)
	return nil
}

// renew gives a file in work/ a new id: a completed file that was sent may have the old
// one.
func (b *book) renew(d *draft) (name string, err error) {
	old := d.name()
	d.ID = b.files.NewID(b.now())
	b.w.Log.Warn("file not in the journal gets a new id: a completed file may have the old one", "file", old, "as", d.name())
	return d.name(), b.spool.Replace(old, d.name())
}

func (d *day) setBoot(id string) {
	d.start.BootID, d.end.BootID = id, id
	d.First = d.start
}

// readHead reads a file's columns from its first line.
func (b *book) readHead(d *draft) (ok bool, err error) {
	f, err := b.spool.OpenDamaged(d.name())
	if err != nil {
		return false, err
	}
	defer f.Close()
	text := make([]byte, lineBytes)
	n, err := f.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	head := text[:bytes.IndexByte(text[:n], '\n')+1]
	d.Columns, d.Format, ok = columnsOf(string(head))
	return ok, nil
}

// haveAll reports whether all rows of a file are in other open files.
func (b *book) haveAll(a *day) bool {
	for i := range a.rows.len() {
		c, sum := a.rows.cursor(i), a.rows.sums[i]
		if !slices.ContainsFunc(slices.Concat(b.ending, b.open()), func(d *day) bool { return d.rows.has(c, sum) }) {
			return false
		}
	}
	return true
}

// open lists the open files.
func (b *book) open() (list []*day) {
	for _, d := range b.days {
		list = append(list, d)
	}
	return list
}

// bootOf is the boot in which rows were captured: this one, if wall clock and boot clock
// differ by the same amount as now.
func (b *book) bootOf(start, end sidecar.Moment) string {
	now := b.w.Now()
	began := now.Wall.Add(-now.Boot)
	if drift := end.Time.Add(-time.Duration(end.BootNS)).Sub(began).Abs(); drift < 2*time.Second && time.Duration(start.BootNS) <= now.Boot {
		return b.w.BootID()
	}
	return unknownBoot
}

// topicOf is the stream that the worker reads, where the topology leaves no choice.
func (b *book) topicOf() msg.Topic {
	sources := b.w.Entry().Sources
	if len(sources) != 1 || sources[0].Endpoint != "" {
		return ""
	}
	stream := sources[0].Stream
	if e := b.w.Topology().Entry(sources[0].Name); stream == "" && e != nil && len(e.Streams) == 1 {
		stream = e.Streams[0]
	}
	if stream == "" {
		return ""
	}
	return msg.TopicOf(msg.KindReading, msg.Source(sources[0].Name), msg.Stream(stream))
}

// lookBehind determines how far each stream is without the journal: from the sidecars of
// completed files and the rows of adopted ones.
func (b *book) lookBehind() error {
	ends := map[msg.Topic]mark{}
	for _, state := range []spool.State{spool.Ready, spool.Sent, spool.Rejected} {
		if err := b.lookInto(state, ends); err != nil {
			return err
		}
	}
	for _, a := range b.adopted {
		if a.Topic != "" {
			advance(ends, a.Topic, a.end)
		}
	}
	for topic, end := range ends {
		if b.days[topic] != nil {
			continue
		}
		if _, err := b.begin(nil, draft{Topic: topic, First: b.now(), Before: &end.Cursor}); err != nil {
			return err
		}
	}
	return nil
}

// maxSidecars bounds how many completed files of a state are looked at.
const maxSidecars = 256

func (b *book) lookInto(state spool.State, ends map[msg.Topic]mark) error {
	entries, err := b.spool.Entries(state)
	if err != nil {
		return err
	}
	seen, read := map[msg.Topic]bool{}, 0
	for _, e := range slices.Backward(entries) { // of a worker the latest is the last
		if e.ID.Worker() != b.w.Name() || read == maxSidecars {
			continue
		}
		b.w.Progress()
		read++
		if side, err := b.spool.Sidecar(state, e.ID); err == nil && side.Media == csvMedia && !seen[side.Source] {
			seen[side.Source] = true
			advance(ends, side.Source, side.End)
		}
	}
	return nil
}

// advance notes that a stream's rows up to one are on disk.
func advance(ends map[msg.Topic]mark, topic msg.Topic, to sidecar.Moment) {
	m, ok := ends[topic]
	sameBoot := m.boot == to.BootID || to.BootID == unknownBoot
	if ok && sameBoot && (m.Epoch > to.Epoch || m.Epoch == to.Epoch && m.Seq >= to.Seq) {
		return
	}
	ends[topic] = mark{cursorOf(to), to.BootID}
}

// bind finds the adopted files that belong to a reading's stream: the stream's history has
// their last row, or they are the only ones that fit.
func (b *book) bind(r *msg.Reading) error {
	topic := r.Topic()
	if len(b.adopted) == 0 || b.bound[topic] {
		return nil
	}
	b.bound[topic] = true
	bound := (*day)(nil)
	for _, a := range b.adopted {
		if a.Topic == "" && slices.Equal(a.Columns, r.Columns) && b.isOf(a, r) {
			a.Topic, b.stale = topic, true
			if last := *a.rows.last(); last.Epoch == r.Epoch {
				a.setBoot(r.BootID)
			}
			advance(b.marks, topic, a.end)
			bound = a
		}
	}
	if bound == nil || b.days[topic] != nil || b.spool == nil {
		return nil
	}
	// Should this run end before a new row comes, the next one knows where to go on.
	before := b.marks[topic].Cursor
	_, err := b.begin(nil, draft{Topic: topic, Columns: bound.Columns, First: b.now(), Before: &before})
	return err
}

func (b *book) isOf(a *day, r *msg.Reading) bool {
	last := *a.rows.last()
	same := false
	err := b.in.Replay(r.Topic(), last.Epoch, last.Seq, last.Seq, func(m msg.Message) {
		if got, err := m.Reading(); err == nil {
			same = a.rows.has(last, sumOf(appendRow(nil, &got, a.Format)))
		}
	})
	if err != nil || same {
		return same
	}
	alike := 0
	for _, other := range b.adopted {
		if other.Topic == "" && slices.Equal(other.Columns, a.Columns) {
			alike++
		}
	}
	return alike == 1 && last.Epoch == r.Epoch && r.Seq > last.Seq
}

// settleAdopted stops waiting for readings that show which streams the adopted files
// belong to.
func (b *book) settleAdopted(now time.Time) {
	unbound := slices.ContainsFunc(b.adopted, func(a *day) bool { return a.Topic == "" })
	if len(b.adopted) == 0 || unbound && now.Before(b.bindUntil) {
		return
	}
	for _, a := range b.adopted {
		if a.Topic == "" {
			a.Topic, b.stale = b.likelyTopic(), true
		}
	}
	b.adopted, b.endAt = nil, atOnce()
}

// likelyTopic names at least the source of rows whose stream nothing tells.
func (b *book) likelyTopic() msg.Topic {
	source := "unknown"
	if refs := b.w.Entry().Sources; len(refs) == 1 {
		source = refs[0].Name
		if _, s, _, err := msg.ParseEndpoint(refs[0].Endpoint); refs[0].Endpoint != "" && err == nil {
			source = string(s)
		}
	}
	return msg.TopicOf(msg.KindReading, msg.Source(source), "unknown")
}
