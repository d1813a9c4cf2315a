package main

import (
	"bytes"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/onnxfile"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

func vga() pixel.Size { return pixel.Size{Width: 640, Height: 480} }

// draw puts a frame of the simulated scene into the camera.
func (c *camera) draw(frame uint64) {
	c.t.Helper()
	s, err := scene.New(pixel.YUV420, vga())
	if err == nil {
		err = s.Draw(frame, c.picture)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// sees says whether a detection has the target where the scene says it is.
func sees(d msg.Detection, frame uint64) bool {
	r, visible := scene.Target(frame, vga())
	if !visible || len(d.Objects) != 1 {
		return !visible && len(d.Objects) == 0
	}
	want := [4]float64{float64(r.Min.X), float64(r.Min.Y), float64(r.Max.X), float64(r.Max.Y)}
	return d.Objects[0].Label == "target" && single(d.Objects[0].Box).IoU(single(want)) >= 0.85
}

func TestEveryFrameThatIsSeenIsTold(t *testing.T) {
	onnxtest.Library(t)
	b := boxtest.New(t, detectorEntry("model = \"sim:\"\nmax_hz = 1000"))
	cam := newCamera(t, b, pixel.YUV420, vga())
	feed := b.Follow(b.Bus("test"), []msg.Kind{msg.KindDetection}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	for i, frame := range []uint64{10, 200, 300, 120} { // at 300 there is none
		cam.draw(frame)
		cam.publish()
		if d := detection(t, feed); !sees(d, frame) || d.FrameSeq != msg.Seq(i) || d.Gate != "" {
			t.Errorf("detection %d = %+v; want the target of frame %d", i, d, frame)
		}
	}
	eye.Stop()
}

// After a while without looking it is the newest frame that is looked at, and
// the others are counted.
func TestTakesTheNewest(t *testing.T) {
	onnxtest.Library(t)
	b := boxtest.New(t, detectorEntry("model = \"sim:\"\nmax_hz = 2"))
	cam := newCamera(t, b, pixel.YUV420, vga())
	bus := b.Bus("test")
	feed := b.Follow(bus, []msg.Kind{msg.KindDetection}, "eye")
	states := b.Follow(bus, []msg.Kind{msg.KindState}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	cam.draw(10)
	first := cam.publish()
	detection(t, feed)
	for frame := uint64(11); frame < 21; frame++ { // while it waits for its next turn
		cam.draw(frame)
		cam.publish()
	}
	d := detection(t, feed)
	if !sees(d, 20) || d.FrameSeq != 10 {
		t.Errorf("second detection is of frame %d: %v; want the newest, 10", d.FrameSeq, d.Objects)
	}
	if after := time.Duration(d.FrameBootNS) - first.Boot; after > 500*time.Millisecond {
		t.Logf("the machine took %v to publish ten frames", after)
	}
	s := states.State("two frames seen", func(s msg.State) bool {
		return s.Counters["frames_seen"] == 2 && len(s.Sources) == 1 && s.Sources[0].Sent == 11
	})
	if a := s.Sources[0]; a.Received != 2 || a.Skipped != 9 {
		t.Errorf("account = %+v; want 2 received, 9 skipped", a)
	}
	for _, g := range []string{"frame_age_ms", "preprocess_ms", "inference_ms", "postprocess_ms"} {
		if v, ok := s.Gauges[g]; !ok || v < 0 {
			t.Errorf("gauge %s = %g, %v; want it", g, v, ok)
		}
	}
	eye.Stop()
}

func TestGateIsInTheMessage(t *testing.T) {
	onnxtest.Library(t)
	b := boxtest.New(t, detectorEntry("model = \"sim:\"\nmax_hz = 1000\ngate = \"motion\"\nat_least_every = \"1h\"\nmask = [[[0, 0], [1, 0], [1, 0.15], [0, 0.15]]]"))
	cam := newCamera(t, b, pixel.YUV420, vga())
	feed := b.Follow(b.Bus("test"), []msg.Kind{msg.KindDetection}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	for i, step := range []struct {
		frame uint64
		gate  string
	}{{100, ""}, {100, "still"}, {160, ""}, {300, ""}, {300, "still"}} {
		cam.draw(step.frame)
		stamp := cam.publish()
		d := detection(t, feed)
		if d.Gate != step.gate || !sees(d, step.frame) || d.CoveredUntil != int64(stamp.Boot) {
			t.Errorf("step %d: detection = %+v; want gate %q, the target of frame %d, covered until %d", i, d, step.gate, step.frame, stamp.Boot)
		}
	}
	eye.Stop()
}

// The network sees the colours that a frame says it has.
func TestTheFramesColourCounts(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Model, cfg.Library = Simulated, onnxtest.Library(t)
	d := eyes(t, cfg)
	data := make([]byte, vga().Width*vga().Height*3/2)
	luma := vga().Width * vga().Height
	img, err := pixel.NewImage(pixel.YUV420, vga(), data)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		colour    pixel.Colour
		y, cb, cr byte // of red
	}{
		{pixel.Colour{}, 81, 90, 240},
		{pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT601}, 81, 90, 240},
		{pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT709}, 63, 102, 240},
		{pixel.Colour{Range: pixel.Full, Matrix: pixel.BT709}, 54, 99, 255},
		{pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT2020}, 74, 97, 240},
	} {
		for i := range data {
			switch {
			case i < luma:
				data[i] = tt.y
			case i < luma+luma/4:
				data[i] = tt.cb
			default:
				data[i] = tt.cr
			}
		}
		img.Colour = tt.colour
		if err := d.network.take(img); err != nil {
			t.Fatal(err)
		}
		in, tensor := d.network.in, d.network.tensor
		n := len(tensor) / 3
		at := in.Size.Height/2*in.Size.Width + in.Size.Width/2
		got := [3]float32{tensor[at], tensor[n+at], tensor[2*n+at]}
		if in.BGR {
			got[0], got[2] = got[2], got[0]
		}
		if got[0] < 252*in.Scale || got[1] > 3*in.Scale || got[2] > 3*in.Scale {
			t.Errorf("red of %q is R, G, B = %v to the network; want 255, 0, 0 by %g", tt.colour, got, in.Scale)
		}
	}
}

func TestDamagedPicturesAreCounted(t *testing.T) {
	onnxtest.Library(t)
	b := boxtest.New(t, detectorEntry("model = \"sim:\"\nmax_hz = 1000"))
	cam := newCamera(t, b, pixel.MJPEG, vga())
	bus := b.Bus("test")
	feed := b.Follow(bus, []msg.Kind{msg.KindDetection}, "eye")
	states := b.Follow(bus, []msg.Kind{msg.KindState}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	picture := jpegOf(t, 120)
	copy(cam.picture, picture)
	cam.publish(len(picture) / 2)
	states.State("a bad frame", func(s msg.State) bool {
		return s.Counters["bad_frames"] == 1 && strings.Contains(s.Trouble, "corrupted")
	})
	cam.publish(len(picture))
	if d := detection(t, feed); !sees(d, 120) || d.FrameSeq != 1 {
		t.Errorf("detection = %+v; want the target of the whole picture", d)
	}
	states.State("no trouble", func(s msg.State) bool { return s.Counters["frames_seen"] == 1 && s.Trouble == "" })
	eye.Stop()
}

// An mjpeg camera may have odd sides: its pictures are looked at all the same.
func TestPicturesOfOddSizeAreLookedAt(t *testing.T) {
	onnxtest.Library(t)
	b := boxtest.New(t, detectorEntry("model = \"sim:\"\nmax_hz = 1000"))
	cam := newCamera(t, b, pixel.MJPEG, pixel.Size{Width: 641, Height: 479})
	feed := b.Follow(b.Bus("test"), []msg.Kind{msg.KindDetection}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	odd := image.NewYCbCr(image.Rect(0, 0, 641, 479), image.YCbCrSubsampleRatio420)
	for i := range odd.Y {
		odd.Y[i] = 128
	}
	shown, err := jpeg.Decode(bytes.NewReader(jpegOf(t, 120))) // the scene, in the corner of a larger picture
	if err != nil {
		t.Fatal(err)
	}
	scene := shown.(*image.YCbCr)
	for y := range 479 {
		for x := range 640 {
			odd.Y[odd.YOffset(x, y)] = scene.Y[scene.YOffset(x, y)]
			odd.Cb[odd.COffset(x, y)], odd.Cr[odd.COffset(x, y)] = scene.Cb[scene.COffset(x, y)], scene.Cr[scene.COffset(x, y)]
		}
	}
	var picture bytes.Buffer
	if err := jpeg.Encode(&picture, odd, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	copy(cam.picture, picture.Bytes())
	cam.publish(picture.Len())
	if d := detection(t, feed); !sees(d, 120) {
		t.Errorf("detection = %+v; want the target of frame 120", d)
	}
	eye.Stop()
}

func jpegOf(t *testing.T, frame uint64) []byte {
	t.Helper()
	s, err := scene.New(pixel.YUV420, vga())
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, s.Bytes())
	if err := s.Draw(frame, data); err != nil {
		t.Fatal(err)
	}
	img, err := pixel.NewImage(pixel.YUV420, vga(), data)
	if err != nil {
		t.Fatal(err)
	}
	img.Colour = scene.Colour()
	e, err := turbojpeg.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	picture, err := e.Encode(img, 85)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte(nil), picture...)
}

// slow is a yolov8 of one class that counts to 2^62 for a picture with a white pixel.
func slow() []byte {
	body := &onnxfile.Graph{Name: "body",
		Inputs:  []onnxfile.Value{{Name: "i", Type: onnxfile.Int64}, {Name: "go", Type: onnxfile.Bool}, {Name: "x", Type: onnxfile.Float}},
		Outputs: []onnxfile.Value{{Name: "goon", Type: onnxfile.Bool}, {Name: "y", Type: onnxfile.Float}},
		Nodes:   []onnxfile.Node{{Op: "Identity", In: []string{"go"}, Out: []string{"goon"}}, {Op: "Identity", In: []string{"x"}, Out: []string{"y"}}}}
	axes := onnxfile.Attribute{Name: "keepdims", Value: int64(0)}
	return onnxfile.Encode(&onnxfile.Graph{Name: "slow", Metadata: []onnxfile.Pair{{Key: "names", Value: "{0: 'x'}"}},
		Inputs:    []onnxfile.Value{{Name: "images", Type: onnxfile.Float, Shape: []int64{1, 3, 32, 32}}},
		Outputs:   []onnxfile.Value{{Name: "out", Type: onnxfile.Float, Shape: []int64{1, 5, 21}}},
		Constants: []onnxfile.Constant{{Name: "many", Floats: []float32{1e15}}, {Name: "half", Floats: []float32{0.5}}, {Name: "shape", Shape: []int64{3}, Ints: []int64{1, 5, 21}}},
		Nodes: []onnxfile.Node{
			{Op: "ReduceMin", In: []string{"images"}, Out: []string{"white"}, Attributes: []onnxfile.Attribute{{Name: "axes", Value: []int64{1}}}},
			{Op: "ReduceMax", In: []string{"white"}, Out: []string{"whitest"}, Attributes: []onnxfile.Attribute{axes}},
			{Op: "Sub", In: []string{"whitest", "half"}, Out: []string{"over"}},
			{Op: "Relu", In: []string{"over"}, Out: []string{"light"}},
			{Op: "Mul", In: []string{"light", "many"}, Out: []string{"wanted"}},
			{Op: "Cast", In: []string{"wanted"}, Out: []string{"times"}, Attributes: []onnxfile.Attribute{{Name: "to", Value: int64(onnxfile.Int64)}}},
			{Op: "Loop", In: []string{"times", "", "light"}, Out: []string{"done"}, Attributes: []onnxfile.Attribute{{Name: "body", Value: body}}},
			{Op: "Expand", In: []string{"done", "shape"}, Out: []string{"out"}}}})
}

func TestStuckNetworkEndsTheWorker(t *testing.T) {
	onnxtest.Library(t)
	model := filepath.Join(t.TempDir(), "slow.onnx")
	if err := os.WriteFile(model, slow(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := boxtest.New(t, detectorEntry("model = \""+model+"\"\ndeadline = \"200ms\""))
	cam := newCamera(t, b, pixel.YUV420, vga())
	eye := b.Start("detector", "eye")
	cam.gate()
	cam.draw(120)
	cam.publish()
	if code := eye.Wait(); code != 1 || !strings.Contains(eye.Log(), "the network runs for more than 200ms: see deadline") {
		t.Errorf("the detector ended with code %d and wrote %s; want 1, and the deadline", code, eye.Log())
	}
}

// Told to stop in the middle of a run, it stops, and is done.
func TestStopsWithinARun(t *testing.T) {
	onnxtest.Library(t)
	model := filepath.Join(t.TempDir(), "slow.onnx")
	if err := os.WriteFile(model, slow(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := boxtest.New(t, detectorEntry("model = \""+model+"\"\ndeadline = \"1h\""))
	cam := newCamera(t, b, pixel.YUV420, vga())
	states := b.Follow(b.Bus("test"), []msg.Kind{msg.KindState}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	cam.draw(120)
	cam.publish()
	states.State("a run begun", func(s msg.State) bool { return s.Gauges["preprocess_ms"] > 0 })
	eye.Stop()
}

// Models that cannot be used are refused with the reason, and with code 78: time
// does not mend them.
func TestBadModelsAreRefused(t *testing.T) {
	onnxtest.Library(t)
	tensor := func(name string, shape ...int64) onnxfile.Value {
		return onnxfile.Value{Name: name, Type: onnxfile.Float, Shape: shape}
	}
	same := func(in, out onnxfile.Value, op string, notes ...onnxfile.Pair) []byte {
		return onnxfile.Encode(&onnxfile.Graph{Name: "same", Inputs: []onnxfile.Value{in}, Outputs: []onnxfile.Value{out}, Metadata: notes,
			Nodes: []onnxfile.Node{{Op: op, In: []string{in.Name}, Out: []string{out.Name}}}})
	}
	for name, tt := range map[string]struct {
		model    []byte
		settings string
		want     string
	}{
		"text":      {[]byte("no model"), "", `not an ONNX file but a text that begins "no model"`},
		"cut short": {slow()[:200], "", "not complete: 200 bytes of at least"},
		"input":     {same(tensor("a", 1, 416, 416, 5), tensor("b", 1, 416, 416, 5), "Relu"), "", "want [1 3 height width]"},
		"output":    {same(tensor("a", 1, 3, 32, 32), tensor("b", 1, 3, 32, 32), "Relu"), "", "outputs b of shape [[1 3 32 32]]"},
		"task":      {same(tensor("a", 1, 3, 32, 32), tensor("b", 1, 3, 32, 32), "Relu", onnxfile.Pair{Key: "task", Value: "pose"}), "", `a pose model (its task is "pose")`},
		"labels":    {slow(), `labels = ["a", "b"]`, "want one for each of the model's 1 classes"},
		"only":      {slow(), `only = ["y"]`, `the model has no label "y"`},
		"size":      {slow(), `input_size = "64x64"`, "takes no other size"},
		"provider":  {slow(), `provider = "Abacus"`, `execution provider "Abacus"`},
	} {
		model := filepath.Join(t.TempDir(), "bad.onnx")
		if err := os.WriteFile(model, tt.model, 0o600); err != nil {
			t.Fatal(err)
		}
		b := boxtest.New(t, detectorEntry("model = \""+model+"\"\n"+tt.settings))
		eye := b.Start("detector", "eye")
		if code := eye.Wait(); code != 78 || !strings.Contains(eye.Log(), tt.want) {
			t.Errorf("%s: ended with code %d and wrote %s; want 78 and %q", name, code, eye.Log(), tt.want)
		}
	}
}

func TestWithoutRuntime(t *testing.T) {
	b := boxtest.New(t, detectorEntry("model = \"sim:\"\nlibrary = \"/no/such.so\""))
	eye := b.Start("detector", "eye")
	if code := eye.Wait(); code != 69 || !strings.Contains(eye.Log(), "tried /no/such.so") {
		t.Errorf("ended with code %d and wrote %s; want 69 and what was tried", code, eye.Log())
	}
}

// Where it is to wait, it is ready, and begins when there is a library.
func TestWaitsForRuntime(t *testing.T) {
	library := onnxtest.Library(t)
	b := boxtest.New(t, detectorEntry("model = \"sim:\"\nlibrary = \"DIR/x.so\"\nwithout_runtime = \"wait\""))
	states := b.Follow(b.Bus("test"), []msg.Kind{msg.KindState}, "eye")
	eye := b.Start("detector", "eye")
	states.State("its trouble", func(s msg.State) bool { return s.Ready && strings.Contains(s.Trouble, "find ONNX Runtime: tried") })
	if err := os.Symlink(library, b.Dir+"/x.so"); err != nil {
		t.Fatal(err)
	}
	states.State("no trouble", func(s msg.State) bool { return s.Ready && s.Trouble == "" && strings.HasPrefix(s.Status, "sim:") })
	eye.Stop()
}

// A detector that is killed while it holds a frame does not hold up the camera.
func TestKilledDetectorBlocksNobody(t *testing.T) {
	onnxtest.Library(t)
	b := boxtest.New(t, detectorEntry("model = \"sim:\"\nmax_hz = 1000"))
	cam := newCamera(t, b, pixel.YUV420, vga())
	feed := b.Follow(b.Bus("test"), []msg.Kind{msg.KindDetection}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	cam.draw(10)
	cam.publish()
	detection(t, feed)
	for range 20 { // more than there are slots, in the midst of which it dies
		cam.publish()
	}
	eye.Kill()
	for range 20 {
		cam.publish()
	}
	again := b.Start("detector", "eye")
	for d := (msg.Detection{}); d.FrameSeq != 40; d = detection(t, feed) {
		if d.FrameSeq > 40 {
			t.Fatalf("detection of frame %d; want the newest, 40", d.FrameSeq)
		}
	}
	again.Stop()
}

// A camera that comes back with another size or format is seen as well as before.
func TestFramesOfAnotherKind(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Model, cfg.Library = Simulated, onnxtest.Library(t)
	d := eyes(t, cfg)
	for _, kind := range []struct {
		f pixel.Format
		s pixel.Size
	}{{pixel.YUV420, vga()}, {pixel.YUV420, pixel.Size{Width: 480, Height: 640}}, {pixel.RGB24, pixel.Size{Width: 480, Height: 640}}, {pixel.YUV420, vga()}} {
		s, err := scene.New(kind.f, kind.s)
		if err != nil {
			t.Fatal(err)
		}
		img, err := pixel.NewImage(kind.f, kind.s, make([]byte, s.Bytes()))
		if err == nil {
			err = s.Draw(120, img.Data)
		}
		if err != nil {
			t.Fatal(err)
		}
		r, _ := scene.Target(120, kind.s)
		want := [4]float64{float64(r.Min.X), float64(r.Min.Y), float64(r.Max.X), float64(r.Max.Y)}
		if got := d.in(t, img); len(got) != 1 || single(got[0].Box).IoU(single(want)) < 0.85 {
			t.Errorf("%s %s: found %v; want a target at %v", kind.f, kind.s, got, want)
		}
	}
}
