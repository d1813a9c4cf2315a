package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/gone"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
)

// Between any two calls that change the disk the deleter may be killed, or the
// disk fail: no file is gone without what must be left of it.
func TestBrokenAtEachCall(t *testing.T) {
	t.Parallel()
	for _, kill := range []bool{true, false} {
		t.Run(map[bool]string{true: "killed", false: "failing"}[kill], func(t *testing.T) {
			t.Parallel()
			n := 0
			for came := true; came && !t.Failed(); {
				n++
				t.Run(fmt.Sprint(n), func(t *testing.T) { came = brokenAt(t, n, kill) })
			}
			if n < 20 {
				t.Errorf("it was done after %d calls; want at least 20, or this test does not see them", n-1)
			}
		})
	}
}

// brokenAt says whether it came to the n-th call at all.
func brokenAt(t *testing.T, n int, kill bool) bool {
	t.Helper()
	b := boxtest.New(t, fleet("evict_unsent = true\n[worker.clean.disk]\nwhen = \"true\"\n"))
	faults := faultyStore(t, b)
	x := boxOn(t, b, "disk")
	dropped := x.put(x.cache, spool.Dropped, ".mp4", 100, time.Hour)
	sent := x.put(x.store, spool.Sent, ".mp4", 100, time.Hour)
	rejected := x.put(x.store, spool.Rejected, ".mp4", 100, time.Hour)
	ready := x.put(x.store, spool.Ready, ".csv", 100, time.Hour)
	x.put(x.store, spool.Ready, ".jsonl", 100, time.Hour)
	x.put(x.store, spool.Quarantine, ".mp4", 100, time.Hour)
	all := there(t, x.cache, x.store)
	after := func(when string) {
		t.Helper()
		left, told := there(t, x.cache, x.store), lines(t, x.store.Dir())
		for _, id := range []sidecar.ID{dropped, sent, rejected, ready} {
			if _, err := gone.Find(x.store.Dir()+"/gone", id); left[id] == "" && err != nil {
				t.Errorf("%s: %s is gone, and its history too: %v", when, id, err)
			}
		}
		for _, id := range []sidecar.ID{rejected, ready} {
			if left[id] == "" && told[id] == 0 {
				t.Errorf("%s: %s is gone, and no losses file tells of it", when, id)
			}
		}
		if len(told) > 2 {
			t.Errorf("%s: the losses files tell of %v; want two files at most", when, told)
		}
	}
	p := victim(b, faults, n, kill)
	done := func() bool { return len(there(t, x.cache, x.store)) <= len(all)-4 }
	boxtest.Poll(t, "the files to be gone, or the end", func() bool { return faults.Broken() || done() })
	if !faults.Broken() || !kill { // the last calls are those at the end
		p.Ready()
		p.Signal(syscall.SIGTERM)
		p.Wait()
	}
	p.Kill()
	came := faults.Broken()
	after("broken")
	trace := faults.Calls()
	faults.Break(0, nil)
	if came {
		p = b.Start("deleter", "clean")
		x.wantGone(all, dropped, sent, rejected, ready)
		p.Stop()
	}
	after("at the end")
	if told := lines(t, x.store.Dir()); told[rejected] == 0 || told[ready] == 0 {
		t.Errorf("the losses files tell of %v; want two files", told)
	}
	for _, e := range []string{"/work"} {
		if list, err := os.ReadDir(x.store.Dir() + e); err != nil || len(list) > 0 {
			t.Errorf("%s holds %v, %v at the end; want nothing: losses are in ready/", e, list, err)
		}
	}
	if t.Failed() {
		t.Logf("calls before it broke: %q", trace)
	}
	return came
}

// victim is a deleter that is killed in place of its n-th call, or whose disk
// fails from then on.
func victim(b *boxtest.Box, faults *faultfs.FS, n int, kill bool) *boxtest.Process {
	var p atomic.Pointer[boxtest.Process]
	do := func() {}
	if kill {
		do = func() {
			for p.Load() == nil {
				runtime.Gosched()
			}
			_ = syscall.Kill(p.Load().PID(), syscall.SIGKILL) // it dies when this call has failed
		}
	}
	faults.Break(n, do)
	p.Store(b.Start("deleter", "clean"))
	return p.Load()
}

// faultyStore puts the box's store on a disk that can fail.
func faultyStore(t *testing.T, b *boxtest.Box) *faultfs.FS {
	t.Helper()
	store, backing := b.Dir+"/store", b.Dir+"/disk"
	if err := errors.Join(os.Mkdir(store, 0o700), os.Mkdir(backing, 0o700)); err != nil {
		t.Fatal(err)
	}
	faults, err := faultfs.Mount(backing, store)
	if errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := faultfs.Unmount(store); err != nil {
			t.Error(err)
		}
	})
	return faults
}
