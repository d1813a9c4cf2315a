package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// A losses file is completed after five minutes, or when it is large.
func TestLossesDue(t *testing.T) {
	begun := time.Date(2026, 5, 17, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		losses losses
		want   time.Time
	}{
		"there is none":  {losses{}, time.Time{}},
		"it has no line": {losses{draft: &draft{}}, time.Time{}},
		"it is young":    {losses{draft: &draft{lines: 1, size: 300, begun: begun}}, begun.Add(5 * time.Minute)},
		"it is large":    {losses{draft: &draft{lines: 900, size: lossesBytes, begun: begun}}, begun},
	} {
		if got := tt.losses.due(); !got.Equal(tt.want) {
			t.Errorf("due() when %s = %s; want %s", name, got, tt.want)
		}
	}
}

const line = `{"time":"2026-05-17T12:00:00.000000000Z","boot_ns":7,"boot_id":"b","synced":true,"epoch":"000283baec0033c3","seq":N,"id":"x"}` + "\n"

func lineOf(n string) string { return strings.Replace(line, "N", n, 1) }

// A file of a run that was killed ends with its last whole line.
func TestDraftOfAnEarlierRun(t *testing.T) {
	whole := lineOf("4") + lineOf("5")
	for name, tail := range map[string]string{"whole": "", "torn": lineOf("6")[:40], "zeros": strings.Repeat("\x00", 100) + "\n"} {
		path := filepath.Join(t.TempDir(), "losses")
		if err := os.WriteFile(path, []byte(whole+tail), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d := draft{file: f}
		if err := d.read(); err != nil || d.lines != 2 || d.size != int64(len(whole)) || d.first.Seq != 4 || d.last.Seq != 5 {
			t.Errorf("read() of one that is %s = %d lines, %d bytes, %d to %d, %v; want 2, %d, 4 to 5", name, d.lines, d.size, d.first.Seq, d.last.Seq, err, len(whole))
		}
	}
}

// What earlier runs left is completed, announced and sent; an empty one, or one
// that holds no whole line, is removed.
func TestLeftLosses(t *testing.T) {
	t.Parallel()
	x := newBox(t, "")
	for n, text := range []string{lineOf("0") + lineOf("1"), lineOf("0")[:30], ""} {
		id := sidecar.NewID("clean", time.Now(), msg.Epoch(77), uint64(n))
		f, err := x.store.Create(string(id) + sidecar.LossesExt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindFile}, "clean")
	p := x.Start("deleter", "clean")
	m := feed.Next()
	f, err := m.File()
	if err != nil || f.State != "ready" {
		t.Fatalf("announced is %+v, %v; want a file that is ready", f, err)
	}
	boxtest.Poll(t, "work/ to be empty", func() bool {
		names, err := x.store.List(spool.Work, "clean")
		return err == nil && len(names) == 0
	})
	p.Stop()
	side, err := x.store.Sidecar(spool.Ready, sidecar.ID(f.ID))
	if err != nil || side.Items != 2 || side.Class() != sidecar.Losses || side.Start.Seq != 0 || side.End.Seq != 1 {
		t.Errorf("its sidecar is %+v, %v; want one of two lines", side, err)
	}
	if n := len(there(t, x.store)); n != 1 {
		t.Errorf("%d files are there; want that one alone", n)
	}
}

// A losses file that cannot be synced when it is complete is not written to any
// more: its lines reach ready/ as they are, and later ones another file.
func TestFailedCompletionOfLosses(t *testing.T) {
	t.Parallel()
	x, faults := faultyBox(t, "evict_unsent = true\n[worker.clean.disk]\nwhen = \"true\"\n")
	x.fill(x.store, spool.Ready, 800) // more lines than a file has
	lost := there(t, x.store)
	failed := false
	faults.Watch(func(call string) {
		if strings.HasPrefix(call, "truncate work/clean_") && !failed {
			failed = true
			faults.FailSyncs(1, ".jsonl", true)
		}
	})
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindState}, "clean")
	m := newMover(t, x)
	p := x.Start("deleter", "clean")
	feed.State("all files gone", func(s msg.State) bool { return s.Counters["lost_files"] >= 800 })
	later := x.put(x.store, spool.Ready, ".mp4", 100, time.Hour)
	lost[later] = "store/ready"
	m.say(later, "ready")
	feed.State("one file more gone", func(s msg.State) bool { return s.Counters["lost_files"] > 800 })
	boxtest.Poll(t, "the file to reach ready/", func() bool { return len(there(t, x.store)) > 0 })
	p.Stop()
	if faults.Failing() > 0 {
		t.Error("no sync has failed")
	}
	if left, err := x.store.List(spool.Work, "clean"); err != nil || len(left) > 0 {
		t.Errorf("in work/ there is %v, %v; want nothing", left, err)
	}
	told := lines(t, x.store.Dir())
	for id := range lost {
		if told[id] != 1 {
			t.Errorf("the losses files tell of %s %d times; want once", id, told[id])
		}
	}
}

// A line whose sync failed is written again, to another file, before its file
// goes.
func TestFailedSyncOfLosses(t *testing.T) {
	t.Parallel()
	x, faults := faultyBox(t, "evict_unsent = true\n[worker.clean.disk]\nwhen = \"true\"\n")
	first := x.put(x.store, spool.Ready, ".mp4", 100, time.Hour)
	all := there(t, x.store)
	m := newMover(t, x)
	p := x.Start("deleter", "clean")
	x.wantGone(all, first)
	second := x.put(x.store, spool.Ready, ".mp4", 100, time.Hour)
	all[second] = "store/ready"
	faults.FailSyncs(1, ".jsonl", false)
	m.say(second, "ready")
	x.wantGone(all, first, second)
	p.Stop()
	if faults.Failing() > 0 {
		t.Error("no sync has failed")
	}
	if told := lines(t, x.store.Dir()); told[first] != 1 || told[second] != 1 {
		t.Errorf("the losses files tell of %v; want each file once", told)
	}
	if n := len(there(t, x.store)); n != 2 {
		t.Errorf("there are %d losses files; want two", n)
	}
}
