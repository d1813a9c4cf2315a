package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/worker"
)

// camera publishes frames of 64x48 and states.
type camera struct {
	bus    *msg.Bus
	pub    *msg.Publisher
	frames *msg.FrameStream
	states *msg.StateStream
}

func openCamera(dir string, name msg.Source, stream msg.Stream, hz float64) (*camera, error) {
	c := &camera{}
	var err error
	if c.bus, err = msg.Open(msg.Config{Node: "box", Name: name, RunDir: dir + "/run", ShmDir: dir + "/shm"}); err != nil {
		return nil, err
	}
	size := pixel.Size{Width: 64, Height: 48}
	planes, bytes, err := pixel.Layout(pixel.YUV420, size)
	if err == nil {
		c.pub, err = c.bus.Publisher()
	}
	if err == nil {
		c.states, err = c.pub.States("state")
	}
	if err == nil {
		g := msg.Geometry{Format: string(pixel.YUV420), Width: size.Width, Height: size.Height, Planes: planes, Hz: hz,
			ColourRange: pixel.Full, ColourMatrix: pixel.BT709}
		c.frames, err = c.pub.Frames(stream, g, 4, bytes)
	}
	return c, err
}

func (c *camera) frame(stamp msg.Stamp) error {
	slot, err := c.frames.Claim()
	if err == nil {
		_, err = slot.Publish(len(slot.Bytes()), stamp)
	}
	return err
}

// shortDir is a folder whose sockets' paths are not too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "p-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// topologyOf writes a topology whose folders are in dir.
func topologyOf(t *testing.T, dir string) string {
	t.Helper()
	text := fmt.Sprintf("[node]\nname = \"box\"\nrun_dir = %q\nshm_dir = %q\nstore_dir = %q\n[sensor.porch]\nprogram = \"publish\"\n", dir+"/run", dir+"/shm", dir+"/store")
	if err := os.WriteFile(dir+"/box.toml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir + "/box.toml"
}

func mustCamera(t *testing.T, dir string) *camera {
	t.Helper()
	c, err := openCamera(dir, "porch", "video", 30)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// verb is any of tap's.
type verb interface {
	Run(context.Context, worker.Streams) error
}

// running is a verb at work in a goroutine.
type running struct {
	out, stderr *text
	end         context.CancelFunc
	done        chan error
}

// text is a buffer that can be read while it is written.
type text struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *text) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *text) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func start(v verb) *running {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	r := &running{out: &text{}, stderr: &text{}, end: cancel, done: make(chan error, 1)}
	go func() { r.done <- v.Run(ctx, worker.Streams{Out: r.out, Err: r.stderr}) }()
	return r
}

// until publishes with step until the verb's output satisfies enough.
func (r *running) until(t *testing.T, enough func(out string) bool, step func() error) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !enough(r.out.String()); {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if len(r.done) > 0 {
			t.Fatalf("Run() = %v while messages come", <-r.done)
		}
		if time.Now().After(deadline) {
			t.Fatalf("output %q; want more", r.out)
		}
		<-time.After(2 * time.Millisecond) // the publisher's pace
	}
}

// stop is Ctrl-C.
func (r *running) stop(t *testing.T) string {
	t.Helper()
	r.end()
	if err := <-r.done; err != nil {
		t.Fatalf("Run() = %v; want nil after Ctrl-C", err)
	}
	return r.out.String()
}

func TestEchoFollowsRestartsAndLateSources(t *testing.T) {
	dir := shortDir(t)
	top := topologyOf(t, dir)
	r := start(&echo{where: where{What: []string{top, "porch.video"}}})
	defer r.end()
	epochs := map[string]bool{}
	for run := 1; run <= 2; run++ { // the first starts after tap
		c := mustCamera(t, dir)
		epoch := c.pub.Epoch().String()
		epochs[epoch] = true
		r.until(t, func(out string) bool { return strings.Contains(out, epoch) }, func() error { return c.frame(c.bus.Clock().Now()) })
		if err := c.bus.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range strings.Split(strings.TrimSpace(r.stop(t)), "\n") {
		var l struct {
			Topic  string
			Header struct{ Epoch, Kind string }
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Topic != "frame/porch/video" || !epochs[l.Header.Epoch] {
			t.Errorf("echo printed %s (%v); want a descriptor of one of the runs %v", text, err, epochs)
		}
	}
}

func TestTapTakesNoPart(t *testing.T) {
	dir := shortDir(t)
	c := mustCamera(t, dir)
	defer c.bus.Close()
	r := start(&echo{where: where{What: []string{topologyOf(t, dir)}}})
	defer r.end()
	r.until(t, func(out string) bool { return strings.Count(out, "frame/porch/video") > 3 }, func() error { return c.frame(c.bus.Clock().Now()) })
	if names := c.pub.Subscribers(); len(names) != 0 {
		t.Errorf("Subscribers() = %v while tap listens; want nobody", names)
	}
	streams, err := msg.Streams(dir + "/shm")
	if err != nil || len(streams) != 1 {
		t.Fatalf("Streams() = %v, %v; want the camera's", streams, err)
	}
	if readers := streams[0].Ring.Readers; len(readers) != 0 {
		t.Errorf("the ring has the readers %v while tap listens; want none", readers)
	}
	r.stop(t)
}

// A burst is far more than a high-water mark of 1 lets through: the rate must
// be that of the stamps all the same.
func TestRateIsRightWhenDoorbellsAreMissed(t *testing.T) {
	dir := shortDir(t)
	c := mustCamera(t, dir)
	defer c.bus.Close()
	stamp := c.bus.Clock().Now()
	r := start(&hz{where: where{What: []string{topologyOf(t, dir)}, Output: "json"}})
	defer r.end()
	burst := func() error {
		for range 100 {
			stamp.Boot += 40 * time.Millisecond
			if err := c.frame(stamp); err != nil {
				return err
			}
		}
		return nil
	}
	r.until(t, func(out string) bool {
		return strings.Contains(out, `"messages"`) && !strings.Contains(out, `"hz":null`)
	}, burst)
	var rows []map[string]any
	for _, text := range strings.Split(strings.TrimSpace(r.stop(t)), "\n") {
		var row map[string]any
		if err := json.Unmarshal([]byte(text), &row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	sum := rows[len(rows)-1]
	if sum["summary"] != true || sum["hz"] != 25.0 {
		t.Errorf("summary = %v; want 25 Hz exactly", sum)
	}
	if missed, ok := sum["missed"].(float64); !ok || missed == 0 {
		t.Errorf("missed = %v; want some, or the test proves nothing", sum["missed"])
	}
	if heard, missed := sum["messages"].(float64), sum["missed"].(float64); heard+missed > sum["seq"].(float64)+1 {
		t.Errorf("heard %v + missed %v of %v; want no more than were sent", heard, missed, sum["seq"].(float64)+1)
	}
}

// stuck is an output that nobody reads until it is released.
type stuck struct {
	text
	release chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	return s.text.Write(p)
}

func TestStuckOutputDoesNotHoldTheBus(t *testing.T) {
	dir := shortDir(t)
	c := mustCamera(t, dir)
	defer c.bus.Close()
	sel, err := where{What: []string{topologyOf(t, dir)}}.selection()
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEar(sel, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	out := &stuck{release: make(chan struct{})}
	q := &queue{lines: make(chan line, 8)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- (&until{}).listen(ctx, e, q.put, func(done <-chan error) error { return printLines(out, q.lines, done) })
	}()
	for deadline := time.Now().Add(2 * time.Minute); q.left.Load() < 100; {
		if time.Now().After(deadline) {
			t.Fatalf("left out %d; want 100, since the output is stuck", q.left.Load())
		}
		if err := c.frame(c.bus.Clock().Now()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Millisecond) // the publisher's pace
	}
	close(out.release)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := e.close(os.Stderr); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.text.String(), "\n"); n < 8 {
		t.Errorf("printed %d lines; want those that waited", n)
	}
}

func TestListShowsRingsAndReaders(t *testing.T) {
	dir := shortDir(t)
	top := topologyOf(t, dir)
	c := mustCamera(t, dir)
	defer c.bus.Close()
	looker, err := msg.Open(msg.Config{Node: "box", Name: "viewer", RunDir: dir + "/run", ShmDir: dir + "/shm"})
	if err != nil {
		t.Fatal(err)
	}
	defer looker.Close()
	in, err := looker.Frames(msg.FrameSource{Source: "porch", Stream: "video"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.frame(c.bus.Clock().Now()); err != nil {
		t.Fatal(err)
	}
	f, ok, err := in.Newest(t.Context(), time.Now().Add(10*time.Second))
	if err != nil || !ok {
		t.Fatalf("Newest() = %v, %v; want a frame", ok, err)
	}
	defer f.Release()
	r := start(&list{where: where{What: []string{top}, Output: "json"}})
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	var s stream
	for _, text := range strings.Split(strings.TrimSpace(r.out.String()), "\n") {
		if strings.Contains(text, `"type":"stream"`) {
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.Topic != "frame/porch/video" || !s.Live || s.Width != 64 || s.NominalHz != 30 || s.Messages != 1 || s.Slots != 4 {
		t.Errorf("list shows %+v; want the live stream with its geometry and one frame", s)
	}
	if len(s.Readers) != 1 || s.Readers[0].Name != "viewer" || s.Readers[0].PID != os.Getpid() || s.Readers[0].LastSeq == nil || *s.Readers[0].LastSeq != 0 {
		t.Errorf("list shows the readers %+v; want viewer, at 0", s.Readers)
	}
	text := (&scene{Streams: []stream{s}}).Streams[0].readers()
	if want := fmt.Sprintf("viewer (pid %d, pins 1) at 0", os.Getpid()); text != want {
		t.Errorf("readers() = %q; want %q", text, want)
	}
}

func TestBandwidthIsOfDescriptors(t *testing.T) {
	b := &board{bootID: "b", meters: map[msg.Topic]*meter{}}
	raw := func(seq int) string {
		return fmt.Sprintf(`{"v":1,"kind":"frame","node":"box","source":"porch","stream":"video","epoch":"00000000000000aa","boot_id":"b","seq":%d,`+
			`"time":"2026-05-01T10:00:00.000000000Z","boot_ns":%d,"synced":true,"ring":"porch.video","format":"mjpeg","width":16,"height":16,"planes":[],"hz":10,`+
			`"slot":0,"generation":1,"size":1000}`, seq, int64(seq)*1e8)
	}
	for _, seq := range []int{5, 6, 9} { // 7 and 8 are missed
		m, err := msg.Decode([][]byte{[]byte("frame/porch/video"), []byte(raw(seq))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Frame(); err != nil {
			t.Fatal(err)
		}
		b.add(&m, time.Duration(seq)*1e8+5*time.Millisecond)
	}
	got := b.rows(time.Second, true)[0].tally
	if v := got.perSecond(got.data); math.Abs(v-10_000) > 1e-6 {
		t.Errorf("frame bytes a second = %v; want 10000: 10 Hz of 1000 bytes, two of them missed", v)
	}
	if got.missed != 2 || got.heard != 3 || got.sent != 4 {
		t.Errorf("tally = %d heard, %d sent, %d missed; want 3, 4, 2", got.heard, got.sent, got.missed)
	}
	if want := float64(len("frame/porch/video") + len(raw(5))); math.Abs(got.bus/3-want) > 1 {
		t.Errorf("bytes of a message = %v; want %v", got.bus/3, want)
	}
}
