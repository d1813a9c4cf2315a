package main

import (
	"context"
	"sync"
	"time"
)

// awake detects that this process did not run for a while, because it was stopped
// (Ctrl-Z, a debugger) or swapped out, or because the machine was overloaded. That it
// received no heartbeats meanwhile says nothing about its workers.
type awake struct {
	every time.Duration

	mu      sync.Mutex
	last    time.Time // when it was last known to run
	resumed time.Time // when it continued after its last pause; zero before the first
}

// mostLate is the longest delay that does not count as a pause.
const mostLate = 500 * time.Millisecond

// newAwake checks often enough for heartbeats, which come three times per period.
func newAwake(watchdog time.Duration) *awake {
	return &awake{every: min(time.Second, watchdog/2), last: time.Now()}
}

// watch checks regularly until ctx is done.
func (a *awake) watch(ctx context.Context) {
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.since()
		case <-ctx.Done():
			return
		}
	}
}

// since is when this process continued after its last pause.
func (a *awake) since() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if now.Sub(a.last) > a.every+mostLate {
		a.resumed = now
	}
	a.last = now
	return a.resumed
}

// missed records that heartbeats sent until now may not have arrived, although this
// process ran.
func (a *awake) missed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resumed = time.Now()
}
