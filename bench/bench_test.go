package main

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
)

// TestMain lets the tests' own binary be the processes that are measured.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	m.Run()
}

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3, 10, 9, 8, 7, 6}
	for q, want := range map[float64]float64{0: 1, 0.5: 5, 0.9: 9, 0.99: 10, 1: 10} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile(1..10, %v) = %v; want %v", q, got, want)
		}
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median(1..4) = %v; want 2.5", got)
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median(nil) = %v; want NaN", got)
	}
}

func TestVerdict(t *testing.T) {
	for value, want := range map[float64]string{1: "PASS, aim reached", 1.2: "PASS", 1.5: "MISS"} {
		if got := (bar{value: value, must: 1.3, aim: 1.1}).verdict(); got != want {
			t.Errorf("verdict of %v with must 1.3, aim 1.1 = %s; want %s", value, got, want)
		}
	}
	if got := (bar{value: math.NaN(), must: 1, aim: 1}).verdict(); got != "MISS" {
		t.Errorf("verdict of nothing measured = %s; want MISS", got)
	}
}

func TestJoin(t *testing.T) {
	sent := report{CPU: 100, Times: [][3]int64{{7, 1000, 3000}, {8, 11000, 13000}}}
	heard := []report{
		{CPU: 10, Times: [][3]int64{{6, 500, 600}, {7, 5000, 6000}, {8, 14000, 15000}}},
		{CPU: 30, Times: [][3]int64{{8, 16000, 19000}}},
	}
	b, err := join(sent, heard)
	if err != nil {
		t.Fatal(err)
	}
	want := block{copy: []float64{2, 2}, wake: []float64{2, 1, 3}, held: []float64{4, 3, 5}, total: []float64{5, 4, 8},
		sent: 2, received: 3, writerCPU: 100, readerCPU: 20}
	if diff := cmp.Diff(want, b, cmp.AllowUnexported(block{})); diff != "" {
		t.Errorf("join(2 frames, 2 readers) differs (-want +got):\n%s", diff)
	}
	if _, err := join(sent, []report{{}}); err == nil {
		t.Error("join(2 frames, a reader that got none) = nil; want an error")
	}
}

func TestFaultsAreFound(t *testing.T) {
	times := [][3]int64{{3, 30, 0}, {4, 40, 0}, {9, 90, 0}, {10, 100, 0}, {0, 130, 0}, {1, 140, 0}}
	if got := afterGap(times[:4]); got[0] != 9 {
		t.Errorf("afterGap(3 4 9 10) = frame %d; want 9", got[0])
	}
	if held, ok := afterRestart(times); !ok || held != 130 {
		t.Errorf("afterRestart(3 4 9 10 0 1) = %d, %v; want 130", held, ok)
	}
	if _, ok := afterRestart(times[:4]); ok {
		t.Error("afterRestart(3 4 9 10) found one; want none")
	}
}

func TestLostRowsAreCounted(t *testing.T) {
	const head = "time,seq,epoch,boot_ns,synced,n\n"
	row := func(seq string) string {
		return "2026-01-01T00:00:00.000000000Z," + seq + ",00000000000000aa,1,true,1\n"
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		lost  int
	}{
		{"all there", map[string]string{"ready/a.csv": head + row("0") + row("1"), "work/b.csv": head + row("2")}, 0},
		{"a gap of two", map[string]string{"work/a.csv": head + row("0")}, 2},
		{"a gap within", map[string]string{"work/a.csv": head + row("0") + row("2")}, 1},
		{"one twice", map[string]string{"work/a.csv": head + row("0") + row("1") + row("1") + row("2")}, 1},
		{"none", nil, 3},
	} {
		store := t.TempDir()
		for name, text := range c.files {
			file := filepath.Join(store, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if lost, err := countLost(store, 3); err != nil || lost != c.lost {
			t.Errorf("countLost(%s) = %d, %v; want %d", c.name, lost, err, c.lost)
		}
		if last, err := lastSeq(store); c.name == "all there" && (err != nil || last != 2) {
			t.Errorf("lastSeq(%s) = %d, %v; want 2", c.name, last, err)
		}
	}
}

func TestRingsAreLeftOutOfMemory(t *testing.T) {
	const smaps = `00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/perch
Size:                328 kB
Rss:                 100 kB
Pss:                  50 kB
VmFlags: rd ex mr mw me dw
7f0000000000-7f0000100000 rw-s 00000000 00:01 99  /dev/shm/x/shm/porch.video.00000000000000aa.dat
Rss:                1024 kB
Pss:                 512 kB
7f0000200000-7f0000300000 r-xp 00000000 08:02 7  /opt/lib/libonnxruntime.so.1.24.3
Rss:                   8 kB
Pss:                   8 kB
7ffd0-7ffe0 rw-p 00000000 00:00 0                          [stack]
Rss:                  12 kB
Pss:                  12 kB
`
	want := footprint{resident: 120 << 10, proportional: 70 << 10, rings: 1 << 20, model: true}
	if got := readMaps(smaps, "/dev/shm/x/shm/"); got != want {
		t.Errorf("readMaps() = %+v; want %+v", got, want)
	}
}

func TestDemoEntriesHaveNoNode(t *testing.T) {
	text, err := demoEntries("../deploy/demo.toml")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "[node]") || strings.Contains(text, "run_dir") {
		t.Errorf("demoEntries() has a node:\n%s", text)
	}
	for _, table := range []string{"[sensor.air]", "[sensor.porch.stream.video]", "[worker.porch-pictures]"} {
		if !strings.Contains(text, table) {
			t.Errorf("demoEntries() lacks %s:\n%s", table, text)
		}
	}
}

func TestSectionsGoBetweenTheirMarks(t *testing.T) {
	const before = "text\n<!-- bench:bars -->\nold\n<!-- /bench:bars -->\nmore\n<!-- bench:fleet -->\n<!-- /bench:fleet -->\n"
	const want = "text\n<!-- bench:bars -->\n\nnew\n\n<!-- /bench:bars -->\nmore\n<!-- bench:fleet -->\n\ntable\n\n<!-- /bench:fleet -->\n"
	got, err := insert(before, []section{{"bars", "new\n"}, {"fleet", "table\n"}})
	if err != nil || got != want {
		t.Errorf("insert() = %v:\n%s; want\n%s", err, got, want)
	}
	if _, err := insert(before, []section{{"nothing", ""}}); err == nil {
		t.Error("insert(a section without marks) = nil; want an error")
	}
}

func TestDocumentHasAllMarks(t *testing.T) {
	text, err := os.ReadFile("../" + document)
	if err != nil {
		t.Fatal(err)
	}
	var none results
	if _, err := insert(string(text), none.sections("machine")); err != nil {
		t.Error(err)
	}
}

// The processes that are measured do what they are told, in each mode: a
// bench that nobody runs for months must still run.
func TestProcesses(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("no C compiler to make the peer with")
	}
	dir, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	peer, err := compilePeer(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	small, _, _, _ := shapes()
	cells, err := stage(t.Context(), dir, peer, []cell{{shape: small, readers: 2}}, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modes() {
		b := cells[0].all(m)
		if b.sent != 3 || b.writerCPU <= 0 {
			t.Errorf("%s: %d frames sent with %.0f µs of CPU; want 3", m, b.sent, b.writerCPU)
		}
		if m == ring && b.received != 6 || m != copying && len(b.total) == 0 || slices.ContainsFunc(b.wake, func(us float64) bool { return us < 0 }) {
			t.Errorf("%s: %d of 6 arrived, after %v µs; want all through the ring, none before it was sent", m, b.received, b.wake)
		}
	}
}

func TestFaults(t *testing.T) {
	dir, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	small, _, _, _ := shapes()
	f, err := measureFaults(t.Context(), dir, small, 2, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.stalled) != 2 || len(f.restart) != 1 || f.takeOver[0] <= 0 || f.restart[0] < f.takeOver[0] {
		t.Errorf("measureFaults() = %+v; want two stalls, and a restart that takes longer than the first frame after it", f)
	}
}

func TestLoops(t *testing.T) {
	dir, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := measureLoops(t.Context(), dir)
	if err != nil || l.PinUnpin.Nanos <= 0 || l.ClaimPublish.Nanos <= 0 || l.PinUnpin.Allocs+l.ClaimPublish.Allocs > 0 {
		t.Errorf("measureLoops() = %+v, %v; want times, and no allocation", l, err)
	}
}

// Each way brings all files to the server. perch's own takes built programs.
func TestCarriers(t *testing.T) {
	dir, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := boxtest.Built(t, "mover", "uploader")
	all := []load{{files: 3, bytes: 5000}}
	r, err := measureFiles(t.Context(), dir, t.TempDir(), bin, all, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.rounds[all[0]]) != 1 || !slices.Contains(r.ways, perch) {
		t.Fatalf("measureFiles() = %+v; want one round, with perch's own way", r)
	}
	for _, way := range r.ways {
		c := r.rounds[all[0]][0][way]
		if c.seconds <= 0 || c.cpu <= 0 {
			t.Errorf("%s took %v s, %v s of CPU; want some", way, c.seconds, c.cpu)
		}
		if n, counted := r.disk[all[0]][way]; counted && n < 1 {
			t.Errorf("%s wrote %.2f bytes for one of payload; want at least that one", way, n)
		}
	}
}

// Each way brings all readings to each receiver. jsonsender takes built programs; the one that has its records in
// RAM is left out, as building it takes as long as all others.
func TestSenders(t *testing.T) {
	dir, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := boxtest.Built(t, "jsonsender")
	schemes := []string{"tcp", "ws", "http", "nats"}
	if _, err := exec.LookPath("mosquitto"); err == nil {
		schemes = append(schemes, "mqtt")
	}
	r, err := measureSends(t.Context(), dir, bin, schemes, []sendWay{bare, drain, live}, 700, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range schemes {
		for _, way := range []sendWay{bare, drain, live} {
			if s := r.rounds[scheme][0][way]; s.cpu <= 0 {
				t.Errorf("%s, %s took %v µs of CPU a record; want some", scheme, way, s.cpu)
			}
		}
	}
}

func TestTallyWaitsForAll(t *testing.T) {
	all := newTally(3)
	all.add(1)
	all.add(0)
	if _, err := all.wait(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "1 of 3") {
		t.Errorf("wait() with 1 of 3 = %v; want an error that says so", err)
	}
	all.add(2)
	all.add(1) // one too many is the sender's to repeat
	if _, err := all.wait(t.Context(), time.Minute); err != nil {
		t.Errorf("wait() with all = %v; want nil", err)
	}
}
