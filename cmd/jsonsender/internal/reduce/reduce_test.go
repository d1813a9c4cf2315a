package reduce

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

var start = time.Date(2026, 5, 17, 9, 0, 0, 0, time.UTC)

// reading is one of two columns, measured at boot time at; the wall clock shows start + at.
func reading(seq msg.Seq, at time.Duration, values ...float64) *msg.Reading {
	return &msg.Reading{
		Header: msg.Header{
			Version: msg.Version, Kind: msg.KindReading, Node: "airpi-01", Source: "air", Stream: "environment", Epoch: 7,
			BootID: "b", Seq: seq, BootNS: int64(at), Time: msg.Time{Time: start.Add(at)}, Synced: true,
		},
		Columns: []string{"temperature_c", "humidity_pct"}, Values: values,
	}
}

func newReducer(t *testing.T, way string, every time.Duration) *Reducer {
	t.Helper()
	d, err := New(way, every)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// add adds readings that come as soon as they are measured, and returns what is over.
func add(t *testing.T, d *Reducer, readings ...*msg.Reading) (done []record.Record) {
	t.Helper()
	for _, r := range readings {
		records, err := d.Add(r, time.Duration(r.BootNS))
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, records...)
	}
	return done
}

// none is a value that is not there.
var none = math.NaN()

func TestOneReadingOfSeveral(t *testing.T) {
	for _, c := range []struct {
		way  string
		want msg.Values
	}{{"mean", msg.Values{20, none}}, {"min", msg.Values{10, none}}, {"max", msg.Values{30, none}}, {"last", msg.Values{10, none}}} {
		d := newReducer(t, c.way, time.Minute)
		doubted := reading(4, 80*time.Second, 1000, none)
		doubted.Bad = map[string]string{"temperature_c": "not plausible"}
		done := add(t, d, reading(3, 61*time.Second, 30, none), doubted, reading(5, 100*time.Second, 20, none), reading(6, 119*time.Second, 10, none),
			reading(7, 120*time.Second, 50, 50))
		if len(done) != 1 {
			t.Fatalf("%s: %d records; want the one of the second minute", c.way, len(done))
		}
		got, err := done[0].Reading()
		if err != nil {
			t.Fatal(err)
		}
		want := msg.Reading{Header: reading(6, 119*time.Second).Header, Columns: reading(0, 0).Columns, Values: c.want, Bad: map[string]string{"humidity_pct": NoValue}}
		if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.way, diff)
		}
		window := &record.Window{
			Reduce: c.way, Start: msg.Time{Time: start.Add(61 * time.Second)}, End: msg.Time{Time: start.Add(119 * time.Second)}, FirstSeq: 3, Readings: 4,
			Counts: []uint64{3, 0}, Bad: []uint64{1, 0}, Null: []uint64{0, 4},
		}
		if diff := cmp.Diff(window, done[0].Window); diff != "" {
			t.Errorf("%s: window (-want +got):\n%s", c.way, diff)
		}
	}
}

func TestWhatEndsAWindow(t *testing.T) {
	last := reading(1, 10*time.Second, 1, 1)
	for _, c := range []struct {
		what   string
		change func(*msg.Reading)
		ends   bool
	}{
		{"the same window", func(*msg.Reading) {}, false},
		{"the wall clock jumps", func(r *msg.Reading) { r.Time.Time = r.Time.AddDate(50, 0, 0) }, false},
		{"the next window", func(r *msg.Reading) { r.BootNS = int64(time.Minute) }, true},
		{"a window before", func(r *msg.Reading) { r.BootNS = 0; r.Epoch++ }, true},
		{"a new run", func(r *msg.Reading) { r.Epoch++; r.Seq = 0 }, true},
		{"a new boot", func(r *msg.Reading) { r.BootID = "c" }, true},
		{"other columns", func(r *msg.Reading) { r.Columns = []string{"humidity_pct", "temperature_c"} }, true},
		{"a column less", func(r *msg.Reading) { r.Columns, r.Values = r.Columns[:1], r.Values[:1] }, true},
		{"another stream", func(r *msg.Reading) { r.Stream = "other" }, false},
	} {
		d := newReducer(t, "mean", time.Minute)
		next := reading(2, 20*time.Second, 3, 3)
		c.change(next)
		if done := add(t, d, last, next); (len(done) == 1) != c.ends {
			t.Errorf("%s: %d records; want the window to end: %v", c.what, len(done), c.ends)
		}
	}
}

func TestDue(t *testing.T) {
	d := newReducer(t, "last", time.Minute)
	if at, ok := d.Next(); ok {
		t.Errorf("Next() = %v with nothing open; want none", at)
	}
	add(t, d, reading(0, 5*time.Second, 1, 1), reading(1, 6*time.Second, 2, 2))
	if at, ok := d.Next(); !ok || at != time.Minute+Grace {
		t.Errorf("Next() = %v, %v; want the end of the minute and the grace", at, ok)
	}
	wantDue(t, d, time.Minute+Grace-1, 0)
	wantDue(t, d, time.Minute+Grace, 1)
	wantDue(t, d, time.Hour, 0)
}

// What is read again from the history is old from the start: each reading that comes keeps its
// window open, so that one window stays one record.
func TestDueWaitsForAReplay(t *testing.T) {
	d := newReducer(t, "last", time.Minute)
	for i := range 60 {
		now := time.Hour + time.Duration(i)*time.Second
		if _, err := d.Add(reading(msg.Seq(i), time.Duration(i)*time.Second, 1, 1), now); err != nil {
			t.Fatal(err)
		}
		wantDue(t, d, now+Grace-1, 0)
	}
	wantDue(t, d, time.Hour+59*time.Second+Grace, 1)
}

// boot_ns of an earlier boot may be far ahead of this clock.
func TestDueOfAnotherBoot(t *testing.T) {
	for _, at := range []time.Duration{1000 * time.Hour, math.MaxInt64} {
		d := newReducer(t, "last", time.Minute)
		r := reading(0, at, 1, 1)
		r.Time.Time = start
		if _, err := d.Add(r, time.Second); err != nil {
			t.Fatal(err)
		}
		wantDue(t, d, time.Second+time.Minute+Grace-1, 0)
		wantDue(t, d, time.Second+time.Minute+Grace, 1)
	}
}

func wantDue(t *testing.T, d *Reducer, now time.Duration, want int) {
	t.Helper()
	if done, err := d.Due(now); err != nil || len(done) != want {
		t.Fatalf("Due(%v) = %d records, %v; want %d", now, len(done), err, want)
	}
}

func TestFlushAndOpen(t *testing.T) {
	d := newReducer(t, "mean", time.Minute)
	other := reading(9, 70*time.Second, 1, 1)
	other.Source = "cellar"
	add(t, d, other, reading(3, 61*time.Second, 1, 1), reading(4, 62*time.Second, 1, 1))
	want := []Position{{"reading/air/environment", 7, 3}, {"reading/cellar/environment", 7, 9}}
	if diff := cmp.Diff(want, d.Open()); diff != "" {
		t.Errorf("Open() (-want +got):\n%s", diff)
	}
	done, err := d.Flush()
	if err != nil || len(done) != 2 || done[0].ID() != "airpi-01/air/environment/0000000000000007/4" {
		t.Errorf("Flush() = %d records, %v; want two, the first of air", len(done), err)
	}
	if len(d.Open()) != 0 {
		t.Errorf("Open() after Flush() = %v; want none", d.Open())
	}
}

// Killed at any moment and resumed from Open, it makes the same records with the same ids.
func TestResumedFromOpenItMakesTheSame(t *testing.T) {
	var all []*msg.Reading
	for i := range 40 {
		r := reading(msg.Seq(i), time.Duration(i)*7*time.Second, float64(i), -float64(i))
		if i >= 25 {
			r.Epoch, r.Seq = 8, msg.Seq(i-25)
		}
		all = append(all, r)
	}
	want := map[string]string{}
	whole := newReducer(t, "mean", time.Minute)
	for _, r := range add(t, whole, all...) {
		want[r.ID()] = string(r.Raw())
	}
	for killed := range all {
		got := map[string]string{}
		first := newReducer(t, "mean", time.Minute)
		done := add(t, first, all[:killed]...)
		from := killed
		for _, p := range first.Open() {
			for from > 0 && (all[from-1].Epoch > p.Epoch || all[from-1].Epoch == p.Epoch && all[from-1].Seq >= p.FirstSeq) {
				from--
			}
		}
		done = append(done, add(t, newReducer(t, "mean", time.Minute), all[from:]...)...)
		for _, r := range done {
			if text, twice := got[r.ID()]; twice && text != string(r.Raw()) {
				t.Errorf("killed after %d: record %s is %s and %s; want one", killed, r.ID(), text, r.Raw())
			}
			got[r.ID()] = string(r.Raw())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("killed after %d (-want +got):\n%s", killed, diff)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		way   string
		every time.Duration
		want  string
	}{{"meam", time.Second, `did you mean "mean"?`}, {"", time.Second, "want one of"}, {"mean", 0, "want a time above 0"}, {"mean", -1, "want a time above 0"}} {
		if _, err := New(c.way, c.every); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%q, %v) = %v; want an error with %q", c.way, c.every, err, c.want)
		}
	}
}

// The largest record there can be is one that the bus's limits let through.
func TestWidestReading(t *testing.T) {
	r := reading(1<<53-1, time.Hour)
	r.Columns, r.Values, r.Bad = nil, nil, nil
	for i := range 256 {
		r.Columns = append(r.Columns, strings.Repeat("w", 29)+string([]byte{'0' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10)}))
		r.Values = append(r.Values, math.NaN())
	}
	d := newReducer(t, "mean", time.Minute)
	add(t, d, r)
	done, err := d.Flush()
	if err != nil || len(done) != 1 {
		t.Fatalf("Flush() = %d records, %v; want one", len(done), err)
	}
	for i := range r.Values {
		r.Values[i] = -1.7976931348623157e308
	}
	add(t, d, r)
	if done, err = d.Flush(); err != nil || len(done) != 1 {
		t.Errorf("Flush() = %d records, %v; want one", len(done), err)
	}
}
