package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
)

const chain = `
[sensor.air]
program = "fake-sensor"
trace = "TRACE"
[worker.csv]
program = "fake-reader"
source = "air"
trace = "TRACE"
[worker.send]
program = "fake-reader"
source = ["csv", "air"]
trace = "TRACE"
`

// A reader is ready before its sources start, and stops after they have.
func TestOrderOfStartAndStop(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(shortDir(t), "trace")
	b := newBox(t, strings.ReplaceAll(chain, "TRACE", trace))
	r := b.up()
	b.untilPhase("air", Ready)
	if err := r.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r.ended(20 * time.Second)
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ready send", "ready csv", "ready air", "stop air", "stop csv", "stop send"}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(text)), "\n")); diff != "" {
		t.Errorf("order of starts and stops (-want +got):\n%s", diff)
	}
	if code := r.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code = %d; want 0\n%s", code, r.said.String())
	}
	b.wantNothingLeft()
}

func TestKilledWorkerIsReadyAgainWithinTwoSeconds(t *testing.T) {
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\n")
	b.up()
	for _, name := range []string{"air", "csv"} {
		w := b.untilPhase(name, Ready)
		killed := time.Now()
		if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		var now Worker
		b.until(name+" runs again", 20*time.Second, func() bool {
			now = b.worker(name)
			return now.Phase == Ready && now.PID != w.PID
		})
		if took := time.Since(killed); took > 2*time.Second && !raceDetector {
			t.Errorf("%s was ready again after %v; want 2s at most", name, took)
		}
		if now.Restarts != 1 || now.LastExit == nil || now.LastExit.Signal != "SIGKILL" {
			t.Errorf("%s: restarts = %d, last exit = %+v; want 1, SIGKILL", name, now.Restarts, now.LastExit)
		}
	}
}

// However often somebody kills a worker that is well: it is not its failure.
func TestKillsDoNotAddUp(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n")
	b.up()
	for last := 0; b.worker("air").Restarts < 3; {
		var w Worker
		b.until("air has run for a second", 20*time.Second, func() bool {
			w = b.worker("air")
			return w.Phase == Ready && w.PID != last && w.UpS > 1
		})
		last = w.PID
		if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.until("the kill was noticed", 20*time.Second, func() bool { return b.worker("air").PID != last })
	}
	if logs := b.logs(); strings.Contains(logs, `"failures":2`) {
		t.Errorf("kills were counted as a series of failures:\n%s", logs)
	}
}

// A worker that somebody else tells to stop has not done its work.
func TestWorkerStoppedByAnotherHandIsStartedAgain(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n")
	b.up()
	pid := b.untilPhase("air", Ready).PID
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.until("air runs again", 20*time.Second, func() bool { w := b.worker("air"); return w.Phase == Ready && w.PID != pid })
	if w := b.worker("air"); w.LastExit.Code != 0 {
		t.Errorf("last exit = %+v; want code 0", w.LastExit)
	}
}

func TestFailingWorkerIsTriedAgainAndDoesNotKeepItsSourceDown(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\nbehave = \"fail\"\n")
	b.up()
	b.untilPhase("air", Ready)
	b.until("csv was started three times", 20*time.Second, func() bool { return b.worker("csv").Restarts >= 2 })
	w := b.untilPhase("csv", Backoff)
	if want := "failed with exit code 1: fake-reader: it broke"; w.Trouble != want {
		t.Errorf("trouble = %q; want %q", w.Trouble, want)
	}
	out, err := b.supervisor("status", b.file)
	if codeOf(err) != 1 || !strings.Contains(out, "1 of 2 ready") {
		t.Errorf("status = %v\n%s; want exit code 1, 1 of 2 ready", err, out)
	}
	b.until("wait says what is wrong, once csv is between two tries", 20*time.Second, func() bool {
		out, err = b.supervisor("wait", b.file, "--timeout", "100ms")
		return codeOf(err) == 1 && strings.Contains(out, "fake-reader: it broke")
	})
}

func TestBadConfigIsHeldUntilTheTopologyChanges(t *testing.T) {
	t.Parallel()
	entry := "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"config\"\n"
	b := newBox(t, entry)
	b.up()
	w := b.untilPhase("air", Held)
	if want := "fake-sensor: the model is of another kind"; w.Trouble != want || w.LastExit.Code != 78 {
		t.Errorf("trouble = %q, exit code %d; want %q, 78", w.Trouble, w.LastExit.Code, want)
	}
	b.write(strings.Replace(entry, "config", "ready", 1))
	if w := b.untilPhase("air", Ready); w.Restarts != 1 {
		t.Errorf("restarts = %d; want 1: held, and not tried in between", w.Restarts)
	}
}

// A program that exits without a word leaves a way to go on: its code, and its log,
// which is there.
func TestExitWithoutAnErrorMessage(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"exit78\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\nbehave = \"exit1\"\n")
	b.up()
	for name, want := range map[string]struct {
		phase   Phase
		trouble string
	}{
		"air": {Held, "exited with code 78: the configuration is wrong, without an error message; see "},
		"csv": {Backoff, "failed with exit code 1, without an error message; see "},
	} {
		var w Worker
		b.until(name+" is "+string(want.phase), 20*time.Second, func() bool { w = b.worker(name); return w.Phase == want.phase })
		log, found := strings.CutPrefix(w.Trouble, want.trouble)
		if !found || filepath.Base(log) != name+".log" {
			t.Errorf("%s: trouble = %q; want %q and its log", name, w.Trouble, want.trouble)
			continue
		}
		b.until("the log has the exit", 20*time.Second, func() bool {
			text, err := os.ReadFile(log)
			return err == nil && strings.Contains(string(text), "exited without an error message")
		})
	}
	if out, err := b.supervisor("status", b.file); err == nil || !strings.Contains(out, "exited with code 78") {
		t.Errorf("status = %v\n%s; want the code", err, out)
	}
}

func TestDoneIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"done\"\n")
	b.up()
	w := b.untilPhase("air", Done)
	if w.Restarts != 0 || w.PID != 0 || w.LastExit.Code != 0 {
		t.Errorf("done worker = %+v; want no process, no restart, exit code 0", w)
	}
	if out, err := b.supervisor("wait", b.file); err != nil {
		t.Errorf("wait = %v\n%s; want that done is as good as ready", err, out)
	}
	if _, err := b.supervisor("start", b.file, "air"); err != nil {
		t.Fatal(err)
	}
	b.until("air was started again", 20*time.Second, func() bool { w := b.worker("air"); return w.Restarts == 1 && w.Phase == Done })
}

func TestWorkerThatIsNeverReadyIsEnded(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"never\"\n")
	b.up("--start-deadline", "500ms")
	b.until("air was started again", 20*time.Second, func() bool { return b.worker("air").Restarts >= 1 })
	if why := b.worker("air").LastExit.Why; why != "not ready after 500ms" {
		t.Errorf("last exit: why = %q; want not ready after 500ms", why)
	}
	if logs := b.logs(); !strings.Contains(logs, "SIGABRT: abort") || !strings.Contains(logs, "fakeForever") {
		t.Errorf("the log does not show where it hung:\n%s", logs)
	}
}

func TestWorkerWithoutHeartbeatIsEnded(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"hang\"\n")
	b.up("--watchdog", "1s", "--grace", "100ms")
	b.until("air was started again", 20*time.Second, func() bool { return b.worker("air").Restarts >= 1 })
	if why := b.worker("air").LastExit.Why; why != "no heartbeat for 1s" {
		t.Errorf("last exit: why = %q; want no heartbeat for 1s", why)
	}
}

func TestDeafWorkerIsKilledAfterTheGrace(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"deaf\"\n")
	r := b.up("--grace", "600ms")
	b.untilPhase("air", Ready)
	pid := b.worker("air").PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // no sign of life
		t.Fatal(err)
	}
	out, err := b.supervisor("down", b.file)
	if want := "air killed: it did not stop when asked, and showed no sign of life for 600ms"; codeOf(err) != 1 || !strings.Contains(out, want) {
		t.Errorf("down = %v\n%s; want exit code 1, %q", err, out, want)
	}
	r.ended(20 * time.Second)
	if !strings.Contains(r.said.String(), "killed: it did not stop when asked") || r.ProcessState.ExitCode() != 1 {
		t.Errorf("exit code %d, and the log does not say that air was killed:\n%s", r.ProcessState.ExitCode(), r.said.String())
	}
}

// One that still works is not killed: it may be bringing to disk what is in RAM.
func TestWorkerThatStillWorksIsGivenTime(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(shortDir(t), "trace")
	b := newBox(t, fmt.Sprintf("[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"thorough\"\ntrace = %q\n", trace))
	r := b.up("--watchdog", "1s", "--grace", "1500ms")
	b.untilPhase("air", Ready)
	if _, err := b.supervisor("down", b.file); err != nil {
		t.Error(err)
	}
	r.ended(20 * time.Second)
	if text, err := os.ReadFile(trace); err != nil || !strings.Contains(string(text), "stop air") {
		t.Errorf("trace %q, %v; want that air came to its own end; the log:\n%s", text, err, r.said.String())
	}
}

// A supervisor that was stopped itself blames nobody for what it did not hear.
func TestSupervisorThatHungBlamesNobody(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\n")
	r := b.up("--watchdog", "1s")
	b.untilPhase("air", Ready)
	before := b.state()
	if err := r.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	published := func() (n uint64) {
		for _, k := range keptFor(b.shm, map[string][]string{"air": {"csv"}}) {
			n = k.Messages
		}
		return n
	}
	began := published() // 20 a second
	b.until("air has worked on through many heartbeats", 60*time.Second, func() bool { return published() >= began+100 })
	if err := r.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b.until("two seconds of a supervisor that runs again", 20*time.Second, func() bool {
		return b.state().BootNS-before.BootNS > int64(6*time.Second)
	})
	for _, w := range b.state().Workers {
		if w.Restarts != 0 {
			t.Errorf("%s was started again %d times, last for %q; want never", w.Name, w.Restarts, w.LastExit.Why)
		}
	}
}

func TestSecondInterruptKillsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"deaf\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\n")
	r := b.up("--grace", "10m")
	b.untilPhase("air", Ready)
	if err := r.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	b.untilPhase("air", Stopping)
	<-time.After(2 * sameOrder)
	if err := r.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r.ended(10 * time.Second)
	if said := r.said.String(); !strings.Contains(said, "killed: told to stop at once") || strings.Contains(said, "did not stop when asked") {
		t.Errorf("the log does not say why air was killed:\n%s", said)
	}
	if code := r.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code = %d; want 1: csv was killed with what it had not saved", code)
	}
	if out, err := b.supervisor("down", "--discard", b.file); err != nil {
		t.Errorf("down = %v\n%s", err, out)
	}
	b.wantNothingLeft()
}

func skipWithoutHangup(t *testing.T) {
	t.Helper()
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("SIGHUP is ignored, as by nohup(1): programs that are started here ignore it too")
	}
}

// A terminal that closes sends SIGHUP twice: by the kernel, and by its shell.
func TestClosedTerminalStopsTheFleetInOrder(t *testing.T) {
	t.Parallel()
	skipWithoutHangup(t)
	trace := filepath.Join(shortDir(t), "trace")
	b := newBox(t, strings.ReplaceAll(chain, "TRACE", trace))
	r := b.up()
	b.untilPhase("air", Ready)
	for range 2 {
		if err := r.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(time.Millisecond)
	_ = r.Process.Signal(syscall.SIGHUP) // it may have ended
	r.ended(20 * time.Second)
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ready send", "ready csv", "ready air", "stop air", "stop csv", "stop send"}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(text)), "\n")); diff != "" {
		t.Errorf("order of starts and stops (-want +got):\n%s", diff)
	}
	if code := r.ProcessState.ExitCode(); code != 0 || strings.Contains(r.said.String(), "killed") {
		t.Errorf("exit code = %d; want 0, and nobody killed:\n%s", code, r.said.String())
	}
}

// A fleet in the background has no terminal that could close.
func TestHangupDoesNotStopAFleetInTheBackground(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n")
	if out, err := b.supervisor("up", "-d", b.file); err != nil {
		t.Fatal(out, err)
	}
	before := b.state()
	if err := syscall.Kill(before.Supervisor.PID, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	b.until("a second has passed", 20*time.Second, func() bool { return b.state().BootNS-before.BootNS > int64(time.Second) })
	if w := b.worker("air"); w.Phase != Ready || w.PID != before.Workers[0].PID {
		t.Errorf("air = %s, pid %d; want that it runs on", w.Phase, w.PID)
	}
}

// What another hand does to a worker that is stopping is not said to be the
// supervisor's doing.
func TestWorkerKilledByAnotherHandWhileItStops(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"deaf\"\n")
	r := b.up("--grace", "10m")
	pid := b.untilPhase("air", Ready).PID
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.untilPhase("air", Stopping)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.ended(20 * time.Second)
	said := r.said.String()
	if !strings.Contains(said, "ended by a signal while stopping, and not by this supervisor") || strings.Contains(said, "did not stop when asked") {
		t.Errorf("the log does not say how air ended:\n%s", said)
	}
	if code := r.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code = %d; want 1", code)
	}
}

func TestOneWorkerIsStoppedAndStarted(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n[sensor.soil]\nprogram = \"fake-sensor\"\n")
	b.up()
	pid := b.untilPhase("air", Ready).PID
	soil := b.untilPhase("soil", Ready).PID
	for _, step := range []struct {
		verb string
		want Phase
	}{{"stop", Stopped}, {"stop", Stopped}, {"start", Ready}, {"start", Ready}, {"restart", Ready}} {
		if out, err := b.supervisor(step.verb, b.file, "air"); err != nil {
			t.Fatal(out, err)
		}
		if step.want == Stopped && b.worker("air").Phase != Stopped {
			t.Errorf("after stop: %s; want stopped", b.worker("air").Phase)
		}
		b.untilPhase("air", step.want)
	}
	if w := b.worker("air"); w.PID == pid || w.Restarts != 2 || alive(pid) {
		t.Errorf("air = pid %d (was %d), %d restarts; want another process, 2", w.PID, pid, w.Restarts)
	}
	if w := b.worker("soil"); w.PID != soil {
		t.Errorf("soil = pid %d; want %d: it was not meant", w.PID, soil)
	}
	out, err := b.supervisor("stop", "--run-dir", b.run, "ari")
	if codeOf(err) != 1 || !strings.Contains(out, `did you mean "air"?`) {
		t.Errorf("stop ari = %v\n%s; want exit code 1 and the nearest name", err, out)
	}
}

// An order is carried out although the worker still waits for its readers.
func TestWaitingWorkerTakesOrders(t *testing.T) {
	t.Parallel()
	b := newBox(t, strings.Replace(pair, "BEHAVE", "never", 1))
	b.up("--start-deadline", "10m")
	b.untilPhase("csv", Starting)
	if w := b.worker("air"); w.Phase != Waiting {
		t.Fatalf("air is %s; want waiting", w.Phase)
	}
	for _, step := range []struct {
		verb string
		want Phase
	}{{"stop", Stopped}, {"start", Ready}} {
		if out, err := b.supervisor(step.verb, b.file, "air"); err != nil {
			t.Fatal(out, err)
		}
		b.untilPhase("air", step.want)
	}
}

func TestTwoSupervisorsAreRefused(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n")
	r := b.up()
	pid := b.untilPhase("air", Ready).PID
	out, err := b.supervisor("up", b.file)
	if want := "is held by process " + number(r.Process.Pid); codeOf(err) != 75 || !strings.Contains(out, want) {
		t.Errorf("up = %v\n%s; want exit code 75, %s", err, out, want)
	}
	if w := b.worker("air"); w.PID != pid || w.Phase != Ready {
		t.Errorf("air = %s, pid %d; want that it is left alone", w.Phase, w.PID)
	}
}

func TestUpInTheBackground(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\n")
	out, err := b.supervisor("up", "-d", b.file)
	if err != nil || !strings.Contains(out, "test: 2 of 2 ready") {
		t.Fatalf("up -d = %v\n%s; want 2 of 2 ready", err, out)
	}
	s := b.state()
	if !s.Ready || len(s.Workers) != 2 || len(s.Edges) != 1 {
		t.Errorf("state = %+v; want two workers that are ready, one edge", s)
	}
	if out, err := b.supervisor("status", b.file); err != nil {
		t.Errorf("status = %v\n%s", err, out)
	}
	if out, err := b.supervisor("down", "--run-dir", b.run); err != nil || out != "stopped\n" {
		t.Errorf("down = %v\n%s; want stopped", err, out)
	}
	if alive(s.Supervisor.PID) {
		b.until("the supervisor has ended", 5*time.Second, func() bool { return !alive(s.Supervisor.PID) })
	}
	b.wantNothingLeft()
	if out, err := b.supervisor("status", b.file); codeOf(err) != 69 || !strings.Contains(out, "start one with supervisor up "+b.file) {
		t.Errorf("status = %v\n%s; want exit code 69, and how to start one", err, out)
	}
}

func TestUpInTheBackgroundTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\nbehave = \"config\"\n[sensor.soil]\nprogram = \"fake-sensor\"\n")
	out, err := b.supervisor("up", "-d", b.file)
	if codeOf(err) != 1 || !strings.Contains(out, "the model is of another kind") || !strings.Contains(out, "1 of 2 ready: air held") {
		t.Errorf("up -d = %v\n%s; want exit code 1 and the worker's own words", err, out)
	}
	if w := b.worker("soil"); w.Phase != Ready {
		t.Errorf("soil is %s; want ready: the rest of the fleet runs", w.Phase)
	}
	out, err = b.supervisor("up", "-d", b.file)
	if codeOf(err) != 75 || !strings.Contains(out, "is held by process") {
		t.Errorf("second up -d = %v\n%s; want exit code 75", err, out)
	}
	b.write("[sensor.air]\nprogram = \"fake-sensr\"\n")
	out, err = b.supervisor("up", "-d", b.file)
	if codeOf(err) != 78 || !strings.Contains(out, `did you mean "fake-sensor"?`) {
		t.Errorf("up -d of a bad topology = %v\n%s; want exit code 78", err, out)
	}
}

// The bme280 of the tree, built as users build it, over its simulated bus.
func TestRealSensor(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("supervisor")
	if err != nil {
		t.Fatal(err)
	}
	sensor := filepath.Join(filepath.Dir(path), "sensor-bme280")
	if err := os.Symlink(filepath.Join(boxtest.Built(t, "sensor-bme280"), "sensor-bme280"), sensor); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, `
[sensor.air]
program = "sensor-bme280"
bus = "sim:"
[sensor.air.stream.environment]
capture_hz = 10.0
[worker.csv]
program = "fake-reader"
source = "air"
`)
	b.up()
	w := b.untilPhase("air", Ready)
	b.until("readings come", 20*time.Second, func() bool {
		w = b.worker("air")
		return w.Published["reading/air/environment"].Hz > 5
	})
	if w.RSSBytes == 0 || w.RSSBytes > 25<<20 || !strings.Contains(w.Status, "BME280") {
		t.Errorf("air takes %d bytes, status %q; want 1 to 25 MiB, and the chip's name", w.RSSBytes, w.Status)
	}
	if !slices.Equal(w.Subscribers, []string{"csv"}) {
		t.Errorf("subscribers of air = %v; want its reader alone: the supervisor takes no part", w.Subscribers)
	}
}
