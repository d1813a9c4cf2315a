package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/pkg/msg"
)

// usb is a place where disks are plugged in and pulled out.
type usb struct {
	t   *testing.T
	box *boxtest.Box
	at  string
	in  bool
}

func newUSB(t *testing.T, b *boxtest.Box) *usb {
	t.Helper()
	u := &usb{t: t, box: b, at: b.Dir + "/usb"}
	if err := os.Mkdir(u.at, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if u.in {
			u.pull()
		}
	})
	return u
}

// disk makes one. Its folder shows what is on it while it is not plugged in.
func (u *usb) disk(name string) string {
	u.t.Helper()
	return u.box.Small(name, 64<<20)
}

func (u *usb) plug(disk string) {
	u.t.Helper()
	if err := unix.Mount(disk, u.at, "", unix.MS_BIND, ""); err != nil {
		u.t.Fatal(err)
	}
	u.in = true
}

// pull takes the disk away, whatever is open on it, and wants nothing to be
// where it was.
func (u *usb) pull() {
	u.t.Helper()
	if err := faultfs.Unmount(u.at); err != nil {
		u.t.Fatal(err)
	}
	u.in = false
	u.wantNothing()
}

func (u *usb) wantNothing() {
	u.t.Helper()
	if below, err := os.ReadDir(u.at); err != nil || len(below) > 0 {
		u.t.Errorf("below the mount point there is %v, %v; want nothing", below, err)
	}
}

func (u *usb) start() *boxtest.Process {
	return u.box.Start("csvwriter", "air-csv", "--set", "node.store_mount="+u.at, "--set", "node.store_dir="+u.at+"/box")
}

func absent(s msg.State) bool {
	return s.Ready && strings.HasPrefix(s.Trouble, "rows wait in RAM: ") && strings.Contains(s.Trouble, "nothing is mounted at")
}

func well(s msg.State) bool { return s.Trouble == "" }

// Started before its disk is there, it is ready, and holds what comes, also
// across midnight. Of that the disk has some already: from a run before.
func TestStartedBeforeItsDisk(t *testing.T) {
	t.Parallel()
	for _, flush := range []string{"instant", "1hz"} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprint(flush, killed), func(t *testing.T) {
				t.Parallel()
				b := boxtest.New(t, fleet(flush))
				u := newUSB(t, b)
				disk := u.disk("disk")
				s := newSensor(t, b, "n")
				n := 0
				publish := func(rows int, wall string) {
					for range rows {
						s.publish(at(t, wall, time.Hour+time.Duration(n)), float64(n))
						n++
					}
				}
				feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
				u.plug(disk)
				p := u.start()
				publish(10, "2026-03-01T12:00:00Z")
				waitRows(t, disk+"/box", 10)
				if killed {
					p.Kill()
				} else {
					p.Stop()
				}
				u.pull()
				publish(10, "2026-03-01T13:00:00Z")

				p = u.start()
				feed.State("absent in its trouble", absent)
				publish(10, "2026-03-01T23:59:59Z")
				publish(10, "2026-03-02T00:00:00Z")
				feed.State("all rows held", func(s msg.State) bool { return s.Counters["rows"] == 40 && absent(s) })
				u.wantNothing()
				u.plug(disk)
				waitRows(t, disk+"/box", 40)
				feed.State("no trouble", well)
				publish(10, "2026-03-02T00:00:01Z")
				waitRows(t, disk+"/box", 50)
				boxtest.Poll(t, "the first day's file", func() bool { return ready(t, disk+"/box") == 1 && struck(disk+"/box") })
				p.Stop()
				wantExactly(t, disk+"/box", map[string]uint64{s.pub.Epoch().String(): 50})
				wantReady(t, disk+"/box", []file{{"the date changed", 30}})
				wantNoLitter(t, disk+"/box", 1)
			})
		}
	}
}

// Killed while its disk is absent, it has nothing but the histories of the
// sensor's runs: of the present one, and of one that nobody read to its end.
func TestKilledWhileItsDiskIsAbsent(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	u := newUSB(t, b)
	disk := u.disk("disk")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	want := map[string]uint64{}
	begin := func() (stop func() error) {
		t.Helper()
		bus := b.Bus("air")
		s := newSensorOn(t, bus, "n")
		s.rows(20)
		want[s.pub.Epoch().String()] = 20
		return bus.Close
	}
	end := func(stop func() error) {
		t.Helper()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	u.plug(disk)
	p := u.start()
	first := begin()
	waitRows(t, disk+"/box", 20)
	p.Kill()
	u.pull()
	end(first)
	end(begin())
	p = u.start()
	held := func(n uint64) func(msg.State) bool {
		return func(s msg.State) bool { return s.PID == p.PID() && absent(s) && s.Counters["rows"] >= n }
	}
	feed.State("the second run held", held(20))
	begin()
	feed.State("the third run held", held(40))
	p.Kill()
	u.wantNothing()
	p = u.start()
	feed.State("both held again", held(40))
	p.Kill()
	u.plug(disk)
	p = u.start()
	waitRows(t, disk+"/box", 60)
	p.Stop()
	wantExactly(t, disk+"/box", want)
	wantNoLitter(t, disk+"/box", 1)
}

// The disk is pulled out while rows come, and plugged in again.
func TestDiskThatComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, flush := range []string{"instant", "1hz"} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprint(flush, killed), func(t *testing.T) {
				t.Parallel()
				b := boxtest.New(t, fleet(flush))
				u := newUSB(t, b)
				disk := u.disk("disk")
				feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
				s := newSensor(t, b, "n")
				stop := s.run(5 * time.Millisecond)
				p := u.start()
				for range 2 {
					s.more(rand.IntN(60))
					u.plug(disk)
					feed.State("no trouble", well)
					s.more(rand.IntN(300)) // with 1hz there is a sync, or there is none
					u.pull()
					feed.State("absent in its trouble", absent)
					if killed {
						p.Kill()
						p = u.start()
					}
				}
				u.plug(disk)
				stop()
				waitRows(t, disk+"/box", int(s.n.Load()))
				p.Stop()
				u.pull()
				wantExactly(t, disk+"/box", map[string]uint64{s.pub.Epoch().String(): s.n.Load()})
				wantNoLitter(t, disk+"/box", 1)
			})
		}
	}
}

// Another disk takes what the first one has not, also one that has been in use.
func TestAnotherDisk(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	u := newUSB(t, b)
	disks := []string{u.disk("one"), u.disk("two")}
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	s := newSensor(t, b, "n")
	stop := s.run(5 * time.Millisecond)
	p := u.start()
	for n := range 6 {
		u.plug(disks[n%2])
		s.more(20 + rand.IntN(40))
		feed.State("no trouble", well)
		u.pull()
	}
	feed.State("absent in its trouble", absent)
	u.plug(disks[0])
	stop()
	both := func() []row { return append(rowsIn(t, disks[0]+"/box"), rowsIn(t, disks[1]+"/box")...) }
	boxtest.Poll(t, "all rows", func() bool { return len(both()) >= int(s.n.Load()) })
	p.Stop()
	wantOnce(t, both(), map[string]uint64{s.pub.Epoch().String(): s.n.Load()})
	for _, disk := range disks {
		if len(rowsIn(t, disk+"/box")) == 0 {
			t.Errorf("%s has no row; want some on each", disk)
		}
		wantNoLitter(t, disk+"/box", 1)
	}
}

// Told to stop while its disk is absent: with rows in RAM it says so by its
// code; without any there is nothing to say.
func TestStoppedWhileItsDiskIsAbsent(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("1hz"))
	u := newUSB(t, b)
	disk := u.disk("disk")
	s := newSensor(t, b, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := u.start()
	feed.State("absent in its trouble", absent)
	p.Stop()
	p = u.start()
	s.rows(10)
	feed.State("the rows held", func(s msg.State) bool { return s.PID == p.PID() && s.Counters["rows"] == 10 })
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 1 || !strings.Contains(p.Log(), "rows wait in RAM: store ") {
		t.Errorf("exit code = %d; want 1 and the reason", code)
	}
	u.wantNothing()
	u.plug(disk)
	p = u.start()
	waitRows(t, disk+"/box", 10)
	p.Stop()
	wantExactly(t, disk+"/box", map[string]uint64{s.pub.Epoch().String(): 10})
}

// More than fits in RAM is not read; what the sensor's history has lost by the
// time the disk is there is counted, and nothing else.
func TestHeldRowsAreBounded(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("1hz"))
	u := newUSB(t, b)
	disk := u.disk("disk")
	columns := make([]string, 100) // long rows: fewer of them do
	values := make([]float64, len(columns))
	for i := range values {
		columns[i], values[i] = fmt.Sprintf("c%d", i), 1.0/float64(i+3) // many digits
	}
	bus := b.Bus("air")
	s := &sensor{t: t, bus: bus}
	var err error
	if s.pub, err = bus.Publisher(); err == nil {
		s.out, err = s.pub.Readings("count", columns, msg.Retention{Messages: 1 << 13, MessageBytes: 4096, Expect: []string{"air-csv"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	publish := func(rows int) {
		for range rows {
			s.publish(bus.Clock().Now(), values...)
		}
	}
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := u.start()
	feed.State("absent in its trouble", absent)
	publish(10_000)
	full := feed.State("all that can be held", func(s msg.State) bool { return s.Gauges["waiting_bytes"] >= maxHeld })
	if got := full.Gauges["waiting_bytes"]; got > maxHeld+1<<12 {
		t.Errorf("%.0f bytes are held; want %d at most", got, maxHeld)
	}
	publish(1<<13 + 4000) // what the history loses, and more than the sockets hold
	sent := s.n.Load()
	u.plug(disk)
	last := feed.State("all accounted for", func(s msg.State) bool { return well(s) && len(s.Sources) == 1 && s.Sources[0].Sent == sent })
	lost := last.Sources[0].Lost
	p.Stop()
	rows := rowsIn(t, disk+"/box")
	seen := map[uint64]bool{}
	for _, r := range rows {
		seen[r.seq] = true
	}
	if uint64(len(rows)) != sent-lost || len(seen) != len(rows) || lost == 0 {
		t.Errorf("%d rows, %d of them different, and %d lost; want %d in all, and some lost", len(rows), len(seen), lost, sent)
	}
}

// What a disk turns out to have is dropped. Numbers of runs say nothing about
// those of another boot.
func TestMarkCovers(t *testing.T) {
	m := mark{Cursor: msg.Cursor{Epoch: 7, Seq: 3}, boot: "b"}
	for _, tt := range []struct {
		row  msg.Cursor
		boot string
		want bool
	}{
		{msg.Cursor{Epoch: 7, Seq: 3}, "b", true},
		{msg.Cursor{Epoch: 7, Seq: 4}, "b", false},
		{msg.Cursor{Epoch: 6, Seq: 4}, "b", true},
		{msg.Cursor{Epoch: 6, Seq: 4}, "c", false},
		{msg.Cursor{Epoch: 8, Seq: 0}, "b", false},
	} {
		if got := m.covers(tt.row, tt.boot); got != tt.want {
			t.Errorf("%v covers %v of boot %s = %t; want %t", m, tt.row, tt.boot, got, tt.want)
		}
	}
	m.boot = "" // a row from before the file
	if m.covers(msg.Cursor{Epoch: 6}, "b") || !m.covers(msg.Cursor{Epoch: 7}, "b") {
		t.Error("a mark of an unknown boot covers another run, or not its own")
	}
}

// Rows that were still on their way when the disk came are held against it too.
func TestRowsOfADiskThatCameLater(t *testing.T) {
	b := &book{marks: map[msg.Topic]mark{"reading/air/count": {Cursor: msg.Cursor{Epoch: 7, Seq: 3}, boot: "b"}}}
	h := &day{draft: exampleDraft()}
	h.Topic = "reading/air/count"
	for n := range 6 {
		h.append(reading(n, 1, 2))
	}
	if !b.goesBeyond(h) || countRows(h.waiting) != 2 || h.First.Seq != 4 || h.rows.text() != "4-5 of 0000000000000007" {
		t.Errorf("held after a disk with 4 rows: %q from row %d; want rows 4 and 5", h.waiting, h.First.Seq)
	}
	if len(b.marks) != 0 {
		t.Errorf("marks = %v; want none once a row is new", b.marks)
	}
}
