package spool

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/internal/faultfs"
)

// Each call of each step fails, once or from then on, with each error that a
// disk knows. With the fault gone the step can be taken again, after a restart
// with its recovery, or at once: then the file is there once, whole, with one history.
func TestEachCallFails(t *testing.T) {
	faults, backing, at := mount(t)
	sample, line, runs := faultfs.NewSample(6), 0, 0
	t.Log(sample)
	for _, tr := range transitions() {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EXDEV} {
			for _, once := range []bool{true, false} {
				line++
				for n := sample.Next(line, 1); ; n = sample.Next(line, n+1) {
					how := fmt.Sprintf("%s with call %d failing (%v, once %v)", tr.name, n, errno, once)
					dir := fmt.Sprintf("/run-%d", runs)
					runs++
					tr.prepare(t, backing+dir)
					faults.Calls()
					faults.Fail(n, errno, once)
					err := tr.run(at+dir, false, 1)
					broken := faults.Broken()
					faults.Fail(0, 0, false)
					if !broken {
						if err != nil || n < 3 {
							t.Errorf("%s = %v without coming to call %d; want nil after 3 calls or more", tr.name, err, n)
						}
						break
					}
					tr.settle(t, backing+dir, how)
					if t.Failed() {
						t.Fatalf("calls:\n%q", faults.Calls())
					}
				}
			}
		}
	}
	t.Logf("%d runs", runs)
}

// A step that failed is taken again by the same process, without a recovery.
func TestAStepThatFailedCanBeTakenAgain(t *testing.T) {
	faults, backing, at := mount(t)
	sample := faultfs.NewSample(3)
	t.Log(sample)
	for i, tr := range transitions() {
		for n := sample.Next(i, 1); ; n = sample.Next(i, n+1) {
			how := fmt.Sprintf("%s with call %d failing", tr.name, n)
			dir := fmt.Sprintf("/run-%d-%d", i, n)
			tr.prepare(t, backing+dir)
			cache, store, err := openBoth(at + dir)
			if err != nil {
				t.Fatal(err)
			}
			faults.Calls()
			faults.Fail(n, syscall.EIO, true)
			err = closeBoth(cache, store, tr.do(cache, store, 2))
			broken := faults.Broken()
			faults.Fail(0, 0, false)
			if err != nil {
				t.Errorf("%s: a second try = %v; want nil", how, err)
			}
			recovers := transition{do: func(cache, store *Spool, _ int) error { return recoverBoth(cache, store) }}
			if err := recovers.run(backing+dir, false, 1); err != nil {
				t.Errorf("%s: Recover() = %v; want nil", how, err)
			}
			tr.check(t, backing+dir, how)
			if t.Failed() {
				t.Fatalf("calls:\n%q", faults.Calls())
			}
			if !broken {
				break
			}
		}
	}
}

// A process is killed at each call of each step. The next one recovers and
// takes the step where it is still to be taken.
func TestKilledAtEachCall(t *testing.T) {
	faults, backing, at := mount(t)
	sample, kills := faultfs.NewSample(4), 0
	t.Log(sample)
	for i, tr := range transitions() {
		for n := sample.Next(i, 1); ; n = sample.Next(i, n+1) {
			how := fmt.Sprintf("%s killed at call %d", tr.name, n)
			dir := fmt.Sprintf("/run-%d-%d", i, n)
			tr.prepare(t, backing+dir)
			faults.Calls()
			started := make(chan int, 1)
			faults.Break(n, func() {
				if err := syscall.Kill(<-started, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			})
			cmd := exec.Command("transit", tr.name, at+dir, "false")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			started <- cmd.Process.Pid
			err := cmd.Wait()
			broken := faults.Broken()
			faults.Break(0, nil)
			if !broken {
				if err != nil || n < 3 {
					t.Errorf("%s that was not killed = %v after %d calls; want nil after 3 or more", tr.name, err, n)
				}
				break
			}
			kills++
			if err == nil {
				t.Errorf("%s: it lived on", how)
			}
			if out, err := exec.Command("transit", tr.name, backing+dir, "true").CombinedOutput(); err != nil {
				t.Errorf("%s: the next process: %v: %s", how, err, out)
			}
			tr.check(t, backing+dir, how)
			if t.Failed() {
				t.Fatalf("calls:\n%q", faults.Calls())
			}
		}
	}
	t.Logf("%d kills", kills)
}
