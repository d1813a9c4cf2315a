package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/pkg/msg"
)

// Where the disk fails, at whatever call and however, and where the sender is killed there, each record
// is in the receiver's table in the end, once.
func TestDiskFailsAtAnyCall(t *testing.T) {
	const rows = 20
	boxtest.Ordeal(t, 40, 4, func(t *testing.T) *boxtest.Trial {
		to := newTable(t)
		b, faults := boxtest.NewFaulty(t, fleet(fmt.Sprintf("to = \"tcp://%s\"\nack = true\nspool_after = \"0s\"\nretry_most = \"1s\"", to.at())))
		s := newSensor(t, b)
		s.rows(rows)
		return &boxtest.Trial{Box: b, Faults: faults, Program: "jsonsender", Name: "home",
			Done: func() bool { return to.len() >= rows }, Whole: func(string) {}, End: func() { wantOnce(t, to.counts(), s) }}
	})
}

// With a disk that fails for long the sender goes on sending, says what is wrong, and uses the disk again
// once that works; the same for one that is full.
func TestDiskFailsForLong(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EDQUOT} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			to := newTable(t)
			to.set(false, true)
			b := boxtest.New(t, fleet(home("tcp://"+to.at(), "ack = true")))
			faults, _ := b.Faulty("store")
			s := newSensor(t, b)
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "home")
			p := b.Start("jsonsender", "home")
			p.Ready()
			faults.Fail(1, errno, false)
			s.rows(700)
			states.State("the disk's trouble", func(st msg.State) bool { return strings.Contains(st.Trouble, errno.Error()) })
			s.rows(900) // more than RAM takes: the rest waits in the history
			states.State("full RAM", func(st msg.State) bool { return st.Gauges["waiting_records"] >= maxWaiting })
			faults.Fail(0, 0, false)
			states.State("all on disk", func(st msg.State) bool { return st.Gauges["waiting_on_disk_records"] >= 1600 })
			to.set(false, false)
			boxtest.Poll(t, "all records to arrive", func() bool { return to.len() >= 1600 })
			states.State("no trouble", func(st msg.State) bool { return st.Trouble == "" })
			p.Stop()
			wantOnce(t, to.counts(), s)
		})
	}
}

// A sender that is told to stop while neither the receiver nor the disk takes anything does not end with
// code 0; the next one reads what was left from the history.
func TestStoppedWithNowhereToGo(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	to.set(false, true)
	b := boxtest.New(t, fleet(home("tcp://"+to.at(), "ack = true")))
	faults, _ := b.Faulty("store")
	s := newSensor(t, b)
	p := b.Start("jsonsender", "home")
	p.Ready()
	faults.Fail(1, syscall.EIO, false)
	s.rows(20)
	boxtest.Poll(t, "the records to arrive unacknowledged", func() bool { return to.len() == 20 })
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code == 0 || !strings.Contains(p.Log(), "neither acknowledged nor on disk") {
		t.Errorf("it ended with code %d; want an error about what is neither acknowledged nor on disk", code)
	}
	faults.Fail(0, 0, false)
	to.set(false, false)
	before, _ := to.count()
	p = b.Start("jsonsender", "home")
	boxtest.Poll(t, "them to arrive again", func() bool { arrivals, _ := to.count(); return arrivals-before >= 20 })
	p.Stop()
	wantOnce(t, to.counts(), s)
}

// A disk that is absent at the start does not keep the sender from sending; when it comes, what waits on it
// is sent, and when it goes and comes once more, too.
func TestDiskComesAndGoes(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	b := boxtest.New(t, "")
	mount := filepath.Join(b.Dir, "usb")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := faultfs.MakeDisk(image, 16<<20); err != nil {
		t.Skip(err)
	}
	mountDisk := func() {
		t.Helper()
		if err := faultfs.MountDisk(image, mount); err != nil {
			t.Skip(err)
		}
	}
	t.Cleanup(func() { _ = faultfs.Unmount(mount) }) // perhaps it is not there
	text, err := os.ReadFile(b.Topology)
	if err != nil {
		t.Fatal(err)
	}
	table := strings.ReplaceAll(string(text), "store_dir = \""+b.Dir+"/store\"", fmt.Sprintf("store_dir = %q\nstore_mount = %q", mount+"/store", mount)) +
		fleet(home("tcp://"+to.at(), "ack = true\nspool_most = \"4MiB\""))
	if err := os.WriteFile(b.Topology, []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSensor(t, b)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "home")

	mountDisk() // a first run leaves a backlog on it
	to.set(false, true)
	p := b.Start("jsonsender", "home")
	s.rows(50)
	states.State("a backlog", func(st msg.State) bool { return st.Gauges["waiting_on_disk_records"] == 50 })
	p.Stop()
	if err := faultfs.Unmount(mount); err != nil {
		t.Fatal(err)
	}

	to.set(false, false)
	to.forget()
	p = b.Start("jsonsender", "home")
	states.State("trouble with the mount", func(st msg.State) bool { return strings.Contains(st.Trouble, "not mounted") })
	s.rows(10)
	boxtest.Poll(t, "the new records to arrive without the disk", func() bool { return to.len() == 10 })
	mountDisk()
	boxtest.Poll(t, "the backlog to arrive", func() bool { return to.len() == 60 })
	states.State("no trouble", func(st msg.State) bool { return st.Trouble == "" })

	if err := faultfs.Unmount(mount); err != nil { // lazily, as a stick that is pulled
		t.Fatal(err)
	}
	s.rows(10)
	boxtest.Poll(t, "records to arrive without the disk", func() bool { return to.len() == 70 })
	to.set(false, true)
	s.rows(10)
	states.State("trouble with the mount", func(st msg.State) bool { return strings.Contains(st.Trouble, "not mounted") })
	mountDisk()
	states.State("a backlog", func(st msg.State) bool { return st.Gauges["waiting_on_disk_records"] == 10 })
	to.set(false, false)
	boxtest.Poll(t, "all records to arrive", func() bool { return to.len() == 80 })
	p.Stop()
	wantOnce(t, to.counts(), s)
}

// A disk that stays full costs readings, which are counted; the bus is not held up, nor is any other
// of its readers.
func TestFullDiskForLong(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	to.close()
	b := boxtest.New(t, fleet(home("tcp://"+to.at(), "ack = true\nspool_most = \"4MiB\"")))
	b.Small("store", 3<<19)
	s := newSensorOf(t, b, []string{"a", "b", "c"}, 20_000)
	s.noisy = true
	bus := b.Bus("watch")
	states := b.Follow(bus, []msg.Kind{msg.KindState}, "home")
	seen := b.Follow(bus, []msg.Kind{msg.KindReading}, "air")
	p := b.Start(built(t), "home")
	p.Ready()
	const rows = 18_000
	for range rows / 500 {
		s.rows(500)
		for range 500 {
			seen.Next()
		}
	}
	st := states.State("losses", func(st msg.State) bool {
		lost := st.Counters["lost_thinned"] + st.Counters["lost_dropped"]
		return lost > 0 && lost+uint64(st.Gauges["waiting_records"]) == rows
	})
	t.Logf("%+v; %s", st.Counters, st.Status)
	wantSmall(t, p)
	again := newTableAt(t, to.at())
	st = states.State("all sent", func(st msg.State) bool { return st.Gauges["waiting_records"] == 0 && again.len() > 0 })
	p.Stop()
	lost := int(st.Counters["lost_thinned"] + st.Counters["lost_dropped"] + st.Counters["lost_damaged"])
	if again.len()+lost != rows {
		t.Errorf("%d records arrived and %d were counted as lost; want %d together", again.len(), lost, rows)
	}
}
