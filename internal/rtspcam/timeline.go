package rtspcam

import (
	"fmt"
	"math"
	"time"
)

// timeline maps the RTP times of one stream to this machine's boot clock: see
// the package comment, "When a picture was captured". observe is called for each
// picture as it arrives, captured for each as it is delivered.
type timeline struct {
	rate int // of the RTP clock, ticks a second
	warn func(kind, text string)

	begun   bool
	last    uint32        // RTP time of the last picture
	pts     time.Duration // the same, unwrapped, from that of the first one
	arrived time.Duration

	buckets   []bucket // the newest is the last
	origin    bucket   // the first one that was complete
	candidate time.Duration
	doubtful  bool // the last picture was off by candidate
	still     int  // pictures in a row with the same RTP time
	useless   bool // the RTP clock runs at a rate of its own

	applied struct { // what captured uses, which follows the above gradually
		begun       bool
		offset, lag time.Duration
		pts, latest time.Duration // of the last picture, and of the latest one
		captured    time.Duration // of the latest one
	}
}

// bucket has the least delays of the pictures that arrived in about a second.
type bucket struct {
	begin  time.Duration
	n      int
	offset time.Duration // arrival minus RTP time
	lag    time.Duration // arrival minus the capture by the camera's clock
	lags   int
}

// mark is the place of a picture in the timeline.
type mark struct {
	pts       time.Duration
	arrived   time.Duration // the first packet of it
	byArrival bool          // the RTP time means nothing
	repeated  bool          // the RTP time is that of the picture before
}

const (
	bucketTime  = time.Second
	bucketLeast = 4 // pictures, so that a camera at 1 Hz has a window too
	buckets     = 8

	mostLate   = 15 * time.Second // a stream that is silent for as long has ended before
	mostEarly  = 2 * time.Second  // this far the offset may be corrected at once
	agreement  = time.Second
	stillLimit = 5
	mostLag    = 500 * time.Millisecond
	slew       = 20 // a correction takes as many times as long

	leastGap = 2 * time.Microsecond

	judgeAfter = 30 * time.Second
	mostSkew   = 0.02
)

// observe notes a picture. lag is the time from its capture to its arrival by
// the camera's wall clock, if known.
func (t *timeline) observe(rtp uint32, arrived time.Duration, lag time.Duration, hasLag bool) mark {
	if !t.begun {
		t.begun, t.last, t.arrived = true, rtp, arrived
		t.add(arrived, 0, lag, hasLag)
		return mark{arrived: arrived}
	}
	ticks := int64(int32(rtp - t.last))
	t.last = rtp
	t.pts += time.Duration(ticks) * time.Second / time.Duration(t.rate)
	t.arrived = arrived
	m := mark{pts: t.pts, arrived: arrived}
	if ticks == 0 {
		m.repeated = true
		if t.still++; t.still >= stillLimit {
			t.warn("still", "the camera's RTP times stand still: frames have the times of their arrival")
			m.byArrival, m.repeated = true, false
		}
		return m
	}
	t.still = 0
	if off := arrived - t.pts; t.off(off) {
		if !t.doubtful || abs(off-t.candidate) > agreement {
			t.doubtful, t.candidate, m.byArrival = true, off, true
			return m
		}
		t.warn("jump", fmt.Sprintf("the camera's RTP times jumped by %v: counting from there", (t.least().offset-off).Round(time.Millisecond)))
		t.buckets, t.origin, t.applied.begun = nil, bucket{}, false
	}
	t.doubtful = false
	t.add(arrived, t.pts, lag, hasLag)
	m.byArrival = t.useless
	return m
}

// off reports an offset that no delay explains.
func (t *timeline) off(offset time.Duration) bool {
	least := t.least().offset
	return offset > least+mostLate || offset < least-mostEarly
}

func (t *timeline) add(arrived, pts, lag time.Duration, hasLag bool) {
	if n := len(t.buckets); n == 0 || arrived-t.buckets[n-1].begin >= bucketTime && t.buckets[n-1].n >= bucketLeast {
		t.complete()
		t.buckets = append(t.buckets, bucket{begin: arrived, offset: math.MaxInt64, lag: math.MaxInt64})
		if len(t.buckets) > buckets {
			t.buckets = t.buckets[1:]
		}
	}
	b := &t.buckets[len(t.buckets)-1]
	b.n++
	b.offset = min(b.offset, arrived-pts)
	if hasLag {
		b.lag = min(b.lag, lag)
		b.lags++
	}
}

// complete judges the RTP clock by the newest bucket, now that it is complete.
func (t *timeline) complete() {
	n := len(t.buckets)
	if n == 0 {
		return
	}
	if b := t.buckets[n-1]; t.origin.n == 0 {
		if n >= 3 { // by then what came at the beginning has been caught up with
			t.origin = b
		}
	} else if passed := b.begin - t.origin.begin; passed >= judgeAfter {
		skew := float64(b.offset-t.origin.offset) / float64(passed)
		if t.useless = math.Abs(skew) > mostSkew; t.useless {
			t.warn("skew", fmt.Sprintf("the camera's RTP clock is wrong by %.1f %%: frames have the times of their arrival", -100*skew))
		}
		t.origin = b
	}
}

// least has the least delays of the window.
func (t *timeline) least() bucket {
	least := bucket{offset: math.MaxInt64, lag: math.MaxInt64}
	for _, b := range t.buckets {
		least.n += b.n
		least.lags += b.lags
		least.offset = min(least.offset, b.offset)
		least.lag = min(least.lag, b.lag)
	}
	return least
}

// captured is when a picture was captured: later than all pictures that it
// follows, and before it arrived, unless it follows one that came very late, before
// the offset was known. synced means that this machine's wall clock is right.
func (t *timeline) captured(m mark, synced bool) time.Duration {
	least := t.least()
	lag := time.Duration(0)
	if synced && len(t.buckets) > 2 && least.lags == least.n && least.lag > 0 && least.lag <= mostLag {
		lag = least.lag
	}
	a := &t.applied
	if !a.begun {
		a.begun, a.offset, a.lag, a.latest = true, least.offset, lag, m.pts-1
	} else {
		step := max(m.pts-a.pts, 0) / slew
		a.offset = min(least.offset, a.offset+step)
		a.lag += min(max(lag-a.lag, -step), step)
	}
	if m.byArrival {
		a.captured = max(m.arrived, a.captured+leastGap)
		return a.captured
	}
	a.pts = m.pts
	at := min(m.pts+a.offset-a.lag, m.arrived)
	if m.pts < a.latest { // it is shown before one that came before it
		return at
	}
	a.latest, a.captured = m.pts, max(at, a.captured+leastGap)
	return a.captured
}

func abs(d time.Duration) time.Duration { return max(d, -d) }
