package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// Worker is a running program's view of the fleet. Its methods are safe for
// concurrent use, but for those of the inboxes it returns.
type Worker struct {
	Log *slog.Logger

	program string
	reads   []msg.Kind
	top     *topology.Topology
	entry   *topology.Entry
	clock   *clock.Clock
	bus     *msg.Bus
	pub     *msg.Publisher
	states  *msg.StateStream
	soon    chan struct{} // the state is wanted before its second is over
	dog     watchdog
	manager *notifier
	dropped atomic.Uint64 // log lines

	progress atomic.Int64 // boot time of the work loop's last step
	ready    atomic.Bool
	awaited  atomic.Bool // the readers

	mu       sync.Mutex
	status   string
	troubles map[string]string // what is wrong, by what is being done
	logged   string            // the trouble that the log knows of
	loggedAt time.Duration
	counters map[string]*Counter
	gauges   map[string]float64
	ledgers  []*ledger
	gates    []gate
}

type gate func(names []string, atMost time.Duration, done <-chan struct{}) []string

// work runs the program on an open bus until it ends.
func (p Program[C]) work(ctx context.Context, top *topology.Topology, entry *topology.Entry, cfg C, stderr io.Writer) (err error) {
	w := &Worker{program: p.Name, reads: p.Reads, top: top, entry: entry, dog: newWatchdog(), soon: make(chan struct{}, 1),
		troubles: map[string]string{}, counters: map[string]*Counter{}, gauges: map[string]float64{}}
	w.Log = newLog(stderr, entry, &w.dropped)
	if w.manager, err = newNotifier(os.Getenv("NOTIFY_SOCKET")); err != nil {
		return err
	}
	defer w.manager.close()
	if err := w.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.bus.Close()) }()
	stop := w.reportEachSecond()
	defer stop()
	w.Progress()
	err = p.Run(ctx, w, cfg)
	switch {
	case stopped(err) && ctx.Err() != nil:
		w.Log.Info("stopped")
		return nil
	case stopped(err):
		return &exitError{ExitFailed, fmt.Errorf("ended without being told to: %w", err)}
	case err == nil:
		w.Status("done")
		w.Log.Info("done")
		if err := w.manager.finish(lastWord); err != nil {
			w.Log.Debug("notify the supervisor", "err", err)
		}
	}
	return err
}

func (w *Worker) open() (err error) {
	if w.clock, err = clock.System(); err != nil {
		return err
	}
	n := w.top.Node
	w.bus, err = msg.Open(msg.Config{Node: n.Name, Name: msg.Source(w.entry.Name), RunDir: n.RunDir, ShmDir: n.ShmDir, Clock: w.clock})
	if err != nil {
		return err
	}
	if w.pub, err = w.bus.Publisher(); err == nil {
		w.states, err = w.pub.States("state")
	}
	if err != nil {
		return errors.Join(err, w.bus.Close())
	}
	w.gates = append(w.gates, w.pub.Gate)
	return nil
}

// Name is the entry's name.
func (w *Worker) Name() string { return w.entry.Name }

// Program is the program's name.
func (w *Worker) Program() string { return w.program }

// Node is the box.
func (w *Worker) Node() topology.Node { return w.top.Node }

// Entry is the worker's own entry of the topology.
func (w *Worker) Entry() *topology.Entry { return w.entry }

// Topology is the whole fleet; by hand, it is this worker alone.
func (w *Worker) Topology() *topology.Topology { return w.top }

// Now stamps the present moment.
func (w *Worker) Now() msg.Stamp { return w.clock.Now() }

// BootID names this boot of the machine.
func (w *Worker) BootID() string { return w.clock.BootID() }

// Epoch names this run of the worker.
func (w *Worker) Epoch() msg.Epoch { return w.pub.Epoch() }

// Ready says that the worker does its work: READY=1. A sensor that has not
// done so before then waits for its readers.
func (w *Worker) Ready(ctx context.Context) {
	if w.ready.Swap(true) {
		return
	}
	w.notify(daemon.SdNotifyReady)
	w.Log.Info("ready")
	w.AwaitReaders(ctx)
}

// AwaitReaders waits, up to start_gate and once, until the workers that the
// topology names as a sensor's readers have subscribed, so that they get its
// first message. Ready does it by itself; a sensor that is ready only with its
// first message calls it before that.
func (w *Worker) AwaitReaders(ctx context.Context) {
	readers := w.top.Readers(w.entry.Name)
	if len(w.reads) > 0 || len(readers) == 0 || w.awaited.Swap(true) {
		return
	}
	if missing := w.Await(ctx, readers, w.top.Node.StartGate.D()); len(missing) > 0 && ctx.Err() == nil {
		w.Log.Warn("starting without some readers", "missing", missing, "waited", w.top.Node.StartGate.String())
	}
}

// Await waits, at most so long, until each of those workers has subscribed to
// something of this one's, and returns who has not. One that reads frames need
// not read messages.
func (w *Worker) Await(ctx context.Context, missing []string, atMost time.Duration) []string {
	for deadline := time.Now().Add(atMost); len(missing) > 0 && ctx.Err() == nil && time.Now().Before(deadline); {
		w.Progress()
		for _, there := range w.gates {
			missing = there(missing, 2*time.Millisecond, ctx.Done())
		}
	}
	return missing
}

// Progress says that the work loop has made a step. A loop must make one at
// least each second, also when there is nothing to do.
func (w *Worker) Progress() {
	now := clock.Boot()
	w.progress.Store(int64(now))
	if w.dog.due(now) {
		w.manager.beat()
	}
}

// Status is one line for people: what the worker does at the moment.
func (w *Worker) Status(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	changed := text != w.status
	w.status = text
	w.mu.Unlock()
	if changed {
		w.notify("STATUS=" + strings.ReplaceAll(text, "\n", "; ")) // a line each, sd_notify(3)
	}
}

// Trouble says in the worker's state what is wrong, until nil says that it is
// over. Changes are logged, at most one a second.
func (w *Worker) Trouble(err error) { w.TroubleWith("", err) }

// TroubleWith does the same for one of several things that a worker does, each
// of which may be in trouble by itself.
func (w *Worker) TroubleWith(what string, err error) {
	w.mu.Lock()
	if err == nil {
		delete(w.troubles, what)
	} else {
		w.troubles[what] = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	w.mu.Unlock()
	w.logTrouble()
}

// trouble is all that is wrong, in one line. The caller holds mu.
func (w *Worker) trouble() string {
	var all []string
	for _, what := range slices.Sorted(maps.Keys(w.troubles)) {
		if text := w.troubles[what]; !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return strings.Join(all, "; ")
}

// logTrouble logs the last change of trouble, unless it has just logged one:
// then it is for the next report, should the change last so long.
func (w *Worker) logTrouble() {
	w.mu.Lock()
	text, before, now := w.trouble(), w.logged, clock.Boot()
	if text == before || now-w.loggedAt < time.Second {
		w.mu.Unlock()
		return
	}
	w.logged, w.loggedAt = text, now
	w.mu.Unlock()
	if text != "" {
		w.Log.Warn("trouble", "err", text)
	} else {
		w.Log.Info("trouble is over", "was", before)
	}
}

// Counter is a number that only grows.
type Counter struct{ n atomic.Uint64 }

// Add adds n.
func (c *Counter) Add(n int) { c.n.Add(uint64(n)) }

// Value is the count so far.
func (c *Counter) Value() uint64 { return c.n.Load() }

// Counter is the counter of that name, made at its first use; it is in the
// worker's state from then on.
func (w *Worker) Counter(name string) *Counter {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counters[name]
	if c == nil {
		c = &Counter{}
		w.counters[name] = c
	}
	return c
}

// Gauge sets a number of the worker's state. Its name ends in its unit.
func (w *Worker) Gauge(name string, value float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gauges[name] = value
}

// lastWord is how long the end waits for the supervisor to hear that the work is
// done: otherwise it would be begun again.
const lastWord = 10 * time.Second

// notify tells the service manager; the next report tries again where it is too
// busy to be told.
func (w *Worker) notify(state string) {
	if err := w.manager.tell(state); err != nil {
		w.Log.Debug("notify the supervisor", "err", err)
	}
}

// watchdog tells when WATCHDOG=1 is due: three times in its period.
type watchdog struct {
	every time.Duration
	last  *atomic.Int64
}

func newWatchdog() watchdog {
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		period = 0
	}
	return watchdog{every: period / 3, last: &atomic.Int64{}}
}

func (d watchdog) due(now time.Duration) bool {
	last := d.last.Load()
	return d.every > 0 && (last == 0 || now-time.Duration(last) >= d.every) && d.last.CompareAndSwap(last, int64(now))
}

// Wait waits for a moment, showing all the while that the loop is alive. It
// returns ctx's error when that is done first.
func (w *Worker) Wait(ctx context.Context, until time.Time) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		w.Progress()
		left := time.Until(until)
		if left <= 0 {
			return ctx.Err()
		}
		timer.Reset(min(left, step))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
