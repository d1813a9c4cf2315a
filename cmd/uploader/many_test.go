package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// Ten thousand files wait without taking memory worth mentioning, and go when
// the receiver is back.
func TestTenThousandFiles(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	server.be(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	b := boxtest.New(t, fleet(server.keys("retry_most = \"1s\"\nlog_level = \"info\"")))
	s := newShop(t, b.Dir+"/store")
	const n = 10_000
	for range n {
		s.put(".csv", "a,b\n")
	}
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
	begun := time.Now()
	p := b.Start("uploader", "send")
	p.Ready()
	t.Logf("ready after %s", time.Since(begun))
	st := states.State("all files queued", func(st msg.State) bool { return st.Gauges["queued_readings_files"] == n })
	if rss := rssMB(t, p.PID()); rss > 60 && !raced {
		t.Errorf("%d MB of memory for %d files; want 60 at most", rss, n)
	} else {
		t.Logf("%d MB", rss)
	}
	begun = time.Now()
	server.be(nil)
	states.State("a thousand files sent", func(st msg.State) bool { return st.Counters["sent_files"] >= 1000 })
	t.Logf("1000 files in %s after %d failures", time.Since(begun), st.Counters["failed_attempts"])
	p.Stop()
	if sent, ready := len(s.in(spool.Sent)), len(s.in(spool.Ready)); sent+ready != n {
		t.Errorf("%d files in sent/ and %d in ready/; want %d together", sent, ready, n)
	}
}

func rssMB(t *testing.T, pid int) (mb int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &mb); err == nil {
			return mb / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
