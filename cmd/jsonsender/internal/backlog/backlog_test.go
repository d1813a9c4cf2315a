package backlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/lockfile"
)

func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"work": func() { runChild(workChild) }, "trial": func() { runChild(trialChild) }})
}

// small is the least log there is.
func small() Config { return Config{SegmentBytes: minSegment, MaxBytes: 8*minSegment + 2*slotBytes} }

// ram is a folder in RAM: syncs cost nothing there.
func ram(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "b-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func open(t testing.TB, root *os.Root, cfg Config) *Log {
	t.Helper()
	l, err := Open(root, "log", cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func start() time.Time { return time.Date(2026, 5, 17, 9, 41, 7, 0, time.UTC) }

// reading is a message of a sensor with three columns, as it comes from the bus.
func reading(n int) Entry {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	at := start().Add(time.Duration(n)*time.Second + time.Duration(r.IntN(3e6)))
	text := fmt.Sprintf(`{"v":1,"kind":"reading","node":"airpi-01","source":"air","stream":"environment","epoch":"000283baec0033c3",`+
		`"boot_id":"5f0c8f2e-6d0a-4c51-9d3c-0f4f6f0f9a11","seq":%d,"time":"%s","boot_ns":%d,"synced":true,`+
		`"columns":["temperature_c","pressure_pa","humidity_pct"],"values":[%.6f,%.2f,%.6f]}`,
		n, at.Format("2006-01-02T15:04:05.000000000Z"), 43223250000000+int64(n)*1e9+r.Int64N(3e6), 21.4+r.Float64(), 100650+10*r.Float64(), 50+r.Float64())
	return Entry{Key: "reading/air/environment", Time: at, Payload: []byte(text)}
}

// numbered is an entry that shows which one it is, with filling that does not compress.
func numbered(class Class, key string, n, filling int) Entry {
	text := fmt.Appendf(nil, "%s/%d ", key, n)
	r := rand.New(rand.NewPCG(2, uint64(n)))
	for range filling {
		text = append(text, byte(r.Uint32()))
	}
	return Entry{Class: class, Key: key, Time: start().Add(time.Duration(n) * time.Second), Payload: text}
}

// name is what numbered put in front of an entry.
func name(e Entry) string {
	id, _, _ := strings.Cut(string(e.Payload), " ")
	return id
}

func positions(list []Entry) (all []Position) {
	for _, e := range list {
		all = append(all, e.Position)
	}
	return all
}

// differ shows where two lists of entries differ. Comparing byte by byte as cmp does takes long.
func differ(want, got []Entry) string {
	for i, e := range got {
		if i >= len(want) {
			return fmt.Sprintf("%d records; want %d", len(got), len(want))
		}
		w := want[i]
		if e.Position != w.Position || e.Class != w.Class || e.Key != w.Key || !e.Time.Equal(w.Time) || !bytes.Equal(e.Payload, w.Payload) {
			return fmt.Sprintf("record %d is %d of %q with %.50q; want %d of %q with %.50q", i, e.Position, e.Key, e.Payload, w.Position, w.Key, w.Payload)
		}
	}
	if len(got) < len(want) {
		return fmt.Sprintf("%d records; want %d", len(got), len(want))
	}
	return ""
}

// drain takes everything out of a log.
func drain(t testing.TB, l *Log) (all []Entry) {
	t.Helper()
	for {
		list, err := l.Peek(0, 500, 1<<20)
		must(t, err)
		if len(list) == 0 {
			return all
		}
		for _, e := range list {
			e.Payload = slices.Clone(e.Payload)
			all = append(all, e)
		}
		must(t, l.Ack(positions(list)...))
	}
}

func TestRoundTrip(t *testing.T) {
	root := openRoot(t, ram(t))
	l := open(t, root, Config{})
	want := []Entry{
		{Class: Event, Key: "file/porch/files", Payload: []byte("one"), Time: start()},
		{Key: "reading/air/environment", Payload: []byte{}, Time: start().Add(-time.Hour)},
		{Payload: bytes.Repeat([]byte("long "), 50_000)},
	}
	first, err := l.Append(want...)
	if err != nil || first != 1 {
		t.Fatalf("Append() = %d, %v; want 1", first, err)
	}
	for i := range want {
		want[i].Position = Position(i + 1)
	}
	for range 2 { // a second look sees the same, and so does another process
		for range 2 {
			got, err := l.Peek(0, 10, 1<<20)
			if diff := differ(want, got); diff != "" || err != nil {
				t.Errorf("Peek() = %v %s", err, diff)
			}
		}
		if got := l.Oldest(); !got.Equal(start()) || l.Len() != 3 || l.Lost() != 0 {
			t.Errorf("Oldest(), Len(), Lost() = %s, %d, %d; want %s, 3, 0", got, l.Len(), l.Lost(), start())
		}
		must(t, l.Close())
		l = open(t, root, Config{})
	}
	if got, err := l.Peek(1, 10, 3); err != nil || len(got) != 1 || got[0].Position != 2 {
		t.Errorf("Peek(1, 10, 3) = %v, %v; want the second alone", positions(got), err)
	}
	must(t, l.Ack(2))
	if got, err := l.Peek(0, 1, 0); err != nil || len(got) != 1 || got[0].Position != 1 {
		t.Errorf("Peek(0, 1, 0) = %v, %v; want the first, however long", positions(got), err)
	}
	must(t, l.Skip(1))
	must(t, l.Ack(1, 2, 2, 3))
	if err := l.Ack(4); err == nil {
		t.Error("Ack(4) of three records = nil; want an error")
	}
	want2 := []Loss{{Key: "file/porch/files", Class: Event, Reason: Skipped, Records: 1, First: 1, Last: 1, From: start(), To: start()}}
	if diff := cmp.Diff(want2, l.Losses()); diff != "" || l.Len() != 0 || !l.Oldest().IsZero() {
		t.Errorf("%d records left; Losses() (-want +got):\n%s", l.Len(), diff)
	}
	must(t, l.Close())
}

func TestRefusals(t *testing.T) {
	root := openRoot(t, ram(t))
	l := open(t, root, small())
	defer l.Close()
	for what, list := range map[string][]Entry{
		"too long a record":  {{Payload: make([]byte, minSegment/2+1)}},
		"too long a key":     {{Key: strings.Repeat("k", maxKey+1)}},
		"an unknown class":   {{Class: 2}},
		"too many at a time": make([]Entry, maxRecords+1),
	} {
		if _, err := l.Append(list...); err == nil {
			t.Errorf("Append() of %s = nil; want an error", what)
		}
	}
	var held *lockfile.HeldError
	if other, err := Open(root, "log", small()); !errors.As(err, &held) {
		t.Errorf("a second Open() = %v, %v; want a HeldError", other, err)
	}
	for _, cfg := range []Config{{SegmentBytes: 1}, {SegmentBytes: maxSegment + 1}, {MaxBytes: 1}, {SegmentBytes: 1 << 20, MaxBytes: 1 << 20}} {
		if other, err := Open(root, "other", cfg); err == nil {
			t.Errorf("Open(%+v) = %v, nil; want an error", cfg, other)
		}
	}
	if _, err := Open(root, "../out", small()); err == nil {
		t.Error("Open(../out) = nil; want an error")
	}
	if st, err := Inspect(root, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Inspect() of nothing = %+v, %v; want fs.ErrNotExist", st, err)
	}
}

// A log does what a slice does, whatever the order of calls, and across restarts.
func TestAgainstModel(t *testing.T) {
	seeds := uint64(2)
	if faultfs.Soak() > 0 {
		seeds = 200
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(3, seed))
		root := openRoot(t, ram(t))
		cfg := Config{SegmentBytes: minSegment, MaxBytes: 64 << 20}
		l := open(t, root, cfg)
		var want []Entry
		next, n := Position(1), 0
		for step := range 200 {
			switch r.IntN(10) {
			default:
				var list []Entry
				for range 1 + r.IntN(30) {
					n++
					e := numbered(Class(r.IntN(2)), fmt.Sprint("s", r.IntN(3)), n, r.IntN(400))
					list = append(list, e)
					e.Position, next = next, next+1
					want = append(want, e)
				}
				first, err := l.Append(list...)
				if err != nil || first != list[0].Position+next-Position(len(list)) {
					t.Fatalf("seed %d, step %d: Append() = %d, %v; want %d", seed, step, first, err, next-Position(len(list)))
				}
			case 0, 1, 2:
				want = ackSome(t, r, l, want)
			case 3:
				must(t, l.Sync())
			case 4:
				must(t, l.Close())
				l = open(t, root, cfg)
			}
			got, err := l.Peek(0, 20, 4000)
			must(t, err)
			if diff := differ(want[:min(len(got), len(want))], got); diff != "" || len(got) == 0 && len(want) > 0 {
				t.Fatalf("seed %d, step %d: Peek(): %s", seed, step, diff)
			}
			if l.Len() != uint64(len(want)) {
				t.Fatalf("seed %d, step %d: Len() = %d; want %d", seed, step, l.Len(), len(want))
			}
		}
		if st, err := Inspect(root, "log"); err != nil || st.Records != l.Len() || st.Bytes != l.Bytes() || !st.Oldest.Equal(l.Oldest()) {
			t.Errorf("Inspect() of an open log = %+v, %v; want %+v", st, err, l.Status())
		}
		if diff := differ(want, drain(t, l)); diff != "" || l.Lost() != 0 {
			t.Errorf("seed %d: %d lost; the rest: %s", seed, l.Lost(), diff)
		}
		must(t, l.Close())
	}
}

// ackSome acknowledges some of the oldest records, and returns the others.
func ackSome(t *testing.T, r *rand.Rand, l *Log, want []Entry) []Entry {
	t.Helper()
	list, err := l.Peek(0, 1+r.IntN(80), 1<<20)
	must(t, err)
	var some []Position
	for _, e := range list {
		if r.IntN(4) > 0 {
			some = append(some, e.Position)
		}
	}
	r.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	must(t, l.Ack(some...))
	return slices.DeleteFunc(want, func(e Entry) bool { return slices.Contains(some, e.Position) })
}

// What was acknowledged stays so across a restart and across a kill, the last record too.
func TestLastRecordIsNotSentAgain(t *testing.T) {
	root := openRoot(t, ram(t))
	l := open(t, root, small())
	_, err := l.Append(reading(1), reading(2))
	must(t, err)
	drain(t, l)
	for range 3 {
		kill(t, l)
		l = open(t, root, small())
		if got := drain(t, l); len(got) > 0 || l.Len() != 0 {
			t.Errorf("after a restart %v wait, Len() = %d; want nothing", positions(got), l.Len())
		}
	}
	first, err := l.Append(reading(3))
	if err != nil || first != 3 {
		t.Errorf("Append() = %d, %v; want 3", first, err)
	}
	must(t, l.Close())
}

// kill leaves a log as the death of its process does.
func kill(t testing.TB, l *Log) {
	t.Helper()
	must(t, l.giveUp())
}

// A kill after unread records were appended overwrites none of them.
func TestAppendAfterKill(t *testing.T) {
	root := openRoot(t, ram(t))
	for n := range 40 {
		l := open(t, root, Config{SegmentBytes: minSegment})
		for k := range 10 {
			_, err := l.Append(numbered(Event, "e", n*10+k, 500))
			must(t, err)
		}
		kill(t, l)
	}
	l := open(t, root, Config{SegmentBytes: minSegment})
	for i, e := range drain(t, l) {
		if want := fmt.Sprint("e/", i); name(e) != want || e.Position != Position(i+1) {
			t.Fatalf("record %d is %s at %d; want %s", i, name(e), e.Position, want)
		}
	}
	if l.Lost() != 0 || l.state.Next != 401 {
		t.Errorf("%d lost, next position %d; want 0, 401", l.Lost(), l.state.Next)
	}
	must(t, l.Close())
}

// Too many ranges behind older records are refused, and nothing of them is acknowledged.
func TestScatteredAck(t *testing.T) {
	l := open(t, openRoot(t, ram(t)), Config{})
	defer l.Close()
	list := make([]Entry, 2*maxSpans+4)
	_, err := l.Append(list...)
	must(t, err)
	var odd []Position
	for p := Position(2); p <= Position(len(list)); p += 2 {
		odd = append(odd, p)
	}
	if err := l.Ack(odd...); err == nil || l.Len() != uint64(len(list)) {
		t.Errorf("Ack() of %d ranges = %v, %d wait; want an error, all", len(odd), err, l.Len())
	}
	must(t, l.Ack(odd[:maxSpans]...))
	must(t, l.Sync())
}

// Segments are used again, so that a log that is emptied does not grow.
func TestSegmentsAreUsedAgain(t *testing.T) {
	dir := ram(t)
	l := open(t, openRoot(t, dir), Config{SegmentBytes: minSegment})
	zeros := l.Written()
	for n := range 3000 {
		_, err := l.Append(numbered(Event, "e", n, 300))
		must(t, err)
		drain(t, l)
	}
	if files, err := filepath.Glob(dir + "/log/*.s*"); err != nil || len(files) > 1+maxSpares {
		t.Errorf("%d files left (%v); want at most %d", len(files), err, 1+maxSpares)
	}
	if l.seq < 10 || l.Bytes() > 3*minSegment+2*slotBytes || zeros == 0 {
		t.Errorf("segment %d, %d bytes; want more than 10 segments in %d", l.seq, l.Bytes(), 3*minSegment)
	}
	must(t, l.Close())
}

// 100,000 records go in and out in far less time than the limit, which is for a busy machine.
func TestManyRecords(t *testing.T) {
	begin := time.Now()
	l := open(t, openRoot(t, t.TempDir()), Config{})
	const batch, all = 500, 100_000
	list := make([]Entry, batch)
	for n := range all / batch {
		for i := range list {
			list[i] = Entry{Key: "reading/air/environment", Time: start(), Payload: fmt.Appendf(nil, `{"v":1,"seq":%d,"values":[%d,%d]}`, n*batch+i, n*i, n+i)}
		}
		_, err := l.Append(list...)
		must(t, err)
		must(t, l.Sync())
	}
	in := time.Since(begin)
	if got := len(drain(t, l)); got != all {
		t.Errorf("%d records came out; want %d", got, all)
	}
	must(t, l.Close())
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("%d records took %s", all, took)
	}
	t.Logf("%d records: in %s, out %s", all, in, time.Since(begin)-in)
}
