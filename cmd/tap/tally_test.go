package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

const ms = time.Millisecond

// at is a message of epoch e that was captured at boot and took 3 ms.
func at(e msg.Epoch, seq msg.Seq, boot time.Duration) sample {
	return sample{epoch: e, seq: seq, boot: boot, at: boot + 3*ms, bus: 100, data: 1000}
}

func TestMeter(t *testing.T) {
	for _, c := range []struct {
		name         string
		samples      []sample
		heard, sent  uint64
		missed       uint64
		hz           float64
		neighbours   uint64
		least, most  float64
		deviation    float64
		runs         int
		newRunMarked bool
	}{
		{"one message", []sample{at(1, 7, 0)}, 1, 0, 0, math.NaN(), 0, math.NaN(), math.NaN(), math.NaN(), 1, false},
		{"even", []sample{at(1, 7, 0), at(1, 8, 20*ms), at(1, 9, 40*ms)}, 3, 2, 0, 50, 2, 0.02, 0.02, 0, 1, false},
		{"uneven", []sample{at(1, 0, 0), at(1, 1, 10*ms), at(1, 2, 40*ms)}, 3, 2, 0, 50, 2, 0.01, 0.03, 0.01, 1, false},
		{"a gap", []sample{at(1, 0, 0), at(1, 1, 20*ms), at(1, 9, 180*ms)}, 3, 9, 7, 50, 1, 0.02, 0.02, 0, 1, false},
		{"a new run", []sample{at(1, 5, 0), at(1, 6, 20*ms), at(2, 3, 5000*ms), at(2, 4, 5020*ms)}, 4, 2, 3, 50, 2, 0.02, 0.02, 0, 2, true},
		{"twice, and backwards", []sample{at(1, 5, 0), at(1, 5, 0), at(1, 4, 0), at(1, 6, 20*ms)}, 2, 1, 0, 50, 1, 0.02, 0.02, 0, 1, false},
		{"stamps that go backwards", []sample{at(1, 5, 40*ms), at(1, 6, 20*ms)}, 2, 1, 0, math.NaN(), 1, -0.02, -0.02, 0, 1, false},
	} {
		m := &meter{}
		for _, s := range c.samples {
			m.add(s)
		}
		got := m.look()
		if got.heard != c.heard || got.sent != c.sent || got.missed != c.missed || m.runs != c.runs || got.newRun != c.newRunMarked {
			t.Errorf("%s: heard %d, sent %d, missed %d, %d runs, new run %v; want %d, %d, %d, %d, %v", c.name,
				got.heard, got.sent, got.missed, m.runs, got.newRun, c.heard, c.sent, c.missed, c.runs, c.newRunMarked)
		}
		if r := got.rate(); !near(r, c.hz) {
			t.Errorf("%s: rate() = %v; want %v", c.name, r, c.hz)
		}
		i := got.intervals
		if i.n != c.neighbours || !near(i.least(), c.least) || !near(i.most(), c.most) || !near(i.deviation(), c.deviation) {
			t.Errorf("%s: intervals %d, %v to %v, deviation %v; want %d, %v to %v, %v", c.name,
				i.n, i.least(), i.most(), i.deviation(), c.neighbours, c.least, c.most, c.deviation)
		}
	}
}

func near(a, b float64) bool {
	return math.Abs(a-b) < 1e-9 || math.IsNaN(a) && math.IsNaN(b)
}

// The interval across a look belongs to the later one: nothing falls between.
func TestLooksAddUp(t *testing.T) {
	m := &meter{}
	var sum tally
	for i := range 100 {
		m.add(at(1, msg.Seq(2*i), time.Duration(i)*20*ms))
		if i%7 == 0 {
			one := m.look()
			sum.heard += one.heard
			sum.sent += one.sent
			sum.missed += one.missed
			sum.span += one.span
		}
	}
	if last := m.look(); sum.heard+last.heard != m.all.heard || sum.sent+last.sent != m.all.sent || sum.missed+last.missed != m.all.missed || sum.span+last.span != m.all.span {
		t.Errorf("looks add up to %d heard, %d sent, %d missed, %v; want %d, %d, %d, %v", sum.heard+last.heard, sum.sent+last.sent,
			sum.missed+last.missed, sum.span+last.span, m.all.heard, m.all.sent, m.all.missed, m.all.span)
	}
	if got := m.all.rate(); !near(got, 100) {
		t.Errorf("rate() = %v; want 100: every second message was missed", got)
	}
}

func TestHistogramQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	h := histogram{}
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(math.Exp(r.NormFloat64()*2 + 12)) // around 160 µs, over six decades
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[max(int(math.Ceil(q*float64(len(all)))), 1)-1].Seconds()
		if got := h.quantile(q); math.Abs(got-want) > want/64 {
			t.Errorf("quantile(%v) = %v; want %v within 1/64", q, got, want)
		}
	}
	if got := (&histogram{}).quantile(0.5); !math.IsNaN(got) {
		t.Errorf("quantile(0.5) of nothing = %v; want NaN", got)
	}
}

// Every duration has a bucket, and lies in it.
func TestHistogramBuckets(t *testing.T) {
	h := &histogram{}
	for shift := range 64 {
		for _, v := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1} {
			if v > math.MaxInt64 {
				continue
			}
			h.add(time.Duration(v))
			if got := middle(bucket(v)); math.Abs(float64(got)-float64(v)) > float64(v)/64 {
				t.Errorf("middle(bucket(%d)) = %d; want it within 1/64", v, got)
			}
		}
	}
	h.add(-time.Second)
	if h.min != 0 || h.max != math.MaxInt64 {
		t.Errorf("min, max = %v, %v; want 0, since a delay is not negative, and the longest", h.min, h.max)
	}
}
