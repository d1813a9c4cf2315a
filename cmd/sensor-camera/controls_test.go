package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/fakev4l2"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/v4l2cam"
	"github.com/perch-edge/perch/pkg/pixel"
)

// V4L2's numbers of controls, linux/v4l2-controls.h.
const (
	autoWhite    = 0x0098090c
	gain         = 0x00980913
	flipAcross   = 0x00980914
	flipDown     = 0x00980915
	temperature  = 0x0098091a
	autoExposure = 0x009a0901
	exposureTime = 0x009a0902
)

func webcam() fakev4l2.Config {
	return fakev4l2.Config{Width: 160, Height: 120, FourCC: "YUYV", FPS: 50, Controls: fakev4l2.Webcam()}
}

// controlled is a camera at a device whose table has these keys.
func controlled(t *testing.T, path, keys string) *box {
	t.Helper()
	return newBox(t, fmt.Sprintf("input = \"v4l2:%s\"\n%s\n[sensor.porch.stream.video]\nsize = \"160x120\"\nslots = 100\nformat = \"yuyv\"", path, keys))
}

func wantControls(t *testing.T, dev *fakev4l2.Device, want map[uint32]int32) {
	t.Helper()
	for id, value := range want {
		if got, err := dev.Control(id); got != value || err != nil {
			t.Errorf("control %#x of the device = %d, %v; want %d", id, got, err, value)
		}
	}
}

// What the topology says is in the device before its first frame, and again
// after the device has lost its power.
func TestDeviceIsSetByTheTopology(t *testing.T) {
	t.Parallel()
	dev := plugIn(t, webcam())
	b := controlled(t, dev.ByID(), `exposure = "12.5ms"
		gain = 40
		white_balance = 5000
		rotation = 180
		[sensor.porch.controls]
		power_line_frequency = 2
		brightness = -64`)
	byHand := map[uint32]int32{autoExposure: 1, exposureTime: 125, gain: 40, autoWhite: 0, temperature: 5000,
		flipAcross: 1, flipDown: 1, 0x00980918: 2, 0x00980900: -64}
	r := b.frames()
	p := b.start()
	f := r.next()
	wantControls(t, dev, byHand)
	fromDevice(t, f)
	f.Release()
	must(t, dev.Unplug())
	if code := p.exit(); code != 69 {
		t.Errorf("exit code %d of a camera that was unplugged; want 69", code)
	}
	must(t, dev.Replug("video3"))
	wantControls(t, dev, map[uint32]int32{autoExposure: 3, gain: 20}) // it has forgotten them
	p = b.start()
	p.logs(`"key":"controls.brightness"`) // the last of them; its start gate may still wait
	wantControls(t, dev, byHand)
	if !p.logs(`"msg":"control set","worker":"porch","key":"exposure","control":"exposure_time_absolute","value":125`) {
		t.Errorf("log:\n%s\nwant the controls in it", p.output())
	}
}

// Set back to automatic, it is the camera that decides.
func TestDeviceIsLeftToItself(t *testing.T) {
	t.Parallel()
	dev := plugIn(t, webcam())
	b := controlled(t, dev.Path(), "exposure = \"5ms\"\nwhite_balance = 3000")
	r := b.frames()
	p := b.start()
	r.next().Release()
	p.signal(15)
	p.exit()
	wantControls(t, dev, map[uint32]int32{autoExposure: 1, exposureTime: 50, temperature: 3000})
	b = controlled(t, dev.Path(), "exposure = \"auto\"\nwhite_balance = \"auto\"")
	r = b.frames()
	b.start()
	r.next().Release()
	wantControls(t, dev, map[uint32]int32{autoExposure: 3, autoWhite: 1, gain: 20})
}

// What this device has not, or not so far, is told of the keys' own lines, all
// at once, and is for the user to change.
func TestDeviceCannotBeSetSo(t *testing.T) {
	t.Parallel()
	dev := plugIn(t, webcam())
	p := controlled(t, dev.Path(), "exposure = \"1s\"\ngain = \"auto\"\nwhite_balance = 9000\ncontrols = {brightnes = 3}").start()
	if code := p.exit(); code != 78 {
		t.Errorf("exit code %d for what the device cannot do; want 78", code)
	}
	for _, want := range []string{
		`:11: sensor.porch.exposure = "1s": $: exposure_time_absolute goes from 300µs to 204.7ms in steps of 100µs`,
		`:12: sensor.porch.gain = "auto": $ has no control gain_automatic; it has brightness, `,
		`:13: sensor.porch.white_balance = 9000: $: white_balance_temperature goes from 2800 to 6500 in steps of 10`,
		`:14: sensor.porch.controls.brightnes = 3: $ has no control brightnes (did you mean "brightness"?); it has brightness, `,
	} {
		if want = strings.ReplaceAll(want, "$", "perch fake camera ("+dev.Path()+")"); !strings.Contains(p.output(), want) {
			t.Errorf("output %s; want %s", p.output(), want)
		}
	}
}

// A camera that takes another value than the one it was given says so.
func TestDeviceTakesAnotherValue(t *testing.T) {
	t.Parallel()
	cfg := webcam()
	cfg.Controls = []fakev4l2.Control{{ID: gain, Type: fakev4l2.Integer, Name: "Gain", Maximum: 100, Step: 1, Grain: 8}}
	dev := plugIn(t, cfg)
	b := controlled(t, dev.Path(), "gain = 30")
	r := b.frames()
	p := b.start()
	r.next().Release()
	if want := `"level":"WARN","msg":"the camera took another value","worker":"porch","key":"gain","control":"gain","asked":30,"value":24`; !p.logs(want) {
		t.Errorf("output %s; want %s", p.output(), want)
	}
}

// turned is a planar frame after a turn, made the slow way.
func turned(t *testing.T, frame []byte, size pixel.Size, degrees int) []byte {
	t.Helper()
	var out []byte
	for i, s := range []pixel.Size{size, {Width: size.Width / 2, Height: size.Height / 2}, {Width: size.Width / 2, Height: size.Height / 2}} {
		n := s.Width * s.Height
		plane := frame[:n]
		frame = frame[n:]
		w, h := s.Width, s.Height
		for range degrees / 90 { // a quarter clockwise: the left column becomes the top row
			next := make([]byte, 0, n)
			for x := range w {
				for y := h - 1; y >= 0; y-- {
					next = append(next, plane[y*w+x])
				}
			}
			plane, w, h = next, h, w
		}
		if out = append(out, plane...); i == 2 && len(frame) != 0 {
			t.Fatalf("%d bytes are left of the frame", len(frame))
		}
	}
	return out
}

func TestFileIsTurned(t *testing.T) {
	path := clip(t, 0.4)
	size := pixel.Size{Width: 96, Height: 64}
	all := tool(t, "ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
	for degrees, shown := range map[int]string{90: "64x96", 180: "96x64", 270: "64x96"} {
		t.Run(fmt.Sprint(degrees), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, fmt.Sprintf("input = %q\nrotation = %d\n[sensor.porch.stream.video]\nslots = 100\ncapture_hz = 25", "file:"+path, degrees))
			r := b.frames()
			b.start()
			for i := range 10 {
				f := r.next()
				want := turned(t, all[2*i*96*64*3/2:][:96*64*3/2], size, degrees)
				if got := fmt.Sprintf("%dx%d", f.Width, f.Height); got != shown || !bytes.Equal(f.Bytes(), want) {
					t.Fatalf("frame %d of %s is not every other frame of the file, turned; want %s", i, got, shown)
				}
				f.Release()
			}
			r.ended(10)
		})
	}
}

func TestRTSPIsTurned(t *testing.T) {
	t.Parallel()
	r := rtspBox(t, startNetcam(t, h264Media, h264(t)), "slots = 60", "rotation = 90").frames()
	r.b.start()
	var last uint64
	for i := range 10 {
		f := r.next()
		if f.Width != 128 || f.Height != 160 {
			t.Fatalf("frame of %dx%d; want 128x160", f.Width, f.Height)
		}
		back := turned(t, f.Bytes(), pixel.Size{Width: 128, Height: 160}, 270)
		img, err := pixel.NewImage(pixel.YUV420, pixel.Size{Width: 160, Height: 128}, back)
		must(t, err)
		n, err := scene.ReadNumber(img)
		must(t, err)
		if i > 0 && n != last+1 {
			t.Errorf("frame %d, turned back, has the number %d after %d; want the next", f.Seq, n, last)
		}
		last = n
		f.Release()
	}
}

func TestControlsParse(t *testing.T) {
	for text, want := range map[string]Exposure{"auto": {Auto: true}, "10ms": {Time: 10 * time.Millisecond}, "1.5s": {Time: 1500 * time.Millisecond}, "100us": {Time: v4l2cam.ExposureUnit}} {
		var got Exposure
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("exposure %q = %+v, %v; want %+v", text, got, err, want)
		}
		var again Exposure
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("exposure %q, read back = %+v, %v; want the same", got, again, err)
		}
	}
	for _, text := range []string{"", "Auto", "10", "0s", "-1ms", "150us", "100h"} {
		if got := (&Exposure{}); got.UnmarshalText([]byte(text)) == nil {
			t.Errorf("exposure %q = %+v; want an error", text, got)
		}
	}
	for _, test := range []struct {
		value any
		want  Level
		text  string
	}{{"auto", Level{Auto: true}, "auto"}, {int64(0), Level{Set: true}, "0"}, {int64(4600), Level{Set: true, Number: 4600}, "4600"}} {
		var got Level
		if err := got.UnmarshalTOML(test.value); err != nil || got != test.want || got.String() != test.text {
			t.Errorf("level %v = %+v, %v; want %+v, written as %q", test.value, got, err, test.want, test.text)
		}
	}
	for _, v := range []any{"high", "", int64(-1), int64(1 << 31), 1.5, true} {
		if got := (&Level{}); got.UnmarshalTOML(v) == nil {
			t.Errorf("level %v = %+v; want an error", v, got)
		}
	}
}
