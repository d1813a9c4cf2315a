package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/internal/yolo"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// goldenObject is what another implementation found.
type goldenObject struct {
	Label string
	Score float64
	Box   [4]float64
}

// agree compares what was found with what another implementation found, by the
// rule of the test data's README: the same label, IoU of 0.85 or more, scores that
// differ by at most 0.08. Objects under a golden score of 0.4 may be missing; the
// rule says nothing of objects that it does not have, and they are bounded here: a
// score of 0.4 or more needs a golden object.
func agree(got []msg.Object, want []goldenObject) error {
	match := func(label string, score float64, box [4]float64, wantScore float64, wantLabel string, wantBox [4]float64) bool {
		return label == wantLabel && single(box).IoU(single(wantBox)) >= 0.85 && max(score-wantScore, wantScore-score) <= 0.08
	}
	for _, w := range want {
		found := w.Score < 0.4
		for _, g := range got {
			found = found || match(g.Label, g.Score, g.Box, w.Score, w.Label, w.Box)
		}
		if !found {
			return fmt.Errorf("nothing is %v; found %v", w, got)
		}
	}
	for _, g := range got {
		found := g.Score < 0.4
		for _, w := range want {
			found = found || match(g.Label, g.Score, g.Box, w.Score, w.Label, w.Box)
		}
		if !found {
			return fmt.Errorf("%v was found; want %v", g, want)
		}
	}
	return nil
}

func single(b [4]float64) (s yolo.Box) {
	for i, v := range b {
		s[i] = float32(v)
	}
	return s
}

func golden(t testing.TB, file string, to any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testdata(t), file))
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func nano(t testing.TB) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Model = filepath.Join(testdata(t), "yolox_nano.onnx")
	cfg.Library = onnxtest.Library(t)
	return cfg
}

// eyes is a detector without a bus.
func eyes(t testing.TB, cfg Config) *detector {
	t.Helper()
	n, err := openNetwork(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &detector{cfg: cfg, network: n, gate: newGate(cfg)}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// in is what is in a picture.
func (d *detector) in(t testing.TB, img pixel.Image) []msg.Object {
	t.Helper()
	if err := d.network.take(img); err != nil {
		t.Fatal(err)
	}
	if err := d.network.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	objects, err := d.network.objects()
	if err != nil {
		t.Fatal(err)
	}
	return d.named(objects)
}

func TestPicturesAgree(t *testing.T) {
	cfg := nano(t)
	d := eyes(t, cfg)
	var pictures []struct {
		File    string
		Objects []goldenObject
	}
	golden(t, "pictures.golden.json", &pictures)
	if len(pictures) != 8 {
		t.Fatalf("%d golden pictures; want 8", len(pictures))
	}
	for _, p := range pictures {
		file := filepath.Join(testdata(t), "pictures", p.File)
		for name, img := range decoded(t, file) {
			if err := agree(d.in(t, img), p.Objects); err != nil {
				t.Errorf("%s as %s: %v", p.File, name, err)
			}
		}
	}
}

// decoded is a picture in all formats that frames have: decoded by libjpeg-turbo,
// as an mjpeg camera's are, where its sides are even, and by Go's own library
// elsewhere, without the odd row or column.
func decoded(t *testing.T, file string) map[string]pixel.Image {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	any, err := jpeg.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	src, ok := any.(*image.YCbCr)
	if !ok {
		t.Fatalf("%s is a %T; want YCbCr", file, any)
	}
	size := pixel.Size{Width: src.Rect.Dx() &^ 1, Height: src.Rect.Dy() &^ 1}
	all := map[string]pixel.Image{}
	for _, f := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		all[string(f)] = converted(t, src, f, size)
	}
	if size.Width == src.Rect.Dx() && size.Height == src.Rect.Dy() {
		all["mjpeg"] = turbo(t, file, size)
	}
	return all
}

func converted(t *testing.T, src *image.YCbCr, f pixel.Format, s pixel.Size) pixel.Image {
	t.Helper()
	_, n, err := pixel.Layout(f, s)
	if err != nil {
		t.Fatal(err)
	}
	img, err := pixel.NewImage(f, s, make([]byte, n))
	if err != nil {
		t.Fatal(err)
	}
	if f != pixel.RGB24 {
		img.Colour = pixel.DefaultColour(pixel.MJPEG)
	}
	var p [3]pixel.Rows
	for i := range img.Planes {
		p[i], _ = img.Plane(i)
	}
	for y := range s.Height {
		for x := range s.Width {
			c := src.YCbCrAt(x, y)
			r, g, b, _ := c.RGBA()
			switch f {
			case pixel.YUV420:
				p[0].Row(y)[x], p[1].Row(y / 2)[x/2], p[2].Row(y / 2)[x/2] = c.Y, c.Cb, c.Cr
			case pixel.NV12:
				p[0].Row(y)[x], p[1].Row(y / 2)[x&^1], p[1].Row(y / 2)[x|1] = c.Y, c.Cb, c.Cr
			case pixel.YUYV:
				p[0].Row(y)[2*x], p[0].Row(y)[4*(x/2)+1], p[0].Row(y)[4*(x/2)+3] = c.Y, c.Cb, c.Cr
			case pixel.RGB24:
				copy(p[0].Row(y)[3*x:], []byte{byte(r >> 8), byte(g >> 8), byte(b >> 8)})
			}
		}
	}
	return img
}

func turbo(t *testing.T, file string, s pixel.Size) pixel.Image {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := turbojpeg.NewDecoder(s)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	img, err := d.Decode(text, make([]byte, s.Width*s.Height*3/2))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// The clip goes through the ring and the bus, a frame at a time: each is
// published when the detection of the one before has come.
func TestClipAgrees(t *testing.T) {
	cfg := nano(t)
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip(err)
	}
	var clip struct {
		Every      int
		Detections []struct {
			Frame   int
			Objects []goldenObject
		}
	}
	golden(t, "clip.golden.json", &clip)
	if len(clip.Detections) != 60 {
		t.Fatalf("%d golden frames; want 60", len(clip.Detections))
	}
	b := boxtest.New(t, detectorEntry(fmt.Sprintf("model = %q\nmax_hz = 1000", cfg.Model)))
	cam := newCamera(t, b, pixel.YUV420, pixel.Size{Width: 640, Height: 480})
	feed := b.Follow(b.Bus("test"), []msg.Kind{msg.KindDetection}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()

	frames := clipFrames(t, clip.Every)
	for i, want := range clip.Detections {
		if want.Frame != i*clip.Every {
			t.Fatalf("golden frame %d stands at %d", want.Frame, i)
		}
		if _, err := io.ReadFull(frames, cam.picture); err != nil {
			t.Fatal(err)
		}
		stamp := cam.publish()
		got := detection(t, feed)
		if err := agree(got.Objects, want.Objects); err != nil {
			t.Errorf("frame %d: %v", want.Frame, err)
		}
		if got.FrameSeq != msg.Seq(i) || got.Seq != msg.Seq(i) || got.CoveredUntil != int64(stamp.Boot) || got.FrameBootNS != int64(stamp.Boot) ||
			got.FrameSource != "cam" || !got.Time.Equal(stamp.Wall) {
			t.Errorf("detection of frame %d = %+v; want its number and its moment, %v", i, got, stamp)
		}
	}
	eye.Stop()
}

// clipFrames are every so many frames of the clip, in yuv420.
func clipFrames(t *testing.T, every int) io.Reader {
	t.Helper()
	cmd := exec.Command("ffmpeg", "-v", "error", "-i", filepath.Join(testdata(t), "clip.mp4"),
		"-vf", fmt.Sprintf("select=not(mod(n\\,%d))", every), "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo", "pipe:1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // with all frames read it ends by itself
		if t.Failed() {
			_ = cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
	return out
}

func detection(t *testing.T, feed *boxtest.Feed) msg.Detection {
	t.Helper()
	m := feed.Next()
	d, err := m.Detection()
	if err != nil {
		t.Fatal(err)
	}
	return d
}
