package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

func TestFilesOfTwoStreamsByteForByte(t *testing.T) {
	for _, flush := range []string{"instant", "1hz"} {
		t.Run(flush, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(flush))
			s := newSensor(t, b, "temperature_c", "humidity_pct")
			other, err := s.pub.Readings("battery", []string{"voltage_v"}, history())
			if err != nil {
				t.Fatal(err)
			}
			p := b.Start("csvwriter", "air-csv")
			noon := at(t, "2026-03-01T12:00:00.000000005Z", time.Hour)
			s.publish(noon, 21.5, 55)
			if _, err := s.out.Publish(noon, []float64{math.NaN(), 55.25}, map[string]string{"temperature_c": "it is -300"}); err != nil {
				t.Fatal(err)
			}
			noon.Synced = false
			if _, err := other.Publish(noon, []float64{12.6}, nil); err != nil {
				t.Fatal(err)
			}
			waitRows(t, b.Dir+"/store", 3)
			p.Stop()
			got := map[string]bool{}
			paths, err := filepath.Glob(b.Dir + "/store/work/*.csv")
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				got[string(text)] = true
			}
			epoch := s.pub.Epoch().String()
			want := map[string]bool{
				"time,seq,epoch,boot_ns,synced,temperature_c,humidity_pct,bad\n" +
					"2026-03-01T12:00:00.000000005Z,0," + epoch + ",3600000000000,true,21.5,55,\n" +
					"2026-03-01T12:00:00.000000005Z,1," + epoch + ",3600000000000,true,,55.25,temperature_c=it is -300\n": true,
				"time,seq,epoch,boot_ns,synced,voltage_v,bad\n" +
					"2026-03-01T12:00:00.000000005Z,0," + epoch + ",3600000000000,false,12.6,\n": true,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// file is a completed one, in short.
type file struct {
	Reason string
	Rows   uint64
}

func TestFilesEnd(t *testing.T) {
	const h = time.Hour
	for _, tt := range []struct {
		name  string
		walls []string // of the readings, on 2026-03-01 where only a time
		boots []time.Duration
		ready []file
		open  int // rows in the open file
	}{
		{name: "at midnight", walls: []string{"23:59:58", "23:59:59.999999999", "2026-03-02T00:00:00Z", "2026-03-02T00:00:01Z"},
			ready: []file{{"the date changed", 2}}, open: 2},
		{name: "after 24 hours of boot time", walls: []string{"12:00:00", "11:59:59", "11:59:59", "12:00:01"}, boots: []time.Duration{h, 25*h - 1, 25 * h, 26 * h},
			ready: []file{{"24 hours of boot time are over", 2}}, open: 2},
		{name: "when the clock steps to another day and back", walls: []string{"12:00:00", "12:00:01", "1970-01-01T00:00:10Z", "1970-01-01T00:00:11Z", "12:00:04", "12:00:05"},
			ready: []file{{"the date changed", 2}, {"the date changed", 2}}, open: 2},
		{name: "but not when it steps within the day", walls: []string{"12:00:00", "03:00:00", "23:00:00", "12:00:01"}, open: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("instant"))
			store := b.Dir + "/store"
			s := newSensor(t, b, "n")
			events := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindFile}, "air-csv")
			p := b.Start("csvwriter", "air-csv")
			for i, wall := range tt.walls {
				if !strings.Contains(wall, "T") {
					wall = "2026-03-01T" + wall + "Z"
				}
				boot := h + time.Duration(i)*time.Second
				if tt.boots != nil {
					boot = tt.boots[i]
				}
				s.publish(at(t, wall, boot), float64(i))
			}
			boxtest.Poll(t, "the files", func() bool {
				return ready(t, store) == len(tt.ready) && len(rowsIn(t, store)) == len(tt.walls)
			})
			for _, want := range tt.ready {
				wantAnnounced(t, events.Next(), want)
			}
			p.Stop()
			wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): uint64(len(tt.walls))})
			wantReady(t, store, tt.ready)
			wantNoLitter(t, store, 1)
			if open := slices.DeleteFunc(rowsIn(t, store), func(r row) bool { return !strings.HasPrefix(r.file, "work/") }); len(open) != tt.open {
				t.Errorf("the open file has %d rows; want %d", len(open), tt.open)
			}
		})
	}
}

// wantReady compares the completed files, and each with its own rows.
func wantReady(t *testing.T, store string, want []file) {
	t.Helper()
	var got []file
	for _, side := range readySidecars(t, store) {
		got = append(got, file{side.History[0].Reason, side.Items})
		rows := slices.DeleteFunc(rowsIn(t, store), func(r row) bool { return r.file != "ready/"+side.Name })
		first, last := rows[0], rows[len(rows)-1]
		for _, m := range []struct {
			name string
			got  sidecar.Moment
			want row
		}{{"start", side.Start, first}, {"end", side.End, last}} {
			if m.got.Time.String() != m.want.cells[0] || uint64(m.got.Seq) != m.want.seq || m.got.Epoch.String() != m.want.epoch ||
				fmt.Sprint(m.got.BootNS) != m.want.cells[3] || fmt.Sprint(m.got.Synced) != m.want.cells[4] || m.got.BootID == "" {
				t.Errorf("%s: %s = %+v; want that of the row %v", side.Name, m.name, m.got, m.want.cells)
			}
		}
		dates := map[string]bool{}
		for _, r := range rows {
			dates[r.cells[0][:10]] = true
		}
		if len(dates) != 1 || uint64(len(rows)) != side.Items {
			t.Errorf("%s has %d rows of the days %v; want %d of one day", side.Name, len(rows), dates, side.Items)
		}
		if side.Node != "box" || side.Worker != "air-csv" || side.Source != "reading/air/count" || side.ResponsibleParty != "River Lab" ||
			side.Media != "text/csv" || side.Device == nil || side.Device.Model != "BME280" || !strings.HasPrefix(side.Program, "csvwriter ") {
			t.Errorf("sidecar = %+v; want where it is from", side)
		}
		if p := side.Location.Position; p == nil || *p != (topology.Position{Latitude: -33.8568, Longitude: 151.2153}) {
			t.Errorf("location = %+v; want that of the box", side.Location)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files in ready/ (-want +got):\n%s", diff)
	}
}

func wantAnnounced(t *testing.T, m msg.Message, want file) {
	t.Helper()
	f, err := m.File()
	if err != nil {
		t.Fatal(err)
	}
	side, err := sidecar.Decode(f.Sidecar)
	if err != nil {
		t.Fatal(err)
	}
	if got := (file{side.History[0].Reason, side.Items}); got != want || f.State != "ready" || f.ID != string(side.ID) || side.State() != "ready" {
		t.Errorf("file message %s, state %s, of %+v; want %+v in ready", f.ID, f.State, got, want)
	}
}

// What is written is counted, across csvwriter's own end.
func TestWrittenBytesAreCounted(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	s := newSensor(t, b, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	least := 0.0
	for run := range 2 {
		p := b.Start("csvwriter", "air-csv")
		s.rows(100)
		waitRows(t, b.Dir+"/store", 100*(run+1))
		least += 100 * 50 // a row has more bytes
		feed.State("the bytes of its rows", func(s msg.State) bool { return s.PID == p.PID() && s.Gauges["written_24h_bytes"] > least })
		p.Stop()
	}
}

// What another boot or another set of columns begins is never put behind what was before.
func TestFilesEndWithTheSensorsRun(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	p := b.Start("csvwriter", "air-csv")
	epochs := map[string]uint64{}
	round := func(bus *msg.Bus, columns ...string) {
		t.Helper()
		s := newSensorOn(t, bus, columns...)
		for i := range 3 {
			s.publish(at(t, "2026-03-01T12:00:00Z", time.Hour+time.Duration(i)), make([]float64, len(columns))...)
		}
		before := len(epochs) * 3
		epochs[s.pub.Epoch().String()] = 3
		waitRows(t, store, before+3)
		if err := bus.Close(); err != nil {
			t.Fatal(err)
		}
	}
	round(b.Bus("air"), "n")
	round(b.Bus("air"), "n") // another run of the same sensor goes on in the file
	round(b.Bus("air"), "n", "m")
	round(otherBoot(t, b), "n", "m")
	p.Kill() // and the bus too is read on from where it was
	p = b.Start("csvwriter", "air-csv")
	round(b.Bus("air"), "n")
	p.Stop()
	wantExactly(t, store, epochs)
	wantReady(t, store, []file{{"the columns changed", 6}, {"the box was booted", 3}, {"the columns changed", 3}})
}

// A file whose day is over is completed though no reading comes, once, and the
// stream goes on after it where it was.
func TestIdleFileIsCompleted(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("1hz"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	events := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindFile}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	for i := range 3 {
		s.publish(at(t, "2026-03-01T12:00:00Z", time.Duration(i)), float64(i))
	}
	wantAnnounced(t, events.Next(), file{"the date changed", 3})
	p.Stop()
	p = b.Start("csvwriter", "air-csv")
	s.rows(4)
	waitRows(t, store, 7)
	p.Stop()
	wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): 7})
	wantReady(t, store, []file{{"the date changed", 3}})
	wantNoLitter(t, store, 1)
}

// The file that an idle stream was given is dropped, and not completed empty,
// when the stream goes on another day.
func TestEmptyFileIsNeverCompleted(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	events := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindFile}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	s.publish(at(t, "2026-03-01T12:00:00Z", 1), 0)
	wantAnnounced(t, events.Next(), file{"the date changed", 1})
	s.publish(at(t, "2026-03-02T12:00:00Z", 2), 1)
	s.publish(at(t, "2026-03-03T12:00:00Z", 3), 2)
	wantAnnounced(t, events.Next(), file{"the date changed", 1})
	waitRows(t, store, 3)
	p.Stop()
	wantReady(t, store, []file{{"the date changed", 1}, {"the date changed", 1}})
	wantNoLitter(t, store, 1)
}

// openFile is the one file in work/.
func openFile(t *testing.T, store string) string {
	t.Helper()
	paths, err := filepath.Glob(store + "/work/*.csv")
	if err != nil || len(paths) != 1 {
		t.Fatalf("open files = %v, %v; want one", paths, err)
	}
	return paths[0]
}

// The history gives back what was torn off, so that cutting is no loss.
func TestTornEndIsCutOffAndFilledAgain(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	s.rows(5)
	waitRows(t, store, 5)
	text, err := os.ReadFile(openFile(t, store))
	if err != nil {
		t.Fatal(err)
	}
	for i, spoil := range []func(string) string{
		func(s string) string { return s[:len(s)-1] },
		func(s string) string { return s[:len(s)-4] },
		func(s string) string { return s[:len(s)-len(s)/5] },
		func(s string) string { return s + "2026-0" },
		func(s string) string { return s[:len(s)-10] + strings.Repeat("\x00", 5000) },
		func(s string) string { return s[:strings.IndexByte(s, '\n')-3] },
		func(string) string { return "" },
		func(s string) string { return strings.Repeat("\x00", len(s)) },
	} {
		p.Kill()
		if err := os.WriteFile(openFile(t, store), []byte(spoil(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		p = b.Start("csvwriter", "air-csv")
		p.Ready()
		boxtest.Poll(t, fmt.Sprintf("the file as it was before it was spoilt in way %d", i), func() bool {
			again, err := os.ReadFile(openFile(t, store))
			return err == nil && string(again) == string(text)
		})
		if i != 6 && !p.Logs("torn end cut off") || i == 6 && strings.Contains(p.Log(), "torn end cut off") { // nothing is torn of a file that is empty
			t.Errorf("log after way %d = %s; want the cut told, where there was one", i, p.Log())
		}
	}
	feed.State("the repair", func(s msg.State) bool {
		return s.PID == p.PID() && s.Counters["repaired_files"] == 1 && s.Counters["repaired_bytes"] == uint64(len(text))
	})
	s.rows(5)
	waitRows(t, store, 10)
	p.Stop()
	wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): 10})
	wantNoLitter(t, store, 1)
}

// What somebody has edited while csvwriter did not run: the good rows go on in a
// new file, what stood in their place comes from the history, and the edited part
// is kept for a person.
func TestFileThatWasEditedMeanwhile(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	s.rows(5)
	waitRows(t, store, 5)
	p.Kill()
	path := openFile(t, store)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	lines[2] = "# the window was open\n" // in place of row 1
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	p = b.Start("csvwriter", "air-csv")
	feed.State("the count", func(s msg.State) bool {
		return s.PID == p.PID() && s.Counters["damaged_files"] == 1 && s.Counters["salvaged_rows"] == 4 && s.Counters["refilled_rows"] == 1 &&
			s.Counters["lost_rows"] == 0 && strings.Contains(s.Trouble, "4 rows salvaged, 1 from the publisher's history, 0 lost")
	})
	s.rows(5)
	waitRows(t, store, 10)
	p.Stop()
	wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): 10})
	wantNoLitter(t, store, 1)
	damaged := strings.TrimSuffix(strings.Replace(path, "/work/", "/quarantine/", 1), ".csv") + ".damaged"
	if got, err := os.ReadFile(damaged); err != nil || !strings.Contains(string(got), "\n# the window was open\n") || strings.Contains(string(got), s.pub.Epoch().String()) {
		t.Errorf("file in quarantine/ = %q, %v; want the edited part alone", got, err)
	}
}

// A file that was taken away costs its own rows at most: what is in ready/ is
// not written again, and what the history has comes back.
func TestFileThatIsGoneIsBegunAgain(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	p := b.Start("csvwriter", "air-csv")
	s.publish(at(t, "2026-03-01T12:00:00Z", 1), 0)
	s.rows(3)
	waitRows(t, store, 4)
	boxtest.Poll(t, "the first file", func() bool { return ready(t, store) == 1 })
	p.Kill()
	stray := strings.Replace(openFile(t, store), "-000002.csv", "-000099.csv", 1)
	if err := errors.Join(os.Remove(openFile(t, store)), os.WriteFile(stray, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	p = b.Start("csvwriter", "air-csv")
	waitRows(t, store, 4)
	p.Stop()
	wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): 4})
	wantNoLitter(t, store, 1) // the stray one, as a kill in begin leaves it, is gone
	if _, err := os.Stat(stray); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat of an empty file that is not in the journal = %v; want it gone", err)
	}
}

// By hand, with no topology at all.
func TestByHand(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	s := newSensor(t, b, "n")
	p := b.StartEnv(nil, "csvwriter", "--source", "ipc://"+b.Dir+"/run/air.ipc", "--set", "dir="+b.Dir+"/out", "--set", "node.run_dir="+b.Dir+"/run",
		"--set", "node.shm_dir="+b.Dir+"/shm", "--set", "flush=1hz")
	s.rows(3)
	waitRows(t, b.Dir+"/out", 3)
	p.Signal(syscall.SIGINT)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code = %d; want 0", code)
	}
	wantExactly(t, b.Dir+"/out", map[string]uint64{s.pub.Epoch().String(): 3})
}
