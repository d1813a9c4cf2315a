package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// faultyStore puts the box's store on a disk that can fail; the shop works on
// what is behind it.
func faultyStore(t *testing.T, b *boxtest.Box) (*faultfs.FS, *shop) {
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
	return faults, newShop(t, backing)
}

// recover settles what a kill left, as the mover does.
func (s *shop) recover() {
	s.t.Helper()
	how := spool.Recovery{Deep: true, Alive: func() {}, Event: func(state, reason string) sidecar.Event {
		return sidecar.Event{State: state, Reason: reason, By: "test"}
	}}
	if report, err := s.spool.Recover(how); err != nil || len(report.Recovered)+len(report.Damaged) > 0 {
		s.t.Errorf("Recover() = %+v, %v; want leftovers at most", report, err)
	}
}

// Between any two calls that change the disk the uploader may be killed, or its
// disk fail for good: everything is sent, and there once.
func TestKilledAndFailingAtEachCall(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"killed", "fails"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := 0
			for came := true; came && !t.Failed(); {
				n++
				t.Run(fmt.Sprint(n), func(t *testing.T) { came = brokenAt(t, n, kind == "killed") })
			}
			if n < 15 {
				t.Errorf("it was done after %d calls; want at least 15, or this test does not see them", n-1)
			}
		})
	}
}

// brokenAt says whether it came to the n-th call at all.
func brokenAt(t *testing.T, n int, kill bool) bool {
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("retry_most = \"1s\"\nparallel = 1")))
	faults, s := faultyStore(t, b)
	sides := []*sidecar.Sidecar{s.put(".csv", "a,b\n")}
	s.edit = func(side *sidecar.Sidecar) { side.Start.Synced, side.End.Synced = false, false } // to be corrected
	sides = append(sides, s.put(".mp4", noise(300_000)))
	anchor := `{"boot_id":"another-boot","boot_ns":1,"time":"2026-05-18T00:00:00.000000000Z"}` + "\n"
	if err := os.WriteFile(b.Dir+"/disk/clock.jsonl", []byte(anchor), 0o600); err != nil {
		t.Fatal(err)
	}
	var victim atomic.Pointer[boxtest.Process]
	faults.Break(n, func() {
		for kill && victim.Load() == nil {
			runtime.Gosched()
		}
		if kill {
			_ = syscall.Kill(victim.Load().PID(), syscall.SIGKILL) // it dies when this call has failed
		}
	})
	p := b.Start("uploader", "send")
	victim.Store(p)
	boxtest.Poll(t, "both files sent, or the fault", func() bool { return faults.Broken() || len(s.in(spool.Sent)) == 2 })
	came := faults.Broken()
	if came && kill {
		p.Wait()
	}
	faults.Break(0, nil)
	if kill {
		p.Kill()
		p = b.Start("uploader", "send")
	}
	s.wait(spool.Sent, 2)
	p.Stop()
	server.wantOnceButSidecars(t, sides...)
	s.recover()
	s.wantSent(sides...)
	return came
}

// wantOnceButSidecars is wantOnce where an attempt may have been repeated:
// sidecars are replaced then, by the same.
func (s *shelf) wantOnceButSidecars(t *testing.T, sides ...*sidecar.Sidecar) {
	t.Helper()
	s.mu.Lock()
	for _, side := range sides {
		s.stored[string(side.ID)+".json"] = 1
	}
	s.mu.Unlock()
	s.wantOnce(t, sides...)
}

// Killed at any moment that the receiver sees: when n bytes have come, when it
// has kept the file and not yet answered, when it was asked about it, and after
// its answer.
func TestKilledWhileTheReceiverWorks(t *testing.T) {
	t.Parallel()
	for _, moment := range []string{"body", "kept", "asked", "answered", "sidecar"} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			server := newShelf(t)
			b := boxtest.New(t, fleet(server.keys("")))
			s := newShop(t, b.Dir+"/store")
			side := s.put(".mp4", noise(2<<20))
			var victim atomic.Pointer[boxtest.Process]
			kill := func() {
				for victim.Load() == nil {
					runtime.Gosched()
				}
				victim.Load().Kill()
			}
			var killed atomic.Bool
			server.be(func(w http.ResponseWriter, r *http.Request) bool {
				name := path.Base(r.URL.Path)
				is := map[string]bool{"body": r.Method == http.MethodPut, "kept": r.Method == http.MethodPut, "asked": r.Method == http.MethodHead,
					"answered": r.Method == http.MethodHead, "sidecar": name == string(side.ID)+".json"}[moment]
				if !is || killed.Swap(true) {
					return false
				}
				switch moment {
				case "body":
					if _, err := io.CopyN(io.Discard, r.Body, rand.Int64N(2<<20)); err != nil {
						t.Error(err)
					}
				case "kept":
					text, err := io.ReadAll(r.Body)
					if err != nil {
						t.Error(err)
					}
					server.keep(name, text, true)
				}
				kill()
				panic(http.ErrAbortHandler)
			})
			p := b.Start("uploader", "send")
			victim.Store(p)
			p.Wait()
			if got := s.in(spool.Ready); len(got) != 1 {
				t.Errorf("%v in ready/ after the kill; want the file", got)
			}
			p = b.Start("uploader", "send")
			s.wait(spool.Sent, 1)
			p.Stop()
			server.wantOnce(t, side)
			s.wantSent(side)
		})
	}
}

// Killed again and again among many files: all are sent, each is there once.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("")))
	s := newShop(t, b.Dir+"/store")
	var sides []*sidecar.Sidecar
	for i := range 300 {
		sides = append(sides, s.put(".csv", fmt.Sprint(i)))
	}
	for range 10 {
		before := len(server.requests(http.MethodPut))
		p := b.Start("uploader", "send")
		enough := before + 1 + rand.IntN(40)
		boxtest.Poll(t, "some requests", func() bool { return len(server.requests(http.MethodPut)) >= enough })
		p.Kill()
	}
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, len(sides))
	p.Stop()
	server.wantOnceButSidecars(t, sides...)
	s.recover()
	s.wantSent(sides...)
}

// A disk that is not there holds nothing up but itself.
func TestStoreNotMounted(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("")))
	mount := b.Dir + "/store"
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
	p := b.Start("uploader", "send", "--set", "node.store_mount="+mount)
	states.State("the missing disk", func(st msg.State) bool { return st.Ready && st.Trouble != "" })
	if err := faultfs.Tmpfs(mount, 8<<20); errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := faultfs.Unmount(mount); err != nil {
			t.Error(err)
		}
	})
	s := newShop(t, mount)
	side := s.put(".csv", "a,b\n")
	s.wait(spool.Sent, 1)
	states.State("no trouble", func(st msg.State) bool { return st.Trouble == "" })
	p.Stop()
	server.wantOnce(t, side)
}
