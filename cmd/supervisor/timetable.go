package main

import (
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/topology"
)

const (
	// firstRun is when a job that runs every so often runs first, once the
	// fleet has been started; earlier where its period is shorter.
	firstRun = 10 * time.Second
	// lookAgain is how often a timetable is looked at, at least: a timer knows
	// nothing of a step of the wall clock, and does not run in a suspended box.
	lookAgain = time.Minute
	// leastApart is the least time between two runs by the wall clock, whose
	// schedules have whole minutes: however it steps, runs do not follow at once.
	leastApart = time.Minute
)

// timetable knows when a job is due. It has no timer of its own: it is looked
// at, with the present moment.
type timetable struct {
	every time.Duration // on the boot clock; 0 where cron says when
	cron  topology.Cron
	zone  *time.Location

	begun  bool
	due    time.Duration // boot time; by cron, not before it
	next   time.Time     // by cron; zero where it is not known
	last   time.Time     // by cron: when it was due last
	synced bool          // the wall clock has been right once, and is so to seconds for days
}

func timetableOf(e *topology.Entry) timetable {
	return timetable{every: e.Every.D(), cron: e.Cron, zone: time.Local}
}

// begin is the moment when the fleet has been started. A person may have run the
// job already.
func (t *timetable) begin(now clock.Stamp) {
	t.begun = true
	if t.every > 0 && t.due == 0 {
		t.due = now.Boot + min(t.every, firstRun)
	}
}

// left is the time until the job is due, 0 when it is; why says what it waits
// for where that is not known.
func (t *timetable) left(now clock.Stamp) (left time.Duration, why string) {
	t.synced = t.synced || now.Synced
	switch {
	case !t.begun:
		return 0, "waits until the fleet has been started"
	case t.every > 0:
		return max(t.due-now.Boot, 0), ""
	case !t.synced:
		return 0, "waits until the wall clock is synchronised"
	}
	wall := now.Wall.In(t.zone)
	from := wall
	if back := t.last.Sub(wall); back > 0 && back < leastApart { // a small step back repeats nothing
		from = t.last
	}
	if next := t.cron.Next(from); t.next.IsZero() || next.Before(t.next) { // the clock was set back
		t.next = next
	}
	return max(t.next.Sub(wall), t.due-now.Boot, 0), ""
}

// advance goes on to the next time, since the job runs now or ought to. What
// has passed meanwhile, in a suspended box or by a step of the clock, was one
// time and not many.
func (t *timetable) advance(now clock.Stamp) {
	if t.every > 0 {
		t.due = now.Boot + t.every
		return
	}
	t.due, t.next, t.last = now.Boot+leastApart, time.Time{}, now.Wall.In(t.zone)
}
