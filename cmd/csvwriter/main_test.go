package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// TestMain lets the test binary be csvwriter, and a sensor that can be killed.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"csvwriter": main, "counter": counter})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

// fleet is a topology of one sensor and one csvwriter.
func fleet(flush string) string {
	return fmt.Sprintf(`[sensor.air]
program = "counter"
manufacturer = "Bosch"
device = "BME280"
[worker.air-csv]
program = "csvwriter"
source = "air"
flush = %q
`, flush)
}

// history is enough for all that a test publishes while nobody reads.
func history() msg.Retention {
	return msg.Retention{Messages: 1 << 14, MessageBytes: 512, Expect: []string{"air-csv"}}
}

// sensor is the test as the sensor "air".
type sensor struct {
	t   *testing.T
	bus *msg.Bus
	pub *msg.Publisher
	out *msg.ReadingStream
	n   atomic.Uint64 // readings so far
}

func newSensor(t *testing.T, b *boxtest.Box, columns ...string) *sensor {
	t.Helper()
	return newSensorOn(t, b.Bus("air"), columns...)
}

func newSensorOn(t *testing.T, bus *msg.Bus, columns ...string) *sensor {
	t.Helper()
	s := &sensor{t: t, bus: bus}
	var err error
	if s.pub, err = s.bus.Publisher(); err == nil {
		s.out, err = s.pub.Readings("count", columns, history())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sensor) publish(at msg.Stamp, values ...float64) {
	s.t.Helper()
	if _, err := s.out.Publish(at, values, nil); err != nil {
		s.t.Fatal(err)
	}
	s.n.Add(1)
}

// rows publishes n rows that count, stamped now.
func (s *sensor) rows(n int) {
	s.t.Helper()
	for range n {
		s.publish(s.bus.Clock().Now(), float64(s.n.Load()))
	}
}

// run publishes at that interval until stop is called.
func (s *sensor) run(each time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(each)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			if _, err := s.out.Publish(s.bus.Clock().Now(), []float64{float64(s.n.Load())}, nil); err != nil {
				s.t.Error(err)
				return
			}
			s.n.Add(1)
		}
	}()
	return func() { cancel(); <-done }
}

// more waits until it has published n more.
func (s *sensor) more(n int) {
	s.t.Helper()
	until := s.n.Load() + uint64(n)
	boxtest.Poll(s.t, "the sensor to publish", func() bool { return s.n.Load() >= until })
}

// counter is the sensor "air" as a process: it publishes at 1 kHz.
func counter() {
	if err := count(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}

func count(dir string) error {
	bus, err := msg.Open(msg.Config{Node: "box", Name: "air", RunDir: dir + "/run", ShmDir: dir + "/shm"})
	if err != nil {
		return err
	}
	pub, err := bus.Publisher()
	if err != nil {
		return err
	}
	out, err := pub.Readings("count", []string{"n"}, history())
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	for n := 0; ; n++ {
		if _, err := out.Publish(bus.Clock().Now(), []float64{float64(n)}, nil); err != nil {
			return err
		}
		<-tick.C
	}
}

// row is a line of a file.
type row struct {
	file  string // below the store, as "work/…csv"
	epoch string
	seq   uint64
	cells []string
}

// rowsIn reads all files of a store. The last line of a file in work/ may be
// half written, and its file may move to ready/ while we look: then it reads
// again.
func rowsIn(t *testing.T, store string) []row {
	t.Helper()
	var rows []row
	var err error
	boxtest.Poll(t, "the files to hold still", func() bool {
		rows, err = tryRowsIn(store)
		return !errors.Is(err, fs.ErrNotExist)
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func tryRowsIn(store string) (rows []row, err error) {
	before, err := filepath.Glob(store + "/*/*.csv")
	if err != nil {
		return nil, err
	}
	for _, path := range before {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(path, store+"/")
		if strings.HasPrefix(name, "work/") {
			text = text[:bytes.LastIndexByte(text, '\n')+1]
		}
		lines, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for i, cells := range lines {
			if i == 0 {
				continue
			}
			seq, err := strconv.ParseUint(cells[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s, line %d: %w", name, i+1, err)
			}
			rows = append(rows, row{name, cells[2], seq, cells})
		}
	}
	after, err := filepath.Glob(store + "/*/*.csv")
	if err == nil && !slices.Equal(before, after) {
		err = fs.ErrNotExist
	}
	return rows, err
}

// wantExactly wants rows 0 to n-1 of each epoch, each once.
func wantExactly(t *testing.T, store string, want map[string]uint64) {
	t.Helper()
	wantOnce(t, rowsIn(t, store), want)
}

func wantOnce(t *testing.T, rows []row, want map[string]uint64) {
	t.Helper()
	got := map[string]map[uint64]int{}
	for _, r := range rows {
		if got[r.epoch] == nil {
			got[r.epoch] = map[uint64]int{}
		}
		got[r.epoch][r.seq]++
	}
	for epoch, n := range want {
		var missing, twice []uint64
		for seq := range n {
			switch got[epoch][seq] {
			case 0:
				missing = append(missing, seq)
			case 1:
			default:
				twice = append(twice, seq)
			}
		}
		if len(missing)+len(twice) > 0 || len(got[epoch]) != int(n) {
			t.Errorf("epoch %s has %d rows; want %d; missing %s, twice %s", epoch, len(got[epoch]), n, few(missing), few(twice))
		}
	}
	if len(got) != len(want) {
		t.Errorf("rows of %d epochs; want %d", len(got), len(want))
	}
}

func few(list []uint64) string {
	if len(list) > 10 {
		return fmt.Sprintf("%v and %d more", list[:10], len(list)-10)
	}
	return fmt.Sprint(list)
}

// waitRows waits until the store has n rows.
func waitRows(t *testing.T, store string, n int) {
	t.Helper()
	last := 0
	defer func() {
		if t.Failed() {
			t.Logf("there were %d rows; want %d", last, n)
		}
	}()
	boxtest.Poll(t, fmt.Sprintf("%d rows", n), func() bool {
		last = len(rowsIn(t, store))
		return last >= n
	})
}

// ready counts the files in ready/. A sidecar is there before its file.
func ready(t *testing.T, store string) int {
	t.Helper()
	paths, err := filepath.Glob(store + "/ready/*.csv")
	if err != nil {
		t.Fatal(err)
	}
	return len(paths)
}

// readySidecars reads the sidecars in ready/ by the order of their files, and
// checks each against its file.
func readySidecars(t *testing.T, store string) []*sidecar.Sidecar {
	t.Helper()
	paths, err := filepath.Glob(store + "/ready/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var sides []*sidecar.Sidecar
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		side, err := sidecar.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(store, "ready", side.Name))
		if err != nil || st.Size() != side.Bytes {
			t.Errorf("file of %s: %v, %v; want %d bytes", p, st, err, side.Bytes)
		}
		sides = append(sides, side)
	}
	order := func(s *sidecar.Sidecar) string { return string(s.ID[strings.LastIndexByte(string(s.ID), '_'):]) }
	slices.SortFunc(sides, func(a, b *sidecar.Sidecar) int { return strings.Compare(order(a), order(b)) })
	return sides
}

// wantNoLitter wants nothing in work/ but the journal and open files.
func wantNoLitter(t *testing.T, store string, open int) {
	t.Helper()
	entries, err := os.ReadDir(store + "/work")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != open+1 || !slices.Contains(names, "air-csv.journal") {
		t.Errorf("work/ holds %q; want the journal and %d files", names, open)
	}
}

// at is a moment of a day, with a boot clock of its own.
func at(t *testing.T, wall string, boot time.Duration) msg.Stamp {
	t.Helper()
	w, err := time.Parse(time.RFC3339Nano, wall)
	if err != nil {
		t.Fatal(err)
	}
	return msg.Stamp{Wall: w, Boot: boot, Synced: true}
}

// otherBoot is a bus as it is after the box was booted.
func otherBoot(t *testing.T, b *boxtest.Box) *msg.Bus {
	t.Helper()
	system, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	bus, err := msg.Open(msg.Config{Node: "box", Name: "air", RunDir: b.Dir + "/run", ShmDir: b.Dir + "/shm",
		Clock: clock.Fixed("00000000-1111-2222-3333-444444444444", system.Now)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return bus
}
