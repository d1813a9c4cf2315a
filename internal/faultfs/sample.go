package faultfs

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// Sample is the part of a matrix of faults that one run of a test covers: one
// point in so many, beginning with a random one.
type Sample struct {
	every, first int
	seed         uint64
}

// NewSample chooses one point in every so many. It is another choice each time;
// PERCH_SEED=N repeats one, and PERCH_SOAK, which "make soak" sets, chooses all.
func NewSample(every int) Sample {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PERCH_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			panic("PERCH_SEED=" + text + ": want a whole number")
		}
	}
	if Soak() > 0 {
		every = 1
	}
	return Sample{every: every, first: int(seed % uint64(every)), seed: seed}
}

// Soak is how long tests without an end of their own go on: PERCH_SOAK, and 0 in an
// ordinary run.
func Soak() time.Duration {
	text := os.Getenv("PERCH_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 { // an ordinary run would pass for a soak
		panic("PERCH_SOAK=" + text + ": want a duration, such as 1h")
	}
	return d
}

// Next is the first chosen point from n on. Each line of a matrix has a choice
// of its own, so that one run covers different points of each.
func (s Sample) Next(line, n int) int {
	first := (s.first + line) % s.every
	return n + ((first-n)%s.every+s.every)%s.every
}

// Every is how far apart the chosen points of a line are.
func (s Sample) Every() int { return s.every }

// String is for a test's log: how to repeat the choice.
func (s Sample) String() string {
	return fmt.Sprintf("one point in %d, PERCH_SEED=%d", s.every, s.seed)
}
