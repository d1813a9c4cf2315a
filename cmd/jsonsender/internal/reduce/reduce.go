// Package reduce makes one reading of several: the mean, the least, the greatest or the last value
// of each column in a window of time.
//
//	readings of a stream, in order --> Add --> a record, once its window is over
//	                       the clock --> Due --> records of windows in which nothing more came
//
// Windows are those of the boot clock, floor(boot_ns / every), so that a restarted program makes
// the same ones; the wall clock may jump. A new run of the publisher, or other columns, end a window
// early. Values that are marked bad, and those that are null, are counted and never used. A column
// without a good value is null, and bad says so.
//
// What is in an open window is in memory alone. Open says where its readings begin: who resumes
// the bus from there after a kill makes the same record, with the same id, again.
package reduce

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/msg"
)

// Grace is how long after its end a window stays open, and how long after its last reading came:
// a reading that was lost on the bus is repaired within half a second.
const Grace = 2 * time.Second

// NoValue is why a column is null in a record.
const NoValue = "no good value in the window"

// Ways are how readings can become one.
func Ways() []string { return []string{"mean", "min", "max", "last"} }

// Reducer holds the open windows, one a stream. It is not safe for concurrent use.
type Reducer struct {
	way   string
	every time.Duration
	open  map[msg.Topic]*window
}

// window is what came of one stream within one window.
type window struct {
	index int64         // floor(boot_ns / every)
	added time.Duration // boot time at which the last reading came
	first msg.Header
	last  msg.Header
	count uint64
	names []string
	stats []column
	bad   []uint64
	null  []uint64
}

// New makes a reducer. It fails when there is no such way, or every is not positive.
func New(way string, every time.Duration) (*Reducer, error) {
	if !slices.Contains(Ways(), way) {
		return nil, fmt.Errorf("reduce %q: want one of %v%s", way, Ways(), nearest.Hint(way, Ways()))
	}
	if every <= 0 {
		return nil, fmt.Errorf("every %v: want a time above 0", every)
	}
	return &Reducer{way, every, map[msg.Topic]*window{}}, nil
}

// Add takes the next reading of its stream, which came at boot time now, and returns the record of
// the window that it ends, if it ends one.
func (d *Reducer) Add(r *msg.Reading, now time.Duration) ([]record.Record, error) {
	var done []record.Record
	topic := r.Topic()
	w := d.open[topic]
	if w != nil && w.endsBefore(r, d.every) {
		one, err := d.finish(topic)
		if err != nil {
			return nil, err
		}
		done, w = []record.Record{one}, nil
	}
	if w == nil {
		w = begin(r, d.every)
		d.open[topic] = w
	}
	w.add(r, now)
	return done, nil
}

// Due returns the records of windows that are over at boot time now, in the order of their topics.
// A window that is being read again from the bus's history is over by the clock from the start:
// it stays open as long as readings come.
func (d *Reducer) Due(now time.Duration) ([]record.Record, error) {
	return d.finishAll(func(w *window) bool { return now >= w.due(d.every) })
}

// Next is the boot time at which Due has something to do if nothing more comes; ok is false
// where no window is open.
func (d *Reducer) Next() (at time.Duration, ok bool) {
	for _, w := range d.open {
		if due := w.due(d.every); !ok || due < at {
			at, ok = due, true
		}
	}
	return at, ok
}

// Flush returns the records of all windows, over or not, in the order of their topics. What comes
// after it within the same window becomes a record of its own.
func (d *Reducer) Flush() ([]record.Record, error) {
	return d.finishAll(func(*window) bool { return true })
}

// Position is where the readings of an open window begin.
type Position struct {
	Topic    msg.Topic
	Epoch    msg.Epoch
	FirstSeq msg.Seq
}

// Open are the positions of all open windows, in the order of their topics.
func (d *Reducer) Open() []Position {
	all := make([]Position, 0, len(d.open))
	for _, topic := range slices.Sorted(maps.Keys(d.open)) {
		first := d.open[topic].first
		all = append(all, Position{topic, first.Epoch, first.Seq})
	}
	return all
}

func (d *Reducer) finishAll(which func(*window) bool) (done []record.Record, err error) {
	for _, topic := range slices.Sorted(maps.Keys(d.open)) {
		if !which(d.open[topic]) {
			continue
		}
		one, err := d.finish(topic)
		if err != nil {
			return done, err
		}
		done = append(done, one)
	}
	return done, nil
}

// finish closes the window of a stream and returns its record.
func (d *Reducer) finish(topic msg.Topic) (record.Record, error) {
	w := d.open[topic]
	delete(d.open, topic)
	out := msg.Reading{Header: w.last, Columns: w.names}
	counts := make([]uint64, len(w.names))
	for i, name := range w.names {
		counts[i] = w.stats[i].count
		out.Values = append(out.Values, w.stats[i].value(d.way))
		if counts[i] == 0 {
			if out.Bad == nil {
				out.Bad = map[string]string{}
			}
			out.Bad[name] = NoValue
		}
	}
	return record.Reduced(&out, &record.Window{
		Reduce: d.way, Start: w.first.Time, End: w.last.Time, FirstSeq: w.first.Seq, Readings: w.count,
		Counts: counts, Bad: w.bad, Null: w.null,
	})
}

func begin(r *msg.Reading, every time.Duration) *window {
	n := len(r.Columns)
	return &window{
		index: r.BootNS / int64(every), first: r.Header, names: slices.Clone(r.Columns),
		stats: make([]column, n), bad: make([]uint64, n), null: make([]uint64, n),
	}
}

// endsBefore reports whether a reading is of another window.
func (w *window) endsBefore(r *msg.Reading, every time.Duration) bool {
	return r.BootNS/int64(every) != w.index || r.Epoch != w.first.Epoch || r.BootID != w.first.BootID ||
		r.Node != w.first.Node || !slices.Equal(r.Columns, w.names)
}

// due is the boot time at which the window is over if nothing more comes. A reading whose boot_ns
// is not of this clock (of an earlier boot) must not keep it open for ever.
func (w *window) due(every time.Duration) time.Duration {
	end := w.added + every
	if w.index < math.MaxInt64/int64(every) {
		end = min(end, time.Duration(w.index+1)*every)
	}
	return max(end, w.added) + Grace
}

func (w *window) add(r *msg.Reading, now time.Duration) {
	w.added, w.last = now, r.Header
	w.count++
	for i, value := range r.Values {
		switch _, bad := r.Bad[r.Columns[i]]; {
		case bad:
			w.bad[i]++
		case math.IsNaN(value):
			w.null[i]++
		default:
			w.stats[i].add(value)
		}
	}
}
