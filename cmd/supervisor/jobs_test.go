package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// withJobs is a fleet with jobs, each given by its name and further lines.
func withJobs(t *testing.T, jobs ...string) (b *box, trace func() string) {
	t.Helper()
	path := filepath.Join(shortDir(t), "trace")
	text := "[sensor.air]\nprogram = \"fake-sensor\"\n"
	for _, lines := range jobs {
		name, rest, _ := strings.Cut(lines, "\n")
		text += fmt.Sprintf("[job.%s]\nprogram = \"fake-job\"\nsource = \"air\"\ntrace = %q\n%s\n", name, path, rest)
	}
	return newBox(t, text), func() string {
		all, _ := os.ReadFile(path)
		return string(all)
	}
}

// A job goes well, fails, takes too long, and goes well again; another one
// ends with the fleet.
func TestJobs(t *testing.T) {
	t.Parallel()
	b, trace := withJobs(t,
		"sweep\nevery = \"1s\"\ntimeout = \"4s\"\nruns = [\"done\", \"fail\", \"slow\", \"done\"]",
		"long\nevery = \"1s\"\nruns = [\"slow\"]")
	r := b.up()
	b.until("sweep was run five times", 30*time.Second, func() bool { j := b.job("sweep"); return j.Runs >= 5 && j.Phase == Scheduled })
	j := b.job("sweep")
	if j.Failures != 2 || j.LastExit.Code != 0 || j.Trouble != "" || !strings.HasSuffix(j.Status, ": done") {
		t.Errorf("sweep = %+v; want two failures, the last run well, and what it did", j)
	}
	if made := strings.Count(trace(), "run sweep\n"); made < int(j.Runs) {
		t.Errorf("%d runs were made, %d counted", made, j.Runs)
	}
	for _, want := range []string{`"exit":"failed with exit code 1: fake-job: it broke"`, `"exit":"not done after 4s"`,
		`"msg":"skipped: the last run has not ended","worker":"supervisor","name":"long"`} {
		if logs := b.logs(); !strings.Contains(logs, want) {
			t.Errorf("the log does not say %s:\n%s", want, logs)
		}
	}
	b.until("runs of long were skipped", 20*time.Second, func() bool { return b.job("long").Skipped >= 2 })
	if long := b.job("long"); long.Runs != 1 || long.Phase != Running || long.PID == 0 || long.NextS == nil {
		t.Errorf("long = %+v; want one run, under way", long)
	}
	if err := r.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r.ended(20 * time.Second)
	if !strings.Contains(trace(), "stop long\n") {
		t.Errorf("long was not told to stop:\n%s", trace())
	}
	b.wantNothingLeft()
}

// Jobs are neither waited for nor part of what is ready.
func TestReadyDoesNotDependOnJobs(t *testing.T) {
	t.Parallel()
	b, _ := withJobs(t, "sweep\nevery = \"1s\"\nruns = [\"fail\"]", "night\ncron = \"0 0 1 1 *\"")
	b.up()
	b.until("sweep has failed", 20*time.Second, func() bool { return b.job("sweep").Failures > 0 })
	if out, err := b.supervisor("wait", b.file); err != nil {
		t.Errorf("wait = %v\n%s; want ready", err, out)
	}
	j := b.untilJob("sweep", Scheduled)
	if want := "last run: failed with exit code 1: fake-job: it broke"; j.Trouble != want {
		t.Errorf("trouble = %q; want %q", j.Trouble, want)
	}
	out, err := b.supervisor("status", b.file)
	if err != nil || !strings.Contains(out, "1 of 1 ready") || !strings.Contains(out, "sweep scheduled: last run: failed") {
		t.Errorf("status = %v\n%s; want 1 of 1 ready, and how sweep failed", err, out)
	}
	night := b.job("night")
	if known := night.NextS != nil; night.Runs != 0 || night.Schedule != "cron 0 0 1 1 *" || known != b.state().Synced ||
		!known && night.Status != "waits until the wall clock is synchronised" {
		t.Errorf("night = %+v; want its next time, or that it waits for the clock", night)
	}
}

func (b *box) untilJob(name string, want Phase) (j Job) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s is %s", name, want), 20*time.Second, func() bool {
		j = b.job(name)
		return j.Phase == want
	})
	return j
}

func TestJobWithBadConfigIsHeld(t *testing.T) {
	t.Parallel()
	b, trace := withJobs(t, "sweep\nevery = \"1s\"\nruns = [\"config\", \"done\"]")
	b.up()
	j := b.untilJob("sweep", Held)
	if want := "fake-job: the model is of another kind"; j.Trouble != want || j.Failures != 1 || j.NextS != nil {
		t.Errorf("sweep = %+v; want trouble %q, one failure, no next time", j, want)
	}
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	if got := trace(); got != "run sweep\n" {
		t.Errorf("runs = %q; want one", got)
	}
	if err := os.WriteFile(b.file, append(text, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	b.until("sweep runs again", 20*time.Second, func() bool { j := b.job("sweep"); return j.Runs >= 2 && j.Phase == Scheduled })
}

func TestJobThatHangsOrIsDeaf(t *testing.T) {
	t.Parallel()
	b, _ := withJobs(t, "hang\nevery = \"1s\"\nruns = [\"hang\", \"done\"]", "deaf\nevery = \"1s\"\ntimeout = \"1s\"\nruns = [\"deaf\", \"done\"]")
	b.up("--watchdog", "1s", "--grace", "200ms")
	for name, want := range map[string]string{"hang": "no heartbeat for 1s", "deaf": "not done after 1s"} {
		b.until(name+" was ended and went well", 30*time.Second, func() bool { j := b.job(name); return j.Runs >= 2 && j.LastExit != nil && j.LastExit.Why == "" })
		if j := b.job(name); j.Failures == 0 || !strings.Contains(b.logs(), want) { // on a slow machine not the only one
			t.Errorf("%s = %+v; want a failure: %s", name, j, want)
		}
	}
}

func TestJobIsStartedAndStopped(t *testing.T) {
	t.Parallel()
	b, trace := withJobs(t, "sweep\nevery = \"24h\"\nruns = [\"slow\", \"done\"]")
	b.up()
	b.untilJob("sweep", Scheduled)
	for _, step := range []struct {
		verb string
		want Phase
	}{{"start", Running}, {"start", Running}, {"stop", Stopped}, {"restart", Scheduled}} {
		if out, err := b.supervisor(step.verb, b.file, "sweep"); err != nil {
			t.Fatal(out, err)
		}
		if step.verb == "start" { // until it can be told to stop
			b.until("it runs", 20*time.Second, func() bool { return trace() != "" })
		}
		b.untilJob("sweep", step.want)
	}
	b.until("the second run is over", 20*time.Second, func() bool { return b.job("sweep").PID == 0 && b.job("sweep").Runs == 2 })
	if diff := cmp.Diff("run sweep\nstop sweep\nrun sweep\n", trace()); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	if j := b.job("sweep"); j.Failures != 0 || j.Skipped != 0 {
		t.Errorf("sweep = %+v; want no failure: a person stopped it", j)
	}
}
