package msg

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pebbe/zmq4"

	"github.com/perch-edge/perch/pkg/shm"
)

func TestFilesAndDetectionsRoundTrip(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	files, err := c.pub.Files("files", Retention{})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := c.pub.Detections("objects", Retention{})
	if err != nil {
		t.Fatal(err)
	}
	at := Stamp{Wall: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), Boot: 7 * time.Second, Synced: true}
	sidecar := json.RawMessage(`{"v":1,"name":"a <b> & ü"}`)
	if _, err := files.Publish(at, "a_1", "born", sidecar); err != nil {
		t.Fatal(err)
	}
	seen := Detection{FrameSource: "porch", FrameEpoch: 5, FrameSeq: 6, FrameTime: Time{at.Wall.UTC()}, FrameBootNS: 7, CoveredUntil: 8,
		Objects: []Object{{Label: "person", Score: 0.5, Box: [4]float64{1, 2, 3.5, 4}}}}
	nothing := seen
	nothing.Objects = nil
	for _, d := range []Detection{seen, nothing} {
		if _, err := objects.Publish(at, d); err != nil {
			t.Fatal(err)
		}
	}
	b := openBus(t, run, shm, "mover")
	defer b.Close()
	s, err := b.Subscribe(Subscription{Sources: []Address{{Source: "air"}}, Kinds: []Kind{KindFile, KindDetection}})
	if err != nil {
		t.Fatal(err)
	}
	head := Header{Version: 1, Node: "box", Source: "air", Epoch: c.pub.Epoch(), BootID: c.bus.Clock().BootID(),
		Time: Time{at.Wall.UTC()}, BootNS: 7e9, Synced: true}
	var got []any
	for range 3 {
		m := next(t, s)
		body, err := readBody(&m)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, body)
	}
	file := File{Header: head, ID: "a_1", State: "born", Sidecar: json.RawMessage(`{"v":1,"name":"a \u003cb\u003e \u0026 ü"}`)}
	file.Kind, file.Stream = KindFile, "files"
	seen.Header, nothing.Header, nothing.Objects = head, head, []Object{}
	seen.Kind, seen.Stream, nothing.Kind, nothing.Stream, nothing.Seq = KindDetection, "objects", KindDetection, "objects", 1
	if diff := cmp.Diff([]any{file, seen, nothing}, got); diff != "" {
		t.Errorf("messages: %s", diff)
	}
}

func TestMessageTooLargeForItsHistory(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	files, err := c.pub.Files("files", Retention{MessageBytes: 512})
	if err != nil {
		t.Fatal(err)
	}
	now := c.bus.Clock().Now()
	_, err = files.Publish(now, "a", "born", json.RawMessage(`{"x":"`+strings.Repeat("x", 1000)+`"}`))
	if want := "its history keeps 512 at most"; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "message of 12") {
		t.Errorf("Publish(1000 bytes) = %v; want an error with both sizes", err)
	}
	if seq, err := files.Publish(now, "a", "born", nil); err != nil || seq != 0 {
		t.Errorf("Publish() after that = %d, %v; want number 0: a refused message has none", seq, err)
	}
	states, err := c.pub.States("state")
	if err != nil {
		t.Fatal(err)
	}
	err = states.Publish(now, State{Status: strings.Repeat("x", maxHeader)})
	if err == nil || !strings.Contains(err.Error(), "want at most 65536") {
		t.Errorf("Publish(64 KiB) = %v; want an error with the limit", err)
	}
}

func TestPublishRefusesWhatNobodyWouldTake(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	files, err := c.pub.Files("files", Retention{})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := c.pub.Detections("objects", Retention{})
	if err != nil {
		t.Fatal(err)
	}
	now := c.bus.Clock().Now()
	reading := func(at Stamp, values []float64, bad map[string]string) error {
		_, err := c.out.Publish(at, values, bad)
		return err
	}
	file := func(id, state, sidecar string) error {
		_, err := files.Publish(now, id, state, json.RawMessage(sidecar))
		return err
	}
	object := func(o Object) error {
		_, err := objects.Publish(now, Detection{FrameSource: "porch", FrameEpoch: 1, Objects: []Object{o}})
		return err
	}
	for name, err := range map[string]error{
		"two values":         reading(now, []float64{1, 2}, nil),
		"bad of no column":   reading(now, []float64{1}, map[string]string{"x": "y"}),
		"year 10000":         reading(Stamp{Wall: now.Wall.AddDate(8000, 0, 0)}, []float64{1}, nil),
		"before the boot":    reading(Stamp{Wall: now.Wall, Boot: -1}, []float64{1}, nil),
		"path for an id":     file("../etc", "born", "{}"),
		"unknown state":      file("a", "done", "{}"),
		"sidecar is a list":  file("a", "born", "[]"),
		"sidecar is no JSON": file("a", "born", "{"),
		"score NaN":          object(Object{Label: "a", Score: math.NaN()}),
		"box turned over":    object(Object{Label: "a", Box: [4]float64{2, 0, 1, 0}}),
	} {
		if err == nil {
			t.Errorf("Publish(%s) = nil; want an error", name)
		}
	}
	for _, columns := range [][]string{nil, {"a", "a"}, {"A"}, {"a,b"}} {
		if _, err := c.pub.Readings("more", columns, Retention{}); err == nil {
			t.Errorf("Readings(%q) = nil; want an error", columns)
		}
	}
	for _, g := range []Geometry{{}, {Format: "rgb24", Width: 16, Height: 16}, func() Geometry { g := rgb16(); g.Hz = math.NaN(); return g }()} {
		if _, err := c.pub.Frames("video", g, 8, 768); err == nil {
			t.Errorf("Frames(%+v) = nil; want an error", g)
		}
	}
	if published, _ := c.pub.Counts(); published["reading/air/count"] != 0 || len(published) != 3 {
		t.Errorf("Counts() = %v; want three streams, nothing published", published)
	}
}

// What fails leaves neither socket nor lock nor ring behind, so that it can be
// tried again.
func TestFramesThatDoNotFit(t *testing.T) {
	t.Parallel()
	run, dir := folders(t)
	c := startCounter(t, run, dir, Retention{})
	defer c.bus.Close()
	full := (*shm.FullError)(nil)
	if _, err := c.pub.Frames("video", rgb16(), 1<<10, 1<<30); !errors.As(err, &full) {
		t.Errorf("Frames(1 TiB) = %v; want a FullError", err)
	}
	for _, pattern := range []string{run + "/air.video*", dir + "/air.video*"} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v; want nothing", left, err)
		}
	}
	if _, err := c.pub.Frames("video", rgb16(), 8, 768); err != nil {
		t.Errorf("Frames() after that = %v; want it to work", err)
	}
	if _, err := c.pub.Frames("video", rgb16(), 8, 768); err == nil {
		t.Error("Frames() of the same name = nil; want an error")
	}
}

// A subscriber that does not read keeps nobody from ending.
func TestCloseDoesNotWaitForAStalledSubscriber(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	stalled, err := zmq4.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	soc, err := stalled.NewSocket(zmq4.SUB)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { err = errors.Join(soc.Close(), stalled.Term()) }()
	if err := errors.Join(soc.SetRcvhwm(1), soc.SetRcvbuf(4096), soc.SetSubscribe("reading/"), soc.SetSubscribe("hello/stalled"),
		soc.Connect("ipc://"+run+"/air.ipc")); err != nil {
		t.Fatal(err)
	}
	c.hears(t, "stalled")
	c.publish(t, 5000)
	start := time.Now()
	if err := c.bus.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if took := time.Since(start); took < linger/2 || took > linger+2*time.Second {
		t.Errorf("Close() took %v; want about %v: messages were waiting", took, linger)
	}
	if err := c.bus.Close(); err != nil {
		t.Errorf("Close() again = %v; want nil", err)
	}
}

// A peer may send a publisher anything.
func TestPublisherHearsNonsense(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	ctx, err := zmq4.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	soc, err := ctx.NewSocket(zmq4.XSUB)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { err = errors.Join(soc.Close(), ctx.Term()) }()
	if err := errors.Join(soc.SetLinger(0), soc.Connect("ipc://"+run+"/air.ipc")); err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		if _, err := soc.SendBytes([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"", "\x01", "\x02hello/x", "\x01hello/../x", "\x01hello/", "\x01hello/X", "\x00hello/x", "no subscription"} {
		say(text)
	}
	for n := range 2 * maxHello {
		say(fmt.Sprintf("\x01hello/w%d", n))
	}
	c.hears(t, fmt.Sprintf("w%d", maxHello-1))
	say("\x00hello/w0")
	say("\x01hello/last")
	c.hears(t, "last")
	if names := c.pub.Subscribers(); len(names) != maxHello {
		t.Errorf("Subscribers() has %d names; want %d at most", len(names), maxHello)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	if err := errors.Join(os.MkdirAll(run, 0o777), os.Chmod(run, 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg  Config
		text string
	}{
		{Config{Node: "box", Name: "air", RunDir: run, ShmDir: shm}, "lets others in"},
		{Config{Node: "box", Name: "air", RunDir: "run", ShmDir: shm}, "absolute"},
		{Config{Node: "", Name: "air", RunDir: run + "2", ShmDir: shm}, "node"},
		{Config{Node: "a\nb", Name: "air", RunDir: run + "2", ShmDir: shm}, "control"},
		{Config{Node: "box", Name: "Air", RunDir: run + "2", ShmDir: shm}, `"Air"`},
	} {
		if _, err := Open(c.cfg); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("Open(%+v) = %v; want an error with %q", c.cfg, err, c.text)
		}
	}
}

// Whatever fails or ends gives its descriptors and threads back.
func TestNothingLeaks(t *testing.T) {
	run, shm := folders(t)
	cycle := func() {
		c := startCounter(t, run, shm, Retention{Messages: 4})
		c.publish(t, 3)
		b := openBus(t, run, shm, "csv")
		expect(t, subscribe(t, b, nil), soon(t), 0, 3)
		_, tcp := b.Subscribe(Subscription{Sources: []Address{{Source: "air", Endpoint: "tcp://h:1"}}})
		_, other := b.Frames(FrameSource{Source: "air", Stream: "video", Endpoint: "ipc:///x/water.video.ipc"})
		_, none := c.pub.Frames("video", rgb16(), 1, 768)
		second := openBus(t, run, shm, "air")
		_, twice := second.Publisher()
		if tcp == nil || other == nil || none == nil || twice == nil {
			t.Fatalf("%v, %v, %v, %v; want errors", tcp, other, none, twice)
		}
		if err := errors.Join(second.Close(), b.Close(), c.bus.Close()); err != nil {
			t.Fatal(err)
		}
	}
	cycle() // the runtime's own descriptors are opened once
	before := inUse(t)
	for range 10 {
		cycle()
	}
	if after := inUse(t); after != before {
		t.Errorf("in use after 10 cycles: %+v; want %+v", after, before)
	}
}

type usage struct{ descriptors, zmqThreads, mappings int }

func inUse(t *testing.T) (u usage) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if comm, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(comm), "ZMQ") {
			u.zmqThreads++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	u.descriptors, u.mappings = len(fds), strings.Count(string(maps), "/dev/shm/perch-test-")
	return u
}
