package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/shm"
)

// Killed at any moment, csvwriter misses nothing and repeats nothing.
func TestKilledWhileASensorRuns(t *testing.T) {
	t.Parallel()
	for _, flush := range []string{"instant", "1hz"} {
		t.Run(flush, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(flush))
			store := b.Dir + "/store"
			s := newSensor(t, b, "n")
			stop := s.run(time.Millisecond)
			for range 20 {
				p := b.Start("csvwriter", "air-csv")
				s.more(5 + rand.IntN(150)) // a millisecond each: in its start, or while it writes
				p.Kill()
			}
			stop()
			p := b.Start("csvwriter", "air-csv")
			waitRows(t, store, int(s.n.Load()))
			p.Stop()
			wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): s.n.Load()})
			wantNoLitter(t, store, 1)
		})
	}
}

// Stopped and started again it goes on in the same file.
func TestCleanRestart(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("1hz"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	stop := s.run(time.Millisecond)
	for range 3 {
		p := b.Start("csvwriter", "air-csv")
		s.more(100)
		p.Stop()
	}
	stop()
	p := b.Start("csvwriter", "air-csv")
	waitRows(t, store, int(s.n.Load()))
	p.Stop()
	wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): s.n.Load()})
	openFile(t, store)
}

// Killed sensors leave their last messages in their history, which is read out
// before the next run's.
func TestSensorKilledWhileCsvwriterRuns(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	dir, err := shm.OpenDir(b.Dir + "/shm")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	p := b.Start("csvwriter", "air-csv")
	want := map[string]uint64{}
	for range 10 {
		sensor := b.StartEnv(nil, "counter", b.Dir)
		epoch, n := published(t, dir, want)
		enough := uint64(20 + rand.IntN(100))
		boxtest.Poll(t, "the sensor", func() bool { return n() >= enough })
		sensor.Kill()
		want[epoch] = n() // the truth: what it has put into its history
	}
	total := 0
	for _, n := range want {
		total += int(n)
	}
	waitRows(t, store, total)
	p.Stop()
	wantExactly(t, store, want)
	for _, name := range []string{"air.ipc", "air.ipc.lock"} { // of the last one that was killed
		if err := os.Remove(filepath.Join(b.Dir, "run", name)); err != nil {
			t.Error(err)
		}
	}
}

// published waits for a run that is not known yet, and tells how far it is.
func published(t *testing.T, dir *shm.Dir, known map[string]uint64) (epoch string, n func() uint64) {
	t.Helper()
	var current msg.Epoch
	boxtest.Poll(t, "a new run of the sensor", func() bool {
		e, err := dir.Current("air.count")
		if err != nil {
			return false
		}
		_, old := known[e.String()]
		current = e
		return !old
	})
	ring, err := shm.OpenEpoch(dir, "air.count", current, "truth", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ring.Close(); err != nil {
			t.Error(err)
		}
	})
	return current.String(), ring.Published
}

// Between any two calls that change the disk csvwriter may be killed: in its
// first file's beginning, in a row, in the turn from one day to the next.
func TestKilledAtEachCall(t *testing.T) {
	t.Parallel()
	atEachCall(t, 20, killedAt)
}

// atEachCall runs a test that is to be killed at the first call, the second and so
// on, some at a time, until it is done before that. Of the calls one in four is
// tried, and each in a soak. There have to be least of them.
func atEachCall(t *testing.T, least int, killed func(*testing.T, int) (came bool)) {
	t.Helper()
	const atOnce = 5
	sample := faultfs.NewSample(4)
	t.Log(sample)
	for first := sample.Next(0, 1); ; first += atOnce * sample.Every() {
		var came [atOnce]bool
		t.Run("from "+fmt.Sprint(first), func(t *testing.T) {
			for k := range came {
				n := first + k*sample.Every()
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					t.Parallel()
					came[k] = killed(t, n)
				})
			}
		})
		if t.Failed() {
			return
		}
		if k := slices.Index(came[:], false); k >= 0 {
			if calls := first + k*sample.Every(); calls <= least {
				t.Errorf("it was done before call %d; want at least %d, or this test does not see them", calls, least)
			}
			return
		}
	}
}

// killedAt says whether it came to the n-th call at all.
func killedAt(t *testing.T, n int) bool {
	t.Helper()
	b := boxtest.New(t, fleet("instant"))
	faults, backing := b.Faulty("store")
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	p := victim(b, faults, n)
	rows := 0
	publish := func(wall string) {
		s.publish(at(t, wall, time.Hour+time.Duration(rows)), float64(rows))
		rows++
	}
	publish("2026-03-01T23:59:58Z")
	publish("2026-03-01T23:59:59Z")
	boxtest.Poll(t, "two rows or the kill", func() bool { return faults.Broken() || len(rowsIn(t, backing)) == 2 })
	publish("2026-03-02T00:00:00Z")
	publish("2026-03-02T00:00:01Z")
	complete := func() bool { return len(rowsIn(t, backing)) == rows && ready(t, backing) == 1 && struck(backing) }
	boxtest.Poll(t, "the turn or the kill", func() bool { return faults.Broken() || complete() })
	came := faults.Broken()
	p.Kill()
	trace := faults.Calls()
	p = victim(b, faults, 1+7*n%13) // and again while it takes up what was left
	boxtest.Poll(t, "the turn or the second kill", func() bool { return faults.Broken() || complete() })
	p.Kill()
	trace = append(append(trace, "killed"), faults.Calls()...)
	faults.Break(0, nil)
	p = b.Start("csvwriter", "air-csv")
	boxtest.Poll(t, "the turn", complete)
	p.Stop()
	wantExactly(t, backing, map[string]uint64{s.pub.Epoch().String(): 4})
	wantReady(t, backing, []file{{"the date changed", 2}})
	wantNoLitter(t, backing, 1)
	if t.Failed() {
		t.Logf("in %s, calls before the kill: %q", store, trace)
	}
	return came
}

// victim is a csvwriter that is killed in place of its n-th call.
func victim(b *boxtest.Box, faults *faultfs.FS, n int) *boxtest.Process {
	started := make(chan int, 1)
	faults.Break(n, func() { _ = syscall.Kill(<-started, syscall.SIGKILL) }) // it dies when this call has failed
	p := b.Start("csvwriter", "air-csv")
	started <- p.PID()
	return p
}

// struck says whether the journal is done with the file that has ended.
func struck(store string) bool {
	text, err := os.ReadFile(store + "/work/air-csv.journal")
	return err == nil && !bytes.Contains(text, []byte(`"ending"`))
}
