package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

const many = 10_000

// fill makes many files in a state as fast as can be, with a sidecar as large as
// one with some detections.
func (x *testbox) fill(sp *spool.Spool, state spool.State, n int) {
	x.t.Helper()
	for range n {
		age := time.Duration(x.n) * time.Second
		end := sidecar.Moment{BootID: x.boot, BootNS: int64(clock.Boot() - age), Time: msg.Time{Time: time.Now().Add(-age).UTC()}}
		id := sidecar.ID(fmt.Sprintf("porch-clips_20260517T094057Z_000283baec0033c3-%06d", x.n))
		side := &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ".mp4", Media: "video/mp4", Node: "box", Worker: "porch-clips",
			Source: "frame/porch/video", Start: end, End: end, Bytes: 10, SHA256: strings.Repeat("0", 64), Detections: make([]sidecar.Detection, 20)}
		side.Add(sidecar.Event{State: string(state), Reason: "made by a test"})
		text, err := side.Encode()
		if err == nil {
			err = os.WriteFile(sp.Path(state, string(id)+".json"), text, 0o600)
		}
		if err == nil {
			err = os.WriteFile(sp.Path(state, side.Name), []byte("0123456789"), 0o600)
		}
		if err != nil {
			x.t.Fatal(err)
		}
		x.n++
	}
}

// Ten thousand files are no more than a heartbeat's work, and little memory.
func TestManyFiles(t *testing.T) {
	x := newBox(t, "history = \"16MB\"\n[worker.clean.disk]\nwhen = 'state == \"sent\"'\n")
	const going = many / 10
	x.fill(x.store, spool.Sent, going)
	x.fill(x.store, spool.Ready, many-going)
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindState}, "clean")
	begun := time.Now()
	p := x.Start("deleter", "clean")
	p.Ready()
	ready := time.Since(begun)
	feed.State("a tenth of them gone", func(s msg.State) bool { return s.Counters["deleted_files"] == going })
	t.Logf("ready after %s; %d files deleted and told of after %s", ready, going, time.Since(begun))
	peak := peakMemory(t, p)
	if t.Logf("peak memory: %d MB", peak>>20); peak > 96<<20 {
		t.Errorf("its memory grew to %d MB; want less than 96", peak>>20)
	}
	p.Stop()
	if left := there(t, x.store); len(left) != many-going {
		t.Errorf("%d files are left; want %d", len(left), many-going)
	}
}

func peakMemory(t *testing.T, p *boxtest.Process) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// The first look reads all sidecars, the next ones only those that are new.
func BenchmarkPass(b *testing.B) {
	x := newBox(b, "")
	x.fill(x.store, spool.Sent, many)
	cfg := DefaultConfig()
	cfg.Disk.MinFree = 1
	if err := cfg.Disk.When.UnmarshalText([]byte("class == 'clips' and age_h > 1000")); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"first", "next"} {
		b.Run(name, func(b *testing.B) {
			s := newShelf(disk, &cfg.Disk)
			p := planner{&cfg, msg.Stamp{Boot: clock.Boot()}, x.boot}
			if err := s.scan(x.store, func() {}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if name == "first" {
					s = newShelf(disk, &cfg.Disk)
				}
				if err := s.scan(x.store, func() {}); err != nil {
					b.Fatal(err)
				}
				p.plan(s)
			}
		})
	}
}
