package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/lockfile"
)

const lonePair = "[sensor.air]\nprogram = \"fake-sensor\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\n"

// empty removes the run folder, or what is in it alone.
func (b *box) empty(whole bool) {
	b.t.Helper()
	remove, err := []string{b.run}, error(nil)
	if !whole {
		remove, err = filepath.Glob(b.run + "/*")
	}
	for _, path := range remove {
		if err == nil {
			err = os.RemoveAll(path)
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// A cleaner, or logind, removes the run folder: the fleet goes on, nobody is
// killed, and it can be asked again soon.
func TestRemovedRunFolderIsMadeAnew(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{true, false} {
		t.Run(map[bool]string{true: "folder", false: "contents"}[whole], func(t *testing.T) {
			t.Parallel()
			b := newBox(t, lonePair)
			r := b.up("--watchdog", "2s")
			b.untilPhase("air", Ready)
			before := b.state()
			b.empty(whole)
			out, err := b.supervisor("up", b.file)
			if codeOf(err) != 75 || !strings.Contains(out, "process "+number(r.Process.Pid)) {
				t.Errorf("up = %v\n%s; want exit code 75, and who runs the fleet", err, out)
			}
			b.until("the supervisor answers again", 20*time.Second, func() bool {
				_, err := b.supervisor("status", b.file)
				return err == nil
			})
			var after *Box
			b.until("several heartbeats", 20*time.Second, func() bool { after = b.state(); return after.BootNS-before.BootNS > int64(5*time.Second) })
			for i, w := range after.Workers {
				if w.Phase != Ready || w.Restarts != 0 || w.PID != before.Workers[i].PID {
					t.Errorf("%s = %s, %d restarts (%+v); want that it runs on", w.Name, w.Phase, w.Restarts, w.LastExit)
				}
			}
			if out, err := b.supervisor("restart", b.file, "csv"); err != nil {
				t.Fatal(out, err)
			}
			b.until("the new csv reads air, on its new socket", 20*time.Second, func() bool {
				a := b.worker("csv").Accounts
				return len(a) == 1 && a[0].Received > 0
			})
			b.untilPhase("csv", Ready) // one that is not keeps the history for the next run
			if out, err := b.supervisor("down", b.file); err != nil || out != "stopped\n" {
				t.Errorf("down = %v\n%s; want stopped", err, out)
			}
			r.ended(20 * time.Second)
			b.wantNothingLeft()
		})
	}
}

// down does not claim success while the supervisor lives on.
func TestDownRightAfterTheRunFolderWasRemoved(t *testing.T) {
	t.Parallel()
	b := newBox(t, lonePair)
	r := b.up()
	b.untilPhase("air", Ready)
	b.empty(true)
	if out, err := b.supervisor("down", b.file); err != nil || out != "stopped\n" {
		t.Errorf("down = %v\n%s; want stopped", err, out)
	}
	r.ended(5 * time.Second)
	b.wantNothingLeft()
}

func TestSuspendedSupervisorIsNamed(t *testing.T) {
	t.Parallel()
	b := newBox(t, lonePair)
	r := b.up()
	b.untilPhase("air", Ready)
	if err := r.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.until("it is stopped", 5*time.Second, func() bool {
		st, err := statOf(r.Process.Pid)
		return err == nil && st.suspended
	})
	for _, verb := range []string{"status", "down"} {
		out, err := b.supervisor(verb, b.file)
		if want := "kill -CONT " + number(r.Process.Pid); codeOf(err) != 75 || !strings.Contains(out, want) {
			t.Errorf("%s = %v\n%s; want exit code 75, %q", verb, err, out, want)
		}
	}
	if err := r.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if out, err := b.supervisor("down", b.file); err != nil {
		t.Errorf("down = %v\n%s; want success once it goes on", err, out)
	}
	r.ended(20 * time.Second)
}

func TestDownOfASupervisorThatHangs(t *testing.T) {
	t.Parallel()
	b := newBox(t, lonePair)
	r := b.up()
	b.untilPhase("air", Ready)
	if err := r.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.empty(true)
	out, err := b.supervisor("down", "--timeout", "500ms", b.file)
	if want := "supervisor process " + number(r.Process.Pid) + " does not end"; codeOf(err) != 1 || !strings.Contains(out, want) {
		t.Errorf("down = %v\n%s; want exit code 1, %q", err, out, want)
	}
	if err := r.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.ended(20 * time.Second)
}

// Where the run folder cannot be made anew, nobody could stop the fleet any more:
// it stops itself, and says why.
func TestFleetStopsWhereItsRunFolderCannotBeMadeAnew(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(shortDir(t), "trace")
	b := newBox(t, strings.ReplaceAll(chain, "TRACE", trace))
	r := b.up()
	b.untilPhase("air", Ready)
	b.empty(true)
	if err := os.WriteFile(b.run, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.ended(30 * time.Second)
	if err := os.Remove(b.run); err != nil {
		t.Fatal(err)
	}
	if code, said := r.ProcessState.ExitCode(), r.said.String(); code != 1 || !strings.Contains(said, "was removed and cannot be recreated") {
		t.Errorf("exit code = %d\n%s; want 1, and why", code, said)
	}
	if text, err := os.ReadFile(trace); err != nil || !strings.HasSuffix(string(text), "stop air\nstop csv\nstop send\n") {
		t.Errorf("trace = %q, %v; want an end in order", text, err)
	}
}

// A run folder that another supervisor has taken over is left as it is, whatever the
// workers do until the fleet is stopped.
func TestFolderOfAnotherSupervisorIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBox(t, lonePair)
	r := b.up()
	b.untilPhase("air", Ready)
	others := b.run + ".other"
	if err := os.Mkdir(others, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(others)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	lock, err := lockfile.Acquire(root, lockName)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Drop()
	if err := unix.Renameat2(unix.AT_FDCWD, others, unix.AT_FDCWD, b.run, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	b.until("the supervisor ends", 30*time.Second, func() bool {
		children, err := filepath.Glob("/proc/" + number(r.Process.Pid) + "/task/*/children")
		for _, file := range children {
			text, _ := os.ReadFile(file) // the thread may have ended
			for _, child := range strings.Fields(string(text)) {
				pid, _ := strconv.Atoi(child)
				_ = syscall.Kill(pid, syscall.SIGKILL) // each end and each start is recorded
			}
		}
		select {
		case <-r.gone:
			return true
		default:
			return err != nil
		}
	})
	if code, said := r.ProcessState.ExitCode(), r.said.String(); code != 75 || !strings.Contains(said, "is held by process "+number(os.Getpid())) {
		t.Errorf("exit code = %d\n%s; want 75, and who has the folder", code, said)
	}
	if _, err := root.Lstat(recordName); err == nil {
		t.Errorf("the folder of the other supervisor has a %s; want none", recordName)
	}
}
