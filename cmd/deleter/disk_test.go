package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// free is how much room a place has.
func free(t *testing.T, sp *spool.Spool) int64 {
	t.Helper()
	room, err := sp.Room()
	if err != nil {
		t.Fatal(err)
	}
	return room.Free
}

// On a disk that has become too full the files go that were sent, the oldest
// first, and no more of them than needed.
func TestMinFree(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("history = \"1.1MB\"\n[worker.clean.disk]\nmin_free = \"8MB\"\n"))
	b.Small("store", 16<<20)
	x := boxOn(t, b, "store")
	var sent []sidecar.ID
	for n := range 12 { // 12 MB: the newest were put first
		sent = append(sent, x.put(x.store, spool.Sent, ".mp4", 1<<20-8192, time.Duration(n+1)*time.Minute))
	}
	unsent := x.put(x.store, spool.Ready, ".mp4", 1000, 100*time.Hour)
	all := there(t, x.store)
	p := x.Start("deleter", "clean")
	p.Ready()
	boxtest.Poll(t, "room", func() bool { return free(t, x.store) >= 8e6 })
	p.Stop()
	left := there(t, x.store)
	if over := free(t, x.store) - 8e6; over < 0 || over > 2<<20 {
		t.Errorf("%d bytes are free beyond min_free; want less than two files' more", over)
	}
	if left[unsent] == "" || len(left) == len(all) {
		t.Errorf("left are %v; want the unsent file, and not all of the others", left)
	}
	for n, id := range sent { // the oldest are last
		if n > 0 && left[id] != "" && left[sent[n-1]] == "" {
			t.Errorf("%s is there, and the newer %s is not", id, sent[n-1])
		}
	}
}

// As long as evict_unsent is false, what was not sent stays whatever is short,
// and the state says what would help.
func TestUnsentStay(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("[worker.clean.disk]\nwhen = \"true\"\nmax_age = \"1ms\"\nmax_bytes = \"1B\"\nmin_free = \"15MB\"\n"))
	b.Small("store", 16<<20)
	x := boxOn(t, b, "store")
	gone := []sidecar.ID{x.put(x.store, spool.Sent, ".mp4", 1000, time.Hour), x.put(x.store, spool.Rejected, ".mp4", 1000, time.Hour)}
	for _, ext := range []string{".mp4", ".csv", ".jsonl"} {
		x.put(x.store, spool.Ready, ext, 1<<20, 100*time.Hour)
	}
	x.put(x.store, spool.Rejected, ".jsonl", 1<<20, 100*time.Hour) // losses that nobody has heard of
	all := there(t, x.store)
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindState}, "clean")
	p := x.Start("deleter", "clean")
	x.wantGone(all, gone...)
	s := feed.State("the trouble", func(s msg.State) bool { return s.Counters["deleted_files"] == 2 && s.Trouble != "" })
	for _, want := range []string{"disk: max_bytes = 1B needs ", "disk: min_free = 15MB needs ", "more: 4 unsent files are not deleted (evict_unsent = false)"} {
		if !strings.Contains(s.Trouble, want) {
			t.Errorf("trouble = %q; want %q in it", s.Trouble, want)
		}
	}
	if n := s.Counters["lost_files"]; n != 1 { // the rejected one: nobody has it
		t.Errorf("lost_files = %d; want 1", n)
	}
	p.Stop()
	if told := lines(t, x.store.Dir()); len(told) != 1 || told[gone[1]] != 1 {
		t.Errorf("the losses files tell of %v; want %s once", told, gone[1])
	}
}

// At the hard floor unsent files go, each told of: what was produced is what is
// told of, and what is left.
func TestEvictUnsent(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("evict_unsent = true\nhistory = \"1.1MB\"\n[worker.clean.disk]\nmin_free = \"6MB\"\n[worker.clean.ram]\nmin_free = \"2MB\"\n"))
	b.Small("store", 12<<20)
	b.Small("cache", 4<<20)
	x := boxOn(t, b, "store")
	var readings []sidecar.ID
	for n := range 200 {
		x.put(x.store, spool.Ready, []string{".mp4", ".jpg"}[n%2], 40_000, time.Duration(n)*time.Minute)
	}
	for range 30 {
		readings = append(readings, x.put(x.store, spool.Ready, ".csv", 40_000, 1000*time.Minute))
	}
	for n := range 60 {
		x.put(x.cache, spool.Born, ".mp4", 50_000, time.Duration(n)*time.Minute)
	}
	all := there(t, x.cache, x.store)
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindFile}, "clean")
	p := x.Start("deleter", "clean")
	p.Ready()
	boxtest.Poll(t, "room", func() bool { return free(t, x.store) >= 6e6 && free(t, x.cache) >= 2e6 })
	p.Stop()
	left, told := there(t, x.cache, x.store), lines(t, x.store.Dir())
	for id := range all {
		if there, n := left[id] != "", told[id]; there == (n > 0) || n > 1 {
			t.Errorf("%s is left: %v, and told of %d times; want one of the two", id, there, n)
		}
	}
	for _, id := range readings {
		if left[id] == "" {
			t.Errorf("%s, a reading, went before all clips and pictures", id)
		}
	}
	for announced := map[string]int{}; announced["gone"] < len(told) || announced["ready"] == 0; {
		m := feed.Next()
		f, err := m.File()
		if err != nil {
			t.Fatal(err)
		}
		announced[f.State]++
		if f.State == "ready" && left[sidecar.ID(f.ID)] != "store/ready" {
			t.Errorf("losses file %s is announced, and not there", f.ID)
		}
	}
	side := lossesSidecar(t, x)
	if int(side.Items) != len(told) || side.Class() != sidecar.Losses || side.State() != "ready" {
		t.Errorf("the losses file has %d lines by its sidecar, class %s, state %s; want %d, losses, ready", side.Items, side.Class(), side.State(), len(told))
	}
}

func lossesSidecar(t *testing.T, x *testbox) *sidecar.Sidecar {
	t.Helper()
	for id := range there(t, x.store) {
		if id.Worker() == "clean" {
			side, err := x.store.Sidecar(spool.Ready, id)
			if err != nil {
				t.Fatal(err)
			}
			return side
		}
	}
	t.Fatal("there is no losses file in ready/")
	return nil
}

// choke writes to a file until the disk has no room left.
func choke(t *testing.T, sp *spool.Spool) {
	t.Helper()
	f, err := os.Create(sp.Dir() + "/filler")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if free(t, sp) > 0 {
		t.Fatalf("the disk has still room: %v", err)
	}
}

// A disk full of unsent files that may not be deleted comes free by itself once
// they are sent: each goes on to sent/ on the full disk, and from there it is
// deleted, and told of.
func TestFullDiskOfUnsentFiles(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("history = \"1.1MB\"\n[worker.clean.disk]\nmin_free = \"3MB\"\n"))
	b.Small("store", 8<<20)
	x := boxOn(t, b, "store")
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindState}, "clean")
	m := newMover(t, x)
	p := x.Start("deleter", "clean")
	p.Ready()
	var ids []sidecar.ID
	for n := range 40 {
		ids = append(ids, x.put(x.store, spool.Ready, ".mp4", 100_000, time.Duration(n)*time.Minute))
	}
	choke(t, x.store)
	m.say(ids[0], "ready")
	feed.State("that room is short", func(s msg.State) bool { return strings.Contains(s.Trouble, "evict_unsent = false") })
	all := there(t, x.store)
	for _, id := range ids {
		h, err := x.store.Hold(spool.Ready, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(h.Move(spool.Sent, h.Sidecar()), h.Release()); err != nil {
			t.Fatalf("Move(%s) to sent/ on a full disk = %v; want nil", id, err)
		}
		m.say(id, "sent")
	}
	boxtest.Poll(t, "room", func() bool { return free(t, x.store) >= 3e6 })
	p.Stop()
	left := there(t, x.store)
	gone := slices.DeleteFunc(ids, func(id sidecar.ID) bool { return left[id] != "" })
	for id := range left {
		all[id] = left[id]
	}
	x.wantGone(all, gone...)
}

// A disk that is full to the last byte is no reason not to delete: at the first
// start, with nothing made ready, and while it runs.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%v", running), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("evict_unsent = true\nhistory = \"1.1MB\"\n[worker.clean.disk]\nmin_free = \"5MB\"\n"))
			b.Small("store", 8<<20)
			x := boxOn(t, b, "store")
			fill := func() (ids []sidecar.ID) {
				for n := range 20 {
					ids = append(ids, x.put(x.store, spool.Ready, ".mp4", 100_000, time.Duration(n)*time.Minute),
						x.put(x.store, spool.Sent, ".mp4", 100_000, time.Duration(n)*time.Minute))
				}
				choke(t, x.store)
				return ids
			}
			m := newMover(t, x)
			if !running {
				fill()
			}
			feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindState}, "clean")
			p := x.Start("deleter", "clean")
			p.Ready()
			if running {
				for _, id := range fill() {
					m.say(id, "ready")
				}
			}
			feed.State("all files gone", func(s msg.State) bool { return s.Counters["deleted_clips_files"] >= 40 })
			p.Stop()
			if told := lines(t, x.store.Dir()); len(told) != 20 {
				t.Errorf("the losses files tell of %d files; want the 20 unsent ones", len(told))
			}
		})
	}
}

// While the store is absent nothing is written in its place. What was dropped
// stays, until RAM is short.
func TestAbsentStore(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(""))
	b.Small("cache", 4<<20)
	text, err := os.ReadFile(b.Topology)
	if err != nil {
		t.Fatal(err)
	}
	mounted := strings.Replace(string(text), "[node]\n", fmt.Sprintf("[node]\nstore_mount = %q\n", b.Dir+"/mnt"), 1)
	mounted = strings.Replace(mounted, b.Dir+"/store", b.Dir+"/mnt/store", 1)
	if err := errors.Join(os.WriteFile(b.Topology, []byte(mounted), 0o600), os.Mkdir(b.Dir+"/mnt", 0o700)); err != nil {
		t.Fatal(err)
	}
	x := boxOn(t, b, "elsewhere")
	first := x.put(x.cache, spool.Dropped, ".mp4", 1000, time.Hour)
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindState}, "clean")
	m := newMover(t, x)
	p := x.Start("deleter", "clean")
	feed.State("the trouble", func(s msg.State) bool {
		return strings.Contains(s.Trouble, "not mounted") && strings.Contains(s.Trouble, "wait to be deleted")
	})
	if there(t, x.cache)[first] == "" {
		t.Error("a dropped file is gone, and nothing tells of it")
	}
	second := x.put(x.cache, spool.Dropped, ".mp4", 3_500_000, time.Minute)
	m.say(second, "dropped")
	boxtest.Poll(t, "room in RAM", func() bool { return len(there(t, x.cache)) == 0 })
	feed.State("both counted", func(s msg.State) bool { return s.Counters["unrecorded_files"] == 2 })
	if list, err := os.ReadDir(b.Dir + "/mnt"); err != nil || len(list) > 0 {
		t.Errorf("the mount point holds %v, %v; want nothing", list, err)
	}
	p.Stop()
}
