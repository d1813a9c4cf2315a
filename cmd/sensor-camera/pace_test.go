package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestPacer(t *testing.T) {
	for _, test := range []struct {
		source, wanted float64
		jitter         time.Duration
		least, most    int // of the frames of 10 s
	}{
		{30, 0, 0, 300, 300},
		{30, 30, 0, 300, 300},
		{30, 30, 10 * time.Millisecond, 295, 300},
		{29.97, 30, 10 * time.Millisecond, 294, 300},
		{60, 30, 5 * time.Millisecond, 298, 302},
		{45, 30, 0, 300, 302},
		{30, 15, 0, 150, 152},
		{30, 1, 0, 10, 12},
		{30, 0.1, 0, 2, 3},
		{5, 30, 0, 50, 50},
	} {
		random := rand.New(rand.NewPCG(1, 2))
		p := pacer{hz: test.wanted}
		taken := 0
		for i := range int(test.source * 10) {
			at := time.Hour + time.Duration(float64(i)/test.source*1e9)
			if test.jitter > 0 {
				at += time.Duration(random.Int64N(int64(test.jitter)))
			}
			if p.take(at) {
				taken++
			}
		}
		if taken < test.least || taken > test.most {
			t.Errorf("of %g frames a second for 10 s at capture_hz %g: %d; want %d to %d", test.source, test.wanted, taken, test.least, test.most)
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
