package backlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/internal/faultfs"
)

// mountFaults is a disk whose calls can fail.
func mountFaults(t *testing.T) (faults *faultfs.FS, backing, at string) {
	t.Helper()
	backing, at = ram(t), t.TempDir()
	faults, err := faultfs.Mount(backing, at)
	if errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, faultfs.Unmount(at)) })
	return faults, backing, at
}

// fullLog is a log at its bound, and what its sender told.
func fullLog(t *testing.T) (dir string, g *ledger) {
	t.Helper()
	dir, g = ram(t), newLedger()
	l := open(t, openRoot(t, dir), small())
	s := &sender{log: l, tries: 1, tell: g.line}
	for l.Lost() == 0 {
		must(t, s.round(1000))
	}
	must(t, l.Close())
	return dir, g
}

func (g *ledger) clone() *ledger {
	c := newLedger()
	c.appended, c.synced = g.appended, g.synced
	for n := range g.tried {
		c.tried[n] = true
	}
	for n := range g.acked {
		c.acked[n] = true
	}
	return c
}

func copyLog(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.MkdirAll(to, 0o700))
	must(t, os.CopyFS(to+"/log", os.DirFS(from+"/log")))
}

// Each call of a sender fails, once or from then on. What is synced stays, nothing comes twice,
// and after a fault that passes the sender goes on as if nothing had been.
func TestEachCallFails(t *testing.T) {
	dir, before := fullLog(t)
	faults, backing, at := mountFaults(t)
	sample, runs := faultfs.NewSample(23), 0
	t.Log(sample)
	for line, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		once := line < 2
		for n := sample.Next(line, 1); ; n = sample.Next(line, n+1) {
			how := fmt.Sprintf("call %d fails (%v, once %v)", n, errno, once)
			run := fmt.Sprintf("/run-%d", runs)
			runs++
			copyLog(t, dir, backing+run)
			g := before.clone()
			faults.Calls()
			faults.Fail(n, errno, once)
			err := trial(at+run, g.appended+1, 3, g.line)
			broken := faults.Broken()
			faults.Fail(0, 0, false)
			if err != nil && (once || !broken) {
				t.Errorf("%s: a sender that tries again = %v; want nil", how, err)
			}
			g.check(t, backing+run, how)
			if t.Failed() {
				t.Fatalf("calls:\n%q", faults.Calls())
			}
			must(t, os.RemoveAll(backing+run))
			if !broken {
				if n < 30 {
					t.Errorf("%s: it was done after %d calls; want at least 30", how, n)
				}
				break
			}
		}
	}
	t.Logf("%d runs", runs)
}

// A sender is killed at each call. The next one has what was synced, and no record twice.
func TestKilledAtEachCall(t *testing.T) {
	dir, before := fullLog(t)
	faults, backing, at := mountFaults(t)
	sample, kills := faultfs.NewSample(17), 0
	t.Log(sample)
	for n := sample.Next(0, 1); ; n = sample.Next(0, n+1) {
		run, how := fmt.Sprintf("/run-%d", n), fmt.Sprintf("killed at call %d", n)
		copyLog(t, dir, backing+run)
		faults.Calls()
		started := make(chan int, 1)
		faults.Break(n, func() { _ = syscall.Kill(<-started, syscall.SIGKILL) })
		cmd := exec.Command("trial", at+run, fmt.Sprint(before.appended+1))
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		must(t, cmd.Start())
		started <- cmd.Process.Pid
		err := cmd.Wait()
		broken := faults.Broken()
		faults.Break(0, nil)
		g := before.clone()
		readLedger(g, out.String())
		g.check(t, backing+run, how)
		if t.Failed() {
			t.Fatalf("calls:\n%q\n%s", faults.Calls(), &errs)
		}
		must(t, os.RemoveAll(backing+run))
		if !broken {
			if err != nil || n < 30 {
				t.Errorf("without a kill it ended after %d calls with %v: %s; want nil after at least 30", n, err, &errs)
			}
			break
		}
		kills++
	}
	t.Logf("%d kills", kills)
}

// After a failed sync the blocks are written to another segment: the kernel takes what it
// could not write for clean.
func TestFailedSync(t *testing.T) {
	faults, backing, at := mountFaults(t)
	root, err := os.OpenRoot(at)
	must(t, err)
	defer root.Close()
	l := open(t, root, small())
	_, err = l.Append(numbered(Event, "e", 0, 100))
	must(t, err)
	must(t, l.Sync())
	_, err = l.Append(numbered(Event, "e", 1, 100))
	must(t, err)
	first, blocks := l.tail().seq, l.tail().blocks
	faults.FailSyncs(1, segmentExt, true)
	must(t, l.Sync())
	if faults.Failing() != 0 || l.tail().seq == first {
		t.Errorf("after a failed sync the log is at segment %d; want another than %d", l.tail().seq, first)
	}
	kill(t, l)
	path := filepath.Join(backing, "log", fileName(first, segmentExt))
	text, err := os.ReadFile(path)
	must(t, err)
	clear(text[blocks[1].off:]) // as if the disk had lost what it could not write
	must(t, os.WriteFile(path, text, 0o600))
	l = open(t, openRoot(t, backing), small())
	if got := drain(t, l); len(got) != 2 {
		t.Errorf("%d records; want 2", len(got))
	}
	must(t, l.Close())
}
