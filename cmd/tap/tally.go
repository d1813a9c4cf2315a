package main

import (
	"math"
	"math/bits"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// sample is what is measured of one message.
type sample struct {
	epoch msg.Epoch
	seq   msg.Seq
	boot  time.Duration // its own stamp
	at    time.Duration // of its arrival
	bus   int           // bytes on the bus
	data  int           // bytes in shared memory, of frames
}

// tally sums up samples of one stream.
type tally struct {
	heard     uint64
	sent      uint64        // messages by their numbers, between those that were heard
	span      time.Duration // the time that sent took, by their stamps
	missed    uint64        // sent and not heard
	newRun    bool          // its publisher came back as another run
	intervals spread        // seconds, between neighbours
	bus, data float64       // bytes of those heard
	delays    histogram
}

// rate is in messages a second; NaN when no two were heard.
func (t *tally) rate() float64 {
	if t.sent == 0 || t.span <= 0 {
		return math.NaN()
	}
	return float64(t.sent) / t.span.Seconds()
}

// perSecond scales the bytes of the messages heard to all that were sent.
func (t *tally) perSecond(bytes float64) float64 {
	return t.rate() * bytes / float64(t.heard)
}

// meter measures one stream: in all, and since the last look.
type meter struct {
	runs       int // epochs heard
	last       sample
	all, since tally
}

// add takes a message. One that is not later than the last one heard, which no
// publisher sends, is left out.
func (m *meter) add(s sample) {
	newRun := m.runs == 0 || s.epoch != m.last.epoch
	if !newRun && s.seq <= m.last.seq {
		return
	}
	for _, t := range []*tally{&m.all, &m.since} {
		t.heard++
		t.bus += float64(s.bus)
		t.data += float64(s.data)
		t.delays.add(s.at - s.boot)
		switch {
		case !newRun:
			steps := uint64(s.seq - m.last.seq)
			t.sent += steps
			t.span += s.boot - m.last.boot
			t.missed += steps - 1
			if steps == 1 {
				t.intervals.add((s.boot - m.last.boot).Seconds())
			}
		case m.runs > 0: // the run before was heard: this one's beginning was missed
			t.missed += uint64(s.seq)
			t.newRun = true
		}
	}
	if newRun {
		m.runs++
	}
	m.last = s
}

// look returns what was added since the last look.
func (m *meter) look() tally {
	t := m.since
	m.since = tally{}
	return t
}

// spread keeps the extremes and the standard deviation of numbers in one pass
// (Welford 1962, https://doi.org/10.1080/00401706.1962.10490022).
type spread struct {
	n          uint64
	min, max   float64
	mean, sumS float64
}

func (s *spread) add(v float64) {
	if s.n++; s.n == 1 {
		s.min, s.max = v, v
	}
	s.min, s.max = min(s.min, v), max(s.max, v)
	d := v - s.mean
	s.mean += d / float64(s.n)
	s.sumS += d * (v - s.mean)
}

// least, most and deviation are NaN when there are no numbers.
func (s *spread) least() float64     { return orNaN(s.min, s.n) }
func (s *spread) most() float64      { return orNaN(s.max, s.n) }
func (s *spread) deviation() float64 { return orNaN(math.Sqrt(s.sumS/float64(max(s.n, 1))), s.n) }

func orNaN(v float64, n uint64) float64 {
	if n == 0 {
		return math.NaN()
	}
	return v
}

// histogram counts durations in buckets 1/32 of an octave wide, in constant
// memory: a quantile is right within 1/64.
type histogram struct {
	n        uint64
	min, max time.Duration
	counts   [(64 - subBits) << subBits]uint64
}

const subBits = 5

// add counts a duration; a negative one, which a clock that steps could make,
// counts as 0.
func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	if h.n++; h.n == 1 {
		h.min, h.max = d, d
	}
	h.min, h.max = min(h.min, d), max(h.max, d)
	h.counts[bucket(uint64(d))]++
}

// bucket is exact below 2^subBits, and keeps the first subBits+1 bits above.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// middle is the middle of a bucket.
func middle(b int) uint64 {
	shift := max(b>>subBits-1, 0)
	low := uint64(b-shift<<subBits) << shift
	return low + (1<<shift)/2
}

// quantile returns the duration that a part q of all are not above, in seconds;
// NaN when there are none.
func (h *histogram) quantile(q float64) float64 {
	rank := uint64(math.Ceil(q * float64(h.n)))
	seen := uint64(0)
	for b, n := range h.counts {
		if seen += n; seen >= max(rank, 1) {
			d := time.Duration(middle(b))
			return min(max(d, h.min), h.max).Seconds()
		}
	}
	return math.NaN()
}
