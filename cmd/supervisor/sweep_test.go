package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/shm"
)

// killSupervisor kills a supervisor with a fleet that has a grandchild, and
// waits for the end of the workers, which is the kernel's doing.
func killSupervisor(t *testing.T) (b *box, grandchild int) {
	b = newBox(t, "[sensor.air]\nprogram = \"fake-sensor\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\nbehave = \"fork\"\n")
	r := b.up()
	air, csv := b.untilPhase("air", Ready), b.untilPhase("csv", Ready)
	b.until("csv has said what it started", 10*time.Second, func() bool {
		grandchild = int(b.worker("csv").Gauges["grandchild_pid"])
		return grandchild != 0
	})
	b.until("air has sent something", 10*time.Second, func() bool { return keptFor(b.shm, map[string][]string{"air": {"csv"}}) != nil })
	if err := r.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.gone
	b.until("all workers have ended", 5*time.Second, func() bool { return !alive(air.PID) && !alive(csv.PID) })
	if _, err := os.Stat(filepath.Join(b.run, recordName)); err != nil {
		t.Errorf("a killed supervisor left no record: %v", err)
	}
	return b, grandchild
}

func TestDownSweepsAfterAKilledSupervisor(t *testing.T) {
	for _, by := range []string{"topology", "run folder"} {
		t.Run(by, func(t *testing.T) {
			b, grandchild := killSupervisor(t)
			which := []string{"down", b.file}
			if by == "run folder" { // the record says where the rings are
				which = []string{"down", "--run-dir", b.run}
			}
			out, err := b.supervisor(which...)
			if err != nil || !strings.Contains(out, "swept") {
				t.Errorf("down = %v\n%s; want what was swept", err, out)
			}
			if alive(grandchild) {
				t.Errorf("process %d, started by a killed worker, still runs", grandchild)
			}
			for range 2 { // a killed reader may not have saved all
				if !strings.Contains(out, "messages of reading/air/environment are kept in "+b.shm+" for csv") {
					t.Errorf("down = %v\n%s; want that the history of air is kept for csv", err, out)
				}
				if out, err = b.supervisor(which...); err != nil {
					t.Errorf("down again: %v", err)
				}
			}
			if out, err := b.supervisor(append(which, "--discard")...); err != nil {
				t.Errorf("down --discard = %v\n%s", err, out)
			}
			b.wantNothingLeft()
			if out, err := b.supervisor(which...); err != nil || !strings.HasPrefix(out, "nothing runs in ") {
				t.Errorf("second down = %v\n%s; want that nothing runs", err, out)
			}
		})
	}
}

func TestUpSweepsAfterAKilledSupervisor(t *testing.T) {
	b, grandchild := killSupervisor(t)
	r := b.up()
	b.until("the fleet is ready", 20*time.Second, func() bool { s := b.state(); return s.Ready && s.Supervisor.PID == r.Process.Pid })
	if alive(grandchild) {
		t.Errorf("process %d, started by a killed worker, still runs", grandchild)
	}
	if !strings.Contains(b.logs(), "swept what an earlier run left") {
		t.Errorf("the log does not say what was swept:\n%s", b.logs())
	}
}

// What is swept is what nobody holds, and not a stranger with the same id.
func TestSweepTakesOnlyWhatWasLeft(t *testing.T) {
	dir := shortDir(t)
	run, shmDir := filepath.Join(dir, "run"), filepath.Join(dir, "shm")
	for _, d := range []string{run, shmDir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(run)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	left, stranger := sleeper(t), sleeper(t)
	sys, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	rec := newRecord(root, sys.BootID(), shmDir, nil, nil)
	for pid, name := range map[int]string{left: "air", stranger: "soil"} {
		if err := rec.add(pid, name); err != nil {
			t.Fatal(err)
		}
	}
	rec.Processes[stranger] = recordedAs{"soil", rec.Processes[stranger].Started - 1}
	if err := rec.write(); err != nil {
		t.Fatal(err)
	}
	leaveRing(t, shmDir)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(run, "air.ipc")})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	for _, name := range []string{"air.ipc.lock", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(run, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	s, err := sweep(root, run, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if alive(left) || !alive(stranger) {
		t.Errorf("after sweep: left over alive = %v, stranger alive = %v; want false, true", alive(left), alive(stranger))
	}
	if len(s.Processes) != 1 || len(s.Rings) != 1 || len(s.Files) != 2 {
		t.Errorf("swept %+v; want one process, one ring, and the socket and the record", s)
	}
	if files, _ := filepath.Glob(run + "/*"); len(files) != 1 || filepath.Base(files[0]) != "notes.txt" {
		t.Errorf("left in the run folder: %v; want notes.txt alone", files)
	}
	if files, _ := filepath.Glob(shmDir + "/*"); len(files) != 0 {
		t.Errorf("left in the folder of rings: %v; want nothing", files)
	}
}

func sleeper(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// leaveRing makes a ring whose writer is gone, as after kill -9.
func leaveRing(t *testing.T, path string) {
	t.Helper()
	dir, err := shm.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	w, err := shm.Create(dir, "air.environment", 1, shm.Options{Slots: 4, SlotBytes: 64})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Retire(); err != nil {
		t.Fatal(err)
	}
}
