package main

import (
	"errors"
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
)

// powered is a box whose store is on a disk of its own, and all else in RAM: when the power is cut, the
// disk is as its image is, and RAM is empty.
type powered struct {
	*boxtest.Box
	t            *testing.T
	image, store string
}

func newPowered(t *testing.T, entries string) *powered {
	t.Helper()
	b := boxtest.New(t, entries)
	p := &powered{Box: b, t: t, image: filepath.Join(t.TempDir(), "disk.img"), store: filepath.Join(b.Dir, "store")}
	err := errors.Join(os.Mkdir(p.store, 0o700), faultfs.MakeDisk(p.image, 16<<20))
	if err == nil {
		err = faultfs.MountDisk(p.image, p.store)
	}
	if errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = faultfs.Unmount(p.store) }) // a test that failed in a cut has none
	return p
}

// cut ends a process as a power cut does, and returns when that was.
func (p *powered) cut(victim *boxtest.Process, s *session) time.Time {
	p.t.Helper()
	err := faultfs.Freeze(victim.PID())
	at := time.Now()
	err = errors.Join(err, faultfs.CopyDisk(p.image, p.image+".cut"))
	victim.Kill()
	s.close()
	boxtest.Poll(p.t, "the disk to be free", func() bool { return syscall.Unmount(p.store, 0) == nil })
	err = errors.Join(err, os.Rename(p.image+".cut", p.image))
	for _, dir := range []string{"cache", "run", "shm"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(p.Dir, dir)))
	}
	if err = errors.Join(err, faultfs.MountDisk(p.image, p.store)); err != nil {
		p.t.Fatal(err)
	}
	return at
}

// session is what a box does between two power cuts.
type session struct {
	*sensor
	bus    *msg.Bus // of who watches
	states *boxtest.Feed
}

func (p *powered) session() *session {
	p.t.Helper()
	open := func(name msg.Source) *msg.Bus {
		bus, err := msg.Open(msg.Config{Node: "box", Name: name, RunDir: p.Dir + "/run", ShmDir: p.Dir + "/shm"})
		if err != nil {
			p.t.Fatal(err)
		}
		return bus
	}
	s := &session{sensor: newSensorOn(p.t, open("air"), []string{"n"}, 4096), bus: open("watch")}
	s.states = p.Follow(s.bus, []msg.Kind{msg.KindState}, "home")
	return s
}

func (s *session) close() {
	if err := errors.Join(s.sensor.bus.Close(), s.bus.Close()); err != nil {
		s.t.Error(err)
	}
}

// The power is cut at random moments, with the link down and while the backlog is being sent. What the
// state said to be on disk arrives; what comes again was acknowledged within the last second.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	cuts := 2
	if faultfs.Soak() > 0 {
		cuts = 50
	}
	to := newTable(t)
	p := newPowered(t, fleet(home("tcp://"+to.at(), "ack = true\nbatch_records = 20\nspool_most = \"4MiB\"")))
	safe, lost, again := []string(nil), 0, 0
	for range cuts {
		to.set(false, true)
		s := p.session()
		sender := p.Start("jsonsender", "home")
		stop := s.run()
		s.more(100 + rand.IntN(400))
		already := 0 // of earlier sessions
		if len(safe) > 0 {
			already = len(safe) - to.answeredOf(safe)
		}
		st := s.states.State("a backlog", func(st msg.State) bool { return int(st.Gauges["waiting_on_disk_records"]) > already })
		onDisk := int(st.Gauges["waiting_on_disk_records"]) - already
		if rand.IntN(2) == 0 { // sometimes the cut comes while the backlog is being sent
			to.set(false, false)
			before, _ := to.count()
			boxtest.Poll(t, "some to arrive", func() bool { n, _ := to.count(); return n > before+rand.IntN(200) })
		}
		stop()
		at := p.cut(sender, s)
		for i := range onDisk {
			safe = append(safe, s.id(i))
		}

		to.set(false, false)
		acked := to.answered()
		before := to.arrivalsByID()
		s = p.session()
		sender = p.Start("jsonsender", "home")
		boxtest.Poll(t, "what was on disk to arrive", func() bool { return to.answeredOf(safe) == len(safe) })
		s.states.State("all sent", func(st msg.State) bool { return st.Gauges["waiting_records"] == 0 })
		sender.Stop()
		s.close()
		for id, n := range to.arrivalsByID() {
			if when, was := acked[id]; was && n > before[id] {
				again++
				if age := at.Sub(when); age > ackSlack {
					t.Errorf("%s was acknowledged %v before the cut, and came again; want no more than a second's", id, age)
				}
			}
		}
	}
	arrived := to.inOrder()
	for _, id := range safe {
		if !slices.Contains(arrived, id) {
			lost++
		}
	}
	t.Logf("%d cuts: %d records were on disk, %d are lost, %d came again", cuts, len(safe), lost, again)
	if lost > 0 {
		t.Errorf("%d records that were on disk are lost; want none", lost)
	}
}

// ackSlack is how old an acknowledgement may be that a power cut undoes: one second, and what a busy
// machine takes to note it.
const ackSlack = 5 * time.Second
