package main

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// Frames that are lent to the pipe are not overwritten before ffmpeg has read
// them, however few slots there are: each picture is of one brightness, its own.
func TestLentFramesAreWhole(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet("segment = \"60s\"\ncrf = 5\nstall_after = \"2m\"")) // it stands still at our will
	size := pixel.Size{Width: 608, Height: 592}                                    // a little more than a pipe takes
	planes, bytes, err := pixel.Layout(pixel.RGB24, size)
	if err != nil {
		t.Fatal(err)
	}
	bus := b.Bus("porch")
	pub, err := bus.Publisher()
	if err != nil {
		t.Fatal(err)
	}
	c := &camera{t: t, bus: bus, pub: pub, size: bytes}
	if c.out, err = pub.Frames("video", msg.Geometry{Format: "rgb24", Width: size.Width, Height: size.Height, Planes: planes, Hz: 50}, 4, bytes); err != nil {
		t.Fatal(err)
	}
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	at := bus.Clock().Now()
	for i := range 600 { // far more than ffmpeg can take: the ring goes round all the while
		<-tick.C
		for _, pid := range children(p.PID()) { // and ffmpeg stands still most of the time, wherever it is
			signal := syscall.SIGSTOP
			if i%8 == 0 || i > 580 {
				signal = syscall.SIGCONT
			}
			_ = syscall.Kill(pid, signal)
		}
		c.publish(at)
		at = later(at, 20*time.Millisecond)
	}
	states.State("the last frame", func(s msg.State) bool { return len(s.Sources) == 1 && s.Sources[0].Sent == 600 })
	p.Stop()
	list := born(t, b)
	if len(list) != 1 || list[0].Items < 10 {
		t.Fatalf("segments %s; want one of many frames", briefs(list))
	}
	times := probe(t, where(b, list[0])).times
	luma, err := exec.Command("ffmpeg", "-v", "error", "-i", where(b, list[0]), "-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "-").Output()
	if err != nil || len(luma) != len(times)*size.Width*size.Height {
		t.Fatalf("decoded %d bytes of %d pictures, %v", len(luma), len(times), err)
	}
	for i, at := range times {
		seq := int(list[0].Start.Seq) + int((at+time.Millisecond)/(20*time.Millisecond))
		want := 16 + seq*5%200
		for n, got := range luma[i*size.Width*size.Height:][:size.Width*size.Height] {
			if d := int(got) - want; d < -4 || d > 4 {
				t.Fatalf("frame %d has brightness %d at pixel %d; want %d all over", seq, got, n, want)
			}
		}
	}
}
