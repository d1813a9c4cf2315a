package turbojpeg

import (
	"bytes"
	"image/jpeg"
	"math"
	"testing"

	"github.com/perch-edge/perch/pkg/pixel"
)

// yCbCr is the standards' own formula: ITU-R BT.601-7, 2.5; BT.709-6, 3.2 to 3.5;
// BT.2020-2, tables 4 and 5.
func yCbCr(c pixel.Colour, r, g, b float64) [3]byte {
	kr, kb := map[pixel.Matrix]float64{pixel.BT601: 0.299, pixel.BT709: 0.2126, pixel.BT2020: 0.2627}[c.Matrix],
		map[pixel.Matrix]float64{pixel.BT601: 0.114, pixel.BT709: 0.0722, pixel.BT2020: 0.0593}[c.Matrix]
	y := kr*r + (1-kr-kb)*g + kb*b
	cb, cr := (b-y)/(2*(1-kb)), (r-y)/(2*(1-kr))
	if c.Range == pixel.Limited {
		y, cb, cr = 16+y*219/255, cb*224/255, cr*224/255
	}
	round := func(v float64) byte { return byte(min(max(math.Round(v), 0), 255)) }
	return [3]byte{round(y), round(cb + 128), round(cr + 128)}
}

// scene are the colours of 16x16 pixels each that painted puts side by side.
func scene() [][3]int {
	return [][3]int{{0, 0, 0}, {16, 16, 16}, {32, 32, 32}, {64, 64, 64}, {128, 128, 128}, {192, 64, 48}, {224, 224, 224}, {255, 255, 255},
		{254, 0, 0}, {0, 254, 0}, {0, 0, 254}, {230, 120, 20}, {20, 140, 200}, {200, 180, 60}}
}

// painted is a frame of the scene, again and again to its right edge, in rows with
// padding, which is no grey.
func painted(t testing.TB, f pixel.Format, s pixel.Size, c pixel.Colour) pixel.Image {
	t.Helper()
	planes, _, err := pixel.Layout(f, s)
	if err != nil {
		t.Fatal(err)
	}
	img := pixel.Image{Format: f, Size: s, Colour: c}
	for i, p := range planes {
		p.Offset, p.Stride = len(img.Data), p.Stride+32
		data := bytes.Repeat([]byte{77}, p.Stride*p.Rows)
		for y := range p.Rows {
			for x := range p.Stride - 32 {
				at := x
				switch {
				case f == pixel.YUYV:
					at = x / 2
				case f == pixel.RGB24:
					at = x / 3
				case f == pixel.YUV420 && i > 0:
					at = 2 * x
				}
				rgb := scene()[at/16%len(scene())]
				v := yCbCr(c, float64(rgb[0]), float64(rgb[1]), float64(rgb[2]))
				switch {
				case f == pixel.YUYV:
					data[y*p.Stride+x] = v[[4]int{0, 1, 0, 2}[x%4]]
				case f == pixel.RGB24:
					data[y*p.Stride+x] = byte(rgb[x%3])
				case f == pixel.NV12 && i > 0:
					data[y*p.Stride+x] = v[1+x%2]
				default:
					data[y*p.Stride+x] = v[i]
				}
			}
		}
		img.Data, img.Planes = append(img.Data, data...), append(img.Planes, p)
	}
	return img
}

// A picture shows the colours of the scene, whatever range and matrix the frame
// has: within a level of each of Y, Cb and Cr, which is two of R, G, B.
func TestPicturesShowTheScene(t *testing.T) {
	e := encoder(t)
	for _, f := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		for _, s := range []pixel.Size{{Width: 16 * len(scene()), Height: 32}, {Width: 1280, Height: 18}, {Width: 2050, Height: 34}, {Width: 224, Height: 33}} {
			if s.Height%2 != 0 && (f == pixel.YUV420 || f == pixel.NV12) {
				continue
			}
			for _, m := range []pixel.Matrix{pixel.BT601, pixel.BT709, pixel.BT2020} {
				for _, r := range []pixel.Range{pixel.Limited, pixel.Full} {
					c := pixel.Colour{Range: r, Matrix: m}
					img := painted(t, f, s, c)
					if f == pixel.RGB24 {
						img.Colour = pixel.Colour{}
					}
					picture, err := e.Encode(img, 95)
					if err != nil {
						t.Fatalf("Encode(%s %s %s) error = %v", f, s, c, err)
					}
					checkScene(t, string(f)+" "+s.String()+" "+c.String(), picture, s)
				}
			}
		}
	}
}

func checkScene(t *testing.T, name string, picture []byte, s pixel.Size) {
	t.Helper()
	img, err := jpeg.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatalf("%s: image/jpeg: %v", name, err)
	}
	worst := 0
	for x := 8; x < s.Width; x += 16 {
		r, g, b, _ := img.At(x, s.Height/2).RGBA()
		want := scene()[x/16%len(scene())]
		for i, v := range []uint32{r, g, b} {
			worst = max(worst, max(int(v>>8)-want[i], want[i]-int(v>>8)))
		}
	}
	if worst > 2 {
		t.Errorf("%s: worst difference of R, G, B = %d levels; want 2 at most", name, worst)
	}
}

// A frame that does not say is taken for what cameras deliver.
func TestUnknownColourIsLimitedBT601(t *testing.T) {
	e := encoder(t)
	s := pixel.Size{Width: 224, Height: 32}
	img := painted(t, pixel.YUV420, s, pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT601})
	img.Colour = pixel.Colour{}
	picture, err := e.Encode(img, 95)
	if err != nil {
		t.Fatal(err)
	}
	checkScene(t, "unknown", picture, s)
	img.Colour = pixel.Colour{Range: "tv"}
	if _, err := e.Encode(img, 95); err == nil {
		t.Error("Encode of the range \"tv\" = nil; want an error")
	}
}

// Each sample is that of the formula, to less than a level before rounding.
func TestConvertIsTheFormula(t *testing.T) {
	for _, m := range []pixel.Matrix{pixel.BT601, pixel.BT709, pixel.BT2020} {
		for _, r := range []pixel.Range{pixel.Limited, pixel.Full} {
			c := pixel.Colour{Range: r, Matrix: m}
			const w = 2 * 256
			var src, dst planar
			for i, n := range []int{w, w / 2, w / 2} {
				src[i], dst[i] = rows(n, 2), rows(n, 2)
			}
			take(nil, &src[0], &src[1], &src[2])
			take(nil, &dst[0], &dst[1], &dst[2])
			worst := 0.0
			for cr := 0; cr < 256; cr += 5 {
				for _, y := range []int{0, 16, 17, 100, 128, 235, 254, 255} {
					for row := range 2 {
						for x := range w / 2 {
							src[0].Row(row)[2*x], src[0].Row(row)[2*x+1] = byte(y), byte(255-y)
							src[1].Row(row)[x], src[2].Row(row)[x] = byte(x), byte(cr)
						}
					}
					convert(dst, src, c, 1)
					for x := range w {
						at := [3]float64{float64(src[0].Row(1)[x]), float64(x / 2), float64(cr)}
						for i, want := range reference(c, at) {
							got := dst[i].Row(1)[min(x, len(dst[i].Row(1))-1)]
							if i > 0 {
								got = dst[i].Row(1)[x/2]
							}
							worst = max(worst, math.Abs(float64(got)-want))
						}
					}
				}
			}
			if worst > 0.75 {
				t.Errorf("%s: worst difference %.2f levels; want 0.75 at most", c, worst)
			}
		}
	}
}

// reference goes by way of R, G, B, in floating point.
func reference(c pixel.Colour, v [3]float64) [3]float64 {
	y, cb, cr := v[0], v[1]-128, v[2]-128
	if c.Range == pixel.Limited {
		y, cb, cr = (y-16)*255/219, cb*255/224, cr*255/224
	}
	kr, kb := c.Matrix.Weights()
	r, b := y+2*(1-kr)*cr, y+2*(1-kb)*cb
	g := (y - kr*r - kb*b) / (1 - kr - kb)
	y = 0.299*r + 0.587*g + 0.114*b
	clamp := func(v float64) float64 { return min(max(v, 0), 255) }
	return [3]float64{clamp(y), clamp((b-y)/1.772 + 128), clamp((r-y)/1.402 + 128)}
}

// A frame whose colours are converted costs no more allocations than another.
func TestConversionAllocatesNothing(t *testing.T) {
	e := encoder(t)
	for _, f := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV} {
		img := painted(t, f, pixel.Size{Width: 320, Height: 240}, pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT709})
		count := func(c pixel.Colour) float64 {
			img.Colour = c
			return testing.AllocsPerRun(20, func() { e.Encode(img, 85) })
		}
		if with, without := count(img.Colour), count(jfif()); with > without {
			t.Errorf("Encode(%s) allocates %g times a frame; want %g", f, with, without)
		}
	}
}
