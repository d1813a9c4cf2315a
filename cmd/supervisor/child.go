package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Phase is where a worker or job is in its life.
type Phase string

// The phases.
const (
	Waiting  Phase = "waiting"  // its readers are not ready yet; of a job: its time is not known yet
	Starting Phase = "starting" // it runs, and is not ready yet
	Ready    Phase = "ready"
	Silent   Phase = "silent"  // it was ready, and is not heard of any more
	Failing  Phase = "failing" // it hangs, and is being ended
	Backoff  Phase = "backoff" // it ended, and will be started again
	Held     Phase = "held"    // its configuration is wrong: nothing helps but to change it
	Done     Phase = "done"    // it has done what there was to do
	Stopping Phase = "stopping"
	Stopped  Phase = "stopped"

	Scheduled Phase = "scheduled" // a job between two runs
	Running   Phase = "running"   // a job in a run
)

// timing is how long things may take.
type timing struct {
	Start    time.Duration // from the start to READY=1
	Watchdog time.Duration // between two WATCHDOG=1
	Abort    time.Duration // from SIGABRT to SIGKILL
	Grace    time.Duration // from SIGTERM to SIGKILL
	Edited   time.Duration // between two looks at the topology's file
}

// child is a worker through all its runs. Its run method alone changes it.
type child struct {
	entry    *topology.Entry
	program  string
	topology string // the file
	stamp    string // of the file when the last process was started
	readers  []*child
	sources  []*child
	timing   timing
	launcher *launcher
	log      *slog.Logger
	changed  func()
	kill     <-chan struct{} // closed when all is to end at once

	settled chan struct{} // closed when its first try has come to something
	turn    chan struct{} // closed when it is its turn to stop
	ended   chan struct{} // closed when it is over
	orders  chan order
	retry   backoff.Backoff
	atEnd   stopped // valid when ended is closed

	mu   sync.Mutex
	view view
}

// view is what others may see of a child.
type view struct {
	phase    Phase
	since    time.Duration // boot time at which the phase began
	process  *process      // the running one
	began    time.Duration // boot time of its last start
	starts   int
	lastExit *Exit
	status   string
	job      tally
}

// order is what a person wants of one worker.
type order struct {
	verb string
	done chan struct{} // closed when it is carried out
}

func newChild(e *topology.Entry) *child {
	return &child{entry: e, settled: make(chan struct{}), turn: make(chan struct{}), ended: make(chan struct{}),
		orders: make(chan order), view: view{phase: Waiting, since: clock.Boot()},
		retry: backoff.Backoff{First: 200 * time.Millisecond, Most: time.Minute, Healthy: time.Minute}}
}

// look is a copy of what there is to see.
func (c *child) look() view {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view
}

func (c *child) update(f func(*view)) {
	c.mu.Lock()
	before := c.view.phase
	f(&c.view)
	if c.view.phase != before {
		c.view.since = clock.Boot()
	}
	c.mu.Unlock()
	c.changed()
}

func (c *child) enter(p Phase) { c.update(func(v *view) { v.phase = p }) }

// settle lets the sources start, once.
func (c *child) settle() {
	select {
	case <-c.settled:
	default:
		close(c.settled)
	}
}

// run keeps the worker running until ctx is done and it is its turn to stop.
func (c *child) run(ctx context.Context) {
	defer close(c.ended)
	var waiter sync.WaitGroup
	defer waiter.Wait()
	waiter.Go(func() { c.awaitTurn(ctx) })
	defer c.settle()
	if c.awaitReaders(ctx) {
		for next := (pause{}); c.rest(ctx, next); {
			next = c.live(ctx)
			c.settle()
		}
	}
	c.atEnd.idle = c.look().phase
	if c.look().phase != Done {
		c.enter(Stopped)
	}
}

// awaitReaders waits until those who read from it are ready, or have tried, or a
// person wants it started. One that is stopped meanwhile keeps its sources waiting
// no longer.
func (c *child) awaitReaders(ctx context.Context) bool {
	for _, r := range c.readers {
		select {
		case <-r.settled:
		case o := <-c.orders:
			close(o.done)
			if o.verb != "stop" {
				return true
			}
			c.enter(Stopped)
			c.settle()
			return c.rest(ctx, pause{ordered: true})
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// awaitTurn waits until all is to stop and those it reads from have ended:
// what they said last is still to be dealt with.
func (c *child) awaitTurn(ctx context.Context) {
	defer close(c.turn)
	select {
	case <-ctx.Done():
	case <-c.kill:
	}
	for _, s := range c.sources {
		select {
		case <-s.ended:
		case <-c.kill:
			return
		}
	}
}

// pause is how long a child rests between two runs.
type pause struct {
	time     time.Duration
	ordered  bool // until a person orders something
	orEdited bool // or the topology's file changes
	timed    bool // of a job: until its time
}

// rest waits for the time of the next run. It returns false when there will be none.
func (c *child) rest(ctx context.Context, p pause) bool {
	var timer, edited <-chan time.Time
	if !p.ordered {
		timer = time.After(p.time)
	}
	if p.orEdited {
		ticker := time.NewTicker(c.timing.Edited)
		defer ticker.Stop()
		edited = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer:
			return ctx.Err() == nil
		case <-edited:
			if now := stampOf(c.topology); now != "" && now != c.stamp {
				return true
			}
		case o := <-c.orders:
			close(o.done)
			if o.verb != "stop" {
				c.retry.Succeeded()
				return true
			}
			timer, edited = nil, nil
			c.enter(Stopped)
		}
	}
}

// stampOf tells one content of a file from the next.
func stampOf(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return ""
	}
	sys, _ := st.Sys().(*syscall.Stat_t)
	return fmt.Sprint(sys.Ino, st.Size(), st.ModTime().UnixNano())
}

// live runs the worker once, and says what is to follow.
func (c *child) live(ctx context.Context) pause {
	name := c.entry.Name
	p, err := c.launch()
	if err != nil {
		return c.failed(notStarted(err))
	}
	c.started(p, Starting)
	end := c.attend(p)
	<-p.gone
	exit, said := p.exit, p.heard.now()
	exit.Why = end.why
	before := c.look().lastExit
	c.update(func(v *view) { v.process, v.lastExit, v.status = nil, &exit, said.status })
	switch {
	case end.order != nil && end.order.verb == "restart":
		close(end.order.done)
		c.retry.Succeeded()
		return pause{}
	case end.order != nil:
		c.enter(Stopped)
		close(end.order.done)
		return pause{ordered: true}
	case exit.Code == worker.ExitDone && said.status == "done":
		c.enter(Done)
		c.log.Info("done", "name", name)
		return pause{ordered: true}
	case ctx.Err() != nil:
		c.atEnd = stopped{exit: &exit, before: before, inTurn: end.inTurn, ready: said.ready}
		return pause{ordered: true}
	case exit.Signal == "SIGKILL" && exit.Why == "" && !exit.OutOfMemory:
		// Somebody outside killed it, and not the kernel for want of memory:
		// that is no failure of its own, and no reason to wait longer each time.
		c.retry.Succeeded()
	}
	return c.failed(exit)
}

// launch starts a process of the program.
func (c *child) launch() (*process, error) {
	c.stamp = stampOf(c.topology)
	return c.launcher.start(c.entry.Name, c.program, "--topology", c.topology, "--name", c.entry.Name)
}

// started takes note of a process that was started.
func (c *child) started(p *process, phase Phase) {
	c.update(func(v *view) { v.phase, v.process, v.began, v.status, v.starts = phase, p, p.began, "", v.starts+1 })
	c.log.Debug("started", "name", c.entry.Name, "pid", p.pid)
}

// failed decides when to try again.
func (c *child) failed(exit Exit) pause {
	if exit.badConfig() {
		return c.hold(exit)
	}
	wait := c.retry.Failed(time.Duration(exit.RanS * float64(time.Second)))
	c.update(func(v *view) { v.phase, v.lastExit = Backoff, &exit })
	c.log.Warn("ended", "name", c.entry.Name, "exit", exit.String(), "again_in", wait.Round(time.Millisecond).String(), "failures", c.retry.Failures())
	return pause{time: wait}
}

// hold waits for another configuration: nothing else helps.
func (c *child) hold(exit Exit) pause {
	c.update(func(v *view) { v.phase, v.lastExit = Held, &exit })
	c.log.Error("held until the topology changes", "name", c.entry.Name, "message", exit.reason())
	return pause{ordered: true, orEdited: true}
}

// ending is why a process was ended; the zero value is that it ended by
// itself, or with the fleet.
type ending struct {
	why    string // it hung, or did not stop
	inTurn bool   // it was stopped in its turn, after its sources
	order  *order
}

// attend watches over a process until it has ended.
func (c *child) attend(p *process) ending {
	limit := time.NewTimer(c.timing.Start)
	defer limit.Stop()
	for {
		select {
		case <-p.gone:
			return ending{}
		case <-p.wake:
			if c.hear(p) {
				limit.Reset(c.timing.Watchdog)
			}
		case <-limit.C:
			silence := p.silence()
			said := p.heard.now()
			if left := c.timing.Watchdog - silence; left > 0 && (said.ready || c.resumed()) {
				limit.Reset(left)
				continue
			}
			return c.abort(p, said.ready)
		case o := <-c.orders:
			if o.verb == "start" {
				close(o.done)
				continue
			}
			return ending{why: c.stop(p), order: &o}
		case <-c.turn:
			return ending{why: c.stop(p), inTurn: true}
		}
	}
}

// resumed says whether this process has gone on after a pause of its own less than
// a heartbeat ago: then a worker that is not ready yet may have said that it is.
func (c *child) resumed() bool {
	return c.launcher != nil && time.Since(c.launcher.awake.since()) < c.timing.Watchdog
}

// abort ends a process that hangs, so that it shows where.
func (c *child) abort(p *process, ready bool) ending {
	why := fmt.Sprintf("not ready after %v", c.timing.Start)
	if ready {
		why = fmt.Sprintf("no heartbeat for %v", c.timing.Watchdog)
	}
	c.enter(Failing)
	c.log.Error("hangs", "name", c.entry.Name, "why", why)
	p.end(syscall.SIGABRT, c.timing.Abort, c.kill)
	return ending{why: why}
}

// stop ends a process that is to end, and returns why it had to be killed; "" when
// it ended by itself, or another hand killed it.
func (c *child) stop(p *process) (why string) {
	c.enter(Stopping)
	why = p.end(syscall.SIGTERM, c.timing.Grace, c.kill)
	switch {
	case why != "":
		why = "killed: " + why
		c.log.Warn(why, "name", c.entry.Name)
	case p.exit.Signal != "":
		c.log.Warn("ended by a signal while stopping, and not by this supervisor", "name", c.entry.Name, "exit", p.exit.String())
	}
	return why
}

// hear takes in what the process said of itself, and says whether by that it
// became ready.
func (c *child) hear(p *process) (first bool) {
	said := p.heard.now()
	c.update(func(v *view) {
		v.status = said.status
		if first = said.ready && v.phase == Starting; first {
			v.phase = Ready
		}
	})
	if first {
		c.log.Debug("ready", "name", c.entry.Name, "pid", p.pid, "after_ms", (clock.Boot() - p.began).Milliseconds())
		c.settle()
	}
	return first
}

// errStopping says that the fleet ended before an order was carried out.
var errStopping = errors.New("the fleet is stopping")

// do carries out an order, and returns when it is done.
func (c *child) do(ctx context.Context, verb string) error {
	o := order{verb, make(chan struct{})}
	select {
	case c.orders <- o:
	case <-c.ended:
		return errStopping
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", verb, c.entry.Name, ctx.Err())
	}
	select {
	case <-o.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: it is still stopping: %w", verb, c.entry.Name, ctx.Err())
	}
}
