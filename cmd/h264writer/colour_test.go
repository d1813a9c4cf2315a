package main

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// bars are the stripes of the tests' scene.
func bars() [][3]int {
	return [][3]int{{0, 0, 0}, {32, 32, 32}, {128, 128, 128}, {255, 255, 255}, {192, 64, 48}, {230, 120, 20}, {20, 140, 200}, {60, 160, 60}}
}

// barsIn is a frame of the scene, by the formula of ITU-R BT.601-7 (2.5), BT.709-6
// (3.2 to 3.5) and BT.2020-2 (table 5).
func barsIn(t *testing.T, f pixel.Format, s pixel.Size, c pixel.Colour) []byte {
	t.Helper()
	bar := func(x int) [3]int { return bars()[x*len(bars())/s.Width] }
	if f == pixel.MJPEG {
		w, h, out := s.Width, s.Height, bytes.Buffer{}
		data := barsIn(t, pixel.YUV420, s, c)
		img := &image.YCbCr{Y: data[:w*h], Cb: data[w*h:][:w*h/4], Cr: data[w*h+w*h/4:], YStride: w, CStride: w / 2,
			SubsampleRatio: image.YCbCrSubsampleRatio420, Rect: image.Rect(0, 0, w, h)}
		if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 95}); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	_, n, err := pixel.Layout(f, s)
	if err != nil {
		t.Fatal(err)
	}
	img, err := pixel.NewImage(f, s, make([]byte, n))
	if err != nil {
		t.Fatal(err)
	}
	kr, kb := map[pixel.Matrix]float64{pixel.BT601: 0.299, pixel.BT709: 0.2126, pixel.BT2020: 0.2627}[c.Matrix],
		map[pixel.Matrix]float64{pixel.BT601: 0.114, pixel.BT709: 0.0722, pixel.BT2020: 0.0593}[c.Matrix]
	sample := func(x, channel int) byte {
		v := bar(x)
		r, g, b := float64(v[0]), float64(v[1]), float64(v[2])
		y := kr*r + (1-kr-kb)*g + kb*b
		all := [3]float64{y, (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))}
		if c.Range == pixel.Limited {
			all = [3]float64{16 + all[0]*219/255, all[1] * 224 / 255, all[2] * 224 / 255}
		}
		return byte(min(math.Round(all[channel]+[3]float64{0, 128, 128}[channel]), 255))
	}
	for i := range img.Planes {
		p, _ := img.Plane(i)
		for y := range p.Count {
			for x := range p.Width {
				var v byte
				switch {
				case f == pixel.RGB24:
					v = byte(bar(x / 3)[x%3])
				case f == pixel.YUYV:
					v = sample(x/2, [4]int{0, 1, 0, 2}[x%4])
				case i == 0:
					v = sample(x, 0)
				case f == pixel.NV12:
					v = sample(x, 1+x%2)
				default:
					v = sample(2*x, i)
				}
				p.Row(y)[x] = v
			}
		}
	}
	return img.Data
}

// recorded is a video of three frames, as the recorder has ffmpeg make it.
func recorded(t *testing.T, g msg.Geometry, frame []byte) string {
	t.Helper()
	head, err := streamHead(g)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Preset, cfg.Threads, cfg.CRF = "ultrafast", 1, 1
	command := ffmpeg.FFmpeg(ffmpeg.Piped(), cfg.encode(x264, g, filepath.Join(t.TempDir(), "%06d.mp4"))...)
	command.Stdin, command.Stdout = true, true
	p, err := ffmpeg.Start(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	parts := [][]byte{head}
	for i := range 3 {
		parts = append(parts, frameHead(nil, time.Duration(i)*100*time.Millisecond, len(frame)), frame)
	}
	if err := p.Feed(parts, 30*time.Second, func() {}); err != nil {
		t.Fatalf("%v: %v", err, p.Words())
	}
	if err := p.EndInput(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	argv := command.Argv
	return strings.Replace(strings.TrimPrefix(argv[len(argv)-1], "file:"), "%06d", "000000", 1)
}

// A video shows the colours of the scene to who goes by what it says of itself, and
// says it twice: in the stream (VUI) and in the file (colr).
func TestVideosShowTheScene(t *testing.T) {
	needFFmpeg(t)
	limited := func(m pixel.Matrix) pixel.Colour { return pixel.Colour{Range: pixel.Limited, Matrix: m} }
	full := func(m pixel.Matrix) pixel.Colour { return pixel.Colour{Range: pixel.Full, Matrix: m} }
	for _, tt := range []struct {
		format pixel.Format
		size   pixel.Size
		colour pixel.Colour
		says   string // range, matrix, transfer, primaries
	}{
		{pixel.YUV420, pixel.Size{Width: 256, Height: 64}, pixel.Colour{}, "tv,smpte170m,bt709,bt709"},
		{pixel.YUV420, pixel.Size{Width: 256, Height: 64}, limited(pixel.BT709), "tv,bt709,bt709,bt709"},
		{pixel.YUV420, pixel.Size{Width: 256, Height: 64}, full(pixel.BT601), "pc,smpte170m,bt709,bt709"},
		{pixel.YUV420, pixel.Size{Width: 1280, Height: 64}, full(pixel.BT709), "pc,bt709,bt709,bt709"},
		{pixel.YUV420, pixel.Size{Width: 256, Height: 64}, limited(pixel.BT2020), "tv,bt2020nc,bt2020-10,bt2020"},
		{pixel.NV12, pixel.Size{Width: 256, Height: 64}, limited(pixel.BT601), "tv,smpte170m,bt709,bt709"},
		{pixel.NV12, pixel.Size{Width: 256, Height: 64}, full(pixel.BT709), "pc,bt709,bt709,bt709"},
		{pixel.YUYV, pixel.Size{Width: 256, Height: 63}, limited(pixel.BT709), "tv,bt709,bt709,bt709"},
		{pixel.YUYV, pixel.Size{Width: 256, Height: 64}, full(pixel.BT601), "pc,smpte170m,bt709,bt709"},
		{pixel.RGB24, pixel.Size{Width: 257, Height: 63}, pixel.Colour{}, "tv,smpte170m,bt709,bt709"},
		{pixel.RGB24, pixel.Size{Width: 1280, Height: 64}, pixel.Colour{}, "tv,bt709,bt709,bt709"},
		{pixel.MJPEG, pixel.Size{Width: 256, Height: 64}, pixel.Colour{}, "pc,smpte170m,bt709,bt709"},
		{pixel.MJPEG, pixel.Size{Width: 256, Height: 64}, limited(pixel.BT709), "tv,bt709,bt709,bt709"}, // of a camera that breaks JFIF's rule
	} {
		t.Run(fmt.Sprint(tt.format, tt.size, tt.colour), func(t *testing.T) {
			t.Parallel()
			g := msg.Geometry{Format: string(tt.format), Width: tt.size.Width, Height: tt.size.Height, Hz: 10, ColourRange: tt.colour.Range, ColourMatrix: tt.colour.Matrix}
			path := recorded(t, g, barsIn(t, tt.format, tt.size, tt.colour.Or(pixel.DefaultColour(tt.format))))

			// The elementary stream has no box, and in the file the box goes first.
			bare, w, h := filepath.Join(t.TempDir(), "bare.h264"), tt.size.Width&^1, tt.size.Height&^1
			rgb, err := exec.Command("ffmpeg", "-v", "error", "-i", path, "-c", "copy", bare, "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-").Output()
			if err != nil || len(rgb) != 3*w*h {
				t.Fatalf("decode: %d bytes, %v", len(rgb), err)
			}
			for _, file := range []string{path, bare} {
				out, err := exec.Command("ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", "stream=color_range,color_space,color_transfer,color_primaries", file).Output()
				if got := strings.TrimSpace(string(out)); err != nil || got != tt.says {
					t.Errorf("%s says %q, %v; want %q", filepath.Base(file), got, err, tt.says)
				}
			}
			if got, want := colr(t, path), codes(videoColour(g)); got != [4]uint64{want.primaries, want.transfer, want.matrix, map[string]uint64{"tv": 0, "pc": 1}[tt.says[:2]]} {
				t.Errorf("colr has %v; want %+v", got, want)
			}

			worst := 0
			for i, want := range bars() {
				at := rgb[3*(h/2*w+(2*i+1)*w/(2*len(bars()))):]
				for j, v := range want {
					worst = max(worst, int(at[j])-v, v-int(at[j]))
				}
			}
			if worst > 3 { // one is the encoder's, and two the decoder's
				t.Errorf("worst difference from the scene %d levels; want 3 at most", worst)
			}
		})
	}
}

// colr is what the file's box of that name says: primaries, transfer, matrix, full range.
func colr(t *testing.T, path string) (v [4]uint64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, box, ok := bytes.Cut(text, []byte("colrnclx"))
	if !ok || len(box) < 7 {
		t.Fatalf("%s has no colr box", path)
	}
	return [4]uint64{uint64(box[1]), uint64(box[3]), uint64(box[5]), uint64(box[6] >> 7)}
}

// What the Pi's encoder is not told is written into its stream behind it. The
// filter is tried on another encoder's, which was told something else.
func TestColourOfTheHardwareEncoder(t *testing.T) {
	needFFmpeg(t)
	g := msg.Geometry{Format: "yuv420", Width: 64, Height: 64, Hz: 10, ColourRange: pixel.Full, ColourMatrix: pixel.BT709}
	args := colourArgs("h264_v4l2m2m", g)
	bare := filepath.Join(t.TempDir(), "bare.h264")
	out, err := exec.Command("ffmpeg", append([]string{"-v", "error", "-f", "lavfi", "-i", "color=s=64x64:d=1", "-c:v", "libx264", "-colorspace", "fcc"},
		append(args[len(args)-2:], bare)...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err = exec.Command("ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", "stream=color_range,color_space,color_transfer,color_primaries", bare).Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != "pc,bt709,bt709,bt709" {
		t.Errorf("the stream says %q, %v; want pc,bt709,bt709,bt709", got, err)
	}
}
