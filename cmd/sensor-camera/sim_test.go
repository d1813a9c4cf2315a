package main

import (
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// number reads the number in a frame's pixels, also of a JPEG.
func number(t *testing.T, f msg.Frame) uint64 {
	t.Helper()
	img := image(t, f)
	n, err := scene.ReadNumber(img)
	if err != nil {
		t.Fatalf("frame %d of %d bytes: %v", f.Seq, len(f.Bytes()), err)
	}
	return n
}

// image is a frame's picture, a JPEG decoded.
func image(t *testing.T, f msg.Frame) pixel.Image {
	t.Helper()
	size := pixel.Size{Width: f.Width, Height: f.Height}
	if f.Format != string(pixel.MJPEG) {
		img, err := f.Image()
		must(t, err)
		return img
	}
	dec, err := turbojpeg.NewDecoder(size)
	must(t, err)
	defer dec.Close()
	_, bytes, err := pixel.Layout(pixel.YUV420, size)
	must(t, err)
	img, err := dec.Decode(f.Bytes(), make([]byte, bytes))
	must(t, err)
	return img
}

func TestSimNumbersItsFramesBySeq(t *testing.T) {
	for _, format := range pixel.Formats() {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, `input = "sim:"
				[sensor.porch.stream.video]
				capture_hz = 60
				size = "128x96"
				slots = 120
				format = "`+string(format)+`"`)
			r := b.frames()
			p := b.start()
			var before msg.Frame
			for want := range uint64(60) {
				f := r.next()
				if n := number(t, f); n != want || uint64(f.Seq) != want {
					t.Fatalf("frame %d has the number %d; want both %d", f.Seq, n, want)
				}
				if f.Hz != 60 || (want > 0 && f.Stamp.Boot <= before.Stamp.Boot) {
					t.Fatalf("frame %d at %v of %g Hz, after one at %v; want times that grow", f.Seq, f.Stamp.Boot, f.Hz, before.Stamp.Boot)
				}
				checkTarget(t, f)
				before = f
				f.Release()
			}
			s := r.state("60 frames", func(s *msg.State) bool { return s.Counters["frames"] >= 60 })
			if want := "128x96 " + string(format) + " at 60 Hz from sim:"; s.Status != want || !s.Ready {
				t.Errorf("Status = %q, ready %v; want %q", s.Status, s.Ready, want)
			}
			p.signal(15)
			if code := p.exit(); code != 0 {
				t.Errorf("exit code %d after SIGTERM; want 0", code)
			}
			if left := b.leftovers(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// checkTarget wants the target's colour in its middle.
func checkTarget(t *testing.T, f msg.Frame) {
	t.Helper()
	img := image(t, f)
	box, visible := scene.Target(uint64(f.Seq), img.Size)
	if img.Format != pixel.YUV420 || !visible {
		return
	}
	x, y := (box.Min.X+box.Max.X)/4, (box.Min.Y+box.Max.Y)/4 // of the chroma planes
	for plane := 1; plane <= 2; plane++ {
		rows, err := img.Plane(plane)
		must(t, err)
		if got := rows.Row(y)[x]; got < 180 {
			t.Fatalf("frame %d: plane %d has %d in the middle of %v; want 180 or more", f.Seq, plane, got, box)
		}
	}
}

func TestSimDeadlinesDoNotDrift(t *testing.T) {
	s := sim{hz: 29.97, begun: time.Now()}
	const day = 24 * 3600 * 2997 / 100 // frames
	if got := s.due(day).Sub(s.begun); (got - 24*time.Hour).Abs() > time.Second/29 {
		t.Errorf("frame %d is due after %v; want a day", day, got)
	}
}
