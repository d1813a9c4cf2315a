package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// window is the time over which rates are taken: one that a reading a second
// gives a steady figure in, and that soon shows when it stops.
const window = 5 * time.Second

// series is the last few values of a number that grows, to tell its rate.
type series struct {
	at    []time.Duration
	value []float64
}

func (s *series) add(at time.Duration, value float64) {
	if n := len(s.value); n > 0 && value < s.value[n-1] { // it began anew
		s.at, s.value = nil, nil
	}
	s.at, s.value = append(s.at, at), append(s.value, value)
	for len(s.at) > 2 && at-s.at[1] >= window {
		s.at, s.value = s.at[1:], s.value[1:]
	}
}

// rate is the growth a second; 0 until there are two values.
func (s *series) rate() float64 {
	if len(s.at) < 2 {
		return 0
	}
	last := len(s.at) - 1
	if took := s.at[last] - s.at[0]; took > 0 {
		return (s.value[last] - s.value[0]) / took.Seconds()
	}
	return 0
}

// observer listens to what all workers say of themselves on the bus.
type observer struct {
	ear *msg.Listener

	mu   sync.Mutex
	seen map[string]*sight
}

// sight is what is known of a worker by its own word.
type sight struct {
	state     msg.State     // of its present run
	at        time.Duration // boot time when it came
	published map[msg.Topic]*series
	reads     map[msg.Topic]*intake
	lost      uint64 // in the runs before, see lossesOf
	cpu       series // seconds
	own       uint64 // bytes of memory
	shared    uint64
}

// intake is what a worker has read of one stream, over all of both's runs.
type intake struct {
	last  msg.Account
	left  []msg.Account // of the epochs before, the last few: a reader may go back to one
	run   msg.Epoch     // of the reader
	got   uint64        // received and repaired
	lost  uint64
	rates series // of got
}

func newObserver(top *topology.Topology) (*observer, error) {
	ear, err := msg.Listen(string(msg.KindState) + "/")
	if err != nil {
		return nil, err
	}
	o := &observer{ear: ear, seen: map[string]*sight{}}
	for _, e := range top.Entries {
		o.seen[e.Name] = &sight{published: map[msg.Topic]*series{}, reads: map[msg.Topic]*intake{}}
		endpoint, err := msg.Endpoint(top.Node.RunDir, msg.Source(e.Name), "")
		if err == nil {
			err = ear.Connect(endpoint)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen to %s: %w", e.Name, err), ear.Close())
		}
	}
	return o, nil
}

func (o *observer) close() error { return o.ear.Close() }

// listen takes in states until ctx is done, whatever fails meanwhile.
func (o *observer) listen(ctx context.Context, log *slog.Logger) {
	retry := retrier{what: "listen to the workers' states", report: func(what string, err error) { log.Error(what, "err", err) }}
	for {
		m, ok, err := o.ear.Next(ctx, time.Time{})
		if ctx.Err() != nil && !ok {
			return
		}
		if err != nil {
			retry.after(err)
			continue
		}
		state, err := m.State()
		if err != nil {
			log.Debug("state of a worker", "err", err)
			continue
		}
		o.take(state, clock.Boot())
	}
}

func (o *observer) take(s msg.State, now time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.seen[string(s.Source)]
	if w == nil {
		return
	}
	if s.PID != w.state.PID {
		clear(w.published)
		w.lost += lossesOf(&w.state)
	}
	w.state, w.at = s, now
	for topic, n := range s.Published {
		if w.published[topic] == nil {
			w.published[topic] = &series{}
		}
		w.published[topic].add(time.Duration(s.BootNS), float64(n))
	}
	for _, a := range s.Sources {
		if w.reads[a.Topic] == nil {
			w.reads[a.Topic] = &intake{}
		}
		w.reads[a.Topic].take(a, s.Epoch, time.Duration(s.BootNS))
	}
}

// lossesOf is what a worker has lost of its own in one run: messages that it could
// not send, and its counters that are named lost_*, such as csvwriter's lost_rows.
// Counters of bytes (lost_*_bytes) count the same losses again.
func lossesOf(s *msg.State) (n uint64) {
	for _, dropped := range s.Dropped {
		n += dropped
	}
	for name, count := range s.Counters {
		if strings.HasPrefix(name, "lost_") && !strings.HasSuffix(name, "_bytes") {
			n += count
		}
	}
	return n
}

// losses is what a worker has lost in all runs: messages that never reached it, and
// what it has lost itself.
func (w *sight) losses() uint64 {
	n := w.lost + lossesOf(&w.state)
	for _, i := range w.reads {
		n += i.lost
	}
	return n
}

// mostLeft is how many epochs that a reader has left are remembered.
const mostLeft = 4

// take adds what is new in an account. An account begins at zero with each run
// of the reader, and with each epoch of the stream.
func (i *intake) take(a msg.Account, run msg.Epoch, at time.Duration) {
	before := i.last
	switch {
	case run != i.run:
		before, i.left = msg.Account{}, nil
	case a.Epoch != before.Epoch:
		i.left = append(i.left, before)
		i.left = i.left[max(0, len(i.left)-mostLeft):]
		before = msg.Account{}
		if at := slices.IndexFunc(i.left, func(l msg.Account) bool { return l.Epoch == a.Epoch }); at >= 0 {
			before = i.left[at]
			i.left = slices.Delete(i.left, at, at+1)
		}
	}
	if a.Received < before.Received || a.Repaired < before.Repaired || a.Lost < before.Lost {
		before = msg.Account{}
	}
	i.got += a.Received + a.Repaired - before.Received - before.Repaired
	i.lost += a.Lost - before.Lost
	i.last, i.run = a, run
	i.rates.add(at, float64(i.got))
}

// leastBetween keeps the kernel's clock ticks of 10 ms from showing in a rate.
const leastBetween = 900 * time.Millisecond

// measure asks the kernel what the processes take.
func (o *observer) measure(pids map[string]int, now time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, w := range o.seen {
		pid := pids[name]
		st, err := statOf(pid)
		if pid == 0 || err != nil {
			w.own, w.shared, w.cpu = 0, 0, series{}
			continue
		}
		w.own, w.shared = memoryOf(pid)
		if n := len(w.cpu.at); n == 0 || now-w.cpu.at[n-1] >= leastBetween {
			w.cpu.add(now, st.cpu.Seconds())
		}
	}
}

const (
	stateOverdue    = 3 * time.Second
	progressOverdue = 10 * time.Second
)

// silence says why a worker that is ready since then is not heard of; "" when
// it is.
func (w *sight) silence(pid int, since, now time.Duration) string {
	heard := since
	if w.state.PID == pid {
		heard = max(since, w.at)
	}
	if quiet := now - heard; quiet > stateOverdue {
		return "no state for " + quiet.Round(time.Second).String()
	}
	if still := now - time.Duration(w.state.ProgressNS); w.state.PID == pid && still > progressOverdue {
		return "no progress for " + still.Round(time.Second).String()
	}
	return ""
}

// describe fills in what the worker says of itself and the kernel of it. Its
// last run began then: what it said earlier is not of that one, of which
// nothing may have been heard when it was short.
func (o *observer) describe(w *Worker, began, now time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.seen[w.Name]
	w.RSSBytes, w.SharedBytes, w.CPUPct = s.own, s.shared, round2(100*s.cpu.rate())
	w.Lost = s.losses()
	if w.Phase == Ready {
		if why := s.silence(w.PID, w.sinceBoot(), now); why != "" {
			w.Phase, w.Trouble = Silent, why
		}
	}
	if s.state.PID == 0 || s.at < began || w.PID != 0 && s.state.PID != w.PID {
		return // nothing yet of this run
	}
	if w.Trouble == "" && w.PID != 0 {
		w.Trouble = s.state.Trouble
	}
	w.Counters, w.Gauges, w.Subscribers = s.state.Counters, s.state.Gauges, s.state.Subscribers
	w.Accounts, w.Dropped = s.state.Sources, s.state.Dropped
	w.Published = map[msg.Topic]Flow{}
	for topic, n := range s.state.Published {
		flow := Flow{Count: n}
		if w.PID != 0 {
			flow.Hz = round2(s.published[topic].rate())
		}
		w.Published[topic] = flow
	}
}

// edges lists what a worker has read from a source: one for each stream, or
// one without a topic while nothing has come.
func (o *observer) edges(reader string, ref topology.Ref, running bool) (list []Edge) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.seen[reader]
	for _, topic := range slices.Sorted(maps.Keys(s.reads)) {
		_, source, stream, err := topic.Split()
		if err != nil || string(source) != sourceOf(ref) || ref.Stream != "" && ref.Stream != string(stream) {
			continue
		}
		i := s.reads[topic]
		e := Edge{Source: string(source), Reader: reader, Topic: topic, Received: i.got, Lost: i.lost, Skipped: i.last.Skipped}
		if running {
			e.Hz = round2(i.rates.rate())
		}
		list = append(list, e)
	}
	if list == nil {
		list = []Edge{{Source: sourceOf(ref), Reader: reader}}
	}
	return list
}

// sourceOf is the source that a reference names, also by its endpoint.
func sourceOf(ref topology.Ref) string {
	if ref.Endpoint != "" {
		if _, source, _, err := msg.ParseEndpoint(ref.Endpoint); err == nil {
			return string(source)
		}
	}
	return ref.Name
}
