package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// job is a worker that runs now and then: a child with a life of its own. It is
// no part of the order in which the fleet starts and stops.
type job struct {
	*child
	times timetable
	clock *clock.Clock
	limit time.Duration   // of a run
	up    <-chan struct{} // closed when the fleet has been started
	spawn func() (*process, error)
}

// tally is what there is to see of a job, besides what there is of any child.
type tally struct {
	due      time.Duration // boot time of the next run; 0 where it is not known
	runs     uint64
	failures uint64
	skipped  uint64 // runs that were due while the one before still ran
	failed   bool   // the last run
}

func newJob(c *child, present *clock.Clock, up <-chan struct{}) *job {
	return &job{child: c, times: timetableOf(c.entry), clock: present, limit: c.entry.Timeout.D(), up: up, spawn: c.launch}
}

// run runs the job at its times, until ctx is done.
func (j *job) run(ctx context.Context) {
	defer close(j.ended)
	for next := (pause{timed: true}); j.rest(ctx, next); {
		next = j.live(ctx)
	}
	j.enter(Stopped)
}

// rest waits for the next run. It returns false when there will be none.
func (j *job) rest(ctx context.Context, p pause) bool {
	if !p.timed {
		return j.child.rest(ctx, p)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-j.up:
			j.fleetIsUp()
			timer.Reset(0)
		case <-timer.C:
			wait, due := j.consult()
			if due {
				return ctx.Err() == nil
			}
			timer.Reset(wait)
		case o := <-j.orders:
			close(o.done)
			if o.verb != "stop" {
				return true
			}
			j.enter(Stopped)
			return j.child.rest(ctx, pause{ordered: true})
		}
	}
}

// fleetIsUp begins the timetable.
func (j *job) fleetIsUp() {
	j.up = nil
	j.times.begin(j.clock.Now())
}

// consult looks at the timetable: whether the job is due, and otherwise when to
// look again.
func (j *job) consult() (wait time.Duration, due bool) {
	now := j.clock.Now()
	left, why := j.times.left(now)
	j.update(func(v *view) {
		v.job.due = 0
		if why == "" {
			v.job.due = now.Boot + left
		}
		switch {
		case v.process != nil: // it is in a run
		case why != "":
			v.phase, v.status = Waiting, why
		case v.phase != Scheduled:
			v.phase, v.status = Scheduled, ""
		}
	})
	if why != "" {
		return time.Second, false
	}
	return min(left, lookAgain), left == 0
}

// live runs the job once, and says what is to follow.
func (j *job) live(ctx context.Context) pause {
	j.times.advance(j.clock.Now())
	j.update(func(v *view) { v.phase = Running; v.job.runs++ })
	p, err := j.spawn()
	if err != nil {
		return j.failed(notStarted(err))
	}
	j.started(p, Running)
	end := j.attend(ctx, p)
	<-p.gone
	exit, said := p.exit, p.heard.now()
	exit.Why = end.why
	if said.status == "done" { // what it did says more
		said.status = said.did
	}
	j.update(func(v *view) { v.process, v.lastExit, v.status, v.job.failed = nil, &exit, said.status, false })
	switch {
	case end.order != nil && end.order.verb == "restart":
		close(end.order.done)
		return pause{}
	case end.order != nil:
		j.enter(Stopped)
		close(end.order.done)
		return pause{ordered: true}
	case ctx.Err() != nil && exit.Why == "":
		return pause{ordered: true}
	case exit.Code != worker.ExitDone || exit.Why != "":
		return j.failed(exit)
	}
	j.enter(Scheduled)
	j.log.Debug("done", "name", j.entry.Name, "ran_s", exit.RanS)
	return pause{timed: true}
}

// failed takes note of a failure. There is no second try before the next time.
func (j *job) failed(exit Exit) pause {
	j.update(func(v *view) { v.lastExit, v.job.failed, v.job.failures = &exit, true, v.job.failures+1 })
	if exit.badConfig() {
		return j.hold(exit)
	}
	j.enter(Scheduled)
	j.log.Warn("failed", "name", j.entry.Name, "exit", exit.String(), "failures", j.look().job.failures)
	return pause{timed: true}
}

// attend watches over a run until it has ended.
func (j *job) attend(ctx context.Context, p *process) ending {
	limit, look := time.NewTimer(j.limit), time.NewTimer(0)
	defer limit.Stop()
	defer look.Stop()
	var beat <-chan time.Time // from its first heartbeat on
	skips := 0
	for {
		select {
		case <-p.gone:
			return ending{}
		case <-p.wake:
			j.hear(p)
			if beat == nil && !p.heard.now().beat.IsZero() {
				beat = time.After(j.timing.Watchdog)
			}
		case <-beat:
			left := j.timing.Watchdog - p.silence()
			if left <= 0 {
				return j.abort(p, true)
			}
			beat = time.After(left)
		case <-limit.C:
			return j.overrun(p)
		case <-j.up:
			j.fleetIsUp()
		case <-look.C:
			wait, due := j.consult()
			if due {
				j.skip(skips)
				skips++
			}
			look.Reset(wait)
		case o := <-j.orders:
			if o.verb == "start" {
				close(o.done)
				continue
			}
			return ending{why: j.stop(p), order: &o}
		case <-ctx.Done():
			return ending{why: j.stop(p)}
		}
	}
}

// skip passes over a time that came while the last run has not ended. The log
// tells of the first in a run.
func (j *job) skip(before int) {
	j.times.advance(j.clock.Now())
	j.update(func(v *view) { v.job.skipped++ })
	if before == 0 {
		j.log.Warn("skipped: the last run has not ended", "name", j.entry.Name)
	}
}

// overrun ends a run that takes too long.
func (j *job) overrun(p *process) ending {
	why := fmt.Sprintf("not done after %v", topology.Duration(j.limit))
	j.enter(Failing)
	j.log.Error("takes too long", "name", j.entry.Name, "why", why)
	_ = p.end(syscall.SIGTERM, j.timing.Grace, j.kill) // it was to end either way
	return ending{why: why}
}
