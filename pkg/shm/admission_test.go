package shm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/lockfile"
)

func TestReaderThatWouldStarveTheWriterIsRefused(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 8, SlotBytes: 64})
	first := open(t, dir, "first", 2)
	open(t, dir, "second", 3)
	_, err := OpenReader(dir, ring, "third", 2)
	var refused *AdmissionError
	if !errors.As(err, &refused) || *refused != (AdmissionError{Ring: ring, Want: 2, Held: 5, Slots: 8}) {
		t.Fatalf("OpenReader() of 2 pins beside 5 in 8 slots = %v; want an AdmissionError with these numbers", err)
	}
	if !strings.Contains(err.Error(), "slots = 9") {
		t.Errorf("error %q; want it to say that slots = 9 would do", err)
	}
	for _, pins := range []int{0, -1, 7, math.MaxInt} {
		if r, err := OpenReader(dir, ring, "third", pins); err == nil {
			r.Close()
			t.Errorf("OpenReader() of %d pins succeeded; want an error", pins)
		}
	}
	third := open(t, dir, "third", 1)
	// All that were admitted hold all that they may: the writer still has a slot.
	publish(t, w, 8)
	for i, r := range []*Reader{first, first, third} {
		if _, err := r.At(uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, w, 20)
	if err := errDropped(w); err != nil {
		t.Error(err)
	}
}

func TestRegistrationsAtOnceNeverExceedTheSlots(t *testing.T) {
	dir := folder(t)
	create(t, dir, 1, Options{Slots: 9, SlotBytes: 64})
	for range 200 {
		var group sync.WaitGroup
		var admitted atomic.Int32
		var numbers [MaxReaders]atomic.Int32
		begin := make(chan struct{})
		var crowd []*Reader
		for range 8 {
			r := &Reader{name: ring, epoch: 1}
			crowd = append(crowd, r)
			if err := r.open(dir); err != nil {
				t.Fatal(err)
			}
			group.Go(func() {
				<-begin // all files are open: the registrations meet
				err := r.tryRegister("crowd", 2)
				for errors.Is(err, lockfile.ErrHeld) {
					err = r.tryRegister("crowd", 2)
				}
				if refused := (*AdmissionError)(nil); err != nil && !errors.As(err, &refused) {
					t.Errorf("tryRegister() = %v; want a place or an AdmissionError", err)
				}
				if err == nil {
					admitted.Add(1)
					numbers[r.number].Add(1)
				}
			})
		}
		close(begin)
		group.Wait()
		for n := range numbers {
			if twice := numbers[n].Load(); twice > 1 {
				t.Errorf("reader number %d was given %d times", n, twice)
			}
		}
		for _, r := range crowd {
			r.Close()
		}
		if n := admitted.Load(); n != 3 {
			t.Fatalf("%d readers of 2 pins in 9 slots; want 3", n)
		}
	}
}

// The same among processes, which is what locks are for.
func TestProcessesAtOnceNeverExceedTheSlots(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 6, SlotBytes: 64})
	var crowd []*child
	for i := range 6 {
		crowd = append(crowd, start(t, "reader", dir.Path(), ring, fmt.Sprint("reader-", i), 1))
	}
	answers := map[string]int{}
	for _, c := range crowd {
		answer := c.answer()
		if strings.Contains(answer, "give the stream at least slots = 7") {
			answer = "refused"
		}
		answers[answer]++
	}
	want := map[string]int{"refused": 2}
	for n := range 4 {
		want[fmt.Sprintf("ready %d %s", n, w.Epoch())] = 1
	}
	if d := cmp.Diff(want, answers); d != "" {
		t.Errorf("answers of 6 readers of 1 pin in 6 slots (-want +got):\n%s", d)
	}
}

func TestThirtyOneReaders(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 64, SlotBytes: 64})
	publish(t, w, 1)
	var held []Lease
	var readers []*Reader
	for i := range MaxReaders {
		r := open(t, dir, fmt.Sprint("reader-", i), 1)
		if r.number != i {
			t.Errorf("number of reader %d = %d", i, r.number)
		}
		l, err := r.Latest()
		held = append(held, lease(t, l, err))
		readers = append(readers, r)
	}
	if v := w.ctl.word(0).Load(); v != 1<<32|pinBits {
		t.Errorf("word with 31 pins = %x; want generation 1, not being written, 31 pins", v)
	}
	if _, err := OpenReader(dir, ring, "one more", 1); err == nil || !strings.Contains(err.Error(), "31 places") {
		t.Errorf("OpenReader() of a 32nd reader = %v; want an error that says 31 places", err)
	}
	if used := lap(t, w, Info{}); used[0] || len(used) != 63 {
		t.Errorf("%d slots in use, the held one %v; want 63, false", len(used), used[0])
	}
	held[17].Release()
	readers[17].Close()
	if again := open(t, dir, "again", 1); again.number != 17 {
		t.Errorf("number of the next reader = %d; want 17, which is free", again.number)
	}
	for i, l := range held {
		if i != 17 && !whole(l.Bytes(), 0) {
			t.Errorf("message held by reader %d has changed", i)
		}
		l.Release()
	}
	if n := pinned(w.ctl, 64); n != 0 {
		t.Errorf("pinned slots = %d; want 0", n)
	}
}

func TestReadersAreListed(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 9, SlotBytes: 64})
	publish(t, w, 5)
	c := start(t, "reader", dir.Path(), ring, "other-process", 3)
	c.answer()
	c.ask("latest")
	open(t, dir, strings.Repeat("long", 20), 1)
	want := []ReaderInfo{
		{Name: "other-process", PID: c.cmd.Process.Pid, Pins: 3, LastSeq: 4},
		{Name: strings.Repeat("long", 10), PID: os.Getpid(), Pins: 1, LastSeq: noSeq},
	}
	if d := cmp.Diff(want, w.Readers()); d != "" {
		t.Errorf("Readers() (-want +got):\n%s", d)
	}
	c.kill()
	if d := cmp.Diff(want[1:], w.Readers()); d != "" {
		t.Errorf("Readers() after kill -9 of the first (-want +got):\n%s", d)
	}
}

func TestStatusTakesNoPart(t *testing.T) {
	dir := folder(t)
	meta := []byte(`{"kind":"frame"}`)
	w := create(t, dir, 3, Options{Slots: 9, SlotBytes: 100, Meta: meta})
	publish(t, w, 2)
	open(t, dir, "reader", 1)
	want := Status{Name: ring, Epoch: 3, Meta: meta, Alive: true, PID: os.Getpid(), Slots: 9, SlotBytes: 100, Published: 2,
		Readers: []ReaderInfo{{Name: "reader", PID: os.Getpid(), Pins: 1, LastSeq: noSeq}}}
	got, err := dir.Status(ring)
	if err != nil || got.Created <= 0 {
		t.Errorf("Status() = created %v, %v; want a time since boot", got.Created, err)
	}
	got.Created = 0
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Status() (-want +got):\n%s", d)
	}
	if got, err := dir.Meta(ring); err != nil || string(got) != string(meta) {
		t.Errorf("Meta() = %s, %v; want %s", got, err, meta)
	}
	w.Retire()
	if got, err := dir.Status(ring); err != nil || got.Alive || !got.Closed {
		t.Errorf("Status() of a retired ring = alive %v, closed %v, %v; want false, true", got.Alive, got.Closed, err)
	}
	for _, name := range []Name{"none", "../air"} {
		if _, err := dir.Status(name); err == nil {
			t.Errorf("Status(%q) succeeded; want an error", name)
		}
	}
}
