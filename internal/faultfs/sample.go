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
	seed, err := strconv.ParseUint(os.Getenv("PERCH_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	if Soak() > 0 {
		every = 1
	}
	return Sample{every: every, first: int(seed % uint64(every)), seed: seed}
}

// Soak is for how long the tests that have no end of their own are to go on:
// PERCH_SOAK, and 0 in an ordinary run.
func Soak() time.Duration {
	d, err := time.ParseDuration(os.Getenv("PERCH_SOAK"))
	if err != nil {
		return 0
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
