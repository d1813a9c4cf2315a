package scene

import (
	"bytes"
	"fmt"
	"image"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/pixel"
)

func rawFormats() []pixel.Format {
	return []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24}
}

func draw(t testing.TB, f pixel.Format, s pixel.Size, frame uint64) pixel.Image {
	t.Helper()
	scene, err := New(f, s)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte{0xee}, scene.Bytes())
	if err := scene.Draw(frame, data); err != nil {
		t.Fatal(err)
	}
	img, err := pixel.NewImage(f, s, data)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// colourAt is Y, Cb and Cr at a pixel, from any raw format.
func colourAt(t testing.TB, img pixel.Image) func(x, y int) yuv {
	t.Helper()
	var p [3]pixel.Rows
	for i := range img.Planes {
		p[i], _ = img.Plane(i)
	}
	return func(x, y int) yuv {
		switch img.Format {
		case pixel.NV12:
			return yuv{int(p[0].Row(y)[x]), int(p[1].Row(y / 2)[x&^1]), int(p[1].Row(y / 2)[x|1])}
		case pixel.YUYV:
			four := p[0].Row(y)[x/2*4:]
			return yuv{int(four[x%2*2]), int(four[1]), int(four[3])}
		case pixel.RGB24:
			r, g, b := float64(p[0].Row(y)[3*x]), float64(p[0].Row(y)[3*x+1]), float64(p[0].Row(y)[3*x+2])
			round := func(v float64) int { return int(math.Round(v)) }
			return yuv{round(.299*r + .587*g + .114*b), round(128 - .1687*r - .3313*g + .5*b), round(128 + .5*r - .4187*g - .0813*b)}
		}
		return yuv{int(p[0].Row(y)[x]), int(p[1].Row(y / 2)[x/2]), int(p[2].Row(y / 2)[x/2])}
	}
}

func TestNumberRoundTrip(t *testing.T) {
	var sizes []pixel.Size
	for side := MinSide; side < 200; side += 10 {
		sizes = append(sizes, pixel.Size{Width: side, Height: MinSide}, pixel.Size{Width: MinSide, Height: side})
	}
	for _, text := range []string{"640x480", "1280x720", "1278x718", "1920x1080", "3840x2160", "4096x64", "64x4096"} {
		s, _ := pixel.ParseSize(text)
		sizes = append(sizes, s)
	}
	for _, f := range rawFormats() {
		for i, s := range sizes {
			for _, frame := range []uint64{0, uint64(i) * 0x9e3779b97f4a7c15, math.MaxUint32, math.MaxUint64} {
				if got, err := ReadNumber(draw(t, f, s, frame)); err != nil || got != frame&math.MaxUint32 {
					t.Fatalf("ReadNumber(frame %d, %s %s) = %d, %v; want it modulo 2^32", frame, f, s, got, err)
				}
			}
		}
	}
	for _, s := range []pixel.Size{{Width: 65, Height: 67}, {Width: 1921, Height: 1081}} {
		if got, err := ReadNumber(draw(t, pixel.RGB24, s, 77)); err != nil || got != 77 {
			t.Errorf("ReadNumber(rgb24 %s) = %d, %v; want 77", s, got, err)
		}
	}
}

// The example of the package comment, read pixel by pixel as it tells.
func TestNumberAsDocumented(t *testing.T) {
	for text, c := range map[string]int{"64x64": 8, "1280x718": 8, "1280x720": 16, "1920x1080": 24, "3840x2160": 48} {
		s, _ := pixel.ParseSize(text)
		if got := cell(s); got != c {
			t.Errorf("cell(%s) = %d; want %d", s, got, c)
		}
	}
	at := colourAt(t, draw(t, pixel.YUV420, pixel.Size{Width: 640, Height: 480}, 1000))
	for j, b := range []byte{0xB5, 0, 0, 0x03, 0xE8, 0xA9} {
		for y := 8 * j; y < 8*j+8; y++ {
			for x := range 64 {
				want := yuv{16, 128, 128}
				if b>>(7-x/8)&1 == 1 {
					want = yuv{235, 128, 128}
				}
				if got := at(x, y); got != want {
					t.Fatalf("frame 1000 at %d,%d = %v; want %v", x, y, got, want)
				}
			}
		}
	}
	if got := crc8([]byte("123456789")); got != 0xF4 {
		t.Errorf("crc8(123456789) = %#x; want 0xf4", got)
	}
}

func TestNumberSurvivesJPEG(t *testing.T) {
	e, err := turbojpeg.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	d, err := turbojpeg.NewDecoder(pixel.Size{Width: 4096, Height: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, f := range rawFormats() {
		for _, text := range []string{"64x64", "70x66", "640x480", "1280x720"} {
			s, _ := pixel.ParseSize(text)
			for _, frame := range []uint64{0, 100, 239, 240, 0xA5A5A5A5, math.MaxUint32} {
				src := draw(t, f, s, frame)
				picture, err := e.Encode(src, 50)
				if err != nil {
					t.Fatal(err)
				}
				img, err := d.Decode(picture, make([]byte, s.Width*s.Height*3/2))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := ReadNumber(img); err != nil || got != frame {
					t.Errorf("ReadNumber(%s %s, by JPEG at quality 50) = %d, %v; want %d", f, s, got, err, frame)
				}
				checkFound(t, img, frame, 2)
			}
		}
	}
}

// checkFound looks for the target by chroma alone, as the package comment says.
func checkFound(t *testing.T, img pixel.Image, frame uint64, tolerance int) {
	t.Helper()
	var found image.Rectangle
	at := colourAt(t, img)
	for y := range img.Size.Height {
		for x := range img.Size.Width {
			if c := at(x, y); c.cb >= 180 && c.cr >= 180 {
				found = found.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	want, visible := Target(frame, img.Size)
	if found.Empty() == visible {
		t.Errorf("frame %d, %s %s: target seen at %v; want visible %v", frame, img.Format, img.Size, found, visible)
	}
	if !found.In(want.Inset(-tolerance)) || !want.Inset(tolerance).In(found) {
		t.Errorf("frame %d, %s %s: target seen at %v; want %v within %d", frame, img.Format, img.Size, found, want, tolerance)
	}
}

func TestTargetIsWhereTargetSays(t *testing.T) {
	for _, f := range rawFormats() {
		for _, s := range []pixel.Size{{Width: 64, Height: 64}, {Width: 320, Height: 240}, {Width: 1280, Height: 720}} {
			for _, frame := range []uint64{0, 1, 77, 120, 200, 239, 240, 359, 360} {
				checkFound(t, draw(t, f, s, frame), frame, 0)
			}
		}
	}
}

// Nothing but the target is saturated, so that a threshold anywhere between finds it.
func TestBackgroundIsCalm(t *testing.T) {
	for _, f := range rawFormats() {
		s := pixel.Size{Width: 320, Height: 240}
		at := colourAt(t, draw(t, f, s, Visible))
		for y := range s.Height {
			for x := range s.Width {
				if c := at(x, y); min(c.cb, c.cr) < 112 || max(c.cb, c.cr) > 144 {
					t.Fatalf("%s: background at %d,%d = %v; want Cb and Cr in 112..144", f, x, y, c)
				}
			}
		}
	}
}

func TestTargetPath(t *testing.T) {
	for _, s := range []pixel.Size{{Width: 64, Height: 64}, {Width: 64, Height: 16384}, {Width: 16384, Height: 64}, {Width: 16384, Height: 16384}, {Width: 1920, Height: 1080}, {Width: 67, Height: 65}} {
		frameBox := image.Rect(0, rowsOfCells*cell(s), s.Width, s.Height)
		var reach, last image.Rectangle
		for frame := range uint64(Cycle) {
			box, visible := Target(frame, s)
			if visible != (frame < Visible) {
				t.Fatalf("Target(%d, %s) visible = %v; want it for frames 0 to 239", frame, s, visible)
			}
			if !visible {
				continue
			}
			if !box.In(frameBox) || box.Empty() || (box.Min.X|box.Min.Y|box.Max.X|box.Max.Y)&1 != 0 {
				t.Fatalf("Target(%d, %s) = %v; want even corners in %v", frame, s, box, frameBox)
			}
			if step := box.Min.Sub(last.Min); frame > 0 && (abs(step.X) > 2+s.Width/60 || abs(step.Y) > 2+s.Height/40) {
				t.Errorf("Target(%d, %s) jumps by %v", frame, s, step)
			}
			last, reach = box, reach.Union(box)
		}
		if slack := frameBox.Size().Sub(reach.Size()); slack.X > 2 || slack.Y > 2 {
			t.Errorf("%s: the target reaches %v of %v", s, reach, frameBox)
		}
	}
	a, _ := Target(5, pixel.Size{Width: 640, Height: 480})
	b, _ := Target(5+Cycle*1e15, pixel.Size{Width: 640, Height: 480})
	if a != b {
		t.Errorf("Target(5) = %v, Target(5 + many cycles) = %v; want the same", a, b)
	}
}

// The example frames by which a client in another language can check its formulas.
func TestTargetVectors(t *testing.T) {
	s := pixel.Size{Width: 1280, Height: 720}
	for frame, want := range map[uint64]image.Rectangle{
		0:   image.Rect(0, 96, 90, 186),
		30:  image.Rect(184, 264, 274, 354),
		120: image.Rect(1190, 362, 1280, 452),
		200: image.Rect(308, 362, 398, 452),
	} {
		if got, _ := Target(frame, s); got != want {
			t.Errorf("Target(%d, %s) = %v; want %v", frame, s, got, want)
		}
	}
}

func abs(v int) int { return max(v, -v) }

func TestReadNumberRefuses(t *testing.T) {
	s := pixel.Size{Width: 640, Height: 480}
	flip := func(i, j int) pixel.Image { // one cell from black to white or back
		img := draw(t, pixel.NV12, s, 1000)
		for y := 8 * j; y < 8*j+8; y++ {
			for x := 8 * i; x < 8*i+8; x++ {
				img.Data[640*y+x] = 251 - img.Data[640*y+x]
			}
		}
		return img
	}
	blank, _ := pixel.NewImage(pixel.YUYV, s, make([]byte, 640*480*2))
	small, _ := pixel.NewImage(pixel.YUYV, pixel.Size{Width: 62, Height: 64}, make([]byte, 62*64*2))
	mjpeg, _ := pixel.NewImage(pixel.MJPEG, s, nil)
	short := draw(t, pixel.RGB24, s, 1)
	short.Data = short.Data[:1000]
	tests := map[string]struct {
		img  pixel.Image
		want string
	}{
		"wrong marker": {flip(3, 0), "start marker 0xa5: want 0xb5"},
		"wrong number": {flip(7, 4), "number 1001: CRC 0xa9: want 0xae"},
		"wrong CRC":    {flip(0, 5), "number 1000: CRC 0x29: want 0xa9"},
		"blank":        {blank, "start marker 0x00: want 0xb5"},
		"small":        {small, "yuyv 62x64: want a raw format of at least 64 pixels a side"},
		"mjpeg":        {mjpeg, "mjpeg 640x480: want a raw format"},
		"short":        {short, "the frame has 1000 bytes"},
	}
	for name, tt := range tests {
		if n, err := ReadNumber(tt.img); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ReadNumber(%s) = %d, %v; want %q in the error", name, n, err, tt.want)
		}
	}
	for j := range rowsOfCells {
		for i := range columns {
			if n, err := ReadNumber(flip(i, j)); err == nil {
				t.Errorf("ReadNumber(cell %d,%d flipped) = %d; want an error", i, j, n)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for want, c := range map[string]canvas{
		"prepare scene: size 62x64: want at least 64 pixels a side":          {format: pixel.NV12, size: pixel.Size{Width: 62, Height: 64}},
		"prepare scene: format mjpeg: want a raw format":                     {format: pixel.MJPEG, size: pixel.Size{Width: 64, Height: 64}},
		"prepare scene: lay out frame: size 65x64: yuyv wants an even width": {format: pixel.YUYV, size: pixel.Size{Width: 65, Height: 64}},
	} {
		if _, err := New(c.format, c.size); err == nil || err.Error() != want {
			t.Errorf("New(%s, %s) error = %v; want %s", c.format, c.size, err, want)
		}
	}
	scene, _ := New(pixel.YUV420, pixel.Size{Width: 64, Height: 64})
	for _, n := range []int{0, scene.Bytes() - 1, scene.Bytes() + 1} {
		if err := scene.Draw(0, make([]byte, n)); err == nil {
			t.Errorf("Draw(%d bytes) = nil; want an error, the frame has %d", n, scene.Bytes())
		}
	}
}

// Through a real encoder, hard pressed, and back.
func TestNumberSurvivesH264(t *testing.T) {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("ffmpeg is not installed")
	}
	s := pixel.Size{Width: 320, Height: 240}
	var raw bytes.Buffer
	const first, frames = 230, 30 // the target goes out of sight among them
	for i := range uint64(frames) {
		raw.Write(draw(t, pixel.YUV420, s, first+i).Data)
	}
	clip := filepath.Join(t.TempDir(), "clip.mp4")
	input := []string{"-v", "error", "-f", "rawvideo", "-pix_fmt", pixel.YUV420.FFmpeg(), "-video_size", s.String(), "-framerate", "30", "-i", "pipe:0"}
	encode := exec.Command(ffmpeg, append(input, "-c:v", "libx264", "-crf", "35", "-preset", "ultrafast", clip)...)
	encode.Stdin, encode.Stderr = &raw, os.Stderr
	if err := encode.Run(); err != nil {
		t.Skipf("ffmpeg cannot encode H.264 here: %v", err)
	}
	for _, f := range []pixel.Format{pixel.YUV420, pixel.RGB24} {
		decode := exec.Command(ffmpeg, "-v", "error", "-i", clip, "-f", "rawvideo", "-pix_fmt", f.FFmpeg(), "pipe:1")
		decode.Stderr = os.Stderr
		out, err := decode.Output()
		if err != nil {
			t.Fatal(err)
		}
		_, n, _ := pixel.Layout(f, s)
		if len(out) != frames*n {
			t.Fatalf("%s: ffmpeg gave %d bytes; want %d frames of %d", f, len(out), frames, n)
		}
		for i := range uint64(frames) {
			img, _ := pixel.NewImage(f, s, out[i*uint64(n):])
			if got, err := ReadNumber(img); err != nil || got != first+i {
				t.Errorf("%s: ReadNumber(frame %d, by H.264) = %d, %v", f, first+i, got, err)
			}
		}
	}
}

func FuzzReadNumber(f *testing.F) {
	scene, err := New(pixel.YUV420, pixel.Size{Width: 64, Height: 64})
	if err != nil {
		f.Fatal(err)
	}
	data := make([]byte, scene.Bytes())
	if err := scene.Draw(12345, data); err != nil {
		f.Fatal(err)
	}
	f.Add("yuv420", 64, 64, 0, 64, 64, data)
	f.Add("yuyv", 64, 64, -1, 1<<30, 64, data)
	f.Add("mjpeg", 16384, 16384, 0, 0, 0, data)
	f.Fuzz(func(t *testing.T, format string, w, h, offset, stride, rows int, data []byte) {
		for n := range 4 {
			planes := make([]pixel.Plane, n)
			for i := range planes {
				planes[i] = pixel.Plane{Offset: offset, Stride: stride, Rows: rows}
			}
			img := pixel.Image{Format: pixel.Format(format), Size: pixel.Size{Width: w, Height: h}, Planes: planes, Data: data}
			if got, err := ReadNumber(img); err == nil && got > math.MaxUint32 {
				t.Errorf("ReadNumber() = %d", got)
			}
		}
	})
}

func BenchmarkDraw(b *testing.B) {
	for _, text := range []string{"640x480", "1920x1080"} {
		for _, f := range rawFormats() {
			b.Run(fmt.Sprintf("%s-%s", text, f), func(b *testing.B) {
				s, _ := pixel.ParseSize(text)
				scene, err := New(f, s)
				if err != nil {
					b.Fatal(err)
				}
				dst := make([]byte, scene.Bytes())
				b.SetBytes(int64(len(dst)))
				b.ReportAllocs()
				frame := uint64(0)
				for b.Loop() {
					if err := scene.Draw(frame%Visible, dst); err != nil {
						b.Fatal(err)
					}
					frame++
				}
			})
		}
	}
}
