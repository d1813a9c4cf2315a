package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// The state of the box is on the bus, for whoever subscribes to it.
func TestStateIsPublished(t *testing.T) {
	t.Parallel()
	b := newBox(t, "latitude = 0\nlongitude = 0\n[sensor.air]\nprogram = \"fake-sensor\"\n[worker.csv]\nprogram = \"fake-reader\"\nsource = \"air\"\n")
	b.up()
	b.untilPhase("air", Ready)
	bus, err := msg.Open(msg.Config{Node: "test", Name: "onlooker", RunDir: b.run, ShmDir: b.shm})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	sub, err := bus.Subscribe(msg.Subscription{Sources: []msg.Address{{Source: ownName}}, Kinds: []msg.Kind{msg.KindState}})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		m, ok, err := sub.Next(context.Background(), deadline)
		if err != nil || !ok {
			t.Fatalf("no state with a rate on the edge before the deadline: %v", err)
		}
		state, err := m.State()
		if err != nil {
			t.Fatal(err)
		}
		var got Box
		if err := json.Unmarshal(state.Box, &got); err != nil {
			t.Fatal(err)
		}
		if p := got.Location.Position; p == nil || *p != (topology.Position{}) {
			t.Fatalf("location = %+v; want the position 0, 0", got.Location)
		}
		if len(got.Edges) == 1 && got.Edges[0].Hz > 5 && got.Ready && got.Files != nil {
			if e := got.Edges[0]; e.Source != "air" || e.Reader != "csv" || e.Topic != "reading/air/environment" || e.Lost != 0 {
				t.Errorf("edge = %+v; want reading/air/environment from air to csv, none lost", e)
			}
			return
		}
	}
}

func TestRate(t *testing.T) {
	var s series
	for i := range 20 {
		s.add(time.Duration(i)*time.Second, float64(3*i))
	}
	if got := s.rate(); got != 3 {
		t.Errorf("rate of 3 a second = %v; want 3", got)
	}
	for i := range 5 { // nothing more comes: that shows within the window
		s.add(time.Duration(20+i)*time.Second, 57)
	}
	if got := s.rate(); got != 0 {
		t.Errorf("rate, 5 s after the last = %v; want 0", got)
	}
	s.add(26*time.Second, 1)
	if got := s.rate(); got != 0 {
		t.Errorf("rate after a new beginning = %v; want 0 until there are two values", got)
	}
	s.add(28*time.Second, 5)
	if got := s.rate(); got != 2 {
		t.Errorf("rate = %v; want 2", got)
	}
}

// Rows that csvwriter has lost stay in the sum when it is started again.
func TestLosses(t *testing.T) {
	o := &observer{seen: map[string]*sight{"csv": {published: map[msg.Topic]*series{}, reads: map[msg.Topic]*intake{}}}}
	say := func(pid int, epoch msg.Epoch, lost uint64, counters, dropped uint64) {
		s := msg.State{PID: pid, Counters: map[string]uint64{"rows": 100, "lost_rows": counters, "lost_file_bytes": 4096},
			Dropped: map[msg.Topic]uint64{"file/csv/files": dropped}, Sources: []msg.Account{{Topic: "reading/air/count", Epoch: 1, Lost: lost}}}
		s.Source, s.Epoch = "csv", epoch
		o.take(s, 0)
	}
	say(1, 1, 2, 20, 3)
	say(1, 1, 2, 22, 3)
	say(2, 2, 1, 0, 0)
	say(2, 2, 1, 4, 0)
	w := &Worker{Name: "csv"}
	if o.describe(w, 0, 0); w.Lost != 2+1+22+4+3 {
		t.Errorf("lost = %d; want 3 messages, 26 rows and 3 messages not sent", w.Lost)
	}
}

// Accounts are added up over the runs of both sides.
func TestIntake(t *testing.T) {
	var i intake
	i.take(msg.Account{Epoch: 1, Received: 5, Lost: 1}, 100, 0)
	i.take(msg.Account{Epoch: 1, Received: 8, Repaired: 2, Lost: 1}, 100, time.Second)
	i.take(msg.Account{Epoch: 2, Received: 3, Lost: 4}, 100, 2*time.Second) // the source began anew
	i.take(msg.Account{Epoch: 2, Received: 1}, 101, 3*time.Second)          // the reader did
	if i.got != 14 || i.lost != 5 {
		t.Errorf("got %d, lost %d; want 14, 5", i.got, i.lost)
	}
}

func TestSilence(t *testing.T) {
	s := sight{state: msg.State{PID: 7, ProgressNS: int64(99 * time.Second)}, at: 99 * time.Second}
	for _, c := range []struct {
		pid              int
		since, now       time.Duration
		progress         time.Duration
		want, whatItTest string
	}{
		{7, 10 * time.Second, 100 * time.Second, 99 * time.Second, "", "heard of a second ago"},
		{7, 10 * time.Second, 103 * time.Second, 99 * time.Second, "no state for 4s", "its last state is old"},
		{7, 10 * time.Second, 100 * time.Second, 88 * time.Second, "no progress for 12s", "its loop hangs"},
		{8, 98 * time.Second, 100 * time.Second, 99 * time.Second, "", "a new process, just ready"},
		{8, 95 * time.Second, 100 * time.Second, 99 * time.Second, "no state for 5s", "a new process that said nothing"},
	} {
		s.state.ProgressNS = int64(c.progress)
		if got := s.silence(c.pid, c.since, c.now); got != c.want {
			t.Errorf("%s: silence = %q; want %q", c.whatItTest, got, c.want)
		}
	}
}

func exampleBox() *Box {
	return &Box{Node: "airpi-01", BootNS: int64(4 * time.Hour), Synced: true, Supervisor: Supervisor{SinceBootNS: int64(time.Hour)},
		Memory: Memory{AvailableBytes: 3 << 30, ShmFreeBytes: 900 << 20, StoreFreeBytes: 40 << 30, StoreMounted: true},
		Workers: []Worker{
			{Name: "air", Program: "sensor-bme280", Phase: Ready, PID: 812, UpS: 10500, RSSBytes: 14 << 20, Status: "BME280 at 0x76 on /dev/i2c-1, 1 readings a second",
				Published: map[msg.Topic]Flow{"reading/air/environment": {Hz: 1}, "state/air/state": {Hz: 1}}},
			{Name: "porch", Program: "/opt/cameras/sensor-camera", Phase: Backoff, Restarts: 12, Trouble: "a device is missing: /dev/video0"},
			{Name: "a-worker-with-a-long-name-indeed", Program: "csvwriter", Phase: Held, Restarts: 1,
				Trouble: "csvwriter: box.toml:12: worker.x.flsh: unknown key\nbox.toml:13: more"},
			{Name: "air-csv", Program: "csvwriter", Phase: Ready, PID: 4_000_001, UpS: 90, Lost: 1_234_567, RSSBytes: 9 << 20, Status: "writing\x1b[31m"},
		},
		Edges: []Edge{{Source: "air", Reader: "air-csv", Hz: 1}}}
}

func TestTable(t *testing.T) {
	con := &console{}
	var out strings.Builder
	out.WriteString(con.table(exampleBox()))
	con.troubles(&out, exampleBox())
	want := `airpi-01  2 of 4 ready, up 3h00m, clock synced, free: 3.0G RAM, 900M shm, 40G disk
NAME             PROGRAM       PHASE       PID    UP RST RATE/s  LOST  MEM STATUS
air              sensor-bme280 ready       812 2h55m   0   1.00     0  14M BME280 at 0x76 on /dev/i…
porch            sensor-camera backoff       -     -  12      -     0    - a device is missing: /de…
a-worker-with-a… csvwriter     held          -     -   1      -     0    - csvwriter: box.toml:12: …
air-csv          csvwriter     ready   4000001 1m30s   0   1.00 1234k 9.0M writing�[31m
porch backoff: a device is missing: /dev/video0
a-worker-with-a-long-name-indeed held: csvwriter: box.toml:12: worker.x.flsh: unknown key
    box.toml:13: more
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(con.table(exampleBox())) {
		if n := utf8.RuneCountInString(line) - 1; n > maxColumns {
			t.Errorf("line of %d columns: %s", n, line)
		}
	}
}

func TestTableOfJobs(t *testing.T) {
	next, soon := 590.0, 0.0
	b := &Box{Memory: Memory{StoreMounted: true}, Node: "airpi-01", Synced: true, Workers: []Worker{{Name: "air", Program: "sensor-bme280", Phase: Ready}}, Jobs: []Job{
		{Worker: Worker{Name: "sweep", Program: "sweeper", Phase: Scheduled, Status: "3 files announced again", LastExit: &Exit{}}, NextS: &next, Runs: 144},
		{Worker: Worker{Name: "thumbs", Program: "/opt/thumbs", Phase: Scheduled, Trouble: "last run: failed with exit code 1: it broke",
			LastExit: &Exit{Code: 1}}, NextS: &soon, Runs: 3, Failures: 2, Skipped: 1},
		{Worker: Worker{Name: "slow", Program: "sweeper", Phase: Running, PID: 4711, UpS: 75, Status: "at work", LastExit: &Exit{Why: "not done after 1h"}},
			NextS: &next, Runs: 2, Failures: 1},
		{Worker: Worker{Name: "night", Program: "sweeper", Phase: Waiting, Status: "waits until the wall clock is synchronised"}},
	}}
	con := &console{}
	var out strings.Builder
	out.WriteString(con.table(b))
	con.troubles(&out, b)
	want := `airpi-01  1 of 1 ready, up 0s, clock synced, free: 0B RAM, 0B shm, 0B disk
NAME PROGRAM       PHASE PID UP RST RATE/s LOST MEM STATUS
air  sensor-bme280 ready   -  -   0      -    0   -
JOB    PROGRAM PHASE      PID    UP  NEXT LAST   RUNS FAIL SKIP STATUS
sweep  sweeper scheduled    -     - 9m50s done    144    0    0 3 files announced again
thumbs thumbs  scheduled    -     -    0s exit 1    3    2    1 last run: failed with exit code 1: …
slow   sweeper running   4711 1m15s 9m50s ended     2    1    0 at work
night  sweeper waiting      -     -     - -         0    0    0 waits until the wall clock is synch…
thumbs scheduled: last run: failed with exit code 1: it broke
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestNear(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for text, want := range map[string]string{"writing to " + dir + "/store": "writing to store", "at /x" + dir + "/y": "at /x" + dir + "/y",
		"in " + dir + "er/store": "in " + dir + "er/store"} {
		if got := near(text); got != want {
			t.Errorf("near(%q) = %q; want %q", text, got, want)
		}
	}
}
