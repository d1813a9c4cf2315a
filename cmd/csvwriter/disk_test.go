package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/pkg/msg"
)

// fill takes all the room that is left.
func fill(t *testing.T, store string) {
	t.Helper()
	if err := os.WriteFile(store+"/ballast", bytes.Repeat([]byte("x"), 512<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk = %v; want ENOSPC", err)
	}
}

func drop(t *testing.T, store string) {
	t.Helper()
	if err := os.Remove(store + "/ballast"); err != nil {
		t.Fatal(err)
	}
}

// A full disk costs nothing: the state says so, the rows wait, and all of them
// are there when there is room again, also those of the next day.
func TestFullDiskThatGetsRoomAgain(t *testing.T) {
	t.Parallel()
	for _, flush := range []string{"instant", "1hz"} {
		t.Run(flush, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(flush))
			store := b.Small("store", 256<<10)
			s := newSensor(t, b, "n")
			feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
			p := b.Start("csvwriter", "air-csv")
			n := 0
			publish := func(rows int, wall string) {
				for range rows {
					s.publish(at(t, wall, time.Hour+time.Duration(n)), float64(n))
					n++
				}
			}
			publish(10, "2026-03-01T12:00:00Z")
			waitRows(t, store, 10)
			fill(t, store)
			publish(300, "2026-03-01T12:00:00Z") // more than a page
			full := feed.State("the trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, "no space left on device") })
			if full.Counters["rows"] < 10 {
				t.Errorf("state = %+v; want the rows counted", full)
			}
			feed.State("progress in trouble", func(s msg.State) bool { return s.ProgressNS > full.ProgressNS && s.Trouble != "" })
			feed.State("all rows read meanwhile", func(s msg.State) bool { return s.Counters["rows"] == 310 })
			publish(5, "2026-03-02T12:00:00Z") // a new file cannot be begun either
			feed.State("the trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, "no space left on device") })
			drop(t, store)
			waitRows(t, store, n)
			boxtest.Poll(t, "the first day's file", func() bool { return ready(t, store) == 1 })
			feed.State("no trouble", func(s msg.State) bool { return s.Trouble == "" })
			p.Stop()
			wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): uint64(n)})
			wantReady(t, store, []file{{"the date changed", 310}})
			wantNoLitter(t, store, 1)
		})
	}
}

// Told to stop, or killed, before the disk has the rows: it says so by its
// code, and the next run gets them from the sensor.
func TestFullDiskAtTheEndOfARun(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("1hz"))
	store := b.Small("store", 256<<10)
	s := newSensor(t, b, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	s.rows(10)
	waitRows(t, store, 10)
	fill(t, store)
	s.rows(300)
	feed.State("the trouble", func(s msg.State) bool { return s.Trouble != "" })
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 1 || !strings.Contains(p.Log(), "csvwriter: write rows: ") {
		t.Errorf("exit code = %d; want 1 and the reason", code)
	}
	// A disk that is still full is no reason not to start.
	p = b.Start("csvwriter", "air-csv")
	feed.State("the trouble of the next run", func(s msg.State) bool { return s.PID == p.PID() && s.Trouble != "" })
	p.Kill()
	p = b.Start("csvwriter", "air-csv")
	feed.State("the trouble of the one after it", func(s msg.State) bool { return s.PID == p.PID() && s.Trouble != "" })
	drop(t, store)
	waitRows(t, store, 310)
	p.Stop()
	wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): 310})
}

// Told to stop with a full disk, it says how many rows are not on it, and the next
// run writes them, each once: from cache_dir, even when the sensor has ended too
// and its history with it, or from that history where there is no cache_dir.
func TestRowsThatAreNotOnDiskAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		noCache, ends bool // the sensor does, with its history
		killed        bool // the next run, as soon as it has written them
		removed       bool // the open file, when the disk is full
		says          string
	}{
		{name: "kept", ends: true, says: " rows are not on disk (seq "},
		{name: "kept and the next run killed", ends: true, killed: true, says: "kept in "},
		{name: "kept beside a history", says: "kept in "},
		{name: "kept of a file that was removed", removed: true, ends: true, says: "310 rows are not on disk (seq 0-309 of "},
		{name: "no cache_dir", noCache: true, says: "and cannot be kept for the next run: there is no cache_dir"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("1hz"))
			store := b.Small("store", 256<<10)
			if tt.noCache {
				if err := os.WriteFile(b.Dir+"/cache", nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			bus := b.Bus("air")
			s := newSensorOn(t, bus, "n")
			want := map[string]uint64{s.pub.Epoch().String(): 310}
			feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
			p := b.Start("csvwriter", "air-csv")
			s.rows(10)
			waitRows(t, store, 10)
			fill(t, store)
			s.rows(300)
			feed.State("the trouble", func(s msg.State) bool { return s.Trouble != "" && s.Counters["rows"] == 310 })
			if tt.removed {
				shell(t, store, `rm "$f"`)
				feed.State("the trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, "salvage") })
			}
			if tt.ends {
				if err := bus.Close(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the disk is still full when it is started and stopped again
				p.Ready()
				p.Signal(syscall.SIGTERM)
				if code := p.Wait(); code != 1 || !strings.Contains(p.Log(), tt.says) {
					t.Errorf("exit code = %d, log %s; want 1 and %q", code, p.Log(), tt.says)
				}
				p = b.Start("csvwriter", "air-csv")
				feed.State("the trouble of the next run", func(s msg.State) bool { return s.PID == p.PID() && s.Trouble != "" })
			}
			drop(t, store)
			waitRows(t, store, 310)
			if tt.killed {
				p.Kill()
				p = b.Start("csvwriter", "air-csv")
			}
			if tt.ends { // another run of the sensor
				s = newSensorOn(t, b.Bus("air"), "n")
				want[s.pub.Epoch().String()] = 5
				s.rows(5)
				waitRows(t, store, 315)
			}
			boxtest.Poll(t, "the rows to be dropped from cache_dir", func() bool {
				list, err1 := filepath.Glob(b.Dir + "/cache/work/*.unsaved")
				files, err2 := filepath.Glob(b.Dir + "/cache/work/*.csv")
				return len(list)+len(files) == 0 && err1 == nil && err2 == nil
			})
			p.Stop()
			wantExactly(t, store, want)
			wantNoLitter(t, store, 1)
		})
	}
}

// A run that was killed while it removed its kept rows leaves files without a
// list: the next run removes them.
func TestKeptRowsWithoutTheirList(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("1hz"))
	left := filepath.Join(b.Dir, "cache/work/air-csv_20260517T094057Z_000283baec0033c3-000001.csv")
	if err := errors.Join(os.MkdirAll(filepath.Dir(left), 0o700), os.WriteFile(left, []byte("time\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	p := b.Start("csvwriter", "air-csv")
	p.Ready()
	boxtest.Poll(t, "the file to be removed", func() bool {
		_, err := os.Stat(left)
		return errors.Is(err, fs.ErrNotExist)
	})
	p.Stop()
}

// After a sync that failed nothing that it was to save is trusted: the rows
// stand in the next file, and only there.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		before   int    // rows that are safe
		failures int    // syncs that fail
		of       string // which
		keep     bool   // what is lost can be read till the next power cut
		flush    string
		ready    []file
		counted  uint64 // failed_syncs
	}{
		{name: "one", before: 10, failures: 1, of: ".csv", flush: "instant", ready: []file{{"the disk failed to sync it", 10}}, counted: 1},
		{name: "one with 1hz", before: 10, failures: 1, of: ".csv", flush: "1hz", ready: []file{{"the disk failed to sync it", 10}}, counted: 1},
		{name: "one that shows at the next power cut only", before: 10, failures: 1, of: ".csv", keep: true, flush: "instant",
			ready: []file{{"the disk failed to sync it", 10}}, counted: 1},
		{name: "the first of all", failures: 1, of: ".csv", flush: "instant", counted: 1},
		{name: "three in a row", before: 10, failures: 3, of: ".csv", flush: "instant", ready: []file{{"the disk failed to sync it", 10}}, counted: 2}, // and one when that file is completed,
		{name: "of the journal", failures: 2, of: ".journal.new", flush: "instant"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(tt.flush))
			faults, backing := b.Faulty("store")
			s := newSensor(t, b, "n")
			feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
			p := b.Start("csvwriter", "air-csv")
			s.rows(tt.before)
			waitRows(t, backing, tt.before)
			boxtest.Poll(t, "a sync", func() bool { return tt.before == 0 || synced(faults) })
			faults.FailSyncs(tt.failures, tt.of, tt.keep)
			s.rows(7)
			boxtest.Poll(t, "the failures", func() bool { return faults.Failing() == 0 })
			s.rows(3)
			total := tt.before + 10
			waitRows(t, backing, total)
			boxtest.Poll(t, "the file that failed", func() bool { return ready(t, backing) == len(tt.ready) && struck(backing) })
			feed.State("the failures counted", func(s msg.State) bool { return s.Counters["failed_syncs"] == tt.counted && s.Trouble == "" })
			p.Stop()
			wantExactly(t, backing, map[string]uint64{s.pub.Epoch().String(): uint64(total)})
			wantReady(t, backing, tt.ready)
			wantNoLitter(t, backing, 1)
		})
	}
}

func synced(faults *faultfs.FS) bool {
	return slices.ContainsFunc(faults.Calls(), func(call string) bool {
		return strings.HasPrefix(call, "sync work/") && strings.HasSuffix(call, ".csv")
	})
}

// A file whose bytes somebody changes on the disk when it cannot be synced, and that
// still looks whole, is not trusted: what was written is what is sent.
func TestFailedSyncThatCostBytes(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	faults, backing := b.Faulty("store")
	s := newSensor(t, b, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	s.publish(at(t, "2026-03-01T12:00:00Z", time.Hour), 7)
	waitRows(t, backing, 1)
	path := openFile(t, backing)
	over, done := false, false // the day: what is synced from then on is the whole file
	faults.Watch(func(call string) {
		over = over || strings.HasPrefix(call, "create work/") && strings.HasSuffix(call, ".csv")
		if !over || done || call != "sync work/"+filepath.Base(path) {
			return
		}
		done = true
		faults.FailSyncs(1, filepath.Base(path), true)
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, bytes.Replace(text, []byte(",7,\n"), []byte(",8,\n"), 1), 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	})
	s.publish(at(t, "2026-03-02T12:00:00Z", 25*time.Hour), 1)
	boxtest.Poll(t, "the first day's file", func() bool { return ready(t, backing) >= 1 })
	feed.State("no trouble with the disk", func(s msg.State) bool { return s.Counters["files"] >= 1 && !strings.Contains(s.Trouble, "sync") })
	p.Stop()
	rows := rowsIn(t, backing)
	wantOnce(t, rows, map[string]uint64{s.pub.Epoch().String(): 2})
	if len(rows) == 0 || rows[0].cells[5] != "7" {
		t.Errorf("rows = %v; want the first with the value that was published", rows)
	}
}

// The last sync of a run may fail too.
func TestFailedSyncAtTheEndOfARun(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("1hz"))
	faults, backing := b.Faulty("store")
	s := newSensor(t, b, "n")
	p := b.Start("csvwriter", "air-csv")
	s.rows(10)
	waitRows(t, backing, 10)
	boxtest.Poll(t, "a sync", func() bool { return synced(faults) })
	faults.FailSyncs(1, ".csv", false)
	s.rows(5)
	waitRows(t, backing, 15)
	p.Stop()
	if faults.Failing() != 0 {
		t.Skip("the sync of each second came before the stop")
	}
	wantExactly(t, backing, map[string]uint64{s.pub.Epoch().String(): 15})
}

// Syncs cost an SD card its life: with 1hz there is one a second at most,
// however many rows come.
func TestOneSyncASecond(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("1hz"))
	faults, backing := b.Faulty("store")
	s := newSensor(t, b, "n")
	p := b.Start("csvwriter", "air-csv")
	begun := time.Now()
	stop := s.run(time.Millisecond)
	s.more(1500)
	stop()
	waitRows(t, backing, int(s.n.Load()))
	p.Stop()
	syncs := 0
	for _, call := range faults.Calls() {
		if strings.HasPrefix(call, "sync work/") && strings.HasSuffix(call, ".csv") {
			syncs++
		}
	}
	if most := int(time.Since(begun)/time.Second) + 2; syncs == 0 || syncs > most {
		t.Errorf("%d syncs in %s; want at least one and at most %d", syncs, time.Since(begun), most)
	}
}
