package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// TestMain lets the test binary be sweeper, and a worker that writes down which
// files it hears of.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){
		"sweeper": main,
		"listener": func() {
			worker.Main(worker.Program[listenerConfig]{Name: "listener", Summary: "Writes down which files it hears of.",
				Reads: []msg.Kind{msg.KindFile}, Publishes: []msg.Kind{msg.KindFile},
				Config: func() listenerConfig { return listenerConfig{} }, Run: listen})
		},
	})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

type listenerConfig struct {
	Notes string `toml:"notes" doc:"file that it writes to, a line for each message: its source, state, id and sidecar"`
	Stop  int    `toml:"stop" doc:"after so many messages it stops itself, as SIGSTOP does; 0 is never"`
}

func listen(ctx context.Context, w *worker.Worker, cfg listenerConfig) (err error) {
	notes, err := os.OpenFile(cfg.Notes, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(notes)
	defer func() { err = errors.Join(err, out.Flush(), notes.Close()) }()
	in, err := w.Messages(nil)
	if err != nil {
		return err
	}
	w.Ready(ctx)
	for n := 1; ; n++ {
		m, ok, err := in.Next(ctx, time.Time{})
		if err != nil || !ok {
			return err
		}
		if n == cfg.Stop {
			if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
				return err
			}
		}
		f, err := m.File()
		if err != nil {
			return err
		}
		fmt.Fprintln(out, m.Source, f.State, f.ID, string(f.Sidecar))
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

// fleet has a writer of files that is not there, a mover and an uploader beside
// somebody who has nothing to do with them, all of them listeners.
const fleet = `
[sensor.porch]
program = "sensor-camera"
[sensor.porch.stream.video]
[worker.porch-clips]
program = "h264writer"
source = "porch"
[worker.keep]
program = "listener"
source = "porch-clips"
notes = "DIR/keep"
[worker.send]
program = "listener"
source = "keep"
notes = "DIR/send"
[worker.other]
program = "listener"
source = "send"
notes = "DIR/other"
[job.sweep]
program = "sweeper"
source = ["keep"]
every = "10m"
wait = "20s"
`

func idOf(n int) sidecar.ID {
	return sidecar.NewID("porch-clips", time.Date(2026, 5, 17, 9, 41, 0, 0, time.UTC).Add(time.Duration(n)*time.Second), 0x000283baec0033c3, uint64(n))
}

// fill puts files from number first on into a state, without sidecars: the
// sweeper does not look at them.
func fill(t testing.TB, dir string, state spool.State, first, n int) {
	t.Helper()
	folder := filepath.Join(dir, string(state))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(folder, string(idOf(first+i))+".mp4"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// notes is what a listener wrote down of the sweeper.
func notes(t testing.TB, b *boxtest.Box, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(text)))
}

// swept runs the sweeper, and wants that exit code and these words of it.
func swept(t testing.TB, b *boxtest.Box, code int, words ...string) *boxtest.Process {
	t.Helper()
	p := b.Start("sweeper", "sweep")
	if got := p.Wait(); got != code {
		t.Errorf("sweeper ended with code %d; want %d", got, code)
	}
	for _, w := range words {
		if !strings.Contains(p.Log(), w) {
			t.Errorf("sweeper wrote:\n%s\nwant %q", p.Log(), w)
		}
	}
	return p
}

func TestWhatWasNeverSentIsAnnounced(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet)
	fill(t, b.Dir+"/cache", spool.Born, 1, 2)
	fill(t, b.Dir+"/store", spool.Ready, 3, 1)
	fill(t, b.Dir+"/cache", spool.Work, 10, 1)
	fill(t, b.Dir+"/cache", spool.Dropped, 11, 1)
	for n, state := range []spool.State{spool.Work, spool.Sent, spool.Rejected, spool.Quarantine} {
		fill(t, b.Dir+"/store", state, 20+n, 1)
	}
	keep, send, other := b.Start("listener", "keep"), b.Start("listener", "send"), b.Start("listener", "other")
	keep.Ready()
	send.Ready()
	other.Ready()
	swept(t, b, 0, "announced 3 files, 2 in RAM and 1 on disk; heard by keep, send\"")
	want := []string{"sweep born " + string(idOf(1)) + " null\n", "sweep born " + string(idOf(2)) + " null\n", "sweep ready " + string(idOf(3)) + " null\n"}
	for _, name := range []string{"keep", "send"} {
		if got := notes(t, b, name); !slices.Equal(got, want) {
			t.Errorf("%s heard %q; want %q", name, got, want)
		}
	}
	if got := notes(t, b, "other"); len(got) > 0 {
		t.Errorf("other heard %q; want nothing: it reads none of the sweeper's sources", got)
	}
	swept(t, b, 0, "heard by keep, send\"") // they are heard again by each run
	if got := notes(t, b, "send"); !slices.Equal(got, append(want, want...)) {
		t.Errorf("send heard %q; want each twice", got)
	}
	for _, p := range []*boxtest.Process{keep, send, other} {
		p.Stop()
	}
}

func TestNothingToAnnounce(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet)
	swept(t, b, 0, "nothing to announce") // nobody is there, nor any folder
	if _, err := os.Stat(b.Dir + "/store"); err == nil {
		t.Error("it made the store's folder; want it to look only")
	}
}

func TestWhoDoesNotHearIsNamed(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, strings.Replace(fleet, `"20s"`, `"3s"`, 1))
	fill(t, b.Dir+"/cache", spool.Born, 1, 2)
	swept(t, b, 75, "announced 2 files, 2 in RAM and 0 on disk; not heard by keep (not there), send (not there)")
	keep := b.Start("listener", "keep")
	keep.Ready()
	swept(t, b, 75, "; heard by keep; not heard by send (not there)")
	keep.Stop()
}

func TestTheStoreIsNotMounted(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet)
	fill(t, b.Dir+"/cache", spool.Born, 1, 1)
	fill(t, b.Dir+"/store", spool.Ready, 2, 1) // what the mount would hide
	keep, send := b.Start("listener", "keep"), b.Start("listener", "send")
	keep.Ready()
	send.Ready()
	p := b.Start("sweeper", "sweep", "--set", "node.store_mount="+b.Dir+"/store")
	if code := p.Wait(); code != 75 || !strings.Contains(p.Log(), "announced 1 files, 1 in RAM and 0 on disk; heard by keep, send") ||
		!strings.Contains(p.Log(), "not mounted") {
		t.Errorf("sweeper ended with code %d; want 75, the cache swept, and word of the mount; it wrote:\n%s", code, p.Log())
	}
	keep.Stop()
	send.Stop()
}

func TestNobodyIsToHear(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, strings.Replace(fleet, `source = ["keep"]`, `source = ["other"]`, 1))
	fill(t, b.Dir+"/cache", spool.Born, 1, 1)
	p := swept(t, b, 75, "not heard by other (not there)") // a source that reads workers is spoken to itself
	if strings.Contains(p.Log(), "send") {
		t.Errorf("sweeper wrote:\n%s\nwant no word of send", p.Log())
	}
	b.Write(strings.Replace(fleet, `source = ["keep"]`, `source = ["porch"]`, 1))
	swept(t, b, 78, "nobody hears sweep") // a sensor has no files
	p = b.StartEnv(nil, "sweeper", "--source", "keep", "--set", "node.run_dir="+b.Dir+"/run", "--set", "node.shm_dir="+b.Dir+"/shm")
	if code := p.Wait(); code != 78 || !strings.Contains(p.Log(), "nobody hears sweeper") {
		t.Errorf("by hand it ended with code %d; want 78 and why; it wrote:\n%s", code, p.Log())
	}
}

// What lies in the folders and is no file of ours is not announced.
func TestTrapsAreNotAnnounced(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet)
	born := b.Dir + "/cache/born/"
	fill(t, b.Dir+"/cache", spool.Born, 1, 1)
	for _, err := range []error{
		os.Symlink("/etc/passwd", born+string(idOf(2))+".mp4"),
		os.Mkdir(born+string(idOf(3))+".mp4", 0o755),
		os.WriteFile(born+string(idOf(4))+".json", nil, 0o600),
		os.WriteFile(born+string(idOf(5)), nil, 0o600),
		os.WriteFile(born+"PORCH\n\x1b[2J.mp4", nil, 0o600),
		os.Symlink(b.Dir+"/cache/born", b.Dir+"/store"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	keep, send := b.Start("listener", "keep"), b.Start("listener", "send")
	keep.Ready()
	send.Ready()
	swept(t, b, 0, "announced 1 files")
	if got, want := notes(t, b, "send"), []string{"sweep born " + string(idOf(1)) + " null\n"}; !slices.Equal(got, want) {
		t.Errorf("send heard %q; want %q", got, want)
	}
	keep.Stop()
	send.Stop()
}

// Ten thousand files, and more than the history holds, are heard of once each.
func TestManyFiles(t *testing.T) {
	t.Parallel()
	for _, files := range []int{10_000, 20_000} {
		b := boxtest.New(t, strings.Replace(fleet, `source = ["keep"]`, `source = ["send"]`, 1)) // other and send hear it
		fill(t, b.Dir+"/store", spool.Ready, 1, files)
		send, other := b.Start("listener", "send"), b.Start("listener", "other")
		send.Ready()
		other.Ready()
		began := time.Now()
		p := swept(t, b, 0, fmt.Sprintf("announced %d files", files), "heard by other, send")
		took := time.Since(began)
		for _, name := range []string{"send", "other"} {
			got := notes(t, b, name)
			if slices.Sort(got); len(got) != files || len(slices.Compact(got)) != files {
				t.Errorf("%s heard %d messages of %d files; want each once", name, len(got), files)
			}
		}
		t.Logf("%d files to two listeners: %s, sweeper's peak %d kB", files, took, p.PeakKB())
		send.Stop()
		other.Stop()
	}
}

// A worker that hangs costs the others a wait, and no message.
func TestAStoppedWorkerHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, strings.Replace(strings.Replace(fleet, `"20s"`, `"5s"`, 1), `notes = "DIR/keep"`, "notes = \"DIR/keep\"\nstop = 100", 1))
	const files = ahead + 3000
	fill(t, b.Dir+"/store", spool.Ready, 1, files)
	keep, send := b.Start("listener", "keep"), b.Start("listener", "send")
	keep.Ready()
	send.Ready()
	swept(t, b, 75, "; heard by send; not heard by keep (heard ")
	if got := notes(t, b, "send"); len(got) != files {
		t.Errorf("send heard %d messages; want %d", len(got), files)
	}
	keep.Signal(syscall.SIGCONT)
	keep.Stop()
	send.Stop()
}

// A sweeper that is killed leaves nothing that the next one minds.
func TestAfterAKill(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, strings.Replace(fleet, `source = ["keep"]`, `source = ["other"]`, 1))
	fill(t, b.Dir+"/store", spool.Ready, 1, ahead+3000)
	other := b.Start("listener", "other")
	other.Ready()
	p := b.Start("sweeper", "sweep")
	boxtest.Poll(t, "the first message", func() bool { return len(notes(t, b, "other")) > 0 })
	p.Kill()
	swept(t, b, 0, "; heard by other")
	got := notes(t, b, "other")
	if slices.Sort(got); len(slices.Compact(got)) != ahead+3000 {
		t.Errorf("other heard of %d files; want all %d", len(slices.Compact(got)), ahead+3000)
	}
	if rings, err := filepath.Glob(b.Dir + "/shm/sweep*"); err != nil || len(rings) > 0 {
		t.Errorf("left in shm_dir: %v, %v; want nothing of the sweeper's", rings, err)
	}
	other.Stop()
}
