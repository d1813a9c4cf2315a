package main

import (
	"time"

	"github.com/perch-edge/perch/internal/backoff"
)

// breaker keeps attempts from a receiver that fails: after a failure nothing is
// sent for a while, and then one file alone, the probe. What comes of that
// closes the breaker, or opens it for longer. It is for one goroutine at a time.
type breaker struct {
	pause   backoff.Backoff
	open    bool
	until   time.Time // when it is open: the next probe
	probing bool
}

func newBreaker(most time.Duration) *breaker {
	return &breaker{pause: backoff.Backoff{First: time.Second, Most: most, Full: true}}
}

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

// answered closes the breaker: the receiver does its work.
func (b *breaker) answered() {
	b.open, b.probing = false, false
	b.pause.Succeeded()
}

// failed opens it, for at least that long. Of attempts that were under way
// together only the first one counts.
func (b *breaker) failed(now time.Time, probe bool, atLeast time.Duration) {
	if b.open && !probe {
		b.until = later(b.until, now.Add(atLeast))
		return
	}
	b.until = now.Add(atLeast + b.pause.Failed(0))
	b.open, b.probing = true, false
}

// abandoned is the end of an attempt that says nothing about the receiver.
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
