package shm

import (
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/lockfile"
)

// files lists the ring folder.
func files(t *testing.T, dir *Dir) []string {
	t.Helper()
	entries, err := os.ReadDir(dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantFiles(t *testing.T, dir *Dir, when string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, files(t, dir)); d != "" {
		t.Errorf("files %s (-want +got):\n%s", when, d)
	}
}

func TestKilledWritersRingIsDrainedAndReplaced(t *testing.T) {
	dir := folder(t)
	first := start(t, "writer", dir.Path(), ring, 1, 6, 8192, 0)
	first.says("ready")
	first.want("published 20", "publish 20")
	r := open(t, dir, "reader", 2)
	l, err := r.At(17)
	held := lease(t, l, err)
	if r.Ended() || !dir.HasWriter(ring) {
		t.Fatalf("Ended() = %v, HasWriter() = %v with a live writer; want false, true", r.Ended(), dir.HasWriter(ring))
	}
	first.want("half", "half") // killed while it fills a slot
	first.kill()
	if !r.Ended() || r.Closed() || dir.HasWriter(ring) {
		t.Errorf("after kill -9 of the writer: Ended() = %v, Closed() = %v, HasWriter() = %v; want true, false, false",
			r.Ended(), r.Closed(), dir.HasWriter(ring))
	}
	drain(t, r, 15, 20) // 14 was in the slot being filled

	second := start(t, "writer", dir.Path(), ring, 2, 4, 4096, 0) // another geometry, too
	second.says("ready")
	second.want("published 3", "publish 3")
	wantFiles(t, dir, "after the restart", "porch.video.0000000000000002.ctl", "porch.video.0000000000000002.dat",
		"porch.video.cur", "porch.video.lock")
	if !whole(held.Bytes(), 17) {
		t.Error("the message held from the unlinked ring has changed")
	}
	drain(t, r, 15, 20)
	next := open(t, dir, "reader", 2)
	if next.Epoch() != 2 || next.Slots() != 4 {
		t.Errorf("OpenReader() after the restart: epoch %s of %d slots; want 2 of 4", next.Epoch(), next.Slots())
	}
	drain(t, next, 0, 3)
	if !whole(held.Bytes(), 17) {
		t.Error("the held message has changed after the move to the new ring")
	}
}

// drain wants the messages from one to before another, whole and in order, and
// nothing else.
func drain(t *testing.T, r *Reader, from, to uint64) {
	t.Helper()
	if n := r.Published(); n != to {
		t.Fatalf("Published() = %d; want %d", n, to)
	}
	for seq := range to + 1 {
		l, err := r.At(seq)
		switch {
		case seq < from && !errors.Is(err, ErrGone):
			t.Errorf("At(%d) = %v; want ErrGone", seq, err)
		case seq == to && !errors.Is(err, ErrNotYet):
			t.Errorf("At(%d) = %v; want ErrNotYet", seq, err)
		case seq >= from && seq < to && (err != nil || l.Seq() != seq || !whole(l.Bytes(), seq)):
			t.Errorf("At(%d) = message %d, %v; want it whole", seq, l.Seq(), err)
		}
		l.Release()
	}
	l, err := r.Latest()
	if err != nil || l.Seq() != to-1 {
		t.Errorf("Latest() = message %d, %v; want %d", l.Seq(), err, to-1)
	}
	l.Release()
}

func TestKeepDeadKeepsTheLastRings(t *testing.T) {
	dir := folder(t)
	for epoch := 1; epoch <= 4; epoch++ {
		w := start(t, "writer", dir.Path(), ring, epoch, 4, 512, 2)
		w.says("ready")
		w.ask("publish %d", 10*epoch)
		w.kill()
	}
	w := create(t, dir, 5, Options{Slots: 4, SlotBytes: 512, KeepDead: 2})
	if got, err := dir.Epochs(ring); err != nil || !slices.Equal(got, []Epoch{3, 4, 5}) {
		t.Errorf("Epochs() = %v, %v; want 3, 4, 5", got, err)
	}
	for _, epoch := range []Epoch{3, 4} {
		r, err := OpenEpoch(dir, ring, epoch, "drainer", 1)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Ended() {
			t.Errorf("Ended() of epoch %s = false; want true: its writer was killed", epoch)
		}
		drain(t, r, 10*uint64(epoch)-4, 10*uint64(epoch))
		r.Close()
	}
	if err := w.DropOlder(); err != nil {
		t.Fatal(err)
	}
	if got, err := dir.Epochs(ring); err != nil || !slices.Equal(got, []Epoch{5}) {
		t.Errorf("Epochs() after DropOlder = %v, %v; want 5 alone", got, err)
	}
}

// A writer may be killed between any two steps of making and removing files.
func TestHalfMadeRingsAreRemovedByTheNextWriter(t *testing.T) {
	for name, left := range map[string][]string{
		"the first file empty":             {"porch.video.0000000000000001.ctl"},
		"both files empty":                 {"porch.video.0000000000000001.ctl", "porch.video.0000000000000001.dat"},
		"the current epoch not yet named":  {"porch.video.0000000000000001.ctl", "porch.video.cur.new", "porch.video.lock"},
		"the slots removed, the rest left": {"porch.video.0000000000000001.ctl", "porch.video.cur"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			for _, f := range left {
				if err := dir.root.WriteFile(f, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			create(t, dir, 2, Options{Slots: 3, SlotBytes: 64})
			wantFiles(t, dir, "after Create", "porch.video.0000000000000002.ctl", "porch.video.0000000000000002.dat",
				"porch.video.cur", "porch.video.lock")
		})
	}
}

func TestWriterKilledAtItsStartLeavesNothing(t *testing.T) {
	dir := folder(t)
	for epoch := range Epoch(15) {
		w := start(t, "writer", dir.Path(), ring, uint64(2*epoch+1), 3, 1<<20, 0)
		poll(t, "the first file", func() bool { return len(files(t, dir)) > int(epoch)%4 })
		w.kill()
		next, err := Create(dir, ring, 2*epoch+2, Options{Slots: 3, SlotBytes: 64})
		if err != nil {
			t.Fatal(err)
		}
		name := ring + "." + Name(next.Epoch().String())
		wantFiles(t, dir, "after the restart", string(name)+".ctl", string(name)+".dat", "porch.video.cur", "porch.video.lock")
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, dir, "after Close")
	}
}

// Slots are removed before the control file: by the other order, a writer
// killed in between would leave slots that nobody finds.
func TestSlotsAreRemovedFirst(t *testing.T) {
	dir := folder(t)
	create(t, dir, 1, Options{Slots: 3, SlotBytes: 64}).Retire()
	dat := fileName(ring, 1, "dat")
	if err := errors.Join(dir.root.Remove(dat), dir.root.Mkdir(dat, 0o700), dir.root.WriteFile(dat+"/in-the-way", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := dir.remove(ring, 1); err == nil {
		t.Error("remove() of slots that cannot be removed succeeded; want an error")
	}
	if got, err := dir.Epochs(ring); err != nil || !slices.Equal(got, []Epoch{1}) {
		t.Errorf("Epochs() = %v, %v; want 1: still to be removed", got, err)
	}
}

func TestSweepRemovesDeadRingsOnly(t *testing.T) {
	dir := folder(t)
	for _, name := range []Name{"killed", "retired", "alive"} {
		w := start(t, "writer", dir.Path(), name, 7, 3, 64, 0)
		w.says("ready")
		w.want("published 2", "publish 2")
		switch name {
		case "killed":
			w.kill()
		case "retired":
			w.want("retired", "retire")
			w.kill()
		}
	}
	for _, f := range []string{"notes.txt", "gone.0000000000000001.dat", "stale.lock", "UPPER.cur"} {
		if err := dir.root.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := dir.root.Symlink("notes.txt", "link.cur"); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(dir, "killed", "holder", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	swept, err := dir.Sweep(nil)
	if d := cmp.Diff([]Name{"gone", "killed", "retired", "stale"}, swept); err != nil || d != "" {
		t.Errorf("Sweep() = %v, %v; (-want +got):\n%s", swept, err, d)
	}
	wantFiles(t, dir, "after Sweep", "UPPER.cur", "alive.0000000000000007.ctl", "alive.0000000000000007.dat",
		"alive.cur", "alive.lock", "link.cur", "notes.txt")
	if !dir.HasWriter("alive") {
		t.Error("HasWriter(alive) = false after Sweep; want true")
	}
	alive, err := OpenReader(dir, "alive", "reader", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	drain(t, alive, 0, 2)
	drain(t, r, 0, 2) // of a ring that has been swept
}

// Whoever finds a ring while it is made must not take its writer for dead: the
// writer's lock is there before the magic is.
func TestRingInTheMakingHasAWriter(t *testing.T) {
	needTwoProcessors(t)
	dir := folder(t)
	watched := 0
	began := time.Now()
	for epoch := Epoch(1); watched < 50 && time.Since(began) < 20*time.Second; epoch++ {
		var group sync.WaitGroup
		group.Go(func() {
			w, err := Create(dir, ring, epoch, Options{Slots: 3, SlotBytes: 1 << 20})
			if err != nil {
				t.Error(err)
				return
			}
			w.Retire()
		})
		r := &Reader{name: ring, epoch: epoch}
		poll(t, "the control file", func() bool {
			f, err := openFile(dir, fileName(ring, epoch, "ctl"), os.O_RDWR)
			if err != nil {
				return false
			}
			size, err := fileSize(f)
			if err != nil || size == 0 {
				f.Close()
				return false
			}
			r.file = f
			r.ctl, err = mapFile(f, size, unix.PROT_READ|unix.PROT_WRITE)
			return err == nil
		})
		early := r.ctl.u64(0).Load() == 0
		for r.ctl.u64(0).Load() == 0 { // the look must come within a microsecond of the magic
		}
		if early {
			watched++
		}
		if r.Ended() && !r.Closed() {
			t.Fatalf("epoch %s: Ended() and not Closed(), with its magic just written; want a live writer", epoch)
		}
		group.Wait()
		r.release()
	}
	if watched == 0 {
		t.Error("never caught a ring in the making: this test proves nothing")
	}
}

func TestOneWriterAtATime(t *testing.T) {
	dir := folder(t)
	w := start(t, "writer", dir.Path(), ring, 1, 3, 64, 0)
	w.says("ready")
	_, err := Create(dir, ring, 2, Options{Slots: 3, SlotBytes: 64})
	var held *lockfile.HeldError
	if !errors.As(err, &held) || held.PID != w.cmd.Process.Pid {
		t.Errorf("Create() beside a live writer = %v; want a HeldError of process %d", err, w.cmd.Process.Pid)
	}
	w.want("published 1", "publish 1")
}

func TestCreateRefusesAnEpochThatExists(t *testing.T) {
	dir := folder(t)
	first := create(t, dir, 1, Options{Slots: 3, SlotBytes: 64})
	publish(t, first, 2)
	first.Retire()
	if _, err := Create(dir, ring, 1, Options{Slots: 3, SlotBytes: 64, KeepDead: 1}); err == nil {
		t.Error("Create() of an epoch that exists succeeded; want an error")
	}
	drain(t, open(t, dir, "reader", 1), 0, 2) // what was there is untouched
}

func TestClosedRingIsRemovedAndCanBeFinished(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 64})
	publish(t, w, 6)
	r := open(t, dir, "reader", 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, "after Close")
	if !r.Ended() || !r.Closed() {
		t.Errorf("Ended() = %v, Closed() = %v; want true, true", r.Ended(), r.Closed())
	}
	drain(t, r, 2, 6)
	if _, err := OpenReader(dir, ring, "late", 1); !errors.Is(err, ErrNoRing) {
		t.Errorf("OpenReader() of a closed ring = %v; want ErrNoRing", err)
	}
}

func TestRetiredRingStaysForLaterReaders(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 64, Meta: []byte(`{"kind":"file"}`)})
	publish(t, w, 6)
	if err := w.Retire(); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir, "late", 1)
	if !r.Ended() || !r.Closed() || dir.HasWriter(ring) {
		t.Errorf("Ended() = %v, Closed() = %v, HasWriter() = %v; want true, true, false", r.Ended(), r.Closed(), dir.HasWriter(ring))
	}
	drain(t, r, 2, 6)
	if got := string(r.Meta()); got != `{"kind":"file"}` {
		t.Errorf("Meta() = %s; want what Create was given", got)
	}
	if names, err := dir.Rings(); err != nil || !slices.Equal(names, []Name{ring}) {
		t.Errorf("Rings() = %v, %v; want %s", names, err, ring)
	}
}

// A writer that is killed between its two last steps has counted a message
// that latest does not name.
func TestMessageCountedLastIsNotMissed(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 64})
	r := open(t, dir, "reader", 1)
	for range 6 {
		before := w.ctl.u64(offLatest).Load()
		publish(t, w, 1)
		after := w.ctl.u64(offLatest).Swap(before)
		l, err := r.Latest()
		if err != nil || l.Seq() != w.Published()-1 {
			t.Errorf("Latest() = message %d, %v; want %d", l.Seq(), err, w.Published()-1)
		}
		l.Release()
		w.ctl.u64(offLatest).Store(after)
	}
}
