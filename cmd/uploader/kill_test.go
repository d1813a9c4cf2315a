package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"sync/atomic"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// faultyShop makes a box whose store is on a disk that can fail; the shop works on
// what is behind it.
func faultyShop(t *testing.T, keys string) (*boxtest.Box, *faultfs.FS, *shop) {
	t.Helper()
	b, faults := boxtest.NewFaulty(t, fleet(keys))
	return b, faults, newShop(t, b.Disk+"/store")
}

// An uploader whose disk fails at any call of its work, or that is killed there:
// everything is sent, and at the receiver once.
func TestFaultAtEachCall(t *testing.T) {
	boxtest.Ordeal(t, 25, 3, func(t *testing.T) *boxtest.Trial {
		server := newShelf(t)
		b, faults, s := faultyShop(t, server.keys("retry_most = \"1s\"\nparallel = 1"))
		sides := []*sidecar.Sidecar{s.put(".csv", "a,b\n")}
		s.edit = func(side *sidecar.Sidecar) { side.Start.Synced, side.End.Synced = false, false } // to be corrected
		sides = append(sides, s.put(".mp4", noise(300_000)))
		anchor := `{"boot_id":"another-boot","boot_ns":1,"time":"2026-05-18T00:00:00.000000000Z"}` + "\n"
		if err := os.WriteFile(b.Disk+"/store/clock.jsonl", []byte(anchor), 0o600); err != nil {
			t.Fatal(err)
		}
		return &boxtest.Trial{Box: b, Faults: faults, Program: "uploader", Name: "send",
			Counters: map[string]uint64{"sent_files": 2},
			Done:     func() bool { return b.Is(sides[0], "store/sent") && b.Is(sides[1], "store/sent") },
			Whole: func(when string) {
				for _, side := range sides {
					if got := b.Lies(side); len(got) != 1 || got[0] != "store/ready" && got[0] != "store/sent" {
						t.Errorf("%s: %s is in %v; want it in ready/ or sent/", when, side.Name, got)
					} else if got[0] == "store/sent" && !server.has(side) {
						t.Errorf("%s: %s is in sent/, and not at the receiver", when, side.Name)
					}
				}
			},
			End: func() {
				server.wantOnceButSidecars(t, sides...)
				s.wantSent(sides...)
			}}
	})
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

// has says whether a file is there, whole.
func (s *shelf) has(side *sidecar.Sidecar) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(s.things[side.Name])
	return hex.EncodeToString(sum[:]) == side.SHA256
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
			victim := make(chan *boxtest.Process, 1)
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
				(<-victim).Kill()
				panic(http.ErrAbortHandler)
			})
			p := b.Start("uploader", "send")
			victim <- p
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
	b.Start("uploader", "send").Stop() // what the kills left is settled at its start
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
	b.Small("store", 8<<20)
	s := newShop(t, mount)
	side := s.put(".csv", "a,b\n")
	s.wait(spool.Sent, 1)
	states.State("no trouble", func(st msg.State) bool { return st.Trouble == "" })
	p.Stop()
	server.wantOnce(t, side)
}
