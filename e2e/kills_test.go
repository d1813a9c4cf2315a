package e2e

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
)

const kills = `
[sensor.air]
program = "sensor-bme280"
bus = "sim:"
[sensor.air.stream.environment]
capture_hz = 20

[sensor.count]
program = "counter"
truth = "$DIR/truth"
[sensor.count.stream.count]
capture_hz = 1000
history = 16384

[sensor.porch]
program = "sensor-camera"
input = "sim:"
[sensor.porch.stream.video]
capture_hz = 10
size = "320x240"
format = "yuv420"

[worker.air-csv]
program = "csvwriter"
source = "air"
flush = "1hz"

[worker.count-csv]
program = "csvwriter"
source = "count"
flush = "1hz"

[worker.pictures]
program = "jpegwriter"
source = "porch"
every = "250ms"
`

// Each process in turn is killed, 100 times in all, while a sensor and a
// counter at 1 kHz run into CSV files: each number of each run is there exactly
// once, nothing is left over, and everybody comes back.
func TestKills(t *testing.T) {
	t.Parallel()
	f := newFleet(t, kills)
	if err := os.Mkdir(filepath.Join(f.dir, "truth"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.start()
	victims := []string{"air", "count", "porch", "air-csv", "count-csv", "pictures"}
	const total = 60 // and as many as an hour has room for in a soak
	until := time.Now().Add(faultfs.Soak())
	var back []time.Duration
	for n := 0; n < total || time.Now().Before(until); n++ {
		back = append(back, f.killOne(victims[n%len(victims)]))
	}
	slices.Sort(back)
	t.Logf("%d kills; ready again after a median of %v, at most %v", len(back), back[len(back)/2], back[len(back)-1])
	if err := f.stop(); err != nil {
		t.Errorf("supervisor up ended with %v; want 0", err)
	}
	if left := f.leftovers(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if work, _ := filepath.Glob(f.dir + "/cache/work/*_*"); len(work) > 0 {
		t.Errorf("unfinished pictures left: %v", work)
	}
	f.compareWithTruth()
	for epoch, seqs := range f.rows("air-csv") {
		f.wholeRun("air-csv", epoch, seqs, len(seqs))
	}
}

// killOne kills a worker and returns how long it took to be ready again.
func (f *fleet) killOne(name string) time.Duration {
	f.t.Helper()
	pid := f.wait(name+" ready", func(b box) bool { return b.pid(name) != 0 }).pid(name)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		f.t.Fatalf("kill %s: %v", name, err)
	}
	killed := time.Now()
	f.wait(name+" ready again", func(b box) bool { return b.pid(name) != 0 && b.pid(name) != pid })
	return time.Since(killed)
}

// rows reads a csvwriter's files: by epoch, the sequence numbers in their order.
func (f *fleet) rows(worker string) map[string][]int {
	f.t.Helper()
	files, _ := filepath.Glob(f.dir + "/store/*/" + worker + "_*.csv")
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	if len(files) == 0 {
		f.t.Fatalf("%s wrote no file", worker)
	}
	byEpoch := map[string][]int{}
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			f.t.Fatal(err)
		}
		records, err := csv.NewReader(file).ReadAll()
		file.Close()
		if err != nil || len(records) == 0 {
			f.t.Fatalf("%s: %d records, %v; want a CSV file", path, len(records), err)
		}
		for _, r := range records[1:] {
			seq, err := strconv.Atoi(r[1])
			if err != nil {
				f.t.Fatalf("%s: row %v: %v", path, r, err)
			}
			if worker == "count-csv" && r[5] != r[1] {
				f.t.Errorf("%s: row %v; want the value to be its sequence number", path, r)
			}
			byEpoch[r[2]] = append(byEpoch[r[2]], seq)
		}
	}
	return byEpoch
}

// wholeRun says whether a run's rows are 0, 1, 2, … and reach as far as known.
func (f *fleet) wholeRun(worker, epoch string, seqs []int, atLeast int) {
	for i, seq := range seqs {
		if seq != i {
			f.t.Errorf("%s, run %s: row %d has sequence number %d; want each once, in order", worker, epoch, i, seq)
			return
		}
	}
	if len(seqs) < atLeast {
		f.t.Errorf("%s, run %s: %d rows; want at least the %d that were published", worker, epoch, len(seqs), atLeast)
	}
}

// compareWithTruth holds the counter's own account against the CSV files.
func (f *fleet) compareWithTruth() {
	f.t.Helper()
	accounts, _ := filepath.Glob(f.dir + "/truth/*")
	rows, sum := f.rows("count-csv"), 0
	for _, path := range accounts {
		text, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		published, _ := strconv.Atoi(strings.TrimSpace(string(text))) // empty: killed before the first
		epoch := filepath.Base(path)
		f.wholeRun("count-csv", epoch, rows[epoch], published)
		sum += published
	}
	f.t.Logf("%d numbers in %d runs of the counter, each once in the CSV files", sum, len(accounts))
	if sum == 0 {
		f.t.Error("the counter published nothing")
	}
}

// A killed supervisor takes everything with it; the next one starts on clean ground.
func TestKilledSupervisorLeavesNothingRunning(t *testing.T) {
	f := newFleet(t, kills)
	if err := os.Mkdir(filepath.Join(f.dir, "truth"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.start()
	if err := f.up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	f.up.Wait()
	f.up = nil
	for deadline := time.Now().Add(2 * time.Minute); ; {
		left := slices.DeleteFunc(f.leftovers(), func(s string) bool { return !strings.HasPrefix(s, "/proc/") })
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running after the supervisor was killed: %v", left)
		}
		time.Sleep(20 * time.Millisecond) // between two looks at other processes
	}
	f.start()
	if err := f.stop(); err != nil {
		t.Errorf("supervisor up ended with %v; want 0", err)
	}
	if left := f.leftovers(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	f.compareWithTruth()
}
