// Package backoff spaces out what fails: restarts, reconnects, retries.
//
//	fail: 0.2 s   fail: 0.4 s   fail: 0.8 s  ...  60 s   healthy for a while: 0.2 s again
//
// Each pause is twice the last, up to a limit, and is shortened by a random
// part of up to a quarter, so that what failed together does not try again
// together; with full jitter it is any part of that, for what many boxes do to
// one server. It never gives up.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Backoff counts failures. The zero value pauses for nothing.
type Backoff struct {
	First   time.Duration // the first pause
	Most    time.Duration // the longest pause
	Healthy time.Duration // a run of at least this long ends a series of failures
	Full    bool          // full jitter: a pause is a random part of what it would be

	failures int
}

// Failed counts a failure after a run of that length, and returns how long to
// pause before the next try.
func (b *Backoff) Failed(ran time.Duration) time.Duration {
	if b.Healthy > 0 && ran >= b.Healthy {
		b.failures = 0
	}
	pause := b.First
	for range b.failures {
		if pause *= 2; pause >= b.Most {
			pause = b.Most
			break
		}
	}
	b.failures++
	spread := int64(pause / 4)
	if b.Full {
		spread = int64(pause)
	}
	if spread > 0 {
		pause -= time.Duration(rand.Int64N(spread))
	}
	return pause
}

// Succeeded ends the series of failures.
func (b *Backoff) Succeeded() { b.failures = 0 }

// Failures is how many there were in a row.
func (b *Backoff) Failures() int { return b.failures }
