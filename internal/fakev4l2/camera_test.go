package fakev4l2

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var tiny = Config{Width: 16, Height: 8, FourCC: "YUYV", FPS: 10}

// streaming returns a camera that streams into n buffers, without FUSE.
func streaming(t *testing.T, n uint32) (*camera, *handle) {
	t.Helper()
	c, err := newCamera(tiny)
	if err != nil {
		t.Fatal(err)
	}
	c.store = func(int64, []byte) syscall.Errno { return 0 }
	h := &handle{nonblock: true}
	c.stats.Open++
	if got, errno := c.allocate(h, n); got != n || errno != 0 {
		t.Fatalf("allocate(%d) = %d, %v; want %[1]d", n, got, errno)
	}
	for i := range n {
		if errno := c.enqueue(h, i); errno != 0 {
			t.Fatalf("enqueue(%d) = %v", i, errno)
		}
	}
	if errno := c.streamOn(h); errno != 0 {
		t.Fatalf("streamOn() = %v", errno)
	}
	return c, h
}

func wantFrame(t *testing.T, c *camera, h *handle, sequence uint32) filled {
	t.Helper()
	f, errno := c.dequeue(context.Background(), h)
	if errno != 0 || f.sequence != sequence {
		t.Fatalf("dequeue() = frame %d, %v; want frame %d", f.sequence, errno, sequence)
	}
	return f
}

func wantError(t *testing.T, c *camera, h *handle, want syscall.Errno) {
	t.Helper()
	if f, errno := c.dequeue(context.Background(), h); errno != want {
		t.Fatalf("dequeue() = frame %d, %v; want %v", f.sequence, errno, want)
	}
}

func TestCameraKeepsItsPaceAndLosesWhatHasNoBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h := streaming(t, 2)
		defer c.release(h)
		wantError(t, c, h, syscall.EAGAIN) // 20 ms after the start of the first 100
		time.Sleep(81 * time.Millisecond)
		f := wantFrame(t, c, h, 0)
		if errno := c.enqueue(h, uint32(f.index)); errno != 0 {
			t.Fatalf("enqueue(%d) = %v", f.index, errno)
		}
		time.Sleep(500 * time.Millisecond) // five frames, two buffers
		wantFrame(t, c, h, 1)
		f = wantFrame(t, c, h, 2)
		if got := c.statistics(); got.Captured != 3 || got.Lost != 3 {
			t.Errorf("statistics() = %+v; want 3 captured, 3 lost", got)
		}
		c.enqueue(h, uint32(f.index))
		time.Sleep(100 * time.Millisecond)
		wantFrame(t, c, h, 6)
	})
}

func TestCameraStallsAndSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h := streaming(t, 4)
		defer c.release(h)
		disturb := func(v verb, n uint32) {
			if err := c.disturb(command{Verb: v, Count: n}); err != nil {
				t.Fatal(err)
			}
		}
		disturb(verbStall, 0)
		time.Sleep(time.Hour)
		wantError(t, c, h, syscall.EAGAIN)
		disturb(verbSkip, 5)
		disturb(verbCorrupt, 0)
		disturb(verbTruncate, 7)
		disturb(verbResume, 0)
		time.Sleep(201 * time.Millisecond)
		if f := wantFrame(t, c, h, 5); f.flags&bufFlagError == 0 || f.used != 7 {
			t.Errorf("frame = %+v; want flagged as bad, 7 bytes", f)
		}
		if f := wantFrame(t, c, h, 6); f.flags&bufFlagError != 0 || f.used != 2*16*8 {
			t.Errorf("frame = %+v; want a good one", f)
		}
	})
}

func TestCameraBelongsToOneDescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h := streaming(t, 2)
		other := &handle{}
		if _, errno := c.allocate(other, 2); errno != syscall.EBUSY {
			t.Errorf("allocate() by a second descriptor = %v; want EBUSY", errno)
		}
		if errno := c.enqueue(h, 0); errno != syscall.EINVAL {
			t.Errorf("enqueue() of a queued buffer = %v; want EINVAL", errno)
		}
		if errno := c.streamOff(other); errno != syscall.EINVAL {
			t.Errorf("streamOff() by a second descriptor = %v; want EINVAL", errno)
		}
		c.release(h)
		if got := c.statistics(); got.Streaming || got.Buffers != 0 {
			t.Errorf("statistics() after release = %+v; want no stream and no buffers", got)
		}
		if _, errno := c.allocate(other, 2); errno != 0 {
			t.Errorf("allocate() after the first descriptor was closed = %v", errno)
		}
	})
}

func TestUnpluggedCameraAnswersENODEV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h := streaming(t, 2)
		defer c.release(h)
		waiting := make(chan syscall.Errno)
		go func() {
			_, errno := c.dequeue(context.Background(), h)
			waiting <- errno
		}()
		synctest.Wait()
		close(c.gone)
		if errno := <-waiting; errno != syscall.ENODEV {
			t.Errorf("dequeue() while unplugged = %v; want ENODEV", errno)
		}
		if errno := c.ioctl(context.Background(), h, vidiocQuerycap, make(arg, sizeofCapability)); errno != syscall.ENODEV {
			t.Errorf("QUERYCAP after unplug = %v; want ENODEV", errno)
		}
	})
}

func TestUnknownRequestsGetENOTTY(t *testing.T) {
	c, err := newCamera(tiny)
	if err != nil {
		t.Fatal(err)
	}
	const vidiocGExtCtrls = iowr | 32<<16 | 71
	if errno := c.ioctl(context.Background(), &handle{}, vidiocGExtCtrls, make(arg, 32)); errno != syscall.ENOTTY {
		t.Errorf("G_EXT_CTRLS = %v; want ENOTTY", errno)
	}
}

func TestConfigIsRefusedWithAllReasons(t *testing.T) {
	_, err := newCamera(Config{Width: 3, Height: 2, FourCC: "H264", FPS: 0, LinePadding: 1})
	if err == nil {
		t.Fatal("newCamera(nonsense) = nil; want an error")
	}
	for _, want := range []string{"size 3x2", `fourcc "H264"`, "fps 0", "line padding 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("newCamera(nonsense) = %v; want it to say %q", err, want)
		}
	}
}
