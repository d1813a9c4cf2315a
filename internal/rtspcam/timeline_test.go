package rtspcam

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const (
	testRate = 90000
	frame    = 40 * time.Millisecond
	bootAt   = 1000 * time.Hour // of the first capture
)

// camera is a stream of pictures as it arrives at a timeline.
type camera struct {
	t      *testing.T
	line   timeline
	warned []string
	rtp0   uint32
	skew   float64 // of the camera's RTP clock: 0.01 runs 1 % fast
	lag    time.Duration
	hasLag bool
	synced bool
}

func newCamera(t *testing.T) *camera {
	c := &camera{t: t, rtp0: 0xffffff00} // it wraps
	c.line = timeline{rate: testRate, warn: func(kind, _ string) { c.warned = append(c.warned, kind) }}
	return c
}

// rtp is the RTP time of a capture.
func (c *camera) rtp(captured time.Duration) uint32 {
	ticks := (captured - bootAt).Seconds() * (1 + c.skew) * testRate
	return c.rtp0 + uint32(int64(ticks+0.5))
}

func (c *camera) arrives(captured, delay time.Duration) mark {
	return c.line.observe(c.rtp(captured), captured+delay, delay+c.lag, c.hasLag)
}

// get delivers a picture and returns how far off its time is.
func (c *camera) get(captured, delay time.Duration) time.Duration {
	m := c.arrives(captured, delay)
	return c.line.captured(m, c.synced) - captured
}

// wantOff runs n pictures with jitter and wants the worst of the later half
// within a limit of what is the least delay.
func (c *camera) wantOff(n int, from time.Duration, delay func(i int) time.Duration, want, within time.Duration) {
	c.t.Helper()
	worst := time.Duration(0)
	for i := range n {
		d := delay(i)
		off := c.get(from+time.Duration(i)*frame, d)
		if i >= n/2 && off > d {
			c.t.Errorf("picture %d has a time %v after its arrival", i, off-d)
		}
		if i >= n/2 {
			worst = max(worst, abs(off-want))
		}
	}
	if worst > within {
		c.t.Errorf("a picture's time is off by up to %v; want %v by up to %v", worst, want, within)
	}
}

func jitter(least, most time.Duration) func(int) time.Duration {
	random := rand.New(rand.NewPCG(1, 2))
	return func(i int) time.Duration {
		if i%20 == 7 {
			return least
		}
		return least + time.Duration(random.Int64N(int64(most-least)))
	}
}

func TestTimelineWithoutDelayIsExact(t *testing.T) {
	c := newCamera(t)
	for i := range 3000 {
		if off := c.get(bootAt+time.Duration(i)*frame, 0); abs(off) > 20*time.Microsecond {
			t.Fatalf("picture %d is off by %v; want 0", i, off)
		}
	}
}

func TestTimelineIgnoresJitter(t *testing.T) {
	newCamera(t).wantOff(1000, bootAt, jitter(5*time.Millisecond, 300*time.Millisecond), 5*time.Millisecond, time.Millisecond)
}

func TestTimelineFollowsClocksThatDrift(t *testing.T) {
	for _, skew := range []float64{1e-4, -1e-4, 0.01, -0.01} {
		c := newCamera(t)
		c.skew = skew
		c.wantOff(5000, bootAt, jitter(5*time.Millisecond, 60*time.Millisecond), 5*time.Millisecond, 5*time.Millisecond+time.Duration(9*max(skew, -skew)*float64(time.Second)))
		if len(c.warned) > 0 {
			t.Errorf("skew %g: warned of %v; want nothing", skew, c.warned)
		}
	}
}

// A network that stands still for 4 s and then delivers all at once.
func TestTimelineOutlastsAStall(t *testing.T) {
	c := newCamera(t)
	for i := range 1000 {
		at, delay := bootAt+time.Duration(i)*frame, 5*time.Millisecond
		if i >= 500 && i < 600 {
			delay = bootAt + 600*frame - at
		}
		if off := c.get(at, delay); abs(off-5*time.Millisecond) > time.Millisecond {
			t.Fatalf("picture %d is off by %v; want 5ms", i, off)
		}
	}
}

// Pictures of the past come at once before the live ones: all are observed
// before the first is delivered.
func TestTimelineOfABurst(t *testing.T) {
	c := newCamera(t)
	var marks []mark
	const past = 25
	for i := range past {
		marks = append(marks, c.line.observe(c.rtp(bootAt+time.Duration(i)*frame), bootAt+past*frame, 0, false))
	}
	for i, m := range marks {
		if off := c.line.captured(m, false) - bootAt - time.Duration(i)*frame; off != frame {
			t.Errorf("picture %d of the past is off by %v; want %v, the age of the newest", i, off, frame)
		}
	}
}

func TestTimelineOfBFrames(t *testing.T) {
	c := newCamera(t)
	at := map[int]time.Duration{}
	for group := 0; group < 300; group += 3 {
		for _, i := range []int{group + 3, group + 1, group + 2} { // sent when the third one has been captured
			m := c.line.observe(c.rtp(bootAt+time.Duration(i)*frame), bootAt+time.Duration(group+3)*frame, 0, false)
			at[i] = c.line.captured(m, false)
		}
	}
	for i := 1; i <= 300; i++ {
		if off := at[i] - bootAt - time.Duration(i)*frame; abs(off) > 20*time.Microsecond {
			t.Errorf("picture %d is off by %v; want 0", i, off)
		}
	}
}

func TestTimelineToleratesJumps(t *testing.T) {
	for name, jump := range map[string]func(i int) time.Duration{
		"one past":     func(i int) time.Duration { return map[bool]time.Duration{i%30 == 5: -9800 * time.Second}[true] },
		"one future":   func(i int) time.Duration { return map[bool]time.Duration{i%30 == 5: 20000 * time.Second}[true] },
		"a new origin": func(i int) time.Duration { return map[bool]time.Duration{i >= 100: -200 * time.Second}[true] },
		"a jump ahead": func(i int) time.Duration { return map[bool]time.Duration{i >= 100: 200 * time.Second}[true] },
	} {
		c := newCamera(t)
		last := time.Duration(0)
		for i := range 500 {
			captured := bootAt + time.Duration(i)*frame
			m := c.line.observe(c.rtp(captured+jump(i)), captured+5*time.Millisecond, 0, false)
			at := c.line.captured(m, false)
			if off := at - captured; abs(off) > 6*time.Millisecond || at <= last {
				t.Errorf("%s: picture %d is off by %v, %v after the last one; want at most 5ms, and rising", name, i, off, at-last)
			}
			last = at
		}
	}
}

func TestTimelineThatStandsStill(t *testing.T) {
	c := newCamera(t)
	last := time.Duration(0)
	for i := range 100 {
		captured := bootAt + time.Duration(i)*frame
		m := c.line.observe(7, captured+5*time.Millisecond, 0, false)
		at := c.line.captured(m, false)
		if at <= last || i > stillLimit && at-captured != 5*time.Millisecond {
			t.Errorf("picture %d is off by %v; want the time of its arrival, 5ms", i, at-captured)
		}
		last = at
	}
	if got := strings.Join(c.warned, " "); !strings.HasPrefix(got, "still") {
		t.Errorf("warned of %q; want still", got)
	}
}

// A camera that sends 15 pictures a second and dates them as 25.
func TestTimelineThatIsUseless(t *testing.T) {
	c := newCamera(t)
	c.skew = -0.4
	c.wantOff(4000, bootAt, jitter(5*time.Millisecond, 30*time.Millisecond), 17*time.Millisecond, 13*time.Millisecond)
	if got := strings.Join(c.warned, " "); !strings.Contains(got, "skew") {
		t.Errorf("warned of %q; want skew", got)
	}
}

func TestTimelineBelievesAClockThatMayBeRight(t *testing.T) {
	const encoder, network = 150 * time.Millisecond, 10 * time.Millisecond
	for _, test := range []struct {
		name    string
		off     time.Duration // of the camera's wall clock
		synced  bool
		hasLag  bool
		believe bool
	}{
		{"right", 0, true, true, true},
		{"a little slow", 30 * time.Millisecond, true, true, true}, // cannot be told from a longer delay
		{"our own is not synchronised", 0, false, true, false},
		{"ahead", -time.Second, true, true, false},
		{"years off", 3 * 365 * 24 * time.Hour, true, true, false},
		{"no sender reports", 0, true, false, false},
	} {
		c := newCamera(t)
		c.synced, c.hasLag, c.lag = test.synced, test.hasLag, test.off
		want := encoder + network
		if test.believe {
			want = -test.off
		}
		c.wantOff(1000, bootAt, jitter(encoder+network, encoder+100*time.Millisecond), want, time.Millisecond)
		if t.Failed() {
			t.Fatal(test.name)
		}
	}
}
