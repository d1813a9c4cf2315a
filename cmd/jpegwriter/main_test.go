package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// TestMain lets the test binary be jpegwriter, and a camera that can be killed.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"jpegwriter": main, "scenes": scenes})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

// fleet is a topology of one camera and one jpegwriter.
func fleet(keys string) string {
	return fmt.Sprintf(`[sensor.porch]
program = "scenes"
manufacturer = "Arducam"
device = "IMX477"
[sensor.porch.stream.video]
[worker.pictures]
program = "jpegwriter"
source = "porch"
%s
`, keys)
}

var size = pixel.Size{Width: 320, Height: 240}

// camera publishes the simulated scene: frame n shows the number n.
type camera struct {
	bus    *msg.Bus
	out    *msg.FrameStream
	scene  *scene.Scene
	jpeg   *turbojpeg.Encoder // for mjpeg
	format pixel.Format
	n      atomic.Uint64 // frames so far
	oldest time.Duration // the most that a frame's capture was behind the end of the next one's publishing
	last   time.Duration
}

func newCamera(bus *msg.Bus, format pixel.Format) (*camera, error) {
	return colouredCamera(bus, format, scene.Colour())
}

func colouredCamera(bus *msg.Bus, format pixel.Format, colour pixel.Colour) (*camera, error) {
	drawn := format
	if format == pixel.MJPEG {
		drawn = pixel.YUV420
	}
	s, err := scene.New(drawn, size)
	if err != nil {
		return nil, err
	}
	c := &camera{bus: bus, scene: s, format: format}
	if c.jpeg, err = turbojpeg.NewEncoder(); err != nil {
		return nil, err
	}
	pub, err := bus.Publisher()
	if err != nil {
		return nil, err
	}
	g := msg.Geometry{Format: string(format), Width: size.Width, Height: size.Height, Hz: 30}
	if format != pixel.RGB24 {
		g.ColourRange, g.ColourMatrix = colour.Range, colour.Matrix
	}
	if format != pixel.MJPEG {
		if g.Planes, _, err = pixel.Layout(format, size); err != nil {
			return nil, err
		}
	}
	c.out, err = pub.Frames("video", g, 4, size.Width*size.Height*3)
	return c, err
}

// shoot publishes the next frame.
func (c *camera) shoot() error {
	drawn, err := c.draw(c.n.Load())
	if err != nil {
		return err
	}
	return c.put(drawn)
}

// draw makes a frame; it is good until the next one.
func (c *camera) draw(number uint64) ([]byte, error) {
	drawn := make([]byte, c.scene.Bytes())
	if err := c.scene.Draw(number, drawn); err != nil || c.format != pixel.MJPEG {
		return drawn, err
	}
	img, err := pixel.NewImage(pixel.YUV420, size, drawn)
	if err != nil {
		return nil, err
	}
	img.Colour = scene.Colour()
	return c.jpeg.Encode(img, 90)
}

// put publishes these bytes as the next frame.
func (c *camera) put(frame []byte) error {
	slot, err := c.out.Claim()
	if err != nil {
		return err
	}
	n := copy(slot.Bytes(), frame)
	at := c.bus.Clock().Now()
	if _, err := slot.Publish(n, at); err != nil {
		return err
	}
	if done := c.bus.Clock().Now().Boot; c.last != 0 {
		c.oldest = max(c.oldest, done-c.last)
	}
	c.last = at.Boot
	c.n.Add(1)
	return nil
}

// run publishes at that rate until ctx is done.
func (c *camera) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := c.shoot(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// start runs the camera in the background until stop is called.
func (c *camera) start(t *testing.T, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx, every) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// openCamera is a camera in the test's own process.
func openCamera(t *testing.T, bus *msg.Bus, format pixel.Format) *camera {
	t.Helper()
	c, err := newCamera(bus, format)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.jpeg.Close() })
	return c
}

func (c *camera) frames(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := c.shoot(); err != nil {
			t.Fatal(err)
		}
	}
}

// scenes is a camera as a process.
func scenes() {
	bus, err := msg.Open(msg.Config{Node: "box", Name: "porch", RunDir: os.Args[1] + "/run", ShmDir: os.Args[1] + "/shm"})
	if err == nil {
		var c *camera
		if c, err = newCamera(bus, pixel.YUV420); err == nil {
			err = c.run(context.Background(), 10*time.Millisecond)
		}
	}
	fmt.Fprintln(os.Stderr, "scenes:", err)
	os.Exit(1)
}

// picture is one in born/.
type picture struct {
	path   string
	side   *sidecar.Sidecar
	number uint64 // read from its pixels
}

// gallery reads all pictures in born/ by their numbers, and checks each against
// its sidecar.
func gallery(t *testing.T, cache string) []picture {
	t.Helper()
	names, err := filepath.Glob(cache + "/born/*.jpg")
	if err != nil {
		t.Fatal(err)
	}
	var list []picture
	for _, name := range names {
		text, err := os.ReadFile(strings.TrimSuffix(name, ".jpg") + ".json")
		if err != nil {
			t.Fatalf("a picture without its sidecar: %v", err)
		}
		side, err := sidecar.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		jpeg, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(jpeg); hex.EncodeToString(sum[:]) != side.SHA256 || int64(len(jpeg)) != side.Bytes || side.Name != filepath.Base(name) {
			t.Errorf("%s: %d bytes, sha256 %x; its sidecar says %s, %d, %s", name, len(jpeg), sum, side.Name, side.Bytes, side.SHA256)
		}
		list = append(list, picture{name, side, numberOf(t, jpeg)})
	}
	slices.SortFunc(list, func(a, b picture) int { return strings.Compare(numbered(a), numbered(b)) })
	return list
}

// numbered is the part of an id that counts: epoch and number.
func numbered(p picture) string {
	return string(p.side.ID[strings.LastIndexByte(string(p.side.ID), '_'):])
}

// pictures counts them.
func pictures(t *testing.T, cache string) int {
	t.Helper()
	names, err := filepath.Glob(cache + "/born/*.jpg")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// numberOf reads the frame's number out of a picture.
func numberOf(t *testing.T, jpeg []byte) uint64 {
	t.Helper()
	d, err := turbojpeg.NewDecoder(size)
	if err != nil {
		t.Fatal(err)
	}
	_, bytes, err := pixel.Layout(pixel.YUV420, size)
	if err != nil {
		t.Fatal(err)
	}
	img, err := d.Decode(jpeg, make([]byte, bytes))
	if err != nil {
		t.Fatal(err)
	}
	n, err := scene.ReadNumber(img)
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

// newest is the number in the last picture; -1 when there is none.
func newest(t *testing.T, cache string) int {
	t.Helper()
	list := gallery(t, cache)
	if len(list) == 0 {
		return -1
	}
	return int(list[len(list)-1].number)
}

// wantNoLitter wants an empty work/, and no sidecar without its picture.
func wantNoLitter(t *testing.T, cache string) {
	t.Helper()
	work, err := os.ReadDir(cache + "/work")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range work {
		t.Errorf("%s was left in work/", e.Name())
	}
	sides, err := filepath.Glob(cache + "/born/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sides {
		if _, err := os.Stat(strings.TrimSuffix(s, ".json") + ".jpg"); err != nil {
			t.Errorf("a sidecar without its picture: %v", err)
		}
	}
}
