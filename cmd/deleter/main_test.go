package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/gone"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// TestMain lets the test binary be deleter.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"deleter": main})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

// fleet is a topology with a mover and a deleter.
func fleet(keys string) string {
	return `[sensor.porch]
program = "sensor-camera"
[sensor.porch.stream.video]
[worker.keep]
program = "mover"
source = "porch"
[worker.clean]
program = "deleter"
source = "keep"
` + keys
}

// testbox is a box with files.
type testbox struct {
	*boxtest.Box
	t            testing.TB
	cache, store *spool.Spool
	boot         string
	n            int
}

func newBox(t testing.TB, keys string) *testbox {
	t.Helper()
	return boxOn(t, boxtest.New(t, fleet(keys)), "store")
}

// faultyBox is a box on a disk that can fail; the files are put behind it.
func faultyBox(t testing.TB, keys string) (*testbox, *faultfs.FS) {
	t.Helper()
	b, faults := boxtest.NewFaulty(t, fleet(keys))
	return boxOn(t, b, "store"), faults
}

// boxOn puts files into a box that has its store in that folder.
func boxOn(t testing.TB, b *boxtest.Box, store string) *testbox {
	t.Helper()
	c, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	x := &testbox{Box: b, t: t, boot: c.BootID()}
	x.cache, x.store = openSpool(t, b.Disk+"/cache"), openSpool(t, b.Disk+"/"+store)
	return x
}

func openSpool(t testing.TB, dir string) *spool.Spool {
	t.Helper()
	sp, err := spool.Open(dir, append(spool.Stages(), spool.Work)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sp.Close() })
	return sp
}

// put makes a file of that length, which ended that long ago.
func (x *testbox) put(sp *spool.Spool, state spool.State, ext string, bytes int, age time.Duration) sidecar.ID {
	x.t.Helper()
	return x.putSide(sp, state, ext, bytes, age).ID
}

func (x *testbox) putSide(sp *spool.Spool, state spool.State, ext string, bytes int, age time.Duration) *sidecar.Sidecar {
	x.t.Helper()
	side, err := putFile(sp, state, x.n, ext, bytes, sidecar.Moment{BootID: x.boot, BootNS: int64(clock.Boot() - age), Time: msg.Time{Time: time.Now().Add(-age).UTC()}})
	if err != nil {
		x.t.Fatal(err)
	}
	x.n++
	return side
}

func putFile(sp *spool.Spool, state spool.State, n int, ext string, bytes int, end sidecar.Moment) (*sidecar.Sidecar, error) {
	id := sidecar.ID(fmt.Sprintf("porch-clips_20260517T094057Z_000283baec0033c3-%06d", n))
	media := map[string]string{".mp4": "video/mp4", ".jpg": "image/jpeg", ".csv": "text/csv", ".jsonl": sidecar.LossesMedia}[ext]
	side := &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ext, Media: media, Node: "box", Worker: id.Worker(),
		Source: "frame/porch/video", Start: end, End: end, Items: 30}
	if state == spool.Sent {
		side.Receipt = &sidecar.Receipt{To: "https://collect.example.org"}
	}
	side.Add(sidecar.Event{State: string(state), Reason: "made by a test"})
	f, err := sp.Create(side.Name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, bytes)); err != nil {
		return nil, err
	}
	return side, sp.Complete(f, state, side)
}

// there lists the files of all states.
func there(t testing.TB, spools ...*spool.Spool) map[sidecar.ID]string {
	t.Helper()
	seen := map[sidecar.ID]string{}
	for _, sp := range spools {
		for _, state := range spool.Stages() {
			entries, err := sp.Entries(state)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				seen[e.ID] = filepath.Base(sp.Dir()) + "/" + string(state)
			}
		}
	}
	return seen
}

// wantGone waits until just these files are gone, and wants each of them in the
// log.
func (x *testbox) wantGone(all map[sidecar.ID]string, ids ...sidecar.ID) {
	x.t.Helper()
	want := maps.Clone(all)
	for _, id := range ids {
		delete(want, id)
	}
	var got map[sidecar.ID]string
	defer func() {
		if diff := cmp.Diff(want, got); diff != "" {
			x.t.Errorf("files (-want +got):\n%s", diff)
		}
	}()
	boxtest.Poll(x.t, "the files to be gone", func() bool {
		got = there(x.t, x.cache, x.store)
		maps.DeleteFunc(got, func(id sidecar.ID, _ string) bool { return id.Worker() == "clean" })
		return len(got) <= len(want)
	})
	for _, id := range ids {
		side, err := gone.Find(x.store.Dir()+"/gone", id)
		if err != nil || side.State() != "gone" || !strings.HasPrefix(side.History[len(side.History)-1].Reason, "deleted: ") {
			x.t.Errorf("Find(%s) = %+v, %v; want why it was deleted", id, side, err)
		}
	}
}

// lines reads all losses files, those that are being written too, and counts
// their lines by the files that they tell of.
func lines(t testing.TB, store string) map[sidecar.ID]int {
	t.Helper()
	told := map[sidecar.ID]int{}
	paths, err := filepath.Glob(store + "/*/clean_*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			if !bytes.HasSuffix(line, []byte("\n")) {
				continue
			}
			l, err := sidecar.DecodeLoss(line)
			if err != nil {
				t.Fatalf("%s: %v", p, err)
			}
			if _, err := sidecar.FindLoss(bytes.NewReader(text), l.ID); err != nil || l.Node != "box" || l.ID.Check() != nil || !strings.HasPrefix(l.Reason, "deleted: ") {
				t.Errorf("%s tells of %+v; want why that file was deleted (%v)", p, l, err)
			}
			told[l.ID]++
		}
	}
	return told
}

// Without any setting only what was dropped goes: at the start, and when the
// mover says so.
func TestNothingIsSet(t *testing.T) {
	t.Parallel()
	x := newBox(t, "")
	first := x.put(x.cache, spool.Dropped, ".mp4", 5000, time.Hour)
	for _, state := range []spool.State{spool.Born, spool.Quarantine} {
		x.put(x.cache, state, ".mp4", 5000, 1000*time.Hour)
	}
	for _, state := range []spool.State{spool.Born, spool.Ready, spool.Sent, spool.Rejected, spool.Quarantine} {
		x.put(x.store, state, ".mp4", 5000, 1000*time.Hour)
	}
	all := there(t, x.cache, x.store)
	mover := newMover(t, x)
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindFile, msg.KindState}, "clean")
	p := x.Start("deleter", "clean")
	p.Ready()
	x.wantGone(all, first)
	second := x.put(x.cache, spool.Dropped, ".jpg", 100, time.Minute)
	mover.say(second, "dropped")
	x.wantGone(all, first)
	var said []string
	for len(said) < 2 {
		if m := feed.Next(); m.Kind == msg.KindFile {
			f, err := m.File()
			if err != nil {
				t.Fatal(err)
			}
			said = append(said, f.ID+" "+f.State)
		}
	}
	if diff := cmp.Diff([]string{string(first) + " gone", string(second) + " gone"}, said); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	s := feed.State("both counted", func(s msg.State) bool { return s.Counters["deleted_files"] == 2 })
	want := map[string]uint64{"deleted_files": 2, "deleted_bytes": 5100, "deleted_dropped_files": 2, "deleted_dropped_bytes": 5100,
		"deleted_clips_files": 1, "deleted_clips_bytes": 5000, "deleted_pictures_files": 1, "deleted_pictures_bytes": 100}
	if diff := cmp.Diff(want, s.Counters); diff != "" || s.Trouble != "" {
		t.Errorf("counters (-want +got), trouble %q:\n%s", s.Trouble, diff)
	}
	p.Stop()
	if work, err := filepath.Glob(x.Dir + "/*/work/*"); err != nil || len(work) > 0 {
		t.Errorf("work/ holds %q, %v; want nothing", work, err)
	}
}

// mover is the test as the worker "keep".
type mover struct {
	t   testing.TB
	bus *msg.Bus
	out *msg.FileStream
}

func newMover(t testing.TB, x *testbox) *mover {
	t.Helper()
	m := &mover{t: t, bus: x.Bus("keep")}
	pub, err := m.bus.Publisher()
	if err == nil {
		m.out, err = pub.Files("files", msg.Retention{Messages: 64, MessageBytes: 4096, Expect: []string{"clean"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mover) say(id sidecar.ID, state string) {
	m.t.Helper()
	if _, err := m.out.Publish(m.bus.Clock().Now(), string(id), state, nil); err != nil {
		m.t.Fatal(err)
	}
}

// A file that another process is at work on stays; so does one that has changed
// since it was decided about.
func TestHeldFilesStay(t *testing.T) {
	t.Parallel()
	x := newBox(t, "")
	held := x.put(x.cache, spool.Dropped, ".mp4", 5000, time.Hour)
	other := x.put(x.cache, spool.Dropped, ".mp4", 5000, time.Hour)
	h, err := x.cache.Hold(spool.Dropped, held)
	if err != nil {
		t.Fatal(err)
	}
	all := there(t, x.cache, x.store)
	feed := x.Follow(x.Bus("watch"), []msg.Kind{msg.KindState}, "clean")
	p := x.Start("deleter", "clean")
	x.wantGone(all, other)
	feed.State("one skipped", func(s msg.State) bool { return s.Counters["skipped_held"] > 0 })
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	x.wantGone(all, other, held)
	p.Stop()
}

// Two deleters would delete twice as much as is meant.
func TestOneDeleterAStore(t *testing.T) {
	t.Parallel()
	x := newBox(t, "[worker.again]\nprogram = \"deleter\"\nsource = \"keep\"\n")
	p := x.Start("deleter", "clean")
	p.Ready()
	if code := x.Start("deleter", "again").Wait(); code != 75 {
		t.Errorf("a second deleter ended with code %d; want 75", code)
	}
	p.Stop()
}

// Forged messages and hostile names touch nothing.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	x := newBox(t, "evict_unsent = true\n[worker.clean.ram]\nwhen = \"true\"\n[worker.clean.disk]\nwhen = \"true\"\nmax_age = \"1ms\"\n")
	outside := x.Dir + "/outside.mp4"
	name := "porch-clips_20260517T094057Z_000283baec0033c3-009999"
	side := strings.ReplaceAll(`{"v":1,"id":"ID","name":"ID.mp4","media":"video/mp4","sha256":"`+strings.Repeat("0", 64)+`","history":[]}`, "ID", name)
	if err := os.WriteFile(outside, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, make := range map[string]func(string) error{
		"cache/dropped": func(p string) error { return os.Symlink(outside, p) },
		"store/sent":    func(p string) error { return os.Link(outside, p) },
		"store/ready":   func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		p := filepath.Join(x.Dir, dir, name)
		if err := errors.Join(make(p+".mp4"), os.WriteFile(p+".json", []byte(side), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	good := x.put(x.cache, spool.Dropped, ".mp4", 10, time.Hour)
	m := newMover(t, x)
	p := x.Start("deleter", "clean")
	p.Ready()
	for _, id := range []string{name, "../../outside", "/etc/passwd", "porch-clips_20260517T094057Z_000283baec0033c3-009998"} {
		if _, err := m.out.Publish(m.bus.Clock().Now(), id, "dropped", nil); err == nil && strings.Contains(id, "/") {
			t.Errorf("Publish(%q) = nil; want an error", id)
		}
	}
	boxtest.Poll(t, "the good file to be gone", func() bool { return there(t, x.cache)[good] == "" })
	p.Stop()
	text, err := os.ReadFile(outside)
	if err != nil || string(text) != "precious" {
		t.Errorf("the file outside is %q, %v; want it as it was", text, err)
	}
	for _, p := range []string{"cache/dropped", "store/sent", "store/ready"} {
		if _, err := os.Lstat(filepath.Join(x.Dir, p, name+".mp4")); err != nil {
			t.Errorf("what is none of ours was touched: %v", err)
		}
	}
}

// Whoever asks for the plan changes nothing.
func TestPlanChangesNothing(t *testing.T) {
	t.Parallel()
	x := newBox(t, "evict_unsent = true\n[worker.clean.disk]\nmin_free = \"900TB\"\n")
	x.put(x.cache, spool.Dropped, ".mp4", 5000, time.Hour)
	for _, state := range []spool.State{spool.Ready, spool.Sent, spool.Rejected} {
		x.put(x.store, state, ".mp4", 5000, time.Hour)
	}
	before := tree(t, x.Dir)
	for _, output := range []string{"text", "json"} {
		p := x.Start("deleter", "clean", "plan", "-o", output)
		if code := p.Wait(); code != 0 {
			t.Fatalf("plan ended with code %d: %s", code, p.Log())
		}
		if output == "text" {
			continue
		}
		var a answer
		if err := json.Unmarshal([]byte(p.Log()), &a); err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, f := range a.Files {
			order = append(order, string(f.At)+" "+string(f.State)+" "+string(f.By))
		}
		if diff := cmp.Diff([]string{"ram dropped dropped", "disk sent min_free", "disk rejected min_free", "disk ready min_free"}, order); diff != "" {
			t.Errorf("plan (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff(before, tree(t, x.Dir)); diff != "" {
		t.Errorf("the box (-before +after):\n%s", diff)
	}
}

// tree is all that is below a folder.
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		text := []byte{}
		if st.Mode().IsRegular() {
			if text, err = os.ReadFile(p); err != nil {
				return err
			}
		}
		list = append(list, fmt.Sprintf("%s %s %s %x", strings.TrimPrefix(p, dir), st.Mode(), st.ModTime(), text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}
