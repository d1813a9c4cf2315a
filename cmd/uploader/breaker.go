package main

import (
	"time"

	"github.com/perch-edge/perch/internal/backoff"
)

// breaker keeps attempts from a receiver that fails, or from our own store: after
// a failure nothing is sent for a while, and then one file alone, the probe. What
// comes of that closes the breaker, or opens it for longer. It is for one
// goroutine at a time.
type breaker struct {
	pause   backoff.Backoff
	open    bool
	until   time.Time // when it is open: the next probe
	probing bool
}

// newBreaker is one that draws its pauses from a backoff.
func newBreaker(pause backoff.Backoff) *breaker { return &breaker{pause: pause} }

// admit says whether an attempt may be made now, and whether it is a probe.
func (b *breaker) admit(now time.Time) (ok, probe bool) {
	switch {
	case !b.open:
		return true, false
	case b.probing || now.Before(b.until):
		return false, false
	}
	b.probing = true
	return true, true
}

// worked closes the breaker: all is well.
func (b *breaker) worked() {
	b.open, b.probing = false, false
	b.pause.Succeeded()
}

// failed opens it, for at least that long and a pause that grows. Of attempts
// that were under way together only the first one counts.
func (b *breaker) failed(now time.Time, probe bool, atLeast time.Duration) {
	if !b.open || probe {
		b.shut(now, probe, atLeast+b.pause.Failed(0))
		return
	}
	b.shut(now, probe, atLeast)
}

// shut opens it for that long.
func (b *breaker) shut(now time.Time, probe bool, pause time.Duration) {
	until := now.Add(pause)
	if b.open && !probe {
		until = later(b.until, until)
	}
	b.until, b.open = until, true
	b.abandoned(probe)
}

// left is how long it stays open.
func (b *breaker) left(now time.Time) time.Duration {
	if !b.open {
		return 0
	}
	return max(b.until.Sub(now), 0)
}

// abandoned is the end of an attempt that says nothing of what it guards.
func (b *breaker) abandoned(probe bool) {
	if probe {
		b.probing = false
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
