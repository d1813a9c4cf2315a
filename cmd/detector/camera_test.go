package main

import (
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// detectorEntry is the table of a detector "eye" beside a camera that the test is.
func detectorEntry(settings string) string {
	return `[sensor.cam]
program = "cam"
[sensor.cam.stream.video]
[worker.eye]
program = "detector"
source = "cam"
` + settings + "\n"
}

// camera is the test as a camera.
type camera struct {
	t       *testing.T
	clock   *clock.Clock
	out     *msg.FrameStream
	picture []byte // of the next frame
}

func newCamera(t *testing.T, b *boxtest.Box, f pixel.Format, s pixel.Size) *camera {
	t.Helper()
	planes, n, err := pixel.Layout(f, s)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := b.Bus("cam").Publisher()
	if err != nil {
		t.Fatal(err)
	}
	c, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	out, err := pub.Frames("video", msg.Geometry{Format: string(f), Width: s.Width, Height: s.Height, Planes: planes, Hz: 30}, 8, n)
	if err != nil {
		t.Fatal(err)
	}
	return &camera{t: t, clock: c, out: out, picture: make([]byte, n)}
}

// gate waits for the detector.
func (c *camera) gate() {
	c.t.Helper()
	boxtest.Poll(c.t, "the detector to open the ring", func() bool {
		return len(c.out.Gate([]string{"eye"}, 100*time.Millisecond, nil)) == 0
	})
}

// publish publishes the picture, or its first bytes.
func (c *camera) publish(bytes ...int) msg.Stamp {
	c.t.Helper()
	n := len(c.picture)
	if len(bytes) > 0 {
		n = bytes[0]
	}
	return c.stamped(n, c.clock.Now())
}

// publishLater publishes the picture as one that is taken after that time.
func (c *camera) publishLater(after time.Duration) {
	c.t.Helper()
	stamp := c.clock.Now()
	stamp.Boot += after
	stamp.Wall = stamp.Wall.Add(after)
	c.stamped(len(c.picture), stamp)
}

func (c *camera) stamped(n int, stamp msg.Stamp) msg.Stamp {
	c.t.Helper()
	slot, err := c.out.Claim()
	if err != nil {
		c.t.Fatal(err)
	}
	copy(slot.Bytes(), c.picture[:n])
	if _, err := slot.Publish(n, stamp); err != nil {
		c.t.Fatal(err)
	}
	return stamp
}
