package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
)

// Reduced readings, with the sender killed again and again: each window's record is in the table once by
// its id, and together they stand for all readings.
func TestKilledWithWindows(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	to.set(true, false)
	b := boxtest.New(t, fleet(home("tcp://"+to.at(), "ack = true\nevery = \"2s\"\nreduce = \"mean\"")))
	s := newSensor(t, b)
	stop := s.runAt(20 * time.Millisecond)
	for range 4 {
		p := b.Start("jsonsender", "home")
		s.more(20 + rand.IntN(60))
		p.Kill()
	}
	p := b.Start("jsonsender", "home")
	p.Ready()
	stop()
	to.set(false, false)
	sum := func() (n uint64) {
		to.mu.Lock()
		defer to.mu.Unlock()
		for _, readings := range to.windows {
			n += readings
		}
		return n
	}
	boxtest.Poll(t, "all windows to arrive", func() bool { return sum() >= s.n.Load() })
	p.Stop()
	if got := sum(); got != s.n.Load() {
		t.Errorf("the windows stand for %d readings; want %d", got, s.n.Load())
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	next := uint64(0)
	for _, id := range to.order { // windows follow each other without a gap
		if next += to.windows[id]; id != s.id(int(next)-1) {
			t.Fatalf("window %s ends where %s should", id, s.id(int(next)-1))
		}
	}
	t.Log(fmt.Sprint(len(to.order), " windows of ", s.n.Load(), " readings"))
}
