package main

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

const pair = "[sensor.air]\nprogram = \"fake-sensor\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\nbehave = \"BEHAVE\"\n"

// A reader that ends badly when all is to stop, or does not run then, has not
// saved all that was sent: its sources' histories are there for the next run, and
// nothing says that all is well.
func TestHistoriesStayForAReaderThatHasNotSavedAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		behave string
		flags  []string
		phase  Phase
		before func(b *box) // what happens before the stop
		code   int          // of down, and of the supervisor
		says   string
	}{
		{"loss", nil, Ready, nil, 1, "csv failed with exit code 1: fake-reader: 7 rows could not be saved: the disk is full"},
		{"crash", nil, Ready, nil, 1, "csv failed with exit code 2: panic: as asked"},
		{"deaf", []string{"--grace", "100ms"}, Ready, nil, 1, "csv killed: it did not stop when asked"},
		{"config", nil, Held, nil, 1, "csv did not run (held): the configuration is wrong: fake-reader: the model is of another kind"},
		{"fail", nil, Backoff, func(b *box) {
			b.until("csv waits for long", 20*time.Second, func() bool { return b.worker("csv").Restarts >= 3 })
		},
			1, "failed with exit code 1: fake-reader: it broke"}, // or it was in one more try
		{"ready", nil, Ready, func(b *box) {
			if _, err := b.supervisor("stop", b.file, "csv"); err != nil {
				b.t.Fatal(err)
			}
		}, 0, ""},
		{"ready", nil, Ready, func(b *box) { // before its sources have ended, as systemd's KillMode=control-group does
			if err := syscall.Kill(b.worker("csv").PID, syscall.SIGSTOP); err != nil {
				b.t.Fatal(err)
			}
			go func() {
				b.until("air has stopped", 20*time.Second, func() bool { return b.worker("air").Phase == Stopping || b.worker("air").Phase == Stopped })
				_ = syscall.Kill(b.worker("csv").PID, syscall.SIGKILL)
			}()
		}, 1, "csv killed by SIGKILL"},
	} {
		t.Run(tt.behave, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, strings.Replace(pair, "BEHAVE", tt.behave, 1))
			r := b.up(tt.flags...)
			b.untilPhase("csv", tt.phase)
			b.until("readings were sent", 20*time.Second, func() bool { return b.worker("air").Published["reading/air/environment"].Count >= 5 })
			if tt.before != nil {
				tt.before(b)
			}
			out, err := b.supervisor("down", b.file)
			if codeOf(err) != tt.code || !strings.Contains(out, tt.says) {
				t.Errorf("down = %v\n%s; want exit code %d, %q", err, out, tt.code, tt.says)
			}
			const kept = "messages of reading/air/environment are kept in "
			if !strings.Contains(out, kept+b.shm+" for csv (2.") {
				t.Errorf("down = %v\n%s; want what is kept, for whom, and how much RAM it takes", err, out)
			}
			r.ended(20 * time.Second)
			if code := r.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code of up = %d; want %d\n%s", code, tt.code, r.said.String())
			}
			out, err = b.supervisor("down", b.file)
			if err != nil || !strings.Contains(out, kept) {
				t.Errorf("second down = %v\n%s; want that it keeps them too", err, out)
			}
			b.write(strings.Replace(pair, "BEHAVE", "ready", 1))
			second := b.up()
			b.until("csv has read both runs of air", 20*time.Second, func() bool { return b.worker("csv").Gauges["epochs"] == 2 })
			if out, err := b.supervisor("down", b.file); err != nil || out != "stopped\n" {
				t.Errorf("down after all was read = %v\n%s; want stopped", err, out)
			}
			second.ended(20 * time.Second)
			b.wantNothingLeft()
		})
	}
}

// The foreground says it as well: Ctrl-C and SIGTERM.
func TestInterruptedFleetFailsWhereRowsWereNotSaved(t *testing.T) {
	t.Parallel()
	b := newBox(t, strings.Replace(pair, "BEHAVE", "loss", 1))
	r := b.up()
	b.untilPhase("csv", Ready)
	b.until("readings were sent", 20*time.Second, func() bool { return b.worker("air").Published["reading/air/environment"].Count >= 5 })
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.ended(20 * time.Second)
	said := r.said.String()
	want := "supervisor: not all ended well: csv failed with exit code 1: fake-reader: 7 rows could not be saved: the disk is full; the last "
	if code := r.ProcessState.ExitCode(); code != 1 || !strings.Contains(said, want) {
		t.Errorf("exit code = %d, and it said\n%s; want 1, and %q", code, said, want)
	}
	if out, err := b.supervisor("down", "--discard", b.file); err != nil {
		t.Errorf("down --discard = %v\n%s", err, out)
	}
	b.wantNothingLeft()
}

// A start that is broken off, or fails, does not cost what is kept.
func TestFailedStartKeepsHistories(t *testing.T) {
	t.Parallel()
	b := newBox(t, strings.Replace(pair, "BEHAVE", "loss", 1))
	r := b.up()
	b.untilPhase("csv", Ready)
	b.until("readings were sent", 20*time.Second, func() bool { return b.worker("air").Published["reading/air/environment"].Count >= 5 })
	if _, err := b.supervisor("down", b.file); codeOf(err) != 1 {
		t.Errorf("down = %v; want exit code 1", err)
	}
	r.ended(20 * time.Second)
	b.write(strings.Replace(pair, "BEHAVE", "never", 1))
	b.up("--start-deadline", "1m")
	if out, err := b.supervisor("down", b.file); !strings.Contains(out, "messages of reading/air/environment are kept in ") {
		t.Errorf("down = %v\n%s; want that the history is still kept", err, out)
	}
}

// What is older than a history holds is not kept, and that is said.
func TestKeptHistoriesSayWhatTheyHold(t *testing.T) {
	e := &Ending{ShmDir: "/dev/shm/perch", Failed: []Failed{{"csv", "failed"}}, Kept: []Kept{
		{Topic: "reading/air/environment", For: []string{"csv"}, Messages: 1024, Sent: 172800, Bytes: 2 << 20},
		{Topic: "reading/soil/water", For: []string{"csv", "send"}, Messages: 5, Sent: 5, Bytes: 1 << 20}}}
	want := "not all ended well: csv failed; the last 1024 of 172800 messages of reading/air/environment, the last 5 messages of reading/soil/water " +
		"are kept in /dev/shm/perch for csv, send (3.0M of RAM): the next supervisor up reads them, supervisor down --discard removes them"
	if got := e.err().Error(); got != want {
		t.Errorf("err() = %s; want %s", got, want)
	}
}

// A worker that fails again and again has failed as well when the stop comes while its next try
// begins, before it handles SIGTERM.
func TestFailureOfAWorkerThatIsBeingTriedAgain(t *testing.T) {
	term, broke := &Exit{Code: -1, Signal: "SIGTERM"}, &Exit{Code: 1}
	for _, tt := range []struct {
		s    stopped
		want bool
	}{
		{stopped{exit: term}, false},
		{stopped{exit: term, before: &Exit{}}, false},
		{stopped{exit: term, before: broke, ready: true}, false},
		{stopped{exit: term, before: broke}, true},
	} {
		if got := tt.s.failure(term); (got != "") != tt.want {
			t.Errorf("failure() of %+v = %q; want one: %v", tt.s, got, tt.want)
		}
	}
}
