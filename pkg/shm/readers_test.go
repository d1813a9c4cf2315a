package shm

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
)

// lap publishes until every slot that is free has been used, and says which.
func lap(t *testing.T, w *Writer, info Info) map[int]bool {
	t.Helper()
	used := map[int]bool{}
	for range 2 * w.opts.Slots {
		s, err := w.Claim()
		if err != nil {
			t.Fatalf("Claim() = %v; want a slot", err)
		}
		fill(s.Bytes(), w.Published())
		used[s.Number()] = true
		s.Publish(len(s.Bytes()), info)
	}
	return used
}

func TestStoppedReaderCostsItsOwnSlotsOnly(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 5, SlotBytes: 4096})
	publish(t, w, 3)
	stopped := start(t, "reader", dir.Path(), ring, "stopped", 2)
	stopped.says("ready 0 0000000000000001")
	stopped.want("message 1 slot 1", "at 1")
	stopped.want("message 2 slot 2", "latest")
	stopped.stop()

	other := open(t, dir, "other", 1)
	for range 200 {
		publish(t, w, 1)
		l, err := other.Latest()
		if err != nil || l.Seq() != w.Published()-1 || !whole(l.Bytes(), l.Seq()) {
			t.Fatalf("Latest() beside a stopped reader = message %d, %v; want %d, whole", l.Seq(), err, w.Published()-1)
		}
		l.Release()
	}
	if used := lap(t, w, Info{Boot: 1 << 40}); len(used) != 3 || used[1] || used[2] {
		t.Errorf("slots in use beside a stopped reader = %v; want the three that it does not hold", used)
	}
	if w.Dropped() != 0 {
		t.Errorf("Dropped() = %d; want 0", w.Dropped())
	}
	stopped.resume()
	stopped.want("held 2 torn 0", "check")
	stopped.want("released", "release")
	if used := lap(t, w, Info{}); len(used) != 5 {
		t.Errorf("slots in use after release = %v; want all 5", used)
	}
}

func TestKilledReaderIsReclaimedWithinASecondOfMessages(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 8, SlotBytes: 4096})
	const second = int64(1e9)
	now := 100 * second
	lap(t, w, Info{Boot: now})
	reader := start(t, "reader", dir.Path(), ring, "killed", 3)
	reader.says("ready 0 0000000000000001")
	for back := range 3 {
		reader.ask("at %d", w.Published()-1-uint64(back))
	}
	if n := pinned(w.ctl, 8); n != 3 {
		t.Fatalf("pinned slots = %d; want 3", n)
	}
	reader.kill()
	lap(t, w, Info{Boot: now + second - 1})
	if n := pinned(w.ctl, 8); n != 3 {
		t.Fatalf("pinned slots before the second is over = %d; want 3: this test would prove nothing", n)
	}
	lap(t, w, Info{Boot: now + second})
	if n := pinned(w.ctl, 8); n != 0 {
		t.Errorf("pinned slots a second later = %d; want 0", n)
	}
	if used := lap(t, w, Info{}); len(used) != 8 {
		t.Errorf("slots in use = %v; want all 8", used)
	}
}

func TestKilledReadersAreReclaimedWhenSlotsRunOut(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 5, SlotBytes: 4096})
	for round := range 10 {
		publish(t, w, 5)
		a := start(t, "reader", dir.Path(), ring, "a", 1)
		b := start(t, "reader", dir.Path(), ring, "b", 2)
		a.answer()
		b.answer()
		a.ask("at %d", w.Published()-1)
		b.ask("at %d", w.Published()-2)
		b.ask("at %d", w.Published()-3)
		a.kill()
		b.kill()
		// A newcomer may hold three, since nobody else lives; two more slots are
		// the dead ones', so none would be free.
		next, err := OpenReader(dir, ring, "next", 3)
		if err != nil {
			t.Fatalf("round %d: OpenReader() after its predecessors died = %v", round, err)
		}
		for back := range uint64(3) {
			if _, err := next.At(w.Published() - 3 - back); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		publish(t, w, 10)
		if err := errDropped(w); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		for p := range next.leases {
			next.drop(p)
		}
		next.Close()
	}
}

func errDropped(w *Writer) error {
	if n := w.Dropped(); n != 0 {
		return fmt.Errorf("Dropped() = %d; want 0", n)
	}
	return nil
}

// The writer that reclaims holds the dead reader's lock from before the first
// bit is cleared until after the last: no newcomer can pin under that number
// in between and lose its pin. With many slots, that takes long enough to watch.
func TestReclaimHoldsTheLockWhileItClears(t *testing.T) {
	needTwoProcessors(t)
	dir := folder(t)
	const slots = 1 << 16
	w := create(t, dir, 1, Options{Slots: slots, SlotBytes: 1})
	r := open(t, dir, "watcher", 1) // number 0; the dead one is number 1
	first, last := r.ctl.word(0), r.ctl.word(slots-1)
	watched := 0
	for began := time.Now(); watched < 50 && time.Since(began) < 20*time.Second; {
		for i := range slots {
			w.ctl.word(i).Or(1 << 1)
		}
		var group sync.WaitGroup
		group.Go(func() { w.Reclaim() })
		for first.Load() != 0 {
			runtime.Gosched()
		}
		for last.Load() != 0 {
			held := lockfile.IsHeld(r.file, lockReader+1)
			if last.Load() != 0 { // it was being cleared when it was asked
				watched++
				if !held {
					t.Fatal("the writer clears the pins of a reader whose lock it does not hold")
				}
			}
		}
		group.Wait()
	}
	if watched == 0 {
		t.Error("never caught the writer while it cleared: this test proves nothing")
	}
}

func TestNewcomerKeepsItsPinWhileTheWriterReclaims(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 64})
	publish(t, w, 4)
	var stop atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		for !stop.Load() {
			w.Reclaim()
		}
	})
	for range 3000 {
		r, err := OpenReader(dir, ring, "newcomer", 1)
		if err != nil {
			t.Errorf("OpenReader() while the writer reclaims = %v; want a reader", err)
			break
		}
		l, err := r.At(2)
		if err != nil {
			t.Errorf("At(2) = %v", err)
			break
		}
		slot, _ := l.Slot()
		for range 50 {
			if r.ctl.word(slot).Load()&r.bit == 0 {
				t.Fatal("the pin of a live reader was cleared")
			}
		}
		r.ctl.word(3).Or(r.bit) // what a reader that is killed leaves
		l.Release()
		r.Close()
	}
	stop.Store(true)
	group.Wait()
}

// While the writer reclaims it holds a dead reader's lock: a newcomer must not
// take the dead one for alive and be refused.
func TestNewcomerIsNotRefusedDuringReclaim(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 6, SlotBytes: 64})
	publish(t, w, 1)
	big := open(t, dir, "dead", 4)
	big.Close() // its record still says 4 pins
	var stop atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		for !stop.Load() {
			w.ctl.word(0).Or(1)
			w.Reclaim()
		}
	})
	for range 2000 {
		r, err := OpenReader(dir, ring, "newcomer", 4)
		if err != nil {
			t.Errorf("OpenReader() while the writer reclaims = %v; want a reader", err)
			break
		}
		r.ctl.reader(0).u32(readerPins).Store(4) // as the dead reader left it
		r.Close()
	}
	stop.Store(true)
	group.Wait()
}

// A writer at full speed and a reader that takes new messages and old ones: a
// pin ahead of the writer's look, let go behind it, must not hide the slot that
// is always free; the newest message is always there; a number never gets
// another message.
func TestReaderAndWriterRaceInThreeSlots(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 64})
	r := open(t, dir, "mover", 1)
	publish(t, w, 3)
	var stop atomic.Bool
	var reads, wrong, missed int
	var group sync.WaitGroup
	group.Go(func() {
		for back := uint64(0); !stop.Load(); back = (back + 1) % 3 {
			l, err := r.Latest()
			if err != nil {
				missed++
			}
			l.Release()
			want := r.Published() - 1 - back
			l, err = r.At(want)
			if err == nil && l.Seq() != want {
				wrong++
			}
			if err == nil {
				reads++
			}
			l.Release()
		}
	})
	failed := 0
	for range 5_000_000 {
		s, err := w.Claim()
		if err != nil {
			failed++
			continue
		}
		s.Publish(1, Info{})
	}
	stop.Store(true)
	group.Wait()
	if failed > 0 || w.Dropped() != 0 {
		t.Errorf("Claim() failed %d times, Dropped() = %d; want 0, 0", failed, w.Dropped())
	}
	if missed > 0 || wrong > 0 {
		t.Errorf("Latest() failed %d times, At() gave another message %d of %d times; want 0, 0", missed, wrong, reads)
	}
}

// The latest message is never the one that is being overwritten.
func TestLatestCanBeLeasedWhileTheNextIsFilled(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 64})
	r := open(t, dir, "reader", 2)
	publish(t, w, 1)
	for range 20 {
		old, err := r.Latest()
		lease(t, old, err)
		s, err := w.Claim()
		if err != nil {
			t.Fatal(err)
		}
		l, err := r.Latest()
		if err != nil || l.Seq() != w.Published()-1 {
			t.Errorf("Latest() while message %d is filled = message %d, %v; want the one before", w.Published(), l.Seq(), err)
		}
		l.Release()
		old.Release()
		s.Publish(64, Info{})
	}
}

func TestGoroutinesShareAPin(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 5, SlotBytes: 64})
	r := open(t, dir, "shared", 3)
	publish(t, w, 1)
	l1, err := r.Latest()
	first := lease(t, l1, err)
	l2, err := r.At(0)
	second := lease(t, l2, err)
	if v := w.ctl.word(0).Load(); v&pinBits != 1 {
		t.Errorf("pins after two leases of a message = %b; want reader 0's one bit", v&pinBits)
	}
	first.Release()
	if used := lap(t, w, Info{}); used[0] || !whole(second.Bytes(), 0) {
		t.Errorf("slots in use %v, whole %v; want slot 0 kept for the second lease", used, whole(second.Bytes(), 0))
	}
	second.Release()
	if n := pinned(w.ctl, 5); n != 0 {
		t.Errorf("pinned slots after both releases = %d; want 0", n)
	}
}

// With -race this shows that one Reader serves many goroutines.
func TestReaderServesManyGoroutines(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 8, SlotBytes: 1024})
	r := open(t, dir, "crowd", 6)
	publish(t, w, 1)
	var reads, busy atomic.Int64
	var group sync.WaitGroup
	for g := range uint64(8) {
		group.Go(func() {
			for reads.Load() < 5000 {
				l, err := r.Latest()
				if g%2 == 0 {
					l.Release()
					l, err = r.At(r.Published() - 1 - g/2)
				}
				if err != nil {
					busy.Add(1) // eight ask for six leases, and the oldest may be gone
					continue
				}
				if b := l.Bytes(); !whole(b, l.Seq()) {
					t.Errorf("message %d is torn", l.Seq())
				}
				l.Release()
				l.Release()
				reads.Add(1)
			}
		})
	}
	for reads.Load() < 5000 {
		publish(t, w, 1)
	}
	group.Wait()
	if n := pinned(w.ctl, 8); n != 0 || r.held != 0 || w.Dropped() != 0 {
		t.Errorf("%d slots pinned, %d leases, %d dropped after all released; want 0, 0, 0", n, r.held, w.Dropped())
	}
}
