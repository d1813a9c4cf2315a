package worker

import (
	"maps"
	"os"
	"sync"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// reportEachSecond publishes the state, and besides when reportSoon is called,
// until stop is called, and once more then: the last word is a worker's final
// account.
func (w *Worker) reportEachSecond() (stop func()) {
	quit := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			w.report()
			select {
			case <-tick.C:
			case <-w.soon:
			case <-quit:
				w.report()
				return
			}
		}
	})
	return func() { close(quit); group.Wait() }
}

// reportSoon has the state published now, rather than within a second.
func (w *Worker) reportSoon() {
	select {
	case w.soon <- struct{}{}:
	default: // it is about to be
	}
}

func (w *Worker) report() {
	w.TroubleWith("endpoints", w.bus.Mend())
	_ = w.manager.retry() // else at the next report
	s := w.state()
	if err := w.states.Publish(w.clock.Now(), s); err != nil {
		w.Log.Error("publish state", "err", err)
	}
}

func (w *Worker) state() msg.State {
	published, dropped := w.pub.Counts()
	subscribers := w.pub.Subscribers()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := msg.State{Program: w.program, PID: os.Getpid(), Ready: w.ready.Load(), Status: w.status, Trouble: w.trouble(),
		ProgressNS: w.progress.Load(), Counters: map[string]uint64{}, Gauges: maps.Clone(w.gauges),
		Published: published, Dropped: dropped, Subscribers: subscribers}
	for name, c := range w.counters {
		s.Counters[name] = c.Value()
	}
	for name, n := range map[string]uint64{"dropped_heartbeats": w.manager.dropped.Load(), "dropped_log_lines": w.dropped.Load()} {
		if n > 0 {
			s.Counters[name] = n
		}
	}
	for _, l := range w.ledgers {
		t := l.tally()
		s.Sources = append(s.Sources, t.accounts...)
		if t.waiting != nil && s.Trouble == "" {
			s.Trouble = t.waiting.Error()
		}
		for name, n := range map[string]uint64{"refused_malformed": t.refused.Malformed,
			"refused_unknown_version": t.refused.Version, "refused_duplicate": t.refused.Duplicate} {
			if n > 0 {
				s.Counters[name] += n
			}
		}
	}
	return s
}
