package msg

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pebbe/zmq4"

	"github.com/perch-edge/perch/pkg/shm"
)

func readFrames(t *testing.T, b *Bus, pins int) *Frames {
	t.Helper()
	f, err := b.Frames(FrameSource{Source: "porch", Stream: "video", Pins: pins})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func nextFrame(t *testing.T, f *Frames) Frame {
	t.Helper()
	frame, ok, err := f.Next(soon(t), time.Time{})
	if err != nil || !ok {
		t.Fatalf("Next() = %v, %v; want a frame", ok, err)
	}
	return frame
}

func TestFramesThatWereOverwrittenAreLost(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	reader := openBus(t, run, shm, "clips")
	defer reader.Close()
	frames := readFrames(t, reader, 1)
	b, out := startFrames(t, run, shm)
	defer b.Close()
	publishFrame(t, b, out, 0)
	nextFrame(t, frames).Release()
	for i := range 100_000 {
		publishFrame(t, b, out, byte(i+1))
	}
	f := nextFrame(t, frames)
	if left := 100_000 - int(f.Seq); left < 0 || left > 7 {
		t.Errorf("first frame after 100000 = %d; want one of the last 8", f.Seq)
	}
	if f.Bytes()[0] != byte(f.Seq) {
		t.Errorf("frame %d is filled with %d; want %d", f.Seq, f.Bytes()[0], byte(f.Seq))
	}
	f.Release()
	want := Account{Topic: "frame/porch/video", Epoch: f.Epoch, Sent: uint64(f.Seq) + 1, Received: 2, Lost: uint64(f.Seq) - 1}
	if diff := cmp.Diff(want, frames.Account()); diff != "" || !sums(want) {
		t.Errorf("Account(): %s", diff)
	}
}

// A frame that is held stays as it is, whatever the publisher does.
func TestHeldFrameStays(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	reader := openBus(t, run, shm, "clips")
	frames := readFrames(t, reader, 2)
	b, out := startFrames(t, run, shm)
	publishFrame(t, b, out, 42)
	held := nextFrame(t, frames)
	for range 50 {
		publishFrame(t, b, out, 1)
	}
	if err := errors.Join(b.Close(), reader.Close()); err != nil {
		t.Fatal(err)
	}
	for i, c := range held.Bytes() {
		if c != 42 {
			t.Fatalf("byte %d of the held frame = %d; want 42", i, c)
		}
	}
	held.Release()
}

func TestReaderOfARunningStreamBeginsWithTheNewest(t *testing.T) {
	t.Parallel()
	run, dir := folders(t)
	b, out := startFrames(t, run, dir)
	for i := range 30 {
		publishFrame(t, b, out, byte(i))
	}
	reader := openBus(t, run, dir, "clips")
	defer reader.Close()
	frames := readFrames(t, reader, 1)
	f := nextFrame(t, frames)
	f.Release()
	want := Account{Topic: "frame/porch/video", Epoch: f.Epoch, Sent: 30, Received: 1, Skipped: 29}
	if diff := cmp.Diff(want, frames.Account()); f.Seq != 29 || diff != "" {
		t.Errorf("first frame %d; want 29; Account(): %s", f.Seq, diff)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := frames.Newest(soon(t), time.Time{}); !errors.Is(err, ErrEnded) {
		t.Errorf("Newest() after the end = %v; want ErrEnded", err)
	}
	if _, ok, err := frames.Newest(soon(t), time.Now().Add(20*time.Millisecond)); ok || err != nil {
		t.Errorf("Newest() after ErrEnded = %v, %v; want to wait for the next run", ok, err)
	}
	if err := frames.Waiting(); !errors.Is(err, shm.ErrNoRing) {
		t.Errorf("Waiting() = %v; want ErrNoRing", err)
	}
	if diff := cmp.Diff(frames.Totals(), want, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Epoch" }, cmp.Ignore())); diff != "" {
		t.Errorf("Totals(): %s", diff)
	}
}

func TestReaderThatFindsNoPlaceSaysSo(t *testing.T) {
	t.Parallel()
	run, dir := folders(t)
	b, out := startFrames(t, run, dir)
	defer b.Close()
	publishFrame(t, b, out, 1)
	reader := openBus(t, run, dir, "clips")
	defer reader.Close()
	frames := readFrames(t, reader, 7) // of 8 slots, 2 of which the publisher needs
	if _, ok, err := frames.Next(soon(t), time.Now().Add(30*time.Millisecond)); ok || err != nil {
		t.Errorf("Next() = %v, %v; want to wait", ok, err)
	}
	refused := (*shm.AdmissionError)(nil)
	if err := frames.Waiting(); !errors.As(err, &refused) {
		t.Errorf("Waiting() = %v; want an AdmissionError", err)
	}
}

func TestTooManyHeldFramesIsAnError(t *testing.T) {
	t.Parallel()
	run, dir := folders(t)
	reader := openBus(t, run, dir, "clips")
	defer reader.Close()
	frames := readFrames(t, reader, 1)
	b, out := startFrames(t, run, dir)
	defer b.Close()
	publishFrame(t, b, out, 1)
	publishFrame(t, b, out, 2)
	held := nextFrame(t, frames)
	_, _, err := frames.Next(soon(t), time.Time{})
	if !errors.Is(err, shm.ErrTooManyLeases) || !strings.Contains(err.Error(), "read frame 1 of porch/video") {
		t.Errorf("Next() while one is held = %v; want ErrTooManyLeases", err)
	}
	held.Release()
	nextFrame(t, frames).Release()
}

// A doorbell that never rang, and one that rings for nothing, cost no frame.
func TestDoorbellsAreOnlyDoorbells(t *testing.T) {
	t.Parallel()
	run, dir := folders(t)
	reader := openBus(t, run, dir, "clips")
	defer reader.Close()
	frames := readFrames(t, reader, 1)
	b, out := startFrames(t, run, dir)
	defer b.Close()
	publishFrame(t, b, out, 0)
	nextFrame(t, frames).Release()
	end := out.out.end
	var err error
	if out.out.end, err = b.bind("ipc://"+run+"/nobody.ipc", 1); err != nil {
		t.Fatal(err)
	}
	publishFrame(t, b, out, 1)
	start := time.Now()
	nextFrame(t, frames).Release()
	if took := time.Since(start); took > time.Second {
		t.Errorf("Next() without a doorbell took %v; want about 1.5 intervals of 10 ms", took)
	}
	for range 10 {
		if err := end.send([]byte("frame/porch/video"), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := frames.Next(soon(t), time.Now().Add(50*time.Millisecond)); ok || err != nil {
		t.Errorf("Next() after ten doorbells for nothing = %v, %v; want nothing", ok, err)
	}
}

// A reader that rests is not woken, misses nothing that it wants, and waits again
// as others do.
func TestRestSilencesDoorbells(t *testing.T) {
	t.Parallel()
	run, dir := folders(t)
	reader := openBus(t, run, dir, "pictures")
	defer reader.Close()
	frames := readFrames(t, reader, 1)
	b, out := startFrames(t, run, dir)
	defer b.Close()
	publishFrame(t, b, out, 0)
	nextFrame(t, frames).Release()
	heard := func(note string) {
		t.Helper()
		for until := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
			got, err := out.out.end.soc.RecvBytes(zmq4.DONTWAIT)
			if err == nil && string(got) == note {
				return
			}
			if time.Now().After(until) {
				t.Fatalf("the publisher heard no %q", note)
			}
		}
	}
	heard("\x01frame/porch/video")
	if err := frames.Rest(time.Now().Add(20 * time.Millisecond)); err != nil || frames.silent {
		t.Errorf("Rest() for two intervals = %v, silent %v; want neither", err, frames.silent)
	}
	if err := frames.Rest(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	heard("\x00frame/porch/video")
	for i := range 3 {
		publishFrame(t, b, out, byte(i+1))
	}
	f, ok, err := frames.Newest(soon(t), time.Time{})
	if err != nil || !ok || f.Seq != 3 {
		t.Fatalf("Newest() after a rest = frame %d, %v, %v; want frame 3", f.Seq, ok, err)
	}
	f.Release()
	if _, ok, err := frames.Newest(soon(t), time.Now().Add(50*time.Millisecond)); ok || err != nil {
		t.Errorf("Newest() without a new frame = %v, %v; want nothing", ok, err)
	}
	heard("\x01frame/porch/video")
}

// Who has said that it is there misses no frame after that, however late it asks
// for the first.
func TestReaderThatSaidHelloGetsTheFirstFrame(t *testing.T) {
	t.Parallel()
	run, dir := folders(t)
	b, out := startFrames(t, run, dir)
	defer b.Close()
	reader := openBus(t, run, dir, "clips")
	defer reader.Close()
	frames := readFrames(t, reader, 1)
	if missing := out.Gate([]string{"clips"}, 10*time.Second, nil); len(missing) > 0 {
		t.Fatalf("Gate() = %v; want that all are there", missing)
	}
	for i := range 3 {
		publishFrame(t, b, out, byte(i))
	}
	for i := range 3 {
		if f := nextFrame(t, frames); f.Seq != Seq(i) {
			t.Errorf("frame %d has number %d", i, f.Seq)
		} else {
			f.Release()
		}
	}
}
