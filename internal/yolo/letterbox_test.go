package yolo

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/perch-edge/perch/pkg/pixel"
)

func rawFormats() []pixel.Format {
	return []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24}
}

func size(text string) pixel.Size {
	s, err := pixel.ParseSize(text)
	if err != nil {
		panic(err)
	}
	return s
}

func noise(t testing.TB, f pixel.Format, s pixel.Size) pixel.Image {
	t.Helper()
	_, n, err := pixel.Layout(f, s)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(s.Width), uint64(s.Height)))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	img, err := pixel.NewImage(f, s, data)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func fill(t testing.TB, img pixel.Image, c pixel.Colour, in Input) []float32 {
	t.Helper()
	dst := make([]float32, 3*in.Size.Width*in.Size.Height)
	l, err := NewLetterbox(img.Format, img.Size, c, in, dst)
	if err == nil {
		err = l.Fill(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

// at is the sample of channel i that stands for a pixel, read the slow way.
func at(img pixel.Image, i, x, y int) float64 {
	var p [3]pixel.Rows
	for j := range img.Planes {
		p[j], _ = img.Plane(j)
	}
	switch {
	case img.Format == pixel.RGB24:
		return float64(p[0].Row(y)[3*x+i])
	case img.Format == pixel.YUYV && i == 0:
		return float64(p[0].Row(y)[2*x])
	case img.Format == pixel.YUYV:
		return float64(p[0].Row(y)[x/2*4+2*i-1])
	case i == 0:
		return float64(p[0].Row(y)[x])
	case img.Format == pixel.NV12:
		return float64(p[1].Row(y / 2)[x&^1+i-1])
	}
	return float64(p[i].Row(y / 2)[x/2])
}

// scaled is channel i at a place of the scaled picture: bilinear, in floats.
func scaled(img pixel.Image, i, x, y int, area pixel.Size) float64 {
	place := func(v, n, m int) (int, int, float64) {
		f := (float64(v)+0.5)*float64(m)/float64(n) - 0.5
		f = min(max(f, 0), float64(m-1))
		first := int(f)
		return first, min(first+1, m-1), f - float64(first)
	}
	x0, x1, wx := place(x, area.Width, img.Size.Width)
	y0, y1, wy := place(y, area.Height, img.Size.Height)
	return (1-wy)*((1-wx)*at(img, i, x0, y0)+wx*at(img, i, x1, y0)) + wy*((1-wx)*at(img, i, x0, y1)+wx*at(img, i, x1, y1))
}

func TestFillIsTheFormula(t *testing.T) {
	in := Input{Size: size("96x64"), Scale: 1}
	for _, f := range rawFormats() {
		for _, text := range []string{"96x64", "64x64", "400x200", "16x240", "1280x720", "18x16"} {
			img := noise(t, f, size(text))
			got := fill(t, img, pixel.Colour{Range: pixel.Full}, in)
			l, _ := NewLetterbox(f, img.Size, pixel.Colour{}, in, make([]float32, len(got)))
			worst := 0.0
			for y := range l.area.Height {
				for x := range l.area.Width {
					a, b, c := scaled(img, 0, x, y, l.area), scaled(img, 1, x, y, l.area), scaled(img, 2, x, y, l.area)
					rgb := [3]float64{a, b, c}
					if f != pixel.RGB24 { // JFIF 1.02, page 3
						rgb = [3]float64{a + 1.402*(c-128), a - 0.344136*(b-128) - 0.714136*(c-128), a + 1.772*(b-128)}
					}
					for i, want := range rgb {
						v := float64(got[i*96*64+y*96+x])
						worst = max(worst, math.Abs(v-min(max(want, 0), 255)))
					}
				}
			}
			// Half a level of rounding, and the weights' 8 bits on noise.
			if worst > 2.5 {
				t.Errorf("%s %s: worst difference %.2f levels; want 2.5 at most", f, text, worst)
			}
		}
	}
}

// flat is a frame of one colour.
func flat(t testing.TB, y, cb, cr byte) pixel.Image {
	t.Helper()
	img := noise(t, pixel.YUV420, size("64x32"))
	for i, v := range []byte{y, cb, cr} {
		p, _ := img.Plane(i)
		for j := range p.Pix {
			p.Pix[j] = v
		}
	}
	return img
}

func TestColours(t *testing.T) {
	for _, tt := range []struct {
		y, cb, cr byte
		c         pixel.Colour
		r, g, b   float32
	}{
		{255, 128, 128, pixel.Colour{Range: pixel.Full}, 255, 255, 255},
		{0, 128, 128, pixel.Colour{Range: pixel.Full}, 0, 0, 0},
		{76, 85, 255, pixel.Colour{Range: pixel.Full}, 254, 0, 0}, // red of JFIF
		{54, 99, 255, pixel.Colour{Range: pixel.Full, Matrix: pixel.BT709}, 254, 0, 0},
		{235, 128, 128, pixel.Colour{}, 255, 254, 255},
		{16, 128, 128, pixel.Colour{}, 0, 0, 0},
		{81, 90, 240, pixel.Colour{}, 254, 0, 0}, // red of video
		{63, 102, 240, pixel.Colour{Matrix: pixel.BT709}, 255, 0, 0},
	} {
		got := fill(t, flat(t, tt.y, tt.cb, tt.cr), tt.c, Input{Size: size("32x32"), Scale: 1})
		for i, want := range []float32{tt.r, tt.g, tt.b} {
			if v := got[i*32*32+5]; v < want-1 || v > want+1 {
				t.Errorf("Y %d, Cb %d, Cr %d as %+v: channel %d = %g; want %g", tt.y, tt.cb, tt.cr, tt.c, i, v, want)
			}
		}
	}
}

// Video is rounded as ffmpeg rounds it, level for level.
func TestVideoIsConvertedAsFFmpegDoes(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("ffmpeg rounds in another way on " + runtime.GOARCH)
	}
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip(err)
	}
	s := size("64x64")
	img := noise(t, pixel.YUV420, s)
	for matrix, c := range map[string]pixel.Colour{"bt601": {}, "bt709": {Matrix: pixel.BT709}} {
		cmd := exec.Command(ffmpeg, "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", s.String(), "-i", "pipe:0",
			"-vf", "scale=in_color_matrix="+matrix, "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1")
		cmd.Stdin = bytes.NewReader(img.Data)
		want, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got := fill(t, img, c, Input{Size: s, Scale: 1})
		wrong := 0
		for i := range s.Width * s.Height {
			for ch := range 3 {
				if got[ch*s.Width*s.Height+i] != float32(want[3*i+ch]) {
					wrong++
				}
			}
		}
		if wrong > 0 {
			t.Errorf("%s: %d of %d values are not ffmpeg's; want none", matrix, wrong, len(want))
		}
	}
}

// The picture lies where the family wants it, grey around it, the colours in its
// order and range.
func TestFamiliesWantDifferentInputs(t *testing.T) {
	img := flat(t, 76, 85, 255) // red
	n := 64 * 64
	x := (&Layout{Family: YOLOX, Size: size("64x64")}).Input()
	got := fill(t, img, pixel.Colour{Range: pixel.Full}, x)
	if blue, red, below := got[0], got[2*n], got[2*n+40*64]; blue != 0 || red < 250 || below != grey {
		t.Errorf("yolox: blue %g, red %g, below the picture %g; want 0, 254, %d", blue, red, below, grey)
	}
	v8 := (&Layout{Family: YOLOv8, Size: size("64x64")}).Input()
	got = fill(t, img, pixel.Colour{Range: pixel.Full}, v8)
	if above, red, blue := got[0], got[32*64], got[2*n+32*64]; above != float32(grey)*v8.Scale || red < 0.98 || red > 1 || blue != 0 {
		t.Errorf("yolov8: above the picture %g, red %g, blue %g; want %g, 1, 0", above, red, blue, float32(grey)*v8.Scale)
	}
}

// Rows may be padded: the pixels are found by the planes that the image states.
func TestFillPaddedRows(t *testing.T) {
	in := Input{Size: size("32x32"), Scale: 1}
	for _, f := range rawFormats() {
		tight := noise(t, f, size("64x32"))
		padded := pixel.Image{Format: f, Size: tight.Size}
		for i := range tight.Planes {
			rows, err := tight.Plane(i)
			if err != nil {
				t.Fatal(err)
			}
			p := pixel.Plane{Offset: len(padded.Data), Stride: rows.Width + 48, Rows: rows.Count}
			for y := range rows.Count {
				padded.Data = append(append(padded.Data, rows.Row(y)...), make([]byte, 48)...)
			}
			padded.Planes = append(padded.Planes, p)
		}
		if want, got := fill(t, tight, pixel.Colour{}, in), fill(t, padded, pixel.Colour{}, in); !slices.Equal(want, got) {
			t.Errorf("Fill(padded %s) is not Fill(the same without padding)", f)
		}
	}
}

func TestFillRefuses(t *testing.T) {
	in := Input{Size: size("32x32"), Scale: 1}
	dst := make([]float32, 3*32*32)
	l, err := NewLetterbox(pixel.YUV420, size("64x32"), pixel.Colour{}, in, dst)
	if err != nil {
		t.Fatal(err)
	}
	short := noise(t, pixel.YUV420, size("64x32"))
	short.Data = short.Data[:100]
	for name, img := range map[string]pixel.Image{"size": noise(t, pixel.YUV420, size("32x32")), "format": noise(t, pixel.NV12, size("64x32")), "short": short} {
		if err := l.Fill(img); err == nil {
			t.Errorf("Fill(another %s) = nil; want an error", name)
		}
	}
	for _, f := range []pixel.Format{pixel.MJPEG, "gif"} {
		if _, err := NewLetterbox(f, size("64x32"), pixel.Colour{}, in, dst); err == nil {
			t.Errorf("NewLetterbox(%s) = nil; want an error", f)
		}
	}
	if _, err := NewLetterbox(pixel.YUV420, size("64x32"), pixel.Colour{}, in, dst[1:]); err == nil {
		t.Error("NewLetterbox(a short tensor) = nil; want an error")
	}
}

func TestFillAllocatesNothing(t *testing.T) {
	img := noise(t, pixel.YUV420, size("640x480"))
	l, err := NewLetterbox(img.Format, img.Size, pixel.Colour{}, Input{Size: size("416x416")}, make([]float32, 3*416*416))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(5, func() {
		if err := l.Fill(img); err != nil {
			t.Error(err)
		}
	}); n > 1 { // img.Check's
		t.Errorf("Fill() allocates %g times; want none", n)
	}
}

func BenchmarkFill(b *testing.B) {
	for _, f := range rawFormats() {
		for _, text := range []string{"640x480", "1280x720", "1920x1080"} {
			b.Run(string(f)+"/"+text, func(b *testing.B) {
				img := noise(b, f, size(text))
				l, err := NewLetterbox(f, img.Size, pixel.Colour{}, Input{Size: size("416x416"), BGR: true, Scale: 1}, make([]float32, 3*416*416))
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if err := l.Fill(img); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
