package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

func TestMain(m *testing.M) { boxtest.Main(m, map[string]func(){"mover": main}) }

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

// fleet is a camera, a writer of clips and a detector, which the test plays,
// and a mover.
func fleet(keys string) string {
	return fmt.Sprintf(`[sensor.porch]
program = "camera"
[sensor.porch.stream.video]
[worker.clips]
program = "writer"
source = "porch"
[worker.eye]
program = "watcher"
source = "porch"
[worker.keep]
program = "mover"
source = ["clips", "eye"]
%s
`, keys)
}

// stage is a box, its cache, and the workers that the test plays.
type stage struct {
	*boxtest.Box
	t      *testing.T
	cache  *spool.Spool
	clips  *msg.Bus
	files  *msg.FileStream
	eye    *msg.Bus
	sees   *msg.DetectionStream
	n      uint64
	epoch  msg.Epoch
	repeat int    // how often a file's name stands in it
	items  uint64 // in the next file
}

func newStage(t *testing.T, keys string) *stage {
	t.Helper()
	return stageOn(t, boxtest.New(t, fleet(keys)))
}

func stageOn(t *testing.T, b *boxtest.Box) *stage {
	t.Helper()
	s := &stage{Box: b, t: t, repeat: 1000, items: 120}
	var err error
	if s.cache, err = spool.Open(s.Disk+"/cache", spool.Work, spool.Born); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cache.Close() })
	s.clips = s.Bus("clips")
	pub, err := s.clips.Publisher()
	if err != nil {
		t.Fatal(err)
	}
	s.epoch = pub.Epoch()
	if s.files, err = pub.Files("files", msg.Retention{Messages: 64, MessageBytes: 16 << 10}); err != nil {
		t.Fatal(err)
	}
	return s
}

// detector opens the bus as the detector.
func (s *stage) detector() {
	s.t.Helper()
	s.eye = s.Bus("eye")
	pub, err := s.eye.Publisher()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.sees, err = pub.Detections("objects", msg.Retention{Messages: 512, MessageBytes: 16 << 10}); err != nil {
		s.t.Fatal(err)
	}
}

// clip makes a file of four seconds that ended so long ago, and announces it.
func (s *stage) clip(ended time.Duration) *sidecar.Sidecar {
	s.t.Helper()
	side := s.born(ended)
	if _, err := s.files.Publish(s.clips.Clock().Now(), string(side.ID), "born", nil); err != nil {
		s.t.Fatal(err)
	}
	return side
}

// born makes one that nobody is told of.
func (s *stage) born(ended time.Duration) *sidecar.Sidecar {
	s.t.Helper()
	s.n++
	now := s.clips.Clock().Now()
	at := func(ago time.Duration) sidecar.Moment {
		return sidecar.Moment{Time: msg.Time{Time: now.Wall.Add(-ago)}, BootNS: int64(now.Boot - ago), BootID: s.clips.Clock().BootID()}
	}
	id := sidecar.NewID("clips", now.Wall, s.epoch, s.n)
	side := &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ".mp4", Media: "video/mp4", Worker: "clips",
		Source: "frame/porch/video", Start: at(ended + 4*time.Second), End: at(ended), Items: s.items}
	side.Add(sidecar.Event{State: "born", By: "clips", Reason: "a segment"})
	f, err := s.cache.Create(side.Name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Repeat(side.Name, s.repeat)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cache.Complete(f, spool.Born, side); err != nil {
		s.t.Fatal(err)
	}
	return side
}

// look says what the detector saw in frames, five a second, from then until now.
func (s *stage) look(ago time.Duration, objects ...msg.Object) {
	s.t.Helper()
	now := s.eye.Clock().Now()
	for seq := msg.Seq(0); ago >= 0; ago, seq = ago-200*time.Millisecond, seq+1 {
		at := msg.Stamp{Wall: now.Wall.Add(-ago), Boot: now.Boot - ago}
		_, err := s.sees.Publish(at, msg.Detection{FrameSource: "porch", FrameEpoch: 1, FrameSeq: seq, FrameTime: msg.Time{Time: at.Wall},
			FrameBootNS: int64(at.Boot), CoveredUntil: int64(at.Boot), Objects: objects})
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// lies says where a file is: cache or store, and the state.
func (s *stage) lies(side *sidecar.Sidecar) (places []string) {
	found, err := filepath.Glob(s.Dir + "/*/*/" + side.Name + "*")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range found {
		rel, _ := filepath.Rel(s.Dir, p)
		places = append(places, strings.Replace(rel, side.Name, "FILE", 1))
	}
	return places
}

func (s *stage) await(side *sidecar.Sidecar, place string) *sidecar.Sidecar {
	s.t.Helper()
	boxtest.Poll(s.t, side.Name+" in "+place, func() bool { return slices.Equal(s.lies(side), []string{place + "/FILE"}) })
	text, err := os.ReadFile(filepath.Join(s.Dir, place, string(side.ID)+".json"))
	if err != nil {
		s.t.Fatal(err)
	}
	got, err := sidecar.Decode(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

const keepPersons = `keep = 'any(detections, .label == "person" && .score >= 0.5)'`

func TestKeepsWhatTheRuleWantsAndDropsTheRest(t *testing.T) {
	t.Parallel()
	s := newStage(t, keepPersons)
	s.detector()
	p := s.Start("mover", "keep")
	p.Ready()
	feed := s.Follow(s.Bus("looker"), []msg.Kind{msg.KindFile}, "keep")
	empty := s.clip(10 * time.Second)
	s.look(15*time.Second, msg.Object{Label: "dog", Score: 0.8})
	got := s.await(empty, "cache/dropped")
	last := got.History[len(got.History)-1]
	if last.State != "dropped" || last.By != "keep" || last.Rule == "" || !strings.HasPrefix(last.Reason, "dropped by the rule: dog 2") || last.BootID == "" {
		t.Errorf("the last event of a dropped file is %+v; want the rule, and what was seen", last)
	}
	s.look(0, msg.Object{Label: "person", Score: 0.9, Box: [4]float64{1, 2, 3, 4}})
	wanted := s.clip(0)
	s.look(0) // a later frame, with nobody
	if got = s.await(wanted, "store/ready"); len(got.Detections) == 0 || got.History[len(got.History)-1].State != "ready" {
		t.Errorf("the kept file's sidecar has %d detections and ends with %+v; want some, and ready", len(got.Detections), got.History[len(got.History)-1])
	}
	for _, want := range []string{"dropped", "ready"} {
		m := feed.Next()
		if f, err := m.File(); err != nil || f.State != want {
			t.Errorf("message %+v, %v; want state %s", f, err, want)
		}
	}
	p.Stop()
}

// A detector that never came costs no clip, and files that nobody was told of
// are found.
func TestKeepsWithoutADetector(t *testing.T) {
	t.Parallel()
	s := newStage(t, keepPersons+"\nverdict_timeout = \"1s\"")
	side := s.born(0)
	p := s.Start("mover", "keep")
	got := s.await(side, "store/ready")
	if why := got.History[len(got.History)-1].Reason; why != `undecided: 1s after its end eye has said nothing; otherwise = "keep"` {
		t.Errorf("kept for %q; want that the detector has said nothing", why)
	}
	p.Stop()
}

// What is undecided when the mover is told to stop goes to disk.
func TestStopKeepsTheUndecided(t *testing.T) {
	t.Parallel()
	s := newStage(t, keepPersons)
	side := s.born(0)
	p := s.Start("mover", "keep")
	p.Ready()
	p.Stop()
	s.await(side, "store/ready")
}

func TestShortRAMSendsTheUndecidedToDisk(t *testing.T) {
	t.Parallel()
	s := newStage(t, keepPersons+"\nmin_free = \"1000TB\"\nverdict_timeout = \"1h\"")
	side := s.clip(0)
	p := s.Start("mover", "keep")
	got := s.await(side, "store/ready")
	if why := got.History[len(got.History)-1].Reason; !strings.Contains(why, "RAM is short") {
		t.Errorf("kept for %q; want that RAM is short", why)
	}
	p.Stop()
}

func TestMaxWriteLetsFilesWait(t *testing.T) {
	t.Parallel()
	s := newStage(t, "max_write = \"70kB\"\nmin_free = \"0\"")
	first := s.clip(2 * time.Second)
	p := s.Start("mover", "keep")
	s.await(first, "store/ready")
	second := s.clip(time.Second)
	feed := s.Follow(s.Bus("looker"), []msg.Kind{msg.KindState}, "keep")
	st := feed.State("max_write in its trouble", func(st msg.State) bool { return strings.Contains(st.Trouble, "max_write") })
	if st.Gauges["waiting_files"] != 1 || st.Gauges["written_24h_bytes"] < 50e3 {
		t.Errorf("gauges %v; want one file that waits, and what was written", st.Gauges)
	}
	if where := s.lies(second); !slices.Equal(where, []string{"cache/born/FILE"}) {
		t.Errorf("the second file is at %v; want it in RAM", where)
	}
	p.Stop() // RAM may be lost next: then the card is worn
	s.await(second, "store/ready")
}

// A store that is not mounted is not filled. It is used as soon as it is there.
func TestStoreThatIsAbsent(t *testing.T) {
	s := newStage(t, "")
	mount := s.Dir + "/store"
	s.Write(fleet("") + "\n") // the same, and below [node] the mount
	text, err := os.ReadFile(s.Topology)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Topology, []byte(strings.Replace(string(text), "[node]\n", "[node]\nstore_mount = \""+mount+"\"\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	side := s.clip(0)
	p := s.Start("mover", "keep")
	feed := s.Follow(s.Bus("looker"), []msg.Kind{msg.KindState}, "keep")
	feed.State("not mounted in its trouble", func(st msg.State) bool { return strings.Contains(st.Trouble, "nothing is mounted at") })
	if left, err := os.ReadDir(mount); err != nil || len(left) > 0 {
		t.Errorf("ReadDir(mount point) = %v, %v; want nothing written there", left, err)
	}
	s.Small("store", 10<<20)
	s.await(side, "store/ready")
	feed.State("no trouble", func(st msg.State) bool { return st.Trouble == "" })
	p.Stop()
}

// What others say of files that are not theirs moves nothing.
func TestForgedMessages(t *testing.T) {
	t.Parallel()
	s := newStage(t, "")
	other := sidecar.NewID("porch", time.Now(), s.epoch, 1)
	if err := os.WriteFile(s.Dir+"/cache/born/"+string(other)+".mp4", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{string(other), "clips_20260517T094057Z_000283baec0033c3-999999", "a", "etc-..-passwd"} {
		if _, err := s.files.Publish(s.clips.Clock().Now(), id, "born", nil); err != nil {
			t.Fatal(err)
		}
	}
	p := s.Start("mover", "keep")
	feed := s.Follow(s.Bus("looker"), []msg.Kind{msg.KindState}, "keep")
	st := feed.State("three refused files", func(st msg.State) bool { return st.Counters["refused_files"] >= 3 })
	if st.Counters["refused_files"] != 3 || st.Counters["kept_files"] != 0 {
		t.Errorf("counters %v; want 3 refused_files and nothing kept", st.Counters)
	}
	if _, err := os.Stat(s.Dir + "/cache/born/" + string(other) + ".mp4"); err != nil {
		t.Errorf("another worker's file: %v; want it where it was", err)
	}
	p.Stop()
}

// A file for which there is no room keeps no other from the disk.
func TestFullStoreTakesWhatFits(t *testing.T) {
	s := newStage(t, "min_free = \"0\"")
	store := s.Small("store", 1<<20)
	s.repeat = 50_000
	large := s.clip(2 * time.Second)
	s.repeat = 100
	small := s.clip(time.Second)
	p := s.Start("mover", "keep")
	s.await(small, "store/ready")
	feed := s.Follow(s.Bus("looker"), []msg.Kind{msg.KindState}, "keep")
	feed.State("no space in its trouble", func(st msg.State) bool {
		return strings.Contains(st.Trouble, "1 files wait in RAM: ") && strings.Contains(st.Trouble, "no space left")
	})
	if where := s.lies(large); !slices.Equal(where, []string{"cache/born/FILE"}) {
		t.Errorf("the large file is at %v; want it in RAM", where)
	}
	// The verdict outlives the mover, and what the detectors knew.
	p.Kill()
	s.Write(fleet("otherwise = \"drop\"\nmin_free = \"0\"\nverdict_timeout = \"1s\"\nkeep = 'any(detections, .label == \"person\")'"))
	if err := unix.Mount("tmpfs", store, "tmpfs", unix.MS_REMOUNT, "size=10m"); err != nil {
		t.Fatal(err)
	}
	p = s.Start("mover", "keep")
	got := s.await(large, "store/ready")
	if last := got.History[len(got.History)-1]; last.Reason != "kept: there is no rule" || got.Verdict != "keep" {
		t.Errorf("verdict %q, the last event %+v; want what was decided before", got.Verdict, last)
	}
	p.Stop()
}
