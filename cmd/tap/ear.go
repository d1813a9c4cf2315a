package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// lookEvery is how often the run folders are searched for new endpoints.
const lookEvery = 200 * time.Millisecond

// ear hears the messages that are wanted, from endpoints that come and go. It
// is for one goroutine.
type ear struct {
	sel       selection
	lis       *msg.Listener
	connected map[string]bool
	timeout   time.Duration // the longest silence; 0 is any
	always    bool          // also after the first message
	heard     uint64
}

func newEar(sel selection, timeout time.Duration, always bool) (*ear, error) {
	lis, err := msg.Listen(sel.prefixes()...)
	if err != nil {
		return nil, err
	}
	return &ear{sel: sel, lis: lis, connected: map[string]bool{}, timeout: timeout, always: always}, nil
}

// hear calls each for every message with the boot time of its arrival, until
// each returns false. It ends with ctx's error, or, after a silence of timeout,
// with one that says what it listened to. each must not wait for anything.
func (e *ear) hear(ctx context.Context, each func(m *msg.Message, at time.Duration) bool) error {
	began := time.Now()
	last, looked := began, time.Time{}
	for {
		now := time.Now()
		if now.Sub(looked) >= lookEvery {
			if err := e.look(); err != nil {
				return err
			}
			looked = now
		}
		until := looked.Add(lookEvery)
		if e.timeout > 0 && (e.heard == 0 || e.always) {
			if now.Sub(last) >= e.timeout {
				return worker.Temporary(fmt.Errorf("no message within %v: %s", e.timeout, e.where()))
			}
			if end := last.Add(e.timeout); end.Before(until) {
				until = end
			}
		}
		m, ok, err := e.lis.Next(ctx, until)
		if errors.Is(err, context.DeadlineExceeded) && e.heard == 0 {
			return worker.Temporary(fmt.Errorf("no message within %v: %s", time.Since(began).Round(100*time.Millisecond), e.where()))
		}
		if err != nil {
			return err
		}
		if !ok || !e.sel.wants(m.Kind, m.Source, m.Stream) {
			continue
		}
		e.heard++
		last = time.Now()
		if !each(&m, clock.Boot()) {
			return nil
		}
	}
}

// look connects to endpoints that are new. One that is left by its publisher
// stays connected, and is heard again when the publisher comes back.
func (e *ear) look() error {
	for _, dir := range e.sel.runDirs() {
		found, err := endpoints(dir)
		if err != nil {
			return err
		}
		for _, end := range found {
			if e.connected[end.Endpoint] || !e.sel.at(end) {
				continue
			}
			if err := e.lis.Connect(end.Endpoint); err != nil {
				return err
			}
			e.connected[end.Endpoint] = true
		}
	}
	return nil
}

// endpoints lists a run folder; one that is not there (yet) is empty.
func endpoints(runDir string) ([]msg.EndpointInfo, error) {
	found, err := msg.Endpoints(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return found, err
}

// where says in one line what was listened to.
func (e *ear) where() string {
	var at []string
	for _, t := range e.sel.targets {
		at = append(at, e.whereOf(t)...)
	}
	text := strings.Join(at, ", ")
	if e.sel.topic != "" {
		text += fmt.Sprintf("; only topics %q", string(e.sel.topic))
	}
	return text
}

func (e *ear) whereOf(t target) (at []string) {
	found, err := endpoints(t.runDir)
	if err != nil {
		return []string{err.Error()}
	}
	live := 0
	for _, end := range found {
		if t.at(end) && end.Live {
			live++
		}
		switch {
		case !t.at(end) || !e.connected[end.Endpoint]:
		case end.Live:
			at = append(at, "listened at "+end.Endpoint)
		default:
			at = append(at, "listened at "+end.Endpoint+" (its publisher is gone)")
		}
	}
	switch {
	case len(at) > 0:
		return at
	case live > 0:
		return []string{fmt.Sprintf("of %d publishers in %s none can have such a topic", live, t.runDir)}
	case t.endpoint != "":
		return []string{"nobody publishes at " + t.endpoint}
	case t.source == "":
		return []string{"nobody publishes in " + t.runDir}
	default:
		return []string{fmt.Sprintf("nobody publishes %s in %s", t.label, t.runDir)}
	}
}

// close ends the listening and tells what was heard and not understood.
func (e *ear) close(stderr io.Writer) error {
	if bad := e.lis.Refused(); bad.Malformed+bad.Version > 0 {
		fmt.Fprintf(stderr, "tap: passed over %d malformed messages and %d of an unknown version\n", bad.Malformed, bad.Version)
	}
	return e.lis.Close()
}
