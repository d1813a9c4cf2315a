package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/fakev4l2"
	"github.com/perch-edge/perch/pkg/msg"
)

func plugIn(t *testing.T, cfg fakev4l2.Config) *fakev4l2.Device {
	t.Helper()
	if err := fakev4l2.Available(); err != nil {
		t.Skip(err)
	}
	dev, err := fakev4l2.Start(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, dev.Close()) })
	return dev
}

// deviceBox is a camera at a device, of 160x120.
func deviceBox(t *testing.T, path, format, keys string) *box {
	t.Helper()
	return newBox(t, fmt.Sprintf(`input = "v4l2:%s"
		stall_after = "500ms"
		[sensor.porch.stream.video]
		size = "160x120"
		slots = 100
		format = %q
		%s`, path, format, keys))
}

// fromDevice verifies every byte of a frame and returns the device's number of it.
func fromDevice(t *testing.T, f msg.Frame) uint32 {
	t.Helper()
	n, err := fakev4l2.Check(f.Bytes())
	if err != nil {
		t.Fatalf("frame %d: %v", f.Seq, err)
	}
	return n
}

func TestDeviceDeliversEveryByteAndCountsLosses(t *testing.T) {
	for format, cfg := range map[string]fakev4l2.Config{
		"yuyv":   {Width: 160, Height: 120, FourCC: "YUYV", FPS: 50},
		"nv12":   {Width: 160, Height: 120, FourCC: "NV12", FPS: 50, LinePadding: 32},
		"yuv420": {Width: 160, Height: 120, FourCC: "YU12", FPS: 50},
		"rgb24":  {Width: 160, Height: 120, FourCC: "RGB3", FPS: 50},
		"mjpeg":  {Width: 160, Height: 120, FourCC: "MJPG", FPS: 50},
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			dev := plugIn(t, cfg)
			b := deviceBox(t, dev.Path(), format, "")
			r := b.frames()
			p := b.start()
			begun := clock.Boot()
			first, gaps := uint32(0), uint64(0)
			for i := range uint32(100) {
				f := r.next()
				n := fromDevice(t, f)
				if i == 0 {
					first = n
				}
				gaps = uint64(n - first - i)
				if now := clock.Boot(); f.Stamp.Boot < begun || f.Stamp.Boot > now || (now-f.Stamp.Boot) > limit {
					t.Fatalf("frame %d is stamped %v at %v; want the time of its capture", f.Seq, f.Stamp.Boot, now)
				}
				f.Release()
				switch i {
				case 30:
					must(t, dev.Skip(1000))
				case 50:
					must(t, dev.Corrupt())
				case 70:
					must(t, dev.Truncate(100))
				}
			}
			s := r.state("all frames", func(s *msg.State) bool { return s.Counters["frames"] >= 100 })
			// What the device flagged or cut has a number too, so that the gaps
			// that a reader sees are the lost frames and the bad ones.
			if s.Counters["corrupt_frames"] != 2 || s.Counters["missed_frames"] < 1000 || s.Counters["missed_frames"]+2 < gaps {
				t.Errorf("counters %v after a gap of %d; want 2 corrupt frames and the others missed", s.Counters, gaps)
			}
			if want := fmt.Sprintf("160x120 %s at 50 Hz from v4l2:%s (perch fake camera)", format, dev.Path()); s.Status != want {
				t.Errorf("Status = %q; want %q", s.Status, want)
			}
			p.signal(15)
			if code := p.exit(); code != 0 {
				t.Errorf("exit code %d after SIGTERM; want 0", code)
			}
			if stats, err := dev.Stats(); err != nil || stats.Open != 0 {
				t.Errorf("%d descriptors of the device are open after the end (%v); want none", stats.Open, err)
			}
		})
	}
}

func TestDeviceThatStalls(t *testing.T) {
	t.Parallel()
	dev := plugIn(t, fakev4l2.Config{Width: 160, Height: 120, FourCC: "YUYV", FPS: 50})
	b := deviceBox(t, dev.Path(), "yuyv", "capture_hz = 50")
	r := b.frames()
	p := b.start()
	r.next().Release()
	must(t, dev.Stall())
	s := r.state("trouble", func(s *msg.State) bool { return s.Trouble != "" })
	if !strings.Contains(s.Trouble, "camera has stalled") {
		t.Errorf("Trouble = %q; want that the camera has stalled", s.Trouble)
	}
	if code := p.exit(); code != 1 {
		t.Errorf("exit code %d of a camera that stalls; want 1", code)
	}
}

// A camera that is pulled out ends its worker with 69; started again without it,
// the same; and when it is back at another path, by its identity it is found.
func TestDeviceUnpluggedAndPluggedIn(t *testing.T) {
	t.Parallel()
	dev := plugIn(t, fakev4l2.Config{Width: 160, Height: 120, FourCC: "NV12", FPS: 50})
	b := deviceBox(t, dev.ByID(), "nv12", "")
	r := b.frames()
	p := b.start()
	f := r.next()
	epoch := f.Epoch
	f.Release()
	must(t, dev.Unplug())
	if code := p.exit(); code != 69 || !strings.Contains(p.output(), "camera is gone") {
		t.Errorf("exit code %d of a camera that was unplugged; want 69", code)
	}
	p = b.start()
	if code := p.exit(); code != 69 || !strings.Contains(p.output(), "no such camera") {
		t.Errorf("exit code %d without a camera; want 69", code)
	}
	must(t, dev.Replug("video7"))
	b.start()
	for limit := time.Now().Add(limit); ; {
		f, ok, err := r.frames.Next(t.Context(), limit)
		if ok {
			fromDevice(t, f)
			f.Release()
			if f.Epoch != epoch {
				break
			}
		} else if !errors.Is(err, msg.ErrEnded) {
			t.Fatalf("Next() = %v; want frames of the camera that is back", err)
		}
	}
}

func TestDeviceModesAndOwners(t *testing.T) {
	t.Parallel()
	dev := plugIn(t, fakev4l2.Config{Width: 160, Height: 120, FourCC: "YUYV", FPS: 50})
	for _, test := range []struct {
		keys string
		code int
		want []string
	}{
		{"", 0, nil}, // the first one, which keeps it
		{"", 75, []string{"camera is in use", "sensor-camera (pid "}},
	} {
		b := deviceBox(t, dev.Path(), "yuyv", test.keys)
		r := b.frames()
		p := b.start()
		if test.code == 0 {
			r.next().Release()
			continue
		}
		if code := p.exit(); code != test.code {
			t.Errorf("exit code %d; want %d", code, test.code)
		}
		for _, want := range test.want {
			if !strings.Contains(p.output(), want) {
				t.Errorf("output %s; want %q", p.output(), want)
			}
		}
	}
}

func TestDeviceOfAnotherSize(t *testing.T) {
	t.Parallel()
	dev := plugIn(t, fakev4l2.Config{Width: 320, Height: 240, FourCC: "YUYV", FPS: 50})
	b := deviceBox(t, dev.Path(), "yuyv", "")
	p := b.start()
	if code := p.exit(); code != 78 {
		t.Errorf("exit code %d for a size that the camera has not; want 78", code)
	}
	for _, want := range []string{b.topology + `:13: sensor.porch.stream.video.size = "160x120": `, "the driver set 320x240 YUYV"} {
		if !strings.Contains(p.output(), want) {
			t.Errorf("output %s; want %q", p.output(), want)
		}
	}
}

// The camera's rate is above capture_hz: frames are chosen by time, and each that
// the device has captured is accounted for, the lost ones among them.
func TestDeviceAtALowerRate(t *testing.T) {
	t.Parallel()
	dev := plugIn(t, fakev4l2.Config{Width: 160, Height: 120, FourCC: "YUYV", FPS: 60})
	b := newBox(t, fmt.Sprintf("input = \"v4l2:%s\"\nstall_after = \"20s\"\n[sensor.porch.stream.video]\nsize = \"160x120\"\n"+
		"slots = 400\nformat = \"yuyv\"\ncapture_hz = 20", dev.Path()))
	r := b.frames()
	b.start()
	first := r.next()
	number, times := uint64(fromDevice(t, first)), []float64{first.Stamp.Boot.Seconds()}
	first.Release()
	must(t, dev.SetFPS(60)) // as a camera does that has one rate only
	for range 10 {
		must(t, dev.Corrupt())
		f := r.next()
		times = append(times, f.Stamp.Boot.Seconds())
		f.Release()
	}
	r.state("skipped frames", func(s *msg.State) bool { return s.Counters["skipped_frames"] > 60 })
	must(t, dev.Stall())
	stats, err := dev.Stats()
	must(t, err)
	numbers := stats.Captured + stats.Lost - number // that the device has given out since the first frame
	s := r.state("every frame", func(s *msg.State) bool {
		return s.Counters["frames"]+s.Counters["skipped_frames"]+s.Counters["missed_frames"]+s.Counters["corrupt_frames"] >= numbers
	})
	if c := s.Counters; c["frames"]+c["skipped_frames"]+c["missed_frames"]+c["corrupt_frames"] != numbers || c["corrupt_frames"] == 0 || c["dropped_frames"] != 0 {
		t.Errorf("counters %v; want %d frames in all, some corrupt", c, numbers)
	}
	for range int(s.Counters["frames"]) - len(times) {
		f := r.next()
		fromDevice(t, f)
		times = append(times, f.Stamp.Boot.Seconds())
		f.Release()
	}
	wantAtMost(t, times, 20)
}

func TestAtIsAMomentBeforeNow(t *testing.T) {
	now := msg.Stamp{Wall: time.Unix(1000, 0), Boot: 100 * time.Second, Synced: true}
	for ago, want := range map[time.Duration]time.Duration{0: 100 * time.Second, time.Second: 99 * time.Second, -time.Second: 100 * time.Second, time.Hour: 0} {
		got := at(now, ago)
		if got.Boot != want || now.Wall.Sub(got.Wall) != 100*time.Second-want || !got.Synced {
			t.Errorf("at(now, %v) = %+v; want %v after boot", ago, got, want)
		}
	}
}

// A link that leads nowhere is a missing device, and says which one is there.
func TestDeviceThatIsAbsent(t *testing.T) {
	link := filepath.Join(t.TempDir(), "usb-cam-index0")
	must(t, os.Symlink("/nowhere/video9", link))
	b := deviceBox(t, link, "yuyv", "")
	p := b.start()
	if code := p.exit(); code != 69 || !strings.Contains(p.output(), link) {
		t.Errorf("exit code %d without a camera; want 69, and its path: %s", code, p.output())
	}
}
