package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// A video file goes through a real camera process at its own pace: all of its
// 300 frames are in five segments of four seconds.
func TestAClipThroughTheCamera(t *testing.T) {
	needFFmpeg(t)
	data := os.Getenv("PERCH_TESTDATA")
	if data == "" {
		t.Skip("PERCH_TESTDATA is not set: the folder with clip.mp4")
	}
	t.Parallel()
	program := filepath.Join(boxtest.Built(t, "sensor-camera"), "sensor-camera")
	b := boxtest.New(t, fmt.Sprintf(`[sensor.porch]
program = %q
input = "file:%s"
[sensor.porch.stream.video]
slots = 60 # four seconds: none is to be lost while a busy machine starts ffmpeg
[worker.clips]
program = "h264writer"
source = "porch"
segment = "4s"
preset = "ultrafast"
`, program, filepath.Join(data, "clip.mp4")))
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	states.State("ready", func(s msg.State) bool { return s.Ready })
	camera := b.Start(program, "porch")
	if code := camera.Wait(); code != 0 {
		t.Fatalf("the camera ended with %d; want 0", code)
	}
	// The end of the source closes the last segment: nobody told the writer.
	boxtest.Poll(t, "all frames to be in a segment or declared lost", func() bool {
		n := 0
		for _, s := range born(t, b) {
			n += int(s.Items) + int(s.Frames.Lost)
		}
		return n == 300
	})
	p.Stop()
	list := born(t, b)
	if len(list) != 5 {
		t.Errorf("segments %s; want five", briefs(list))
	}
	wantAccounted(t, list, 300)
	packets := 0
	for i, s := range list {
		packets += wantTrue(t, b, s).packets
		if s.Frames.Lost+s.Frames.Repeated+s.Frames.Skipped != 0 || s.Source != "frame/porch/video" || s.Media != "video/mp4" {
			t.Errorf("%s: %+v of %s, %s; want nothing lost", brief(s), s.Frames, s.Source, s.Media)
		}
		// A border is where the first frame's time says, to within one frame.
		border := time.Duration(s.Start.BootNS-list[0].Start.BootNS) - time.Duration(i)*4*time.Second
		if border < -time.Millisecond || border > time.Second/10 {
			t.Errorf("segment %d begins %s after its border; want less than a frame", i, border)
		}
	}
	if packets != 300 {
		t.Errorf("ffprobe counts %d pictures; want 300", packets)
	}
	wantNothingLeft(t, b)
}

// firstPixel decodes a segment's first picture and returns the colour in its middle.
func firstPixel(t *testing.T, path string, size pixel.Size) (r, g, b int) {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-v", "error", "-i", path, "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-").Output()
	if err != nil || len(out) != size.Width*size.Height*3 {
		t.Fatalf("decode %s: %d bytes, %v", path, len(out), err)
	}
	at := out[(size.Height/2*size.Width+size.Width/2)*3:]
	return int(at[0]), int(at[1]), int(at[2])
}

// An orange picture is orange in each format, of an odd size too where the
// format has one.
func TestColoursOfEveryFormat(t *testing.T) {
	needFFmpeg(t)
	const y, cb, cr = 138, 68, 183 // of 230,120,20 in BT.601
	want := [3]int{230, 120, 20}
	orange := func(f pixel.Format, s pixel.Size) []byte {
		_, n, err := pixel.Layout(f, s)
		if err != nil {
			t.Fatal(err)
		}
		luma, chroma := s.Width*s.Height, s.Width*s.Height/4
		switch f {
		case pixel.YUV420:
			return append(append(bytes.Repeat([]byte{y}, luma), bytes.Repeat([]byte{cb}, chroma)...), bytes.Repeat([]byte{cr}, chroma)...)
		case pixel.NV12:
			return append(bytes.Repeat([]byte{y}, luma), bytes.Repeat([]byte{cb, cr}, chroma)...)
		case pixel.YUYV:
			return bytes.Repeat([]byte{y, cb, y, cr}, n/4)
		case pixel.RGB24:
			return bytes.Repeat([]byte{230, 120, 20}, n/3)
		}
		var out bytes.Buffer
		img := image.NewRGBA(image.Rect(0, 0, s.Width, s.Height))
		for i := range luma {
			img.Set(i%s.Width, i/s.Width, color.RGBA{230, 120, 20, 255})
		}
		if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 90}); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	for _, tt := range []struct {
		format      pixel.Format
		size, shown pixel.Size
	}{
		{pixel.YUV420, small(), small()},
		{pixel.NV12, small(), small()},
		{pixel.YUYV, pixel.Size{Width: 64, Height: 47}, pixel.Size{Width: 64, Height: 46}},
		{pixel.RGB24, pixel.Size{Width: 63, Height: 47}, pixel.Size{Width: 62, Height: 46}},
		{pixel.MJPEG, small(), small()},
	} {
		t.Run(string(tt.format), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("segment = \"1s\"\ncrf = 10"))
			c := newCamera(t, b, tt.format, tt.size, 25)
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
			p := b.Start("h264writer", "clips")
			c.ready()
			picture, at := orange(tt.format, tt.size), c.bus.Clock().Now()
			for range 5 {
				c.put(picture, at)
				at = later(at, step)
			}
			states.State("all frames", fed(5))
			p.Stop()
			list := born(t, b)
			if len(list) != 1 || list[0].Items != 5 {
				t.Fatalf("segments %s; want one of 5 frames", briefs(list))
			}
			r, g, bl := firstPixel(t, where(b, list[0]), tt.shown)
			for i, got := range []int{r, g, bl} {
				if math.Abs(float64(got-want[i])) > 12 {
					t.Errorf("the picture is %d,%d,%d; want about %v", r, g, bl, want)
					break
				}
			}
		})
	}
}

// A picture of an mjpeg camera that is none is not in the video, the sidecar says
// so, and the ones after it are.
func TestADamagedPicture(t *testing.T) {
	needFFmpeg(t)
	b := boxtest.New(t, fleet("segment = \"1s\""))
	c := newCamera(t, b, pixel.MJPEG, small(), 25)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	var good bytes.Buffer
	if err := jpeg.Encode(&good, image.NewYCbCr(image.Rect(0, 0, small().Width, small().Height), image.YCbCrSubsampleRatio420), nil); err != nil {
		t.Fatal(err)
	}
	at := c.bus.Clock().Now()
	for i := range 10 {
		picture := good.Bytes()
		if i == 4 {
			picture = bytes.Repeat([]byte("noise"), 50)
		}
		c.put(picture, at)
		at = later(at, step)
	}
	states.State("all frames", fed(10))
	p.Stop()
	list := born(t, b)
	if got := briefs(list); got != "0-9 -4-4" || list[0].Items != 9 {
		t.Errorf("segments %s of %d frames; want 0-9 -4-4, of 9", got, list[0].Items)
	}
	for _, side := range list {
		wantTrue(t, b, side)
	}
}

// Frames whose rows are longer than the picture is wide lose their padding on
// the way.
func TestPaddedRows(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet(`segment = "1s"`))
	bus := b.Bus("porch")
	pub, err := bus.Publisher()
	if err != nil {
		t.Fatal(err)
	}
	g := msg.Geometry{Format: "yuv420", Width: 64, Height: 48, Hz: 25,
		Planes: []pixel.Plane{{Offset: 0, Stride: 96, Rows: 48}, {Offset: 96 * 48, Stride: 48, Rows: 24}, {Offset: 120 * 48, Stride: 48, Rows: 24}}}
	c := &camera{t: t, bus: bus, pub: pub, size: 144 * 48}
	if c.out, err = pub.Frames("video", g, 8, c.size); err != nil {
		t.Fatal(err)
	}
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	slot, err := c.out.Claim()
	if err != nil {
		t.Fatal(err)
	}
	frame := slot.Bytes()[:c.size]
	for i, p := range g.Planes {
		for y := range p.Rows {
			row := frame[p.Offset+y*p.Stride:][:p.Stride]
			for x := range row {
				row[x] = 255 // the padding
				if x < []int{64, 32, 32}[i] {
					row[x] = []byte{138, 68, 183}[i]
				}
			}
		}
	}
	if _, err := slot.Publish(c.size, bus.Clock().Now()); err != nil {
		t.Fatal(err)
	}
	states.State("the frame", fed(1))
	p.Stop()
	list := born(t, b)
	if len(list) != 1 {
		t.Fatalf("segments %s; want one", briefs(list))
	}
	if r, g, b := firstPixel(t, where(b, list[0]), small()); r < 215 || g < 105 || g > 135 || b > 40 {
		t.Errorf("the picture is %d,%d,%d; want about 230,120,20", r, g, b)
	}
}
