package msg

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/pkg/pixel"
)

// folders are short: a unix socket's path has 107 bytes at most.
func folders(t *testing.T) (run, shm string) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "perch-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir + "/run", dir + "/shm"
}

func openBus(t *testing.T, run, shm string, name Source) *Bus {
	t.Helper()
	b, err := Open(Config{Node: "box", Name: name, RunDir: run, ShmDir: shm})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// startReadings publishes rows n, n+1, … of one column.
type counter struct {
	bus *Bus
	pub *Publisher
	out *ReadingStream
	n   int
}

func startCounter(t *testing.T, run, shm string, keep Retention) *counter {
	t.Helper()
	c := &counter{bus: openBus(t, run, shm, "air")}
	var err error
	if c.pub, err = c.bus.Publisher(); err != nil {
		t.Fatal(err)
	}
	if c.out, err = c.pub.Readings("count", []string{"n"}, keep); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *counter) publish(t *testing.T, rows int) {
	t.Helper()
	for range rows {
		if _, err := c.out.Publish(c.bus.Clock().Now(), []float64{float64(c.n)}, nil); err != nil {
			t.Fatal(err)
		}
		c.n++
	}
}

// expect reads rows and compares their numbers.
func expect(t *testing.T, s *Subscriber, ctx context.Context, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		m, ok, err := s.Next(ctx, time.Time{})
		if err != nil || !ok {
			t.Fatalf("Next() for row %d = %v, %v; want a message", n, ok, err)
		}
		r, err := m.Reading()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Values) != 1 || r.Values[0] != float64(n) {
			t.Fatalf("row %s = %v; want %d", r.ID(), r.Values, n)
		}
	}
}

func subscribe(t *testing.T, b *Bus, resume func(Topic) (Cursor, bool)) *Subscriber {
	t.Helper()
	s, err := b.Subscribe(Subscription{Sources: []Address{{Source: "air"}}, Kinds: []Kind{KindReading}, Resume: resume})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLateSubscriberGetsTheHistory(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	c.publish(t, 100)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	expect(t, s, soon(t), 0, 100)
	c.publish(t, 100)
	expect(t, s, soon(t), 100, 200)
	a := s.Accounts()[0]
	if a.Sent != 200 || a.Received+a.Repaired != 200 || a.Lost != 0 {
		t.Errorf("Accounts() = %+v; want 200 sent, all received or repaired", a)
	}
}

func TestOverflowOfTheHistoryIsCounted(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{Messages: 16})
	defer c.bus.Close()
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	c.publish(t, 1)
	expect(t, s, soon(t), 0, 1)
	// Far more than the queues and the history hold, unread.
	c.publish(t, 50_000)
	got := map[uint64]bool{}
	ctx := soon(t)
	last := uint64(0)
	for last < 50_000 {
		m, ok, err := s.Next(ctx, time.Time{})
		if err != nil || !ok {
			t.Fatalf("Next() = %v, %v after %d; want a message", ok, err, last)
		}
		if uint64(m.Seq) <= last || got[uint64(m.Seq)] {
			t.Fatalf("row %d came after row %d", m.Seq, last)
		}
		got[uint64(m.Seq)], last = true, uint64(m.Seq)
	}
	a := s.Accounts()[0]
	if a.Lost == 0 || a.Received+a.Repaired+a.Lost+a.Skipped != a.Sent || a.Sent != 50_001 {
		t.Errorf("Accounts() = %+v; want a loss, and a sum of 50001", a)
	}
}

func TestResumeAcrossRunsOfThePublisher(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	keep := Retention{Expect: []string{"csv"}}
	first := startCounter(t, run, shm, keep)
	first.publish(t, 50)
	b := openBus(t, run, shm, "csv")
	s := subscribe(t, b, nil)
	expect(t, s, soon(t), 0, 30)
	held := Cursor{Epoch: first.pub.Epoch(), Seq: 29}
	b.Close() // the subscriber is away while the publisher comes and goes
	first.publish(t, 50)
	first.bus.Close()
	for n := range 2 {
		c := startCounter(t, run, shm, keep)
		c.n = 100 + 50*n
		c.publish(t, 50)
		if n == 0 {
			c.bus.Close()
		} else {
			defer c.bus.Close()
		}
	}
	b = openBus(t, run, shm, "csv")
	defer b.Close()
	s = subscribe(t, b, func(Topic) (Cursor, bool) { return held, true })
	expect(t, s, soon(t), 30, 200)
	if a := s.Totals(); a.Lost != 0 {
		t.Errorf("Totals() = %+v; want nothing lost", a)
	}
}

func TestEndTakesTheRest(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	c.publish(t, 10)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	expect(t, s, ctx, 0, 10)
	if _, _, err := s.Next(ctx, time.Time{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Next() after the rest = %v; want context.Canceled", err)
	}
}

func TestSecondPublisherOfANameIsRefused(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	b := openBus(t, run, shm, "air")
	defer b.Close()
	_, err := b.Publisher()
	want := fmt.Sprintf("publish on ipc://%s/air.ipc: another worker of that name is running: %s/air.ipc.lock is held by process %d (%s)", run, run, os.Getpid(), comm(t))
	if err == nil || err.Error() != want {
		t.Errorf("Publisher() = %v; want %s", err, want)
	}
}

// comm is this process's name, as the kernel has it.
func comm(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(text(t, "/proc/self/comm"))
}

func TestGateNamesWhoIsMissing(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	subscribe(t, b, nil)
	if missing := c.pub.Gate([]string{"csv"}, 5*time.Second, nil); missing != nil {
		t.Errorf("Gate(csv) misses %v; want nobody", missing)
	}
	if missing := c.pub.Gate([]string{"csv", "other"}, 20*time.Millisecond, nil); len(missing) != 1 || missing[0] != "other" {
		t.Errorf("Gate(csv, other) misses %v; want other", missing)
	}
}

func TestBadValuesAreNull(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	if _, err := c.out.Publish(c.bus.Clock().Now(), []float64{math.NaN()}, map[string]string{"n": "no answer"}); err != nil {
		t.Fatal(err)
	}
	m, _, err := s.Next(soon(t), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Reading()
	if err != nil || !math.IsNaN(r.Values[0]) || r.Bad["n"] != "no answer" {
		t.Errorf("Reading() = %+v, %v; want NaN and its reason", r, err)
	}
}

func startFrames(t *testing.T, run, shm string) (*Bus, *FrameStream) {
	t.Helper()
	b := openBus(t, run, shm, "porch")
	p, err := b.Publisher()
	if err != nil {
		t.Fatal(err)
	}
	f, err := p.Frames("video", Geometry{Format: "rgb24", Width: 16, Height: 16, Planes: []pixel.Plane{{Offset: 0, Stride: 48, Rows: 16}}, Hz: 100}, 8, 768)
	if err != nil {
		t.Fatal(err)
	}
	return b, f
}

func publishFrame(t *testing.T, b *Bus, f *FrameStream, fill byte) {
	t.Helper()
	slot, err := f.Claim()
	if err != nil {
		t.Fatal(err)
	}
	for i := range slot.Bytes() {
		slot.Bytes()[i] = fill
	}
	if _, err := slot.Publish(768, b.Clock().Now()); err != nil {
		t.Fatal(err)
	}
}

func TestFramesInOrderAcrossRuns(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	reader := openBus(t, run, shm, "clips")
	defer reader.Close()
	frames, err := reader.Frames(FrameSource{Source: "porch", Stream: "video"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		b, out := startFrames(t, run, shm)
		for i := range 20 {
			publishFrame(t, b, out, byte(20*n+i))
			f, ok, err := frames.Next(soon(t), time.Time{})
			if err != nil || !ok {
				t.Fatalf("Next() = %v, %v; want a frame", ok, err)
			}
			if f.Seq != Seq(i) || f.Bytes()[0] != byte(20*n+i) || f.Width != 16 {
				t.Fatalf("frame %d of run %d = seq %d, fill %d", i, n, f.Seq, f.Bytes()[0])
			}
			f.Release()
		}
		b.Close()
		if _, _, err := frames.Next(soon(t), time.Time{}); !errors.Is(err, ErrEnded) {
			t.Fatalf("Next() after the end of run %d = %v; want ErrEnded", n, err)
		}
	}
	if a := frames.Totals(); a.Received != 40 || a.Lost != 0 || a.Sent != 40 {
		t.Errorf("Totals() = %+v; want 40 received", a)
	}
}

func TestNewestFramePassesOverTheRest(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	reader := openBus(t, run, shm, "pics")
	defer reader.Close()
	frames, err := reader.Frames(FrameSource{Source: "porch", Stream: "video"})
	if err != nil {
		t.Fatal(err)
	}
	b, out := startFrames(t, run, shm)
	defer b.Close()
	for i := range 50 {
		publishFrame(t, b, out, byte(i))
	}
	f, ok, err := frames.Newest(soon(t), time.Time{})
	if err != nil || !ok || f.Seq != 49 {
		t.Fatalf("Newest() = seq %d, %v, %v; want 49", f.Seq, ok, err)
	}
	f.Release()
	if _, ok, err := frames.Newest(soon(t), time.Now().Add(30*time.Millisecond)); ok || err != nil {
		t.Errorf("Newest() with nothing new = %v, %v; want false at the deadline", ok, err)
	}
	if a := frames.Account(); a.Received != 1 || a.Skipped != 49 || a.Sent != 50 {
		t.Errorf("Account() = %+v; want 1 received, 49 skipped", a)
	}
}
