package shm

import (
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"
)

func TestMessagesAreReadInPlace(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 8192})
	r := open(t, dir, "reader", 2)
	publish(t, w, 1)
	l1, err := r.Latest()
	first := lease(t, l1, err)
	l2, err := r.At(0)
	second := lease(t, l2, err)
	at := unsafe.SliceData(first.Bytes())
	if got := unsafe.SliceData(second.Bytes()); got != at {
		t.Errorf("bytes of a second lease are at %p; want %p as the first's", got, at)
	}
	// The same memory as the writer's: what is stored there is seen here.
	w.dat[100] ^= 0xff
	if first.Bytes()[100] != w.dat[100] {
		t.Error("the lease does not see the writer's memory; want no copy between them")
	}
	first.Release()
	second.Release()
	publish(t, w, 4) // once round: message 4 is in slot 0 again
	l3, err := r.At(4)
	third := lease(t, l3, err)
	defer third.Release()
	if got := unsafe.SliceData(third.Bytes()); got != at {
		t.Errorf("the slot's next message is at %p; want %p, the same mapping", got, at)
	}
}

// The kernel writes straight into the slot: one read(2) from a pipe and no
// copy of ours.
func TestSlotIsFilledByTheKernel(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 4096})
	r := open(t, dir, "reader", 1)
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	frame := make([]byte, 4096)
	fill(frame, 0)
	if _, err := to.Write(frame); err != nil {
		t.Fatal(err)
	}
	to.Close()
	s, err := w.Claim()
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.ReadFull(from, s.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	s.Publish(n, Info{})
	l, err := r.Latest()
	defer lease(t, l, err).Release()
	if !whole(l.Bytes(), 0) {
		t.Error("the message differs from what the pipe carried")
	}
}

func TestReadersCannotWrite(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 64})
	r := open(t, dir, "reader", 1)
	publish(t, w, 1)
	l, err := r.Latest()
	defer lease(t, l, err).Release()
	b := l.Bytes()
	fault := func() (fault any) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() { fault = recover() }()
		b[0]++
		return nil
	}()
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if err, ok := fault.(interface{ Addr() uintptr }); !ok || err.Addr() != at {
		t.Errorf("a write to a leased message at %#x = %v; want a fault there", at, fault)
	}
	if !whole(b, 0) {
		t.Error("the message has changed")
	}
	if cap(b) != len(b) {
		t.Errorf("cap(Bytes()) = %d; want %d: append must not reach the next message", cap(b), len(b))
	}
}

func TestFramesCostNoAllocation(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 8, SlotBytes: 64})
	r := open(t, dir, "reader", 2)
	passFrames(w, r, 1)
	if n := testing.AllocsPerRun(1000, func() { passFrames(w, r, 1) }); n != 0 {
		t.Errorf("allocations of claim, publish, latest, at and their releases = %v; want 0", n)
	}
}

// The kernel itself is the witness: see playStill.
func TestFramesCostNoSystemCall(t *testing.T) {
	if underRace() {
		t.Skip("the race detector makes system calls of its own")
	}
	for crime, want := range map[string]string{"guilty": "a system call", "innocent": "no system call"} {
		// The scheduler may take the thread away from a run that lasts longer
		// than its 10 ms, which costs calls that are not ours: then again.
		got := ""
		for try := 0; got != want && try < 5; try++ {
			if got = start(t, "still", folder(t).Path(), crime).answer(); got == "unsupported" {
				t.Skip("this kernel has no strict seccomp mode")
			}
		}
		if got != want {
			t.Errorf("the %s thread made %s; want %s", crime, got, want)
		}
	}
}

func TestLeaseOutlivesItsReader(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 4096})
	r := open(t, dir, "reader", 2)
	publish(t, w, 3)
	l1, err := r.Latest()
	held := lease(t, l1, err)
	l2, err := r.At(1)
	other := lease(t, l2, err)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Latest(); !errors.Is(err, ErrClosed) {
		t.Errorf("Latest() after Close = %v; want ErrClosed", err)
	}
	if _, err := r.At(2); !errors.Is(err, ErrClosed) {
		t.Errorf("At(2) after Close = %v; want ErrClosed", err)
	}
	other.Release()
	w.Reclaim()
	if used := lap(t, w, Info{}); used[2] || !whole(held.Bytes(), 2) {
		t.Errorf("slots in use = %v, whole %v; want slot 2 kept for the lease", used, whole(held.Bytes(), 2))
	}
	if n := len(w.Readers()); n != 1 {
		t.Errorf("readers while a lease is held = %d; want 1", n)
	}
	if err := w.Close(); err != nil { // nor does the ring's end take it
		t.Fatal(err)
	}
	if !whole(held.Bytes(), 2) || mapped(t, dir) == 0 {
		t.Error("the lease's memory did not outlive the ring")
	}
	held.Release()
	if n := mapped(t, dir); n != 0 {
		t.Errorf("mappings after the last release = %d; want 0", n)
	}
	if held.Held() || !r.Ended() || r.Published() != 0 || r.Close() != nil {
		t.Error("a reader whose last lease ended is not at rest")
	}
}

// A program that loses its reader and lease without releasing costs itself a
// slot. It does not lose the bytes that it still looks at: the lock ends with
// the mapping, not with the garbage collector's close of the file.
func TestLostLeaseKeepsItsMessage(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 4096})
	publish(t, w, 1)
	b := func() []byte {
		r, err := OpenReader(dir, ring, "careless", 1)
		if err != nil {
			t.Fatal(err)
		}
		l, err := r.Latest()
		return lease(t, l, err).Bytes()
	}()
	files := openFiles(t, dir)
	poll(t, "the garbage collector to close the file", func() bool { runtime.GC(); return openFiles(t, dir) < files })
	if n := w.Reclaim(); n != 0 {
		t.Errorf("Reclaim() = %d; want 0: this process still lives", n)
	}
	publish(t, w, 10)
	if !whole(b, 0) {
		t.Error("the message has changed")
	}
}
