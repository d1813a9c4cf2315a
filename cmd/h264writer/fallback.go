package main

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// encoders are those that a setting allows, the best first, and the one in use.
// One that fails twice in a row before its first fragment is passed over for an
// hour only, since it may have been busy, or killed for lack of memory. Then it is
// tried with one picture beside the recording. If that works it takes over at the
// next segment, so that no frame is lost.
type encoders struct {
	names []string
	works []bool // by their last trial
	use   int

	failures int       // of the one in use, in a row
	since    time.Time // when a better one was last tried
	trying   bool
	found    atomic.Int32 // a better one that works, counted from 1
	tried    chan struct{}
	trials   sync.WaitGroup
	try      func(ctx context.Context, encoder string) error
}

const (
	earlyFailures = 2
	encoderRetry  = time.Hour
)

func newEncoders(names []string) *encoders {
	return &encoders{names: names, works: make([]bool, len(names)), try: try, tried: make(chan struct{}, 1)}
}

func (e *encoders) current() string { return e.names[e.use] }

// succeeded notes that the encoder in use has made a fragment.
func (e *encoders) succeeded() { e.failures = 0 }

// failed counts an end before the first fragment, and changes to the next encoder
// when it is time.
func (e *encoders) failed(now time.Time) (from, to string, changed bool) {
	e.failures++
	if e.failures < earlyFailures {
		return "", "", false
	}
	for i := e.use + 1; i < len(e.names); i++ {
		if e.works[i] {
			from = e.current()
			e.use, e.failures, e.since = i, 0, now
			return from, e.current(), true
		}
	}
	return "", "", false
}

// look tries the better encoders, once an hour, without waiting for that.
func (e *encoders) look(ctx context.Context, now time.Time, log *slog.Logger) {
	select {
	case <-e.tried:
		e.trying = false
	default:
	}
	if e.use == 0 || e.trying || now.Sub(e.since) < encoderRetry {
		return
	}
	e.trying, e.since = true, now
	better := e.names[:e.use]
	e.trials.Go(func() {
		defer func() { e.tried <- struct{}{} }()
		for i, name := range better {
			err := e.try(ctx, name)
			log.Debug("tried a better encoder again", "encoder", name, "err", err)
			if err == nil {
				e.found.Store(int32(i + 1))
				return
			}
		}
	})
}

// better reports whether a better encoder is known to work.
func (e *encoders) better() bool { n := int(e.found.Load()); return n > 0 && n-1 < e.use }

// improve changes to a better encoder that is known to work.
func (e *encoders) improve() (from, to string, changed bool) {
	n := int(e.found.Swap(0))
	if n == 0 || n-1 >= e.use {
		return "", "", false
	}
	from = e.current()
	e.use, e.failures, e.works[n-1] = n-1, 0, true
	return from, e.current(), true
}
