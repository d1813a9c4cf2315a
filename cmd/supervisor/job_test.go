package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/topology"
)

// trial is a job under fake time (testing/synctest), whose runs are made up.
type trial struct {
	*job
	began  time.Time
	wall   atomic.Int64 // how far the wall clock was set, a time.Duration
	synced atomic.Bool
	takes  func(run int) time.Duration
	exit   func(run int) int
	up     chan struct{}

	lock   sync.Mutex
	starts []time.Duration // since the beginning
}

// newTrial begins at 2000-01-01 00:00 UTC, where synctest begins.
func newTrial(t *testing.T, lines string) *trial {
	t.Helper()
	e := &topology.Entry{Name: "sweep", Role: topology.Job, Timeout: topology.Duration(time.Hour)}
	for _, set := range []interface{ UnmarshalText([]byte) error }{&e.Every, &e.Cron} {
		if set.UnmarshalText([]byte(lines)) == nil {
			break
		}
	}
	j := &trial{began: time.Now(), up: make(chan struct{}),
		takes: func(int) time.Duration { return time.Second }, exit: func(int) int { return 0 }}
	j.synced.Store(true)
	c := newChild(e)
	c.log, c.changed, c.timing = slog.New(slog.DiscardHandler), func() {}, timing{Watchdog: 10 * time.Second}
	j.job = newJob(c, clock.Fixed("boot", func() clock.Stamp {
		return clock.Stamp{Wall: time.Now().Add(time.Duration(j.wall.Load())).UTC(), Boot: time.Since(j.began), Synced: j.synced.Load()}
	}), j.up)
	j.times.zone = time.UTC
	j.spawn = j.fake
	return j
}

// begin begins the job's life, with a fleet that is up if it is. The function
// it returns ends it.
func (j *trial) begin(t *testing.T, up bool) (over func()) {
	ctx, cancel := context.WithCancel(t.Context())
	if up {
		close(j.up)
	}
	done := make(chan struct{})
	go func() { defer close(done); j.run(ctx) }()
	return func() {
		for j.look().process != nil { // one that cannot be told to end
			time.Sleep(time.Second)
		}
		cancel()
		<-done
	}
}

// set sets the wall clock so far from its first course.
func (j *trial) set(by time.Duration) { j.wall.Store(int64(by)) }

// fake is a process that ends by itself.
func (j *trial) fake() (*process, error) {
	j.lock.Lock()
	defer j.lock.Unlock()
	run := len(j.starts)
	j.starts = append(j.starts, time.Since(j.began))
	p := &process{gone: make(chan struct{}), exit: Exit{Code: j.exit(run)}}
	time.AfterFunc(j.takes(run), func() { close(p.gone) })
	return p, nil
}

func (j *trial) ran() []time.Duration {
	j.lock.Lock()
	defer j.lock.Unlock()
	return slices.Clone(j.starts)
}

// after lets time go by, and says where the job is then.
func (j *trial) after(d time.Duration) tally {
	time.Sleep(d)
	synctest.Wait()
	return j.look().job
}

func (j *trial) wantStarts(t *testing.T, want ...time.Duration) {
	t.Helper()
	if diff := cmp.Diff(want, j.ran()); diff != "" {
		t.Errorf("starts (-want +got):\n%s", diff)
	}
}

func TestJobRunsSoonAndThenFromStartToStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "10m")
		j.takes = func(int) time.Duration { return 3 * time.Minute }
		defer j.begin(t, false)()
		j.after(time.Hour)
		j.wantStarts(t) // the fleet has not been started
		if v := j.look(); v.phase != Waiting || v.status != "waits until the fleet has been started" {
			t.Errorf("before the fleet: %s, %q; want waiting, and for what", v.phase, v.status)
		}
		close(j.up)
		got := j.after(31 * time.Minute)
		first := time.Hour + firstRun
		j.wantStarts(t, first, first+10*time.Minute, first+20*time.Minute, first+30*time.Minute)
		if want := (tally{due: first + 40*time.Minute, runs: 4}); got != want {
			t.Errorf("tally = %+v; want %+v", got, want)
		}
		if p := j.look().phase; p != Running {
			t.Errorf("phase = %s; want running", p)
		}
		j.after(3 * time.Minute)
		if p := j.look().phase; p != Scheduled {
			t.Errorf("phase = %s; want scheduled", p)
		}
	})
}

func TestShortPeriodBeginsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "5s")
		defer j.begin(t, true)()
		j.after(12 * time.Second)
		j.wantStarts(t, 5*time.Second, 10*time.Second)
	})
}

func TestRunThatIsDueDuringAnotherIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "10m")
		j.takes = func(run int) time.Duration { return []time.Duration{35 * time.Minute, time.Second, time.Second}[run] }
		defer j.begin(t, true)()
		got := j.after(55 * time.Minute)
		j.wantStarts(t, firstRun, firstRun+40*time.Minute, firstRun+50*time.Minute)
		if got.skipped != 3 || got.runs != 3 {
			t.Errorf("%d runs, %d skipped; want 3, 3", got.runs, got.skipped)
		}
	})
}

func TestFailedJobWaitsForItsNextTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "10m")
		j.exit = func(run int) int { return []int{1, 75, 0, 0}[run] }
		defer j.begin(t, true)()
		got := j.after(12 * time.Minute)
		if want := (tally{due: firstRun + 20*time.Minute, runs: 2, failures: 2, failed: true}); got != want {
			t.Errorf("after two failures: %+v; want %+v", got, want)
		}
		if v := j.look(); v.phase != Scheduled || v.lastExit.Code != 75 {
			t.Errorf("after two failures: %s, exit code %d; want scheduled, 75", v.phase, v.lastExit.Code)
		}
		got = j.after(10 * time.Minute)
		if want := (tally{due: firstRun + 30*time.Minute, runs: 3, failures: 2}); got != want {
			t.Errorf("after it went well: %+v; want %+v", got, want)
		}
		j.wantStarts(t, firstRun, firstRun+10*time.Minute, firstRun+20*time.Minute)
	})
}

// A job by the wall clock, from 00:00 on; cron = "30 * * * *" is the half hours.
func TestCronWaitsForTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "30 * * * *")
		j.synced.Store(false)
		defer j.begin(t, true)()
		j.after(100 * time.Minute)
		j.wantStarts(t)
		if v := j.look(); v.phase != Waiting || v.status != "waits until the wall clock is synchronised" || v.job.due != 0 {
			t.Errorf("unsynced: %s, %q, due %v; want waiting, for what, and no time", v.phase, v.status, v.job.due)
		}
		j.set(26 * 365 * 24 * time.Hour)
		j.synced.Store(true) // it was 1:40 h after the epoch of a box without a battery
		got := j.after(10 * time.Minute)
		if want := (tally{due: 150 * time.Minute}); got != want {
			t.Errorf("synced: %+v; want %+v", got, want)
		}
		j.synced.Store(false) // the net is gone, and the clock still right enough
		j.after(2 * time.Hour)
		j.wantStarts(t, 150*time.Minute, 210*time.Minute)
	})
}

func TestCronAfterAStepForwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "30 * * * *")
		defer j.begin(t, true)()
		j.after(40 * time.Minute) // 00:40
		j.set(10 * time.Hour)     // 10:40: ten times were stepped over
		j.after(2 * time.Minute)
		if ran := j.ran(); len(ran) != 2 || ran[1] > 41*time.Minute {
			t.Errorf("starts = %v; want one within a minute of the step, for all ten", ran)
		}
		j.after(time.Hour) // 11:42
		if ran := j.ran(); len(ran) != 3 || ran[2] != 90*time.Minute {
			t.Errorf("starts = %v; want the next at 11:30", ran)
		}
	})
}

func TestCronAfterAStepBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "30 * * * *")
		defer j.begin(t, true)()
		j.after(40 * time.Minute)       // 00:40, next 01:30
		j.set(-365 * 24 * time.Hour)    // a year ago
		got := j.after(2 * time.Minute) // 00:42, next 01:30 of that year
		if want := 90 * time.Minute; got.due != want {
			t.Errorf("due at %v; want %v: not in a year", got.due, want)
		}
		j.set(-365*24*time.Hour - 20*time.Minute) // 00:22
		j.after(10 * time.Minute)
		j.wantStarts(t, 30*time.Minute, 50*time.Minute)
	})
}

// A clock that is set back by a second right after a run does not run it again.
func TestCronAfterASmallStepBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "30 * * * *")
		j.takes = func(int) time.Duration { j.set(-time.Second); return time.Millisecond }
		defer j.begin(t, true)()
		j.after(80 * time.Minute)
		j.wantStarts(t, 30*time.Minute)
	})
}

// A clock that is set back to before each run makes no burst.
func TestCronUnderAClockGoneMad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "* * * * *")
		j.takes = func(run int) time.Duration {
			j.set(time.Duration(run+1) * -61 * time.Second)
			return time.Millisecond
		}
		defer j.begin(t, true)()
		j.after(10*time.Minute + time.Second)
		var want []time.Duration
		for i := range 10 {
			want = append(want, time.Duration(i+1)*time.Minute)
		}
		j.wantStarts(t, want...)
	})
}

func TestOrdersToAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newTrial(t, "10m")
		defer j.begin(t, true)()
		order := func(verb string) {
			t.Helper()
			if err := j.do(t.Context(), verb); err != nil {
				t.Errorf("%s = %v", verb, err)
			}
			synctest.Wait()
		}
		order("start") // now, in place of in ten seconds
		order("start") // it runs already
		j.after(5 * time.Minute)
		order("stop")
		if p := j.look().phase; p != Stopped {
			t.Errorf("phase after stop = %s; want stopped", p)
		}
		j.after(time.Hour)
		order("restart")
		j.after(11 * time.Minute)
		j.wantStarts(t, 0, 65*time.Minute, 75*time.Minute)
		if got := j.look().job; got.skipped != 0 || got.runs != 3 {
			t.Errorf("%d runs, %d skipped; want 3, and none skipped while it was stopped", got.runs, got.skipped)
		}
	})
}
