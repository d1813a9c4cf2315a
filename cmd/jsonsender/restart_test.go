package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

// spooled runs a sender whose receiver is away until that many readings are on disk, and stops it.
func spooled(t *testing.T, b *boxtest.Box, s *sensor, n int) {
	t.Helper()
	p := b.Start("jsonsender", "home")
	p.Ready()
	s.rows(n)
	p.Stop()
}

// away is an address at which nobody listens, for now.
func away(t *testing.T) string {
	t.Helper()
	to := newTable(t)
	to.close()
	return to.at()
}

// verb runs one of the program's verbs and returns its exit code and what it printed.
func verb(b *boxtest.Box, worker string, words ...string) (code int, text string) {
	p := b.StartEnv(nil, "jsonsender", append(words, "--topology", b.Topology, "--name", worker)...)
	return p.Wait(), p.Log()
}

// A backlog that is torn, overwritten or emptied does not keep the sender from starting: what can be read
// arrives, and the rest is counted.
func TestDamagedBacklogs(t *testing.T) {
	t.Parallel()
	damages := map[string]func(text []byte) []byte{
		"torn":        func(text []byte) []byte { return text[:len(text)/3] },
		"overwritten": func(text []byte) []byte { copy(text[300:], strings.Repeat("\xff", 200)); return text },
		"empty":       func([]byte) []byte { return nil },
		"text":        func([]byte) []byte { return []byte("not a backlog\n") },
	}
	for name, damage := range damages {
		for _, kind := range []string{"*.segment", "state", "*"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				at := away(t)
				b := boxtest.New(t, fleet(home("tcp://"+at, "ack = true\nspool_most = \"4MiB\"")))
				s := newSensor(t, b)
				spooled(t, b, s, 200)
				files, err := filepath.Glob(b.Dir + "/store/outbox/home/" + kind)
				if err != nil || len(files) == 0 {
					t.Fatalf("files %s: %v, %v; want some", kind, files, err)
				}
				for _, f := range files {
					text, err := os.ReadFile(f)
					if err == nil {
						err = os.WriteFile(f, damage(text), 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "home")
				p := b.Start("jsonsender", "home")
				p.Ready()
				to := newTableAt(t, at)
				s.rows(100)
				fresh := func() bool {
					counts := to.counts()
					for i := 200; i < 300; i++ {
						if counts[s.id(i)] == 0 {
							return false
						}
					}
					return true
				}
				boxtest.Poll(t, "what comes later to arrive", fresh)
				lost := 300 - to.len()
				st := states.State("losses", func(st msg.State) bool {
					return lost == 0 || kind == "*" || name == "empty" || name == "text" || st.Counters["lost_damaged"] > 0
				}) // where no block is left, nobody knows
				t.Logf("%d records are missing, lost_damaged = %d", lost, st.Counters["lost_damaged"])
				p.Stop()
			})
		}
	}
}

// A clean stop with nothing left sends nothing again, however often.
func TestCleanRestartsRepeatNothing(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	b := boxtest.New(t, fleet(home("tcp://"+to.at(), "ack = true")))
	s := newSensor(t, b)
	for range 4 {
		p := b.Start("jsonsender", "home")
		p.Ready()
		s.rows(3)
		boxtest.Poll(t, "the records to arrive", func() bool { return to.len() == int(s.n.Load()) })
		p.Stop()
	}
	if arrivals, rows := to.count(); arrivals != rows {
		t.Errorf("%d records arrived %d times; want once each", rows, arrivals)
	}
}

// The backlog is the worker's, not the address's: once that is corrected, all arrives there.
func TestCorrectedAddress(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet(home("tcp://"+away(t), "ack = true")))
	s := newSensor(t, b)
	spooled(t, b, s, 50)
	to := newTable(t)
	b.Write(fleet(home("tcp://"+to.at(), "ack = true")))
	p := b.Start("jsonsender", "home")
	boxtest.Poll(t, "the backlog to arrive", func() bool { return to.len() == 50 })
	p.Stop()
	wantOnce(t, to.counts(), s)
}

// A worker that was renamed adopts the backlog of its old name, also beside one of its own; nobody takes
// it from a sender that runs.
func TestAdoptAndSkip(t *testing.T) {
	t.Parallel()
	at := away(t)
	entries := fleet(home("tcp://"+at, "ack = true"))
	both := entries + strings.Replace(entries[strings.Index(entries, "[worker.home]"):], "worker.home", "worker.house", 1)
	b := boxtest.New(t, both)
	s := newSensor(t, b)
	spooled(t, b, s, 30)
	if code, text := verb(b, "house", "adopt", "nobody"); code == 0 || !strings.Contains(text, "home") {
		t.Errorf("adopt nobody = %d, %s; want an error that lists home", code, text)
	}
	p := b.Start("jsonsender", "home")
	p.Ready()
	if code, text := verb(b, "house", "adopt", "home"); code == 0 || !strings.Contains(text, "stop the worker first") {
		t.Errorf("adopt of a running worker = %d, %s; want an error that says which must be stopped", code, text)
	}
	if code, text := verb(b, "home", "skip"); code == 0 || !strings.Contains(text, fmt.Sprint(p.PID())) {
		t.Errorf("skip of a running worker = %d, %s; want an error that names its process", code, text)
	}
	code, text := verb(b, "home", "status", "-o", "json")
	var answer struct {
		Worker  string `json:"worker"`
		Records int    `json:"records"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != 0 || answer.Worker != "home" || answer.Records != 30 {
		t.Errorf("status = %d, %s; want 30 records of home", code, text)
	}
	p.Stop()

	p = b.Start("jsonsender", "house")
	boxtest.Poll(t, "a backlog of house", func() bool {
		_, text := verb(b, "house", "status")
		return strings.Contains(text, "30 records wait on disk")
	})
	p.Stop()
	if code, text := verb(b, "house", "adopt", "home"); code != 0 || !strings.Contains(text, "taken over 30 records") {
		t.Errorf("adopt = %d, %s; want 30 records taken over", code, text)
	}
	if _, text := verb(b, "house", "status"); !strings.Contains(text, "60 records wait on disk") {
		t.Errorf("status = %s; want 60 records", text)
	}
	if code, text := verb(b, "house", "skip"); code != 0 || !strings.Contains(text, "60 records were given up") {
		t.Errorf("skip = %d, %s; want 60 records given up", code, text)
	}
	if _, text := verb(b, "house", "status"); !strings.Contains(text, "nothing waits") || !strings.Contains(text, "skipped") {
		t.Errorf("status = %s; want nothing, and the loss", text)
	}
}

// A backlog that is larger than spool_most is now, in the settings, does not keep the sender from
// starting.
func TestSpoolMostIsLowered(t *testing.T) {
	t.Parallel()
	at := away(t)
	b := boxtest.New(t, fleet(home("tcp://"+at, "ack = true\nspool_most = \"64MiB\"")))
	s := newSensorOf(t, b, []string{"a", "b", "c"}, 4096)
	s.noisy = true
	spooled(t, b, s, 4000)
	b.Write(fleet(home("tcp://"+at, "ack = true\nspool_most = \"4MiB\"")))
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "home")
	p := b.Start("jsonsender", "home")
	s.rows(100)
	to := newTableAt(t, at)
	st := states.State("all sent", func(st msg.State) bool {
		return st.Counters["acknowledged"] >= 4000 && st.Gauges["waiting_records"] == 0
	})
	p.Stop()
	if lost := int(st.Counters["lost_thinned"] + st.Counters["lost_dropped"]); to.len()+lost != 4100 {
		t.Errorf("%d records arrived, %d were counted as lost; want 4100 together", to.len(), lost)
	}
}

// While the link is well the disk is spared; while it is down, one write takes many records.
func TestWhatIsWritten(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	b := boxtest.New(t, fleet(fmt.Sprintf("to = \"tcp://%s\"\nack = true\nspool_sync = \"2s\"", to.at())))
	faults, _ := b.Faulty("store")
	s := newSensor(t, b)
	p := b.Start("jsonsender", "home")
	p.Ready()
	faults.Calls()
	for range 50 {
		s.publish()
		time.Sleep(10 * time.Millisecond) // one after the other
	}
	boxtest.Poll(t, "the records to arrive", func() bool { return to.len() == 50 })
	if calls := faults.Calls(); len(calls) > 0 {
		t.Errorf("with the link up the disk saw %q; want nothing", calls)
	}
	p.Stop()
}

// With spool_after = "0s" a record is on disk before it is sent.
func TestSpooledBeforeItIsSent(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	b := boxtest.New(t, fleet(fmt.Sprintf("to = \"tcp://%s\"\nack = true\nspool_after = \"0s\"", to.at())))
	faults, _ := b.Faulty("store")
	s := newSensor(t, b)
	p := b.Start("jsonsender", "home")
	p.Ready()
	for n := range 10 {
		faults.Calls()
		early := false
		faults.Watch(func(call string) {
			if strings.HasPrefix(call, "sync ") && strings.HasSuffix(call, ".segment") && to.len() > n {
				early = true // it has arrived, and its segment is synced now
			}
		})
		s.publish()
		boxtest.Poll(t, "it to arrive", func() bool { return to.len() == n+1 })
		faults.Watch(nil)
		synced := false
		for _, call := range faults.Calls() {
			synced = synced || strings.HasPrefix(call, "sync ") && strings.HasSuffix(call, ".segment")
		}
		if early || !synced {
			t.Errorf("record %d: synced %v, after it was sent %v; want true, false", n, synced, early)
		}
	}
	p.Stop()
}

// What was acknowledged is durable after a second, also where nothing follows.
func TestAcknowledgementsAreSynced(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	b := boxtest.New(t, fleet(fmt.Sprintf("to = \"tcp://%s\"\nack = true\nspool_after = \"0s\"", to.at())))
	faults, _ := b.Faulty("store")
	s := newSensor(t, b)
	p := b.Start("jsonsender", "home")
	p.Ready()
	for n := range 5 {
		s.publish()
		boxtest.Poll(t, "it to arrive", func() bool { return to.len() == n+1 })
	}
	status := func() string { _, text := verb(b, "home", "status"); return text }
	boxtest.Poll(t, "the last acknowledgement", func() bool { return strings.Contains(status(), "nothing waits") })
	var last string
	boxtest.Poll(t, "it to be synced", func() bool {
		for _, call := range faults.Calls() {
			if strings.HasSuffix(call, "/state") {
				last = call
			}
		}
		return strings.HasPrefix(last, "sync ")
	})
	p.Stop()
}
