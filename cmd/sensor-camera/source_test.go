package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// watched is a pipe that remembers which memory read(2) was given.
type watched struct {
	*os.File
	reads [][]byte
}

func (w *watched) Read(dst []byte) (int, error) {
	n, err := w.File.Read(dst)
	if n > 0 {
		w.reads = append(w.reads, dst[:n])
	}
	return n, err
}

// The one copy: what the kernel copies out of the pipe lies, byte for byte, at
// its place in the ring's slot; nothing else is read into, and nothing is
// allocated. The reader's frame is that same memory, mapped.
func TestPixelsGoFromThePipeIntoTheSlot(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "p-")
	must(t, err)
	defer os.RemoveAll(dir)
	bus, err := msg.Open(msg.Config{Node: "box", Name: "porch", RunDir: dir + "/run", ShmDir: dir + "/shm"})
	must(t, err)
	defer bus.Close()
	pub, err := bus.Publisher()
	must(t, err)
	frames, err := settle(pixel.YUV420, pixel.Size{Width: 1920, Height: 1080}, 30, "")
	must(t, err)
	out, err := pub.Frames("video", frames.Geometry, 3, frames.slotBytes)
	must(t, err)
	in, err := bus.Frames(msg.FrameSource{Source: "porch", Stream: "video"})
	must(t, err)

	read, write, err := os.Pipe()
	must(t, err)
	defer read.Close()
	picture := make([]byte, frames.slotBytes)
	for i := range picture {
		picture[i] = byte(i * 7 >> 3)
	}
	written := make(chan error)
	go func() {
		_, err := write.Write(bytes.Repeat(picture, 3))
		written <- errors.Join(err, write.Close())
	}()

	pipe := &watched{File: read}
	raw := &rawFrames{source: source{pipe: pipe, patience: limit, now: bus.Clock().Now, alive: func() {}}, bytes: frames.slotBytes}
	for seq := range msg.Seq(3) {
		slot, err := out.Claim()
		must(t, err)
		pipe.reads = nil
		got, err := raw.next(t.Context(), slot.Bytes())
		must(t, err)
		place := slot.Bytes()
		for i, r := range pipe.reads {
			if &r[0] != &place[0] {
				t.Fatalf("read %d of frame %d went elsewhere than into the slot", i, seq)
			}
			place = place[len(r):]
		}
		if len(place) != 0 {
			t.Fatalf("frame %d: %d bytes of the slot came from no read", seq, len(place))
		}
		_, err = slot.Publish(got.bytes, got.stamp)
		must(t, err)
		f, ok, err := in.Next(t.Context(), time.Now().Add(limit))
		if err != nil || !ok || f.Seq != seq || !bytes.Equal(f.Bytes(), picture) {
			t.Fatalf("Next() = frame %d, %v, %v; want frame %d as it was written", f.Seq, ok, err, seq)
		}
		f.Release()
	}
	must(t, <-written)
	if _, err := raw.next(t.Context(), make([]byte, frames.slotBytes)); !errors.Is(err, io.EOF) {
		t.Errorf("next() at the end = %v; want io.EOF", err)
	}
}

func TestFramesAreReadWithoutAllocation(t *testing.T) {
	const size = 64 << 10
	read, write, err := os.Pipe()
	must(t, err)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for buf := make([]byte, size); ; {
			if _, err := write.Write(buf); err != nil {
				return // the reading end is closed
			}
		}
	}()
	raw := &rawFrames{source: source{pipe: read, patience: limit, now: func() msg.Stamp { return msg.Stamp{} }, alive: func() {}}, bytes: size}
	slot := make([]byte, size)
	ctx := t.Context()
	if got := testing.AllocsPerRun(100, func() { _, err = raw.next(ctx, slot) }); got != 0 || err != nil {
		t.Errorf("next() allocates %g times (%v); want never", got, err)
	}
	must(t, read.Close())
	<-stop
	must(t, write.Close())
}

// silent is a pipe into which something is written at given moments.
type silent struct {
	deadline time.Time
	written  []time.Time
}

func (s *silent) SetReadDeadline(at time.Time) error { s.deadline = at; return nil }

func (s *silent) Read(dst []byte) (int, error) {
	if len(s.written) > 0 && !s.written[0].After(s.deadline) {
		time.Sleep(time.Until(s.written[0]))
		s.written = s.written[1:]
		return 1, nil
	}
	time.Sleep(time.Until(s.deadline))
	return 0, os.ErrDeadlineExceeded
}

func TestSilenceIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		pipe := &silent{}
		for _, after := range []time.Duration{14 * time.Second, 18900 * time.Millisecond, 22 * time.Second} {
			pipe.written = append(pipe.written, begun.Add(after))
		}
		lives := 0
		s := source{pipe: pipe, patience: 5 * time.Second, slack: 10 * time.Second, alive: func() { lives++ }}
		for _, want := range []time.Duration{14 * time.Second, 18900 * time.Millisecond, 22 * time.Second} {
			if n, err := s.read(t.Context(), make([]byte, 1)); n != 1 || err != nil || time.Since(begun) != want {
				t.Fatalf("read() = %d, %v after %v; want a byte after %v", n, err, time.Since(begun), want)
			}
		}
		if _, err := s.read(t.Context(), make([]byte, 1)); !errors.Is(err, errSilent) || time.Since(begun) != 27*time.Second {
			t.Errorf("read() = %v after %v; want errSilent after 27s", err, time.Since(begun))
		}
		if lives < 2*26 {
			t.Errorf("%d signs of life in 27 s; want one each 500 ms", lives)
		}
	})
}

func TestReadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begun := time.Now()
		s := source{pipe: &silent{}, patience: time.Hour, alive: func() {}}
		_, err := s.read(ctx, make([]byte, 1))
		if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > 4*time.Second {
			t.Errorf("read() = %v after %v; want ctx's error soon after 3s", err, took)
		}
	})
}

func TestRawFrameCutShort(t *testing.T) {
	raw := &rawFrames{source: source{pipe: &pieces{make([]byte, 25), 4}, patience: time.Second, now: func() msg.Stamp { return msg.Stamp{} }, alive: func() {}}, bytes: 10}
	slot := make([]byte, 10)
	for range 2 {
		if got, err := raw.next(t.Context(), slot); got.bytes != 10 || err != nil || got.corrupt != nil {
			t.Fatalf("next() = %+v, %v; want a frame", got, err)
		}
	}
	if got, err := raw.next(t.Context(), slot); err != nil || got.corrupt == nil || got.corrupt.Error() != "cut short: 5 of 10 bytes" {
		t.Errorf("next() = %+v, %v; want a frame cut short", got, err)
	}
	for range 2 {
		if _, err := raw.next(t.Context(), slot); !errors.Is(err, io.EOF) {
			t.Errorf("next() = %v; want io.EOF", err)
		}
	}
}
