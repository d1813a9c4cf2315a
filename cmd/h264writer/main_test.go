package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// TestMain lets the test binary be h264writer.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"h264writer": main})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

// needFFmpeg skips where there is none.
func needFFmpeg(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"ffmpeg", "ffprobe"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here: %v", tool, err)
		}
	}
}

// fleet is a topology of one camera, the test, and one h264writer.
func fleet(settings string) string {
	return `[sensor.porch]
program = "camera"
manufacturer = "Raspberry Pi"
device = "Camera Module 3"
[sensor.porch.stream.video]
[worker.clips]
program = "h264writer"
source = "porch"
encoder = "libx264"
preset = "ultrafast"
threads = 1
` + settings
}

// camera is the test as the sensor "porch".
type camera struct {
	t    *testing.T
	bus  *msg.Bus
	pub  *msg.Publisher
	out  *msg.FrameStream
	geo  msg.Geometry
	size int
	sent int
}

func newCamera(t *testing.T, b *boxtest.Box, format pixel.Format, size pixel.Size, hz float64) *camera {
	t.Helper()
	return newCameraOn(t, b.Bus("porch"), format, size, hz)
}

func newCameraOn(t *testing.T, bus *msg.Bus, format pixel.Format, size pixel.Size, hz float64) *camera {
	t.Helper()
	planes, bytes, err := pixel.Layout(format, size)
	if err != nil {
		t.Fatal(err)
	}
	c := &camera{t: t, bus: bus, size: bytes, geo: msg.Geometry{Format: string(format), Width: size.Width, Height: size.Height, Planes: planes, Hz: hz}}
	if c.pub, err = bus.Publisher(); err == nil {
		c.out, err = c.pub.Frames("video", c.geo, 128, bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ready waits until the writer reads.
func (c *camera) ready() {
	c.t.Helper()
	if missing := c.out.Gate([]string{"clips"}, boxtest.Limit, nil); len(missing) > 0 {
		c.t.Fatalf("%v did not subscribe within %s", missing, boxtest.Limit)
	}
	// It begins with the newest frame there is when it opens the ring.
	boxtest.Poll(c.t, "the writer to open the ring", func() bool { return len(c.out.Readers()) == 1 })
}

// publish sends a frame of one brightness, with that stamp.
func (c *camera) publish(at msg.Stamp) {
	c.t.Helper()
	slot, err := c.out.Claim()
	if err != nil {
		c.t.Fatal(err)
	}
	bytes := slot.Bytes()[:c.size]
	for i := range bytes {
		bytes[i] = byte(16 + c.sent*5%200)
	}
	if _, err := slot.Publish(c.size, at); err != nil {
		c.t.Fatal(err)
	}
	c.sent++
}

// put sends these bytes as a frame.
func (c *camera) put(frame []byte, at msg.Stamp) {
	c.t.Helper()
	slot, err := c.out.Claim()
	if err == nil {
		_, err = slot.Publish(copy(slot.Bytes(), frame), at)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// step is from frame to frame of a simulated camera.
const step = time.Second / 25

// film publishes frames faster than real time: their stamps are step apart.
func (c *camera) film(begin msg.Stamp, n int) msg.Stamp {
	c.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range n {
		<-tick.C
		c.publish(begin)
		begin = later(begin, step)
	}
	return begin
}

func later(at msg.Stamp, by time.Duration) msg.Stamp {
	at.Boot, at.Wall = at.Boot+by, at.Wall.Add(by)
	return at
}

// born are the sidecars of the completed files, in the order of their starts.
func born(t *testing.T, b *boxtest.Box) (list []*sidecar.Sidecar) {
	t.Helper()
	paths, err := filepath.Glob(b.Dir + "/cache/born/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		side, err := sidecar.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, side)
	}
	slices.SortFunc(list, func(a, b *sidecar.Sidecar) int { return int(a.Start.BootNS - b.Start.BootNS) })
	return list
}

// probed is what ffprobe says of a file.
type probed struct {
	packets  int
	duration time.Duration
	times    []time.Duration
}

func probe(t *testing.T, path string) probed {
	t.Helper()
	text, err := exec.Command("ffprobe", "-v", "error", "-count_packets", "-of", "json", "-show_entries",
		"stream=nb_read_packets:format=duration:packet=pts_time", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe %s: %v: %s", path, err, text)
	}
	var a struct {
		Packets []struct {
			Time string `json:"pts_time"`
		}
		Streams []struct {
			Packets string `json:"nb_read_packets"`
		}
		Format struct{ Duration string }
	}
	if err := json.Unmarshal(text, &a); err != nil || len(a.Streams) != 1 {
		t.Fatalf("ffprobe %s: %v: %s", path, err, text)
	}
	var p probed
	p.packets, _ = strconv.Atoi(a.Streams[0].Packets)
	p.duration = seconds(t, a.Format.Duration)
	for _, each := range a.Packets {
		p.times = append(p.times, seconds(t, each.Time))
	}
	return p
}

func seconds(t *testing.T, text string) time.Duration {
	t.Helper()
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(f * 1e9)
}

func where(b *boxtest.Box, s *sidecar.Sidecar) string { return b.Dir + "/cache/born/" + s.Name }

// brief is a segment in short: its frames, and those missing.
func brief(s *sidecar.Sidecar) string {
	text := fmt.Sprintf("%d-%d", s.Start.Seq, s.End.Seq)
	for _, m := range s.Frames.Missing {
		text += fmt.Sprintf(" -%d-%d", m.First, m.Last)
	}
	return text
}

func briefs(list []*sidecar.Sidecar) string {
	var all []string
	for _, s := range list {
		all = append(all, brief(s))
	}
	return strings.Join(all, ", ")
}

// wantTrue checks that a file is what its sidecar says: as many pictures, as
// long as its frames' times.
func wantTrue(t *testing.T, b *boxtest.Box, s *sidecar.Sidecar) probed {
	t.Helper()
	p := probe(t, where(b, s))
	if p.packets != int(s.Items) {
		t.Errorf("%s has %d pictures; its sidecar says %d", s.Name, p.packets, s.Items)
	}
	span := time.Duration(s.End.BootNS - s.Start.BootNS)
	interval := step // how long the last picture is shown is taken from those before
	for i := range p.times[1:] {
		interval = max(interval, p.times[i+1]-p.times[i])
	}
	if d := p.duration - span; d < -interval || d > interval*11/10+time.Millisecond {
		t.Errorf("%s lasts %s; its frames %s, and want at most %s more", s.Name, p.duration, span, interval)
	}
	return p
}

// The work folder is empty when all is well.
func wantNothingLeft(t *testing.T, b *boxtest.Box) {
	t.Helper()
	entries, err := os.ReadDir(b.Dir + "/cache/work")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s was left in work/", e.Name())
	}
}

func fed(n int) func(msg.State) bool {
	return func(s msg.State) bool { return s.Counters["frames"] >= uint64(n) }
}

// 90 frames of 25 a second in segments of a second: 25, 25, 25 and 15.
func TestSegments(t *testing.T) {
	needFFmpeg(t)
	for _, format := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(`segment = "1s"`))
			c := newCamera(t, b, format, pixel.Size{Width: 64, Height: 48}, 25)
			bus := b.Bus("watch")
			states := b.Follow(bus, []msg.Kind{msg.KindState}, "clips")
			events := b.Follow(bus, []msg.Kind{msg.KindFile}, "clips")
			p := b.Start("h264writer", "clips")
			c.ready()
			c.film(c.bus.Clock().Now(), 90)
			states.State("all frames", fed(90))
			p.Stop()
			list := born(t, b)
			if got, want := briefs(list), "0-24, 25-49, 50-74, 75-89"; got != want {
				t.Fatalf("segments %s; want %s", got, want)
			}
			for _, s := range list {
				wantTrue(t, b, s)
				m := events.Next()
				f, err := m.File()
				if err != nil || f.ID != string(s.ID) || f.State != "born" {
					t.Errorf("file event %+v, %v; want %s born", f, err, s.ID)
				}
			}
			wantNothingLeft(t, b)
		})
	}
}
