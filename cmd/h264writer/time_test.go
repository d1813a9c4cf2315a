package main

import (
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

func small() pixel.Size { return pixel.Size{Width: 64, Height: 48} }

// begin starts a writer, with a camera that it reads and its states.
func begin(t *testing.T, settings string) (*boxtest.Box, *camera, *boxtest.Feed, *boxtest.Process) {
	t.Helper()
	needFFmpeg(t)
	b := boxtest.New(t, fleet(settings))
	c := newCamera(t, b, pixel.YUV420, small(), 25)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	return b, c, states, p
}

// Twenty frames, a second without any, and twenty more are 2.6 s of video: the
// still stands as long as the gap.
func TestAGapDoesNotShortenTheVideo(t *testing.T) {
	t.Parallel()
	b, c, states, p := begin(t, `segment = "4s"`)
	at := c.film(c.bus.Clock().Now(), 20)
	c.film(later(at, time.Second), 20)
	states.State("all frames", fed(40))
	p.Stop()
	list := born(t, b)
	if got, want := briefs(list), "0-39"; got != want {
		t.Fatalf("segments %s; want %s", got, want)
	}
	probed := wantTrue(t, b, list[0])
	if got, want := probed.times[20]-probed.times[19], time.Second+step; (got - want).Abs() > time.Millisecond {
		t.Errorf("picture 20 comes %s after picture 19; want %s", got, want)
	}
}

// Each frame keeps its own time, however irregular, and whenever it comes.
func TestFramesKeepTheirOwnTimes(t *testing.T) {
	t.Parallel()
	b, c, states, p := begin(t, `segment = "2s"`)
	at := c.bus.Clock().Now()
	var want []time.Duration
	for i := range 50 {
		c.publish(later(at, time.Duration(i*i)*time.Millisecond)) // all at once
		want = append(want, time.Duration(i*i)*time.Millisecond)
	}
	states.State("all frames", fed(50))
	p.Stop()
	list := born(t, b)
	if got, want := briefs(list), "0-44, 45-49"; got != want {
		t.Fatalf("segments %s; want %s", got, want)
	}
	for _, s := range list {
		first := want[s.Start.Seq]
		for i, got := range probe(t, where(b, s)).times {
			if diff := got - (want[int(s.Start.Seq)+i] - first); diff.Abs() > 50*time.Microsecond {
				t.Errorf("frame %d is shown at %s of its segment; want %s", int(s.Start.Seq)+i, got, want[int(s.Start.Seq)+i]-first)
			}
		}
	}
}

// The wall clock goes an hour forward and two back: boot time rules.
func TestAClockStepDoesNothing(t *testing.T) {
	t.Parallel()
	b, c, states, p := begin(t, `segment = "1s"`)
	at := c.film(c.bus.Clock().Now(), 20)
	at.Wall = at.Wall.Add(time.Hour)
	at = c.film(at, 20)
	at.Wall = at.Wall.Add(-2 * time.Hour)
	c.film(at, 20)
	states.State("all frames", fed(60))
	p.Stop()
	list := born(t, b)
	if got, want := briefs(list), "0-24, 25-49, 50-59"; got != want {
		t.Fatalf("segments %s; want %s", got, want)
	}
	for _, s := range list {
		wantTrue(t, b, s)
	}
	if first := list[0]; !first.End.Time.After(first.Start.Time.Add(time.Hour)) {
		t.Errorf("the first segment is from %s to %s; want the wall clock's own word", first.Start.Time, first.End.Time)
	}
}

// A silent source closes the segment without being asked, and the next frame
// begins another.
func TestSilenceClosesTheSegment(t *testing.T) {
	t.Parallel()
	b, c, states, p := begin(t, `segment = "1s"`)
	c.film(c.bus.Clock().Now(), 10)
	boxtest.Poll(t, "the segment to be filed", func() bool { return len(born(t, b)) == 1 })
	c.film(c.bus.Clock().Now(), 10)
	states.State("all frames", fed(20))
	p.Stop()
	list := born(t, b)
	if got, want := briefs(list), "0-9, 10-19"; got != want {
		t.Fatalf("segments %s; want %s", got, want)
	}
	wantNothingLeft(t, b)
}

// Stamps that jump by a segment's length or more begin anew, also when they
// come without a pause.
func TestAJumpOfTheTimesBeginsAnew(t *testing.T) {
	t.Parallel()
	b, c, states, p := begin(t, `segment = "4s"`)
	at := c.film(c.bus.Clock().Now(), 10)
	at = c.film(later(at, 100*time.Hour), 10)
	c.film(later(at, -90*time.Hour), 10)
	states.State("all frames", fed(30))
	p.Stop()
	if got, want := briefs(born(t, b)), "0-9, 20-29, 10-19"; got != want { // in the order of boot time
		t.Fatalf("segments %s; want %s", got, want)
	}
}

// Two frames of one moment are both there.
func TestFramesOfOneMoment(t *testing.T) {
	t.Parallel()
	b, c, states, p := begin(t, `segment = "1s"`)
	at := c.bus.Clock().Now()
	for range 5 {
		c.publish(at)
	}
	s := states.State("all frames", fed(5))
	p.Stop()
	if got := s.Counters["irregular_frames"]; got != 4 {
		t.Errorf("irregular_frames = %d; want 4", got)
	}
	list := born(t, b)
	if len(list) != 1 || list[0].Items != 5 {
		t.Errorf("segments %s; want one of 5 frames", briefs(list))
	}
}

// A source that ends closes the segment; its next run begins another, and the
// frames are counted from its beginning.
func TestASourceEndsAndComesAgain(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet(`segment = "4s"`))
	bus, err := msg.Open(msg.Config{Node: "box", Name: "porch", RunDir: b.Dir + "/run", ShmDir: b.Dir + "/shm"})
	if err != nil {
		t.Fatal(err)
	}
	c := newCameraOn(t, bus, pixel.YUV420, small(), 25)
	p := b.Start("h264writer", "clips")
	c.ready()
	c.film(bus.Clock().Now(), 10)
	if err := bus.Close(); err != nil {
		t.Fatal(err)
	}
	boxtest.Poll(t, "the segment to be filed", func() bool { return len(born(t, b)) == 1 })
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	c = newCamera(t, b, pixel.NV12, pixel.Size{Width: 80, Height: 48}, 25)
	c.ready()
	c.film(c.bus.Clock().Now(), 10)
	states.State("all frames", fed(20))
	p.Stop()
	list := born(t, b)
	if got, want := briefs(list), "0-9, 0-9"; got != want {
		t.Fatalf("segments %s; want %s", got, want)
	}
	if list[0].Start.Epoch == list[1].Start.Epoch {
		t.Error("two runs of the source have one epoch")
	}
}
