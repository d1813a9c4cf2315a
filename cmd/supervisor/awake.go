package main

import (
	"context"
	"sync"
	"time"
)

// awake notices when this process did not run for a while: it was stopped
// (Ctrl-Z, a debugger), swapped out, or the machine was out of breath. What it did
// not hear meanwhile says nothing about its workers.
type awake struct {
	every time.Duration

	mu      sync.Mutex
	last    time.Time // when it was last known to run
	resumed time.Time // when it went on after a pause; zero before the first
}

// mostLate is a delay that is no pause.
const mostLate = 500 * time.Millisecond

// newAwake looks often enough for heartbeats that come three times in a period.
func newAwake(watchdog time.Duration) *awake {
	return &awake{every: min(time.Second, watchdog/2), last: time.Now()}
}

// watch looks regularly until ctx is done.
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

// since is the moment when this process went on after its last pause.
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

// deaf notes that nothing could be heard until now, though this process ran.
func (a *awake) deaf() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resumed = time.Now()
}
