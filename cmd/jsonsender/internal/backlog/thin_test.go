package backlog

import (
	"fmt"
	"os"
	"testing"

	"github.com/perch-edge/perch/internal/faultfs"
)

// census counts what a log still has, by stream, and where readings are numbered evenly.
func census(t testing.TB, list []Entry) (count map[string]int, at map[string][]int) {
	t.Helper()
	count, at = map[string]int{}, map[string][]int{}
	before := Position(0)
	for _, e := range list {
		if e.Position <= before {
			t.Fatalf("position %d follows %d", e.Position, before)
		}
		before = e.Position
		n := 0
		if _, err := fmt.Sscanf(name(e), e.Key+"/%d", &n); err != nil {
			t.Fatalf("record %d: %q: %v", e.Position, name(e), err)
		}
		count[e.Key]++
		at[e.Key] = append(at[e.Key], n)
	}
	return count, at
}

// fill appends rounds of two streams of readings and one of events.
func fill(t testing.TB, l *Log, from, to, events int) (appended int) {
	t.Helper()
	for n := from; n < to; n++ {
		list := []Entry{numbered(Reading, "a", n, 300), numbered(Reading, "b", n, 300)}
		if events > 0 && n%events == 0 {
			list = append(list, numbered(Event, "e", n/events, 300))
		}
		_, err := l.Append(list...)
		must(t, err)
		appended += len(list)
	}
	return appended
}

// With its bound reached, a log has all of its readings at about one resolution, evenly, and
// every event. Each lost one is counted.
func TestThinning(t *testing.T) {
	dir := ram(t)
	root := openRoot(t, dir)
	l := open(t, root, small())
	appended := fill(t, l, 0, 3000, 30)
	must(t, l.Sync())
	if l.Bytes() > small().MaxBytes {
		t.Errorf("Bytes() = %d; want at most %d", l.Bytes(), small().MaxBytes)
	}
	least, most := uint8(255), uint8(0)
	for _, s := range l.segments[:len(l.segments)-1] {
		least, most = min(least, s.level), max(most, s.level)
	}
	if most-least > 1 || most < 2 {
		t.Errorf("the segments' levels are %d to %d; want two that follow each other, from 2 on", least, most)
	}
	must(t, l.Close())
	l = open(t, root, small()) // it is all on disk
	lost, losses := l.Lost(), l.Losses()
	got := drain(t, l)
	must(t, l.Close())
	if len(got)+int(lost) != appended {
		t.Errorf("%d records and %d lost; want %d together", len(got), lost, appended)
	}
	count, at := census(t, got)
	if count["e"] != 100 {
		t.Errorf("%d events left; want all 100", count["e"])
	}
	for _, key := range []string{"a", "b"} {
		if first := at[key][0]; first != 0 {
			t.Errorf("the first reading of %s is %d; want 0", key, first)
		}
		for i, n := range at[key][1:] {
			if gap := n - at[key][i]; gap > 1<<most {
				t.Errorf("%s: %d follows %d; want at most %d between", key, n, at[key][i], 1<<most)
			}
		}
	}
	if len(losses) != 2 || losses[0].Reason != Thinned || losses[0].Records+losses[1].Records != lost ||
		losses[0].From.IsZero() || !losses[0].To.After(losses[0].From) || losses[0].Last <= losses[0].First {
		t.Errorf("Losses() = %+v; want two streams that were thinned, %d records together", losses, lost)
	}
}

// When thinning does not suffice, readings go before events, and old events before new ones.
func TestOrderOfLoss(t *testing.T) {
	l := open(t, openRoot(t, ram(t)), small())
	defer l.Close()
	appended := fill(t, l, 0, 40, 0)
	for n := range 2000 {
		_, err := l.Append(numbered(Event, "e", n, 300))
		must(t, err)
		appended++
	}
	losses := l.Losses()
	got := drain(t, l)
	count, at := census(t, got)
	if count["a"]+count["b"] != 0 || count["e"] == 0 || at["e"][len(at["e"])-1] != 1999 || at["e"][0]+count["e"] != 2000 {
		t.Errorf("left are %v, the first event is %d; want the last events alone, without a gap", count, at["e"][0])
	}
	if int(lost(losses))+len(got) != appended {
		t.Errorf("%d records and %d lost; want %d together", len(got), lost(losses), appended)
	}
	reasons := map[string]uint64{}
	for _, one := range losses {
		reasons[one.Key+" "+string(one.Reason)] += one.Records
	}
	if reasons["e dropped"] != uint64(at["e"][0]) || reasons["a thinned"] < 30 || reasons["a thinned"]+reasons["a dropped"] != 40 {
		t.Errorf("losses are %v; want %d events dropped, and readings thinned, then dropped", reasons, at["e"][0])
	}
}

// Records that are in flight may be thinned: acknowledging them is no error.
func TestAckOfThinned(t *testing.T) {
	l := open(t, openRoot(t, ram(t)), small())
	defer l.Close()
	appended := fill(t, l, 0, 100, 0)
	flight, err := l.Peek(0, 60, 1<<20)
	must(t, err)
	must(t, l.Ack(positions(flight[10:20])...))
	appended += fill(t, l, 100, 1500, 0)
	must(t, l.Ack(positions(flight)...))
	got := drain(t, l)
	if len(got) > 0 && got[0].Position <= flight[59].Position || l.Len() != 0 {
		t.Errorf("the first of %d left is %d, Len() = %d; want what is behind the acknowledged", len(got), got[0].Position, l.Len())
	}
	if sum := int(l.Lost()) + len(got); sum > appended-10 || sum < appended-60 {
		t.Errorf("%d left and lost of %d; want all but the 10 to 60 that were acknowledged in time", sum, appended)
	}
}

// On a full disk a log goes on with what it has.
func TestFullDisk(t *testing.T) {
	at := t.TempDir()
	if err := faultfs.Tmpfs(at, 12*minSegment); err != nil {
		t.Skip(err)
	}
	defer func() { must(t, faultfs.Unmount(at)) }()
	root := openRoot(t, at)
	defer root.Close()
	l := open(t, root, Config{SegmentBytes: minSegment, MaxBytes: 1 << 30})
	appended := fill(t, l, 0, 2500, 100)
	must(t, l.Sync())
	lost := l.Lost()
	must(t, l.Close())
	l = open(t, root, Config{SegmentBytes: minSegment, MaxBytes: 1 << 30})
	got := drain(t, l)
	count, _ := census(t, got)
	if lost == 0 || len(got)+int(lost) != appended || count["e"] != 25 {
		t.Errorf("%d records, %d lost, left are %v; want %d together, and 25 events", len(got), lost, count, appended)
	}
	must(t, l.Close())
}

// A disk without any room refuses what does not fit and keeps what it has.
func TestNoRoomAtAll(t *testing.T) {
	at := t.TempDir()
	if err := faultfs.Tmpfs(at, 8*minSegment); err != nil {
		t.Skip(err)
	}
	defer func() { must(t, faultfs.Unmount(at)) }()
	root := openRoot(t, at)
	defer root.Close()
	l := open(t, root, Config{SegmentBytes: minSegment, MaxBytes: 1 << 30})
	n := 0
	for ; n < 50; n++ {
		_, err := l.Append(numbered(Event, "e", n, 300))
		must(t, err)
	}
	must(t, l.Sync())
	filler, err := os.Create(at + "/filler")
	must(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, pageBytes))
	}
	must(t, filler.Close())
	for tries := 0; tries < 1000; tries++ {
		if _, err := l.Append(numbered(Event, "e", n, 300)); err == nil {
			n++
		} else if !full(err) {
			t.Fatalf("Append() on a full disk = %v; want ENOSPC", err)
		}
	}
	must(t, l.Sync())
	sum := len(drain(t, l)) + int(l.Lost())
	if sum != n {
		t.Errorf("%d records left and lost; want %d", sum, n)
	}
	must(t, l.Close())
}
