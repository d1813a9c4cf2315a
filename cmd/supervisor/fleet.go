package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// fleet is all that one supervisor runs.
type fleet struct {
	plan     *plan
	timing   timing
	clock    *clock.Clock
	began    time.Duration
	book     *logbook
	logs     *logPlace
	log      *slog.Logger
	root     *os.Root       // the run folder; once the fleet runs, guard's
	held     *lockfile.Lock // of the run folder, likewise
	launcher *launcher
	bus      *msg.Bus
	observer *observer
	control  *control
	children []*child // readers before their sources
	jobs     []*job
	up       chan struct{} // closed when all children have been started

	stop context.CancelFunc
	kill chan struct{}
	over chan struct{} // closed when nothing of the fleet is left

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of a phase
	fatal   error         // why the fleet had to be stopped

	discard atomic.Bool         // histories are not to be kept
	unread  map[string][]string // by publisher, the workers that may not have saved all of its histories
	ending  *Ending             // valid when over is closed; nil before all children have ended

	files atomic.Pointer[Files] // as counted last; nil before
	disk  atomic.Pointer[disk]  // as seen last

	closers []func() error
}

// openFleet prepares all that children need. It fails when another supervisor
// has the run folder (*lockfile.HeldError), and then leaves nothing open.
func openFleet(p *plan, t timing, show func(entry)) (f *fleet, err error) {
	f = &fleet{plan: p, timing: t, unread: readersOf(p.top), began: clock.Boot(), book: newLogbook(show),
		kill: make(chan struct{}), up: make(chan struct{}), over: make(chan struct{}), changed: make(chan struct{})}
	f.log = f.book.logger(slog.Level(p.top.Node.LogLevel))
	f.later(f.book.close)
	for _, step := range []func() error{f.lock, f.keepLogs, f.sweepEarlier, f.openLauncher, f.openBus, f.openControl} {
		if err := step(); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	f.lookAtDisk()
	f.adopt()
	return f, nil
}

func (f *fleet) later(how func() error) { f.closers = append(f.closers, how) }

// close gives up what openFleet took, last first.
func (f *fleet) close() error {
	var errs []error
	for _, how := range slices.Backward(f.closers) {
		errs = append(errs, how())
	}
	f.closers = nil
	return errors.Join(errs...)
}

func (f *fleet) lock() error {
	dir := f.plan.top.Node.RunDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open run folder: %w", err)
	}
	f.root = root
	f.later(func() error { return f.root.Close() })
	f.held, err = lockfile.Acquire(root, lockName)
	if err != nil {
		return fmt.Errorf("a supervisor runs in %s already: %w", dir, err)
	}
	f.later(func() error {
		if !f.held.Current() {
			return f.held.Drop()
		}
		return f.held.Release()
	})
	if others := supervisorsOf(dir); len(others) > 0 {
		return errLeftBehind(dir, others[0])
	}
	f.clock, err = clock.System()
	return err
}

func (f *fleet) keepLogs() error {
	f.logs = newLogPlace(f.plan.top.Node)
	f.later(f.logs.store.Close)
	f.later(f.logs.close)
	f.later(f.book.close)
	if dir, err := f.logs.folder(); dir == nil {
		return fmt.Errorf("open folder of logs: %w", err)
	}
	f.book.keepIn(f.logs.folder)
	if w := f.plan.absentStore(); len(w) > 0 {
		f.log.Warn("the store's disk is absent", "err", w.Error(), "logs", f.logs.where())
	}
	return nil
}

// sweepEarlier removes what an earlier fleet left, now; and what this one
// leaves, at the end.
func (f *fleet) sweepEarlier() error {
	n := f.plan.top.Node
	found, err := sweep(f.root, n.RunDir, n.ShmDir, undrained(n.ShmDir, f.plan.top))
	if found.any() {
		f.log.Warn("swept what an earlier run left", "what", found.String())
	}
	f.later(func() error {
		if another(f.abandoned()) {
			return nil
		}
		var kept []Kept
		if !f.discard.Load() {
			kept = keptFor(n.ShmDir, f.unread)
		}
		_, err := sweep(f.root, n.RunDir, n.ShmDir, keeper(kept))
		_ = os.Remove(n.ShmDir) // where it is empty: the next one to use it may be another user
		return errors.Join(err, recordKept(f.root, f.clock.BootID(), n.ShmDir, f.unread, kept))
	})
	return err
}

func (f *fleet) openLauncher() error {
	n := f.plan.top.Node
	notes, err := listenForNotes(n.RunDir, f.book.complain)
	if err != nil {
		return err
	}
	f.later(notes.close)
	group := newCgroup(n.RunDir)
	f.later(group.remove)
	threads := newSpawner()
	f.later(threads.close)
	f.launcher = &launcher{runDir: n.RunDir, watchdog: f.timing.Watchdog, spawner: threads, notifier: notes,
		awake: newAwake(f.timing.Watchdog), cgroup: group,
		record: newRecord(f.root, f.clock.BootID(), n.ShmDir, group, f.unread), book: f.book, logs: f.logs}
	return nil
}

func (f *fleet) openBus() (err error) {
	n := f.plan.top.Node
	f.bus, err = msg.Open(msg.Config{Node: n.Name, Name: ownName, RunDir: n.RunDir, ShmDir: n.ShmDir, Clock: f.clock})
	if err != nil {
		return err
	}
	f.later(f.bus.Close)
	if f.observer, err = newObserver(f.plan.top); err == nil {
		f.later(f.observer.close)
	}
	return err
}

func (f *fleet) openControl() (err error) {
	if f.control, err = listenForRequests(f.plan.top.Node.RunDir); err == nil {
		f.later(f.control.close)
	}
	return err
}

// adopt makes the children and ties each to those it reads and is read by.
func (f *fleet) adopt() {
	byName := map[string]*child{}
	for _, e := range f.plan.top.StartOrder() {
		c := f.child(e)
		byName[e.Name] = c
		f.children = append(f.children, c)
	}
	for _, e := range f.plan.jobs() {
		f.jobs = append(f.jobs, newJob(f.child(e), f.clock, f.up))
	}
	for _, c := range f.children {
		for _, ref := range c.entry.Sources {
			if s := byName[ref.Name]; s != nil && !slices.Contains(c.sources, s) {
				c.sources = append(c.sources, s)
				s.readers = append(s.readers, c)
			}
		}
	}
}

func (f *fleet) child(e *topology.Entry) *child {
	c := newChild(e)
	c.program, c.topology = f.plan.programs[e.Name], f.plan.file
	c.timing, c.launcher, c.log, c.changed, c.kill = f.timing, f.launcher, f.log, f.change, f.kill
	return c
}

// all are the children and those of the jobs.
func (f *fleet) all() []*child {
	list := slices.Clone(f.children)
	for _, j := range f.jobs {
		list = append(list, j.child)
	}
	return list
}

// change tells all who wait for one that a phase has changed.
func (f *fleet) change() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

// next is closed at the next change.
func (f *fleet) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// run keeps the fleet running until ctx is done or a request stops it, and
// returns when all of it has ended. Closing killed before ends it at once.
func (f *fleet) run(ctx context.Context, killed <-chan struct{}, started func()) error {
	ctx, f.stop = context.WithCancel(ctx)
	defer f.stop()
	watching, unwatch := context.WithCancel(context.Background())
	var children, watchers, requests sync.WaitGroup
	asked, hangUp := context.WithCancel(context.Background())
	requests.Go(func() { f.control.serve(asked, f.book.complain, f.answer) })
	watchers.Go(func() { f.observer.listen(watching, f.log) })
	watchers.Go(func() { f.publish(watching) })
	watchers.Go(func() { f.launcher.awake.watch(watching) })
	watchers.Go(func() { f.guard(watching) })
	watchers.Go(func() { f.watchStore(watching) })
	watchers.Go(func() {
		select {
		case <-killed:
			f.stop()
			close(f.kill)
		case <-watching.Done():
		}
	})
	for _, c := range f.children {
		children.Go(func() { c.run(ctx) })
	}
	for _, j := range f.jobs {
		children.Go(func() { j.run(ctx) })
	}
	f.announce(ctx, started)
	children.Wait()
	unwatch()
	watchers.Wait()
	f.conclude()
	f.log.Info("stopped")
	err := errors.Join(f.abandoned(), f.ending.err(), f.close())
	close(f.over)
	hangUp()
	requests.Wait()
	return err
}

// announce says when all have been started.
func (f *fleet) announce(ctx context.Context, started func()) {
	for _, c := range f.children {
		<-c.settled
	}
	close(f.up)
	if ctx.Err() != nil {
		return
	}
	box := f.box()
	f.log.Info("started", "summary", box.summary(), "took_ms", (clock.Boot() - f.began).Milliseconds())
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // where it is a service itself
	started()
}
