package turbojpeg

import (
	"bytes"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"testing"

	"github.com/perch-edge/perch/pkg/pixel"
)

func BenchmarkEncode720p(b *testing.B) {
	s := pixel.Size{Width: 1280, Height: 720}
	for _, f := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		b.Run("turbojpeg-"+string(f), func(b *testing.B) {
			e, img := encoder(b), textured(b, f, s)
			for b.Loop() {
				if _, err := e.Encode(img, 85); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, f := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV} {
		for _, colour := range []pixel.Colour{{Range: pixel.Limited, Matrix: pixel.BT601}, {Range: pixel.Limited, Matrix: pixel.BT709}} {
			b.Run("turbojpeg-"+string(f)+"-"+colour.String(), func(b *testing.B) {
				e, img := encoder(b), textured(b, f, s)
				img.Colour = colour
				for b.Loop() {
					if _, err := e.Encode(img, 85); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	b.Run("image-jpeg", func(b *testing.B) {
		img := textured(b, pixel.YUV420, s)
		std := &image.YCbCr{
			Y: img.Data[:1280*720], Cb: img.Data[1280*720:][:640*360], Cr: img.Data[1280*720+640*360:],
			YStride: 1280, CStride: 640, SubsampleRatio: image.YCbCrSubsampleRatio420, Rect: image.Rect(0, 0, 1280, 720),
		}
		var out bytes.Buffer
		for b.Loop() {
			out.Reset()
			if err := jpeg.Encode(&out, std, &jpeg.Options{Quality: 85}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkConvert720p(b *testing.B) {
	img := textured(b, pixel.YUV420, pixel.Size{Width: 1280, Height: 720})
	for _, colour := range []pixel.Colour{{Range: pixel.Limited, Matrix: pixel.BT601}, {Range: pixel.Limited, Matrix: pixel.BT709}} {
		b.Run(colour.String(), func(b *testing.B) {
			e := encoder(b)
			img.Colour = colour
			for b.Loop() {
				e.planes(img)
			}
		})
	}
}

// textured is smooth with a little noise, as of a sensor, so that there is
// something to encode.
func textured(b *testing.B, f pixel.Format, s pixel.Size) pixel.Image {
	img, random := smooth(b, f, s), rand.New(rand.NewPCG(1, 2))
	for i := range img.Data {
		img.Data[i] += byte(random.Uint32() % 12)
	}
	return img
}
