package shm

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// panics wants a panic that says so.
func panics(t *testing.T, what, says string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := fmt.Sprint(recover()); !strings.Contains(got, says) {
			t.Errorf("%s: panic %q; want one that says %q", what, got, says)
		}
	}()
	f()
}

func TestReleaseTwiceDoesNothing(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 64})
	r := open(t, dir, "reader", 1)
	publish(t, w, 1)
	l1, err := r.Latest()
	first := lease(t, l1, err)
	copied := first
	first.Release()
	first.Release()
	publish(t, w, 1)
	l2, err := r.Latest() // in the place of the first
	second := lease(t, l2, err)
	first.Release()
	copied.Release()
	if !second.Held() || pinned(w.ctl, 4) != 1 {
		t.Error("a second release of an old lease ended a later one")
	}
	if first.Held() || copied.Held() {
		t.Error("Held() of a released lease = true; want false")
	}
	panics(t, "Bytes() of a released lease", "released", func() { first.Bytes() })
	panics(t, "Bytes() of its copy", "released", func() { copied.Bytes() })
	second.Release()
	r.Close()
	second.Release()
	panics(t, "Bytes() after all is unmapped", "released", func() { second.Bytes() })
}

func TestZeroLeaseHoldsNothing(t *testing.T) {
	var l Lease
	l.Release()
	if l.Held() || l.Bytes() != nil {
		t.Errorf("zero Lease: Held() = %v, Bytes() = %v; want false, nil", l.Held(), l.Bytes())
	}
}

func TestReaderHoldsNoMoreThanItDeclared(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 6, SlotBytes: 64})
	r := open(t, dir, "reader", 2)
	publish(t, w, 3)
	l1, err := r.At(0)
	first := lease(t, l1, err)
	l2, err := r.At(1)
	defer lease(t, l2, err).Release()
	if _, err := r.At(2); !errors.Is(err, ErrTooManyLeases) {
		t.Errorf("At(2) with two leases of two = %v; want ErrTooManyLeases", err)
	}
	if _, err := r.Latest(); !errors.Is(err, ErrTooManyLeases) {
		t.Errorf("Latest() with two leases of two = %v; want ErrTooManyLeases", err)
	}
	if n := pinned(w.ctl, 6); n != 2 {
		t.Errorf("pinned slots = %d; want 2", n)
	}
	first.Release()
	l3, err := r.Latest()
	lease(t, l3, err).Release()
}

func TestSlotIsUsedOnce(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 64})
	r := open(t, dir, "reader", 1)
	claim := func() Slot {
		s, err := w.Claim()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := claim()
	if _, err := w.Claim(); err == nil || errors.Is(err, ErrNoSlot) {
		t.Errorf("Claim() of a second slot = %v; want an error of its own", err)
	}
	panics(t, "Publish() of more than the slot", "publish 65 bytes", func() { first.Publish(65, Info{}) })
	panics(t, "Publish() of less than nothing", "publish -1 bytes", func() { first.Publish(-1, Info{}) })
	first.Publish(64, Info{})
	panics(t, "Publish() twice", "not claimed", func() { first.Publish(64, Info{}) })
	panics(t, "Abandon() after Publish", "not claimed", func() { first.Abandon() })
	panics(t, "Bytes() after Publish", "not claimed", func() { first.Bytes() })
	panics(t, "Publish() of no slot", "not claimed", func() { Slot{}.Publish(0, Info{}) })

	second := claim()
	second.Abandon()
	panics(t, "Publish() after Abandon", "not claimed", func() { second.Publish(1, Info{}) })
	if w.Published() != 1 || r.Published() != 1 {
		t.Errorf("Published() = %d and %d; want 1: nothing but the first", w.Published(), r.Published())
	}
	for again := claim(); ; again = claim() {
		if again.Number() == first.Number() {
			break
		}
		again.Publish(1, Info{})
	}
	panics(t, "Publish() of a slot claimed anew by another", "not claimed", func() { first.Publish(64, Info{}) })
}

func TestAbandonedSlotIsNoMessage(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 64})
	r := open(t, dir, "reader", 1)
	if _, err := r.Latest(); !errors.Is(err, ErrNotYet) {
		t.Errorf("Latest() before the first message = %v; want ErrNotYet", err)
	}
	for range 10 {
		s, err := w.Claim()
		if err != nil {
			t.Fatal(err)
		}
		s.Abandon()
		publish(t, w, 1)
	}
	drain(t, r, 8, 10) // every second claim was abandoned: two messages stay in three slots
}

func TestClosedWriterRefuses(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 64})
	publish(t, w, 2)
	s, err := w.Claim()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Claim(); !errors.Is(err, ErrClosed) {
		t.Errorf("Claim() after Close = %v; want ErrClosed", err)
	}
	panics(t, "Bytes() after Close", "not claimed", func() { s.Bytes() })
	panics(t, "Publish() after Close", "not claimed", func() { s.Publish(1, Info{}) })
	successor := create(t, dir, 2, Options{Slots: 3, SlotBytes: 64})
	if err := w.DropOlder(); !errors.Is(err, ErrClosed) {
		t.Errorf("DropOlder() after Close = %v; want ErrClosed", err)
	}
	if w.Close() != nil || w.Retire() != nil || w.Reclaim() != 0 || w.Dropped() != 0 || w.Published() != 2 || w.Readers() != nil {
		t.Error("a closed writer is not at rest")
	}
	publish(t, successor, 1)
	drain(t, open(t, dir, "reader", 1), 0, 1) // untouched by what the old writer was asked
}

// Admission of readers keeps this from happening; should it happen, it is
// counted and not waited for.
func TestFullRingDropsAndCounts(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 64})
	r := open(t, dir, "reader", 1)
	for i := range 3 {
		w.ctl.word(i).Or(r.bit)
	}
	for n := range uint64(2) {
		if _, err := w.Claim(); !errors.Is(err, ErrNoSlot) {
			t.Errorf("Claim() with every slot pinned = %v; want ErrNoSlot", err)
		}
		if w.Dropped() != n+1 || w.ctl.u64(offDropped).Load() != n+1 {
			t.Errorf("Dropped() = %d, %d in the ring; want %d", w.Dropped(), w.ctl.u64(offDropped).Load(), n+1)
		}
	}
	r.Close()
	publish(t, w, 3) // its pins ended with it
}

func TestCreateRefusesWhatMakesNoRing(t *testing.T) {
	dir := folder(t)
	for _, c := range []struct {
		name Name
		o    Options
		says string
	}{
		{"", Options{Slots: 3, SlotBytes: 1}, `ring name ""`},
		{"../air", Options{Slots: 3, SlotBytes: 1}, "ring name"},
		{"Air", Options{Slots: 3, SlotBytes: 1}, "ring name"},
		{"air..x", Options{Slots: 3, SlotBytes: 1}, "ring name"},
		{Name(strings.Repeat("a", 121)), Options{Slots: 3, SlotBytes: 1}, "120 bytes"},
		{"air", Options{Slots: 2, SlotBytes: 1}, "slots = 2: want 3"},
		{"air", Options{Slots: MaxSlots + 1, SlotBytes: 1}, "slots = 1048577"},
		{"air", Options{Slots: 3}, "slot size = 0"},
		{"air", Options{Slots: 3, SlotBytes: 1<<30 + 1}, "slot size"},
		{"air", Options{Slots: 3, SlotBytes: 1, Meta: make([]byte, MaxMeta+1)}, "meta = 1853 bytes: want 1852"},
		{"air", Options{Slots: 3, SlotBytes: 1, KeepDead: -1}, "dead rings to keep = -1"},
	} {
		w, err := Create(dir, c.name, 1, c.o)
		if err == nil {
			w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Create(%q, %d slots of %d) = %v; want an error that says %q", c.name, c.o.Slots, c.o.SlotBytes, err, c.says)
		}
	}
	wantFiles(t, dir, "after refusals")
	if _, err := OpenEpoch(dir, "../air", 1, "reader", 1); err == nil {
		t.Error("OpenEpoch() of ../air succeeded; want an error")
	}
}
