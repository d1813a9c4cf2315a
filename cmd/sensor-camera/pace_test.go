package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Of frames that come at a steady rate just these stay.
func TestPacerChooses(t *testing.T) {
	for _, test := range []struct {
		source, wanted float64
		want           []int // the first ones
		of10s          int
	}{
		{30, 0, []int{0, 1, 2, 3}, 300},
		{30, 30, []int{0, 1, 2, 3}, 300},
		{29.97, 30, []int{0, 1, 2, 3}, 299},
		{60, 30, []int{0, 2, 4, 6}, 300},
		{45, 30, []int{0, 1, 3, 4, 6, 7}, 300},
		{50, 20, []int{0, 2, 5, 7, 10, 12}, 200},
		{30, 15, []int{0, 2, 4, 6}, 150},
		{30, 1, []int{0, 30, 60, 90}, 10},
		{30, 0.1, []int{0}, 1},
		{5, 30, []int{0, 1, 2, 3}, 50},
		{30.03, 30, []int{0, 1, 2, 3}, 300},
	} {
		p := pacer{hz: test.wanted}
		var taken []int
		for i := range int(test.source * 10) {
			if p.take(time.Hour + time.Duration(float64(i)/test.source*1e9)) {
				taken = append(taken, i)
			}
		}
		if got := taken[:min(len(test.want), len(taken))]; !slices.Equal(got, test.want) || len(taken) != test.of10s {
			t.Errorf("of %g frames a second at capture_hz %g: %v and %d in 10 s; want %v and %d", test.source, test.wanted, got, len(taken), test.want, test.of10s)
		}
	}
}

// Frames that come late, early or in bursts: in no stretch of time are there
// more than it is worth, and few less.
func TestPacerWithJitter(t *testing.T) {
	for _, test := range []struct {
		source, wanted float64
		jitter         time.Duration
		least          int // of 10 s
	}{
		{30, 30, 10 * time.Millisecond, 300},
		{29.97, 30, 10 * time.Millisecond, 299},
		{60, 30, 5 * time.Millisecond, 299},
		{60, 20, 16 * time.Millisecond, 198},
		{100, 10, 9 * time.Millisecond, 99},
	} {
		random := rand.New(rand.NewPCG(1, 2))
		p := pacer{hz: test.wanted}
		var taken []float64
		for i := range int(test.source * 10) {
			at := time.Hour + time.Duration(float64(i)/test.source*1e9) + time.Duration(random.Int64N(int64(test.jitter)))
			if p.take(at) {
				taken = append(taken, at.Seconds())
			}
		}
		wantAtMost(t, taken, test.wanted)
		if len(taken) < test.least {
			t.Errorf("of %g frames a second for 10 s at capture_hz %g: %d; want %d", test.source, test.wanted, len(taken), test.least)
		}
	}
}

func TestPacerAfterASilence(t *testing.T) {
	p := pacer{hz: 10}
	var taken []float64
	for _, at := range []float64{0, 0.05, 0.1, 5, 5.01, 5.02, 5.1, 5.15, 5.2} {
		if p.take(time.Duration(at * 1e9)) {
			taken = append(taken, at)
		}
	}
	if want := []float64{0, 0.1, 5, 5.01, 5.1, 5.2}; !slices.Equal(taken, want) {
		t.Errorf("taken at %v; want %v: one that is late does not cost the next", taken, want)
	}
}

// wantAtMost wants no more frames between any two of these times, in seconds,
// than hz allows, and the one saved and the half that may come early.
func wantAtMost(t *testing.T, times []float64, hz float64) {
	t.Helper()
	for i, first := range times {
		for n, last := range times[i:] {
			if most := (last-first)*hz + 1.5 + 1e-5; float64(n) > most {
				t.Fatalf("%d frames in %g s; want %g at most, of %g a second", n, last-first, most, hz)
			}
		}
	}
}

func TestRate(t *testing.T) {
	var r rate
	for i := range 61 {
		hz, ok := r.count(time.Hour + time.Duration(i)*time.Second/20)
		if want := i%20 == 0 && i > 0; ok != want || (ok && hz != 20) {
			t.Fatalf("count(%d) = %g, %v; want %v, and 20 Hz once a second", i, hz, ok, want)
		}
	}
}
