package main

import (
	"bytes"
	"image"
	"image/jpeg"
	"os"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// A picture shows the scene's colour, whatever the frame's samples stand for.
func TestPicturesShowTheColoursOfTheScene(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		format    pixel.Format
		colour    pixel.Colour
		y, cb, cr byte // of R 192, G 64, B 48
	}{
		"unsaid":        {pixel.YUV420, pixel.Colour{}, 102, 102, 185},
		"limited BT709": {pixel.YUV420, pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT709}, 93, 108, 185},
		"full BT601":    {pixel.YUV420, pixel.Colour{Range: pixel.Full, Matrix: pixel.BT601}, 100, 98, 193},
		"full BT2020":   {pixel.YUV420, pixel.Colour{Range: pixel.Full, Matrix: pixel.BT2020}, 97, 102, 193},
		"JPEG":          {pixel.MJPEG, pixel.Colour{}, 100, 98, 193},
		"pale JPEG":     {pixel.MJPEG, pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT601}, 102, 102, 185},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(`every = "50ms"`))
			c, err := colouredCamera(b.Bus("porch"), tt.format, tt.colour)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.jpeg.Close() })
			luma := size.Width * size.Height
			frame := bytes.Join([][]byte{bytes.Repeat([]byte{tt.y}, luma), bytes.Repeat([]byte{tt.cb}, luma/4), bytes.Repeat([]byte{tt.cr}, luma/4)}, nil)
			if tt.format == pixel.MJPEG {
				img, err := pixel.NewImage(pixel.YUV420, size, frame)
				if err != nil {
					t.Fatal(err)
				}
				img.Colour = pixel.DefaultColour(pixel.MJPEG) // not to be converted
				if frame, err = c.jpeg.Encode(img, 95); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.put(frame); err != nil {
				t.Fatal(err)
			}
			p := b.Start("jpegwriter", "pictures")
			latest := b.Dir + "/cache/latest.jpg"
			boxtest.Poll(t, "a picture", func() bool { _, err := os.Stat(latest); return err == nil })
			p.Stop()
			text, err := os.ReadFile(latest)
			if err != nil {
				t.Fatal(err)
			}
			img, err := jpeg.Decode(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			red, green, blue, _ := img.At(size.Width/2, size.Height/2).RGBA()
			got, worst := [3]int{int(red >> 8), int(green >> 8), int(blue >> 8)}, 0
			for i, want := range [3]int{192, 64, 48} {
				worst = max(worst, got[i]-want, want-got[i])
			}
			if worst > 2 {
				t.Errorf("the picture is %v; want 192, 64, 48 within 2 levels", got)
			}
		})
	}
}

// A camera whose JPEG pictures have odd sides and colours of their own.
func TestPaleJPEGWithOddSides(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(`every = "50ms"`))
	bus := b.Bus("porch")
	pub, err := bus.Publisher()
	if err != nil {
		t.Fatal(err)
	}
	g := msg.Geometry{Format: string(pixel.MJPEG), Width: 101, Height: 75, ColourRange: pixel.Limited, ColourMatrix: pixel.BT601}
	out, err := pub.Frames("video", g, 4, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	var picture bytes.Buffer
	if err := jpeg.Encode(&picture, image.NewGray(image.Rect(0, 0, g.Width, g.Height)), nil); err != nil {
		t.Fatal(err)
	}
	c := camera{bus: bus, out: out}
	if err := c.put(picture.Bytes()); err != nil {
		t.Fatal(err)
	}
	p := b.Start("jpegwriter", "pictures")
	latest := b.Dir + "/cache/latest.jpg"
	boxtest.Poll(t, "a picture", func() bool { _, err := os.Stat(latest); return err == nil })
	p.Stop()
	text, err := os.ReadFile(latest)
	if err != nil {
		t.Fatal(err)
	}
	head, err := jpeg.DecodeConfig(bytes.NewReader(text))
	if err != nil || head.Width != 100 || head.Height != 74 {
		t.Errorf("the picture is %dx%d, %v; want 100x74", head.Width, head.Height, err)
	}
}
