package v4l2cam

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vladimirvivien/go4vl/v4l2"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/fakev4l2"
	"github.com/perch-edge/perch/pkg/pixel"
)

// TestMain also sees to it that no test leaves a goroutine.
func TestMain(m *testing.M) {
	if fakev4l2.IsChild() {
		os.Exit(fakev4l2.Main())
	}
	goleak.VerifyTestMain(m)
}

// deadline bounds every wait for the fake camera's process.
const deadline = 2 * time.Minute

func plugIn(t *testing.T, cfg fakev4l2.Config) *fakev4l2.Device {
	t.Helper()
	if err := fakev4l2.Available(); err != nil {
		t.Skip(err)
	}
	dev, err := fakev4l2.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, dev.Close()) })
	return dev
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// small is a camera that is quick to check; wanted asks for just what it has.
var small = fakev4l2.Config{Width: 64, Height: 48, FourCC: "YUYV", FPS: 100}

func wanted(path string, has fakev4l2.Config) Config {
	return Config{Path: path, Width: has.Width, Height: has.Height, FourCC: has.FourCC}
}

func openCamera(t *testing.T, cfg Config) *Camera {
	t.Helper()
	cam, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, cam.Close()) })
	return cam
}

// next takes a frame and verifies that all its bytes are those of the frame
// that its sequence number names.
func next(t *testing.T, cam *Camera, dst []byte) Frame {
	t.Helper()
	clear(dst)
	f, err := cam.Next(t.Context(), dst)
	if err != nil {
		t.Fatal(err)
	}
	if f.Corrupt {
		return f
	}
	if seq, err := fakev4l2.Check(dst[:f.Bytes]); err != nil || seq != f.Sequence {
		t.Fatalf("Next() = frame %d holding the pixels of frame %d (%v)", f.Sequence, seq, err)
	}
	return f
}

func TestNextDeliversEveryByte(t *testing.T) {
	for _, has := range []fakev4l2.Config{
		{Width: 320, Height: 240, FourCC: "YUYV", FPS: 200},
		{Width: 320, Height: 240, FourCC: "NV12", FPS: 200},
		{Width: 320, Height: 240, FourCC: "YU12", FPS: 200},
		{Width: 320, Height: 240, FourCC: "RGB3", FPS: 200},
		{Width: 320, Height: 240, FourCC: "MJPG", FPS: 200},
		{Width: 326, Height: 242, FourCC: "YUYV", FPS: 200, LinePadding: 52},
		{Width: 326, Height: 242, FourCC: "NV12", FPS: 200, LinePadding: 58},
		{Width: 326, Height: 242, FourCC: "YU12", FPS: 200, LinePadding: 58},
		{Width: 1920, Height: 1080, FourCC: "YU12", FPS: 30},
	} {
		t.Run(fmt.Sprintf("%s %dx%d+%d", has.FourCC, has.Width, has.Height, has.LinePadding), func(t *testing.T) {
			cam := openCamera(t, wanted(plugIn(t, has).Path(), has))
			dst := make([]byte, cam.Info().FrameBytes)
			previous := next(t, cam, dst)
			for range 30 {
				f := next(t, cam, dst)
				if f.Corrupt || f.Sequence != previous.Sequence+1+f.Missed {
					t.Fatalf("Next() = %+v after %+v; want a good frame whose sequence accounts for those missed", f, previous)
				}
				checkStamp(t, previous.CapturedMonotonic, f.CapturedMonotonic)
				previous = f
			}
		})
	}
}

// checkStamp wants a time after that of the frame before, and of the last seconds.
func checkStamp(t *testing.T, before, stamp time.Duration) {
	t.Helper()
	var ts unix.Timespec
	must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
	now := time.Duration(ts.Nano())
	if stamp <= before || stamp > now || now-stamp > deadline {
		t.Fatalf("CapturedMonotonic = %v; want a time after %v, not long before %v", stamp, before, now)
	}
}

func TestInfoIsWhatTheDriverSet(t *testing.T) {
	fake := small
	fake.YCbCrEnc, fake.Quantization = v4l2.YCbCrEncoding709, v4l2.QuantizationFullRange
	dev := plugIn(t, fake)
	cfg := wanted(dev.ByID(), small)
	cfg.FPS, cfg.Buffers = 29.97, 6
	got := openCamera(t, cfg).Info()
	want := Info{
		Path: dev.Path(), Driver: "fakev4l2", Card: "perch fake camera", Bus: "platform:fakev4l2-000",
		Width: 64, Height: 48, FourCC: "YUYV", FPS: 29.97, FrameBytes: 2 * 64 * 48, Buffers: 6,
		Colour: pixel.Colour{Range: pixel.Full, Matrix: pixel.BT709},
	}
	if got != want {
		t.Errorf("Info() = %+v; want %+v", got, want)
	}
}

func TestNextCountsAGap(t *testing.T) {
	dev := plugIn(t, small)
	cam := openCamera(t, wanted(dev.Path(), small))
	dst := make([]byte, cam.Info().FrameBytes)
	previous := next(t, cam, dst)
	must(t, dev.Skip(1000)) // many more than a loaded machine could lose by itself
	for previous.Missed < 1000 {
		f := next(t, cam, dst)
		if f.Sequence != previous.Sequence+1+f.Missed {
			t.Fatalf("Next() = %+v after %+v; want the sequence to account for those missed", f, previous)
		}
		previous = f
	}
}

func TestSlowReaderLosesFramesAndKnows(t *testing.T) {
	dev := plugIn(t, small)
	cam := openCamera(t, wanted(dev.Path(), small))
	await(t, dev, "frames lost", func(s fakev4l2.Stats) bool { return s.Lost >= 5 })
	must(t, dev.SetFPS(20)) // so that the reader keeps up from here
	dst := make([]byte, cam.Info().FrameBytes)
	var missed uint64
	for range cam.Info().Buffers + 1 {
		missed += uint64(next(t, cam, dst).Missed)
	}
	stats, err := dev.Stats()
	must(t, err)
	if missed < 5 || missed > stats.Lost {
		t.Errorf("sum of Missed = %d; want 5 to %d, as many as the camera lost", missed, stats.Lost)
	}
}

// await polls the camera until what is wanted of it holds.
func await(t *testing.T, dev *fakev4l2.Device, what string, ok func(fakev4l2.Stats) bool) {
	t.Helper()
	var stats fakev4l2.Stats
	for end := time.Now().Add(deadline); time.Now().Before(end); {
		var err error
		stats, err = dev.Stats()
		must(t, err)
		if ok(stats) {
			return
		}
	}
	t.Fatalf("Stats() = %+v after %v; want %s", stats, deadline, what)
}

func TestBadFramesAreReportedAndNotDelivered(t *testing.T) {
	for _, c := range []struct {
		name   string
		has    fakev4l2.Config
		spoil  func(*fakev4l2.Device) error
		reason string
	}{
		{"error flag", small, (*fakev4l2.Device).Corrupt, "flagged as bad by the driver"},
		{"short", small, func(d *fakev4l2.Device) error { return d.Truncate(6143) }, "cut short: 6143 of 6144 bytes"},
		{"empty", small, func(d *fakev4l2.Device) error { return d.Truncate(0) }, "cut short: 0 of 6144 bytes"},
		{"no JPEG", fakev4l2.Config{Width: 64, Height: 48, FourCC: "MJPG", FPS: 100},
			func(d *fakev4l2.Device) error { return d.Truncate(1) }, "no JPEG: 1 bytes that start with ff"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := plugIn(t, c.has)
			cam := openCamera(t, wanted(dev.Path(), c.has))
			dst := make([]byte, cam.Info().FrameBytes)
			next(t, cam, dst)
			must(t, c.spoil(dev))
			f := next(t, cam, dst)
			for range 100 {
				if f.Corrupt {
					break
				}
				f = next(t, cam, dst)
			}
			if !f.Corrupt || f.Reason != c.reason || f.Bytes != 0 {
				t.Fatalf("Next() = %+v; want a corrupt frame of 0 bytes, reason %q", f, c.reason)
			}
			if f := next(t, cam, dst); f.Corrupt {
				t.Errorf("Next() after a bad frame = %+v; want a good one", f)
			}
		})
	}
}

func TestStallIsNoticedAndEnds(t *testing.T) {
	dev := plugIn(t, small)
	cfg := wanted(dev.Path(), small)
	cfg.StallAfter = 300 * time.Millisecond
	cam := openCamera(t, cfg)
	dst := make([]byte, cam.Info().FrameBytes)
	must(t, dev.Stall())
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for range 2 { // the second time without a frame in between
		start := time.Now()
		var err error
		for err == nil { // frames that were captured before come first
			start = time.Now()
			_, err = cam.Next(ctx, dst)
		}
		if !errors.Is(err, ErrStalled) || time.Since(start) < cfg.StallAfter/2 {
			t.Fatalf("Next() of a silent camera = %v after %v; want %v after about %v", err, time.Since(start), ErrStalled, cfg.StallAfter)
		}
	}
	must(t, dev.Resume())
	next(t, cam, dst)
}

func TestNextEndsWithItsContext(t *testing.T) {
	dev := plugIn(t, small)
	cam := openCamera(t, wanted(dev.Path(), small))
	dst := make([]byte, cam.Info().FrameBytes)
	must(t, dev.Stall())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var err error
	for err == nil {
		_, err = cam.Next(ctx, dst)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next(ctx) = %v; want %v", err, context.DeadlineExceeded)
	}
}

func TestUnpluggedAndPluggedInElsewhere(t *testing.T) {
	dev := plugIn(t, small)
	cfg := wanted(dev.ByID(), small)
	cam := openCamera(t, cfg)
	dst := make([]byte, cam.Info().FrameBytes)
	next(t, cam, dst)

	must(t, dev.Unplug())
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	var err error
	for err == nil {
		_, err = cam.Next(ctx, dst)
	}
	if !errors.Is(err, ErrGone) {
		t.Errorf("Next() of an unplugged camera = %v; want %v", err, ErrGone)
	}
	must(t, cam.Close())
	if n := mappings(t, filepath.Dir(dev.Path())); n != 0 {
		t.Errorf("%d buffers are still mapped after Close", n)
	}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrNoDevice) {
		t.Errorf("Open(%s) while unplugged = %v; want %v", cfg.Path, err, ErrNoDevice)
	}

	must(t, dev.Replug("video7"))
	cam = openCamera(t, cfg)
	if got := filepath.Base(cam.Info().Path); got != "video7" {
		t.Errorf("Open(%s) opened %s; want video7", cfg.Path, got)
	}
	next(t, cam, dst)
}

// mappings counts the mapped files below dir.
func mappings(t *testing.T, dir string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return strings.Count(string(maps), dir)
}

func TestOpenRefusesAnotherMode(t *testing.T) {
	dev := plugIn(t, small)
	for _, c := range []struct {
		change func(*Config)
		says   string
	}{
		{func(c *Config) { c.Width = 1920; c.Height = 1080 }, "asked for 1920x1080 YUYV, the driver set 64x48 YUYV; it offers YUYV 64x48"},
		{func(c *Config) { c.FourCC = "NV12" }, "asked for 64x48 NV12, the driver set 64x48 YUYV; it offers YUYV 64x48"},
	} {
		cfg := wanted(dev.Path(), small)
		c.change(&cfg)
		_, err := Open(t.Context(), cfg)
		if !errors.Is(err, ErrMode) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Open(%+v) = %v; want %v that says %q", cfg, err, ErrMode, c.says)
		}
	}
	await(t, dev, "the device closed", func(s fakev4l2.Stats) bool { return s.Open == 0 })
}

func TestOpenRefusesACameraInUse(t *testing.T) {
	dev := plugIn(t, small)
	cfg := wanted(dev.Path(), small)
	openCamera(t, cfg)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrBusy) {
		t.Errorf("second Open() = %v; want %v", err, ErrBusy)
	}
	await(t, dev, "one descriptor left", func(s fakev4l2.Stats) bool { return s.Open == 1 })
}

func TestCloseGivesEverythingBack(t *testing.T) {
	dev := plugIn(t, small)
	cam := openCamera(t, wanted(dev.Path(), small))
	next(t, cam, make([]byte, cam.Info().FrameBytes))
	must(t, cam.Close())
	await(t, dev, "nothing held", func(s fakev4l2.Stats) bool { return !s.Streaming && s.Buffers == 0 && s.Open == 0 })
	if n := mappings(t, filepath.Dir(dev.Path())); n != 0 {
		t.Errorf("%d buffers are still mapped after Close", n)
	}
	if _, err := cam.Next(t.Context(), make([]byte, cam.Info().FrameBytes)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Next() after Close = %v; want %v", err, os.ErrClosed)
	}
}

func TestNextRefusesAShortDestination(t *testing.T) {
	cam := openCamera(t, wanted(plugIn(t, small).Path(), small))
	if _, err := cam.Next(t.Context(), make([]byte, cam.Info().FrameBytes-1)); err == nil {
		t.Error("Next() into a destination one byte short = nil; want an error")
	}
}

// TestOneCopy shows that a frame has no second home on its way: what the
// process allocates over many frames is less than one of them.
func TestOneCopy(t *testing.T) {
	has := fakev4l2.Config{Width: 1280, Height: 720, FourCC: "YUYV", FPS: 60}
	cam := openCamera(t, wanted(plugIn(t, has).Path(), has))
	dst := make([]byte, cam.Info().FrameBytes)
	next(t, cam, dst)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		if _, err := cam.Next(t.Context(), dst); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > uint64(len(dst))/10 {
		t.Errorf("20 frames of %d bytes allocated %d bytes; want next to none", len(dst), got)
	}
}
