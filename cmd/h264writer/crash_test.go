package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// testHost is a worker that is only a name.
type testHost struct {
	boot     string
	mu       sync.Mutex
	counters map[string]*worker.Counter
}

func (h *testHost) Name() string   { return "clips" }
func (h *testHost) BootID() string { return h.boot }
func (h *testHost) Now() msg.Stamp { return msg.Stamp{Wall: testBegin, Synced: true} }
func (h *testHost) Counter(name string) *worker.Counter {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counters == nil {
		h.counters = map[string]*worker.Counter{}
	}
	if h.counters[name] == nil {
		h.counters[name] = &worker.Counter{}
	}
	return h.counters[name]
}
func (h *testHost) TroubleWith(string, error) {}

var testBegin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testFiles names files, and announces them to nobody.
type testFiles struct {
	epoch msg.Epoch
	n     uint64
}

func (f *testFiles) NewID(start sidecar.Moment) sidecar.ID {
	f.n++
	return sidecar.NewID("clips", start.Time.Time, f.epoch, f.n)
}

func (f *testFiles) Describe(id sidecar.ID, ext, media string, source msg.Topic, start, end sidecar.Moment, items uint64) *sidecar.Sidecar {
	return &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ext, Media: media, Node: "box", Worker: "clips",
		Source: source, Start: start, End: end, Items: items}
}

func (f *testFiles) Event(state, reason string) sidecar.Event {
	return sidecar.Event{State: state, Reason: reason, By: "clips"}
}
func (f *testFiles) Announce(*sidecar.Sidecar) error { return nil }

// perSegment is how many pictures the segments of video have, in fragments of
// perFragment.
const (
	perSegment  = 20
	perFragment = 5
)

// testFiler is the filer of one run of a writer, as of a machine's n-th start.
func testFiler(dir string, run msg.Epoch, boot string) (*filer, error) {
	cfg := DefaultConfig()
	cfg.Segment = topology.Duration(perSegment * step)
	return newFiler(dir, &testHost{boot: boot}, slog.New(slog.DiscardHandler), &testFiles{epoch: run}, cfg)
}

// writing is a recording, with the test in ffmpeg's place.
type writing struct {
	*filer
	*recording
	epoch  msg.Epoch
	first  msg.Seq
	next   msg.Seq
	pieces [][]byte // of a segment: its header with nothing, fragments, and what comes behind them
}

func (a *filer) begin(epoch msg.Epoch, first msg.Seq, pieces [][]byte) (*writing, error) {
	r, err := a.newRecording("frame/porch/video", msg.Frame{Epoch: epoch, Seq: first})
	if err != nil {
		return nil, err
	}
	r.mostJournal = 1000 // it is written anew again and again
	a.add(r)
	return &writing{filer: a, recording: r, epoch: epoch, first: first, next: first, pieces: pieces}, nil
}

// film sends n frames, calling cut after each; ffmpeg has written the whole
// fragments of all but the last.
func (w *writing) film(n int, cut func(what string)) error {
	for range n {
		i := int(w.next - w.first)
		if i%perSegment == 0 {
			if err := w.write(i/perSegment, 0); err != nil {
				return err
			}
			if i > 0 {
				if err := errors.Join(w.write(i/perSegment-1, len(w.pieces)-1), w.segmentClosed(i/perSegment-1, time.Duration(i-perSegment)*step)); err != nil {
					return err
				}
				cut("closed")
				if err := w.advance(context.Background()); err != nil {
					return err
				}
			}
		}
		at := time.Duration(i) * step
		if err := w.send(sentFrame{Seq: w.next, Time: msg.Time{Time: testBegin.Add(at)}, BootNS: int64(at), Synced: true, At: at}); err != nil {
			return err
		}
		w.next++
		cut("sent")
		if i++; i%perFragment == 0 {
			if err := w.write((i-1)/perSegment, ((i-1)%perSegment)/perFragment+1); err != nil {
				return err
			}
			cut("written")
			if err := w.sync(); err != nil {
				return err
			}
			cut("synced")
		}
	}
	return nil
}

// write appends a piece to a segment.
func (w *writing) write(index, piece int) error {
	f, err := w.root.OpenFile(segmentName(index), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(w.pieces[piece])
	return errors.Join(err, f.Close())
}

// over ends it, with the last segment closed or not.
func (w *writing) over(why string) error {
	if why == "" {
		i := int(w.next - w.first - 1)
		if err := errors.Join(w.write(i/perSegment, len(w.pieces)-1), w.segmentClosed(i/perSegment, time.Duration(i/perSegment*perSegment)*step)); err != nil {
			return err
		}
	}
	w.end(why)
	return w.advance(context.Background())
}

// piecesOf cuts a video at its fragments.
func piecesOf(t *testing.T, video []byte) (list [][]byte) {
	t.Helper()
	m, err := readFilm(bytes.NewReader(video), int64(len(video)))
	if err != nil || len(m.shown) != perSegment || len(m.fragments) != perSegment/perFragment {
		t.Fatalf("readFilm = %+v, %v; want %d pictures in fragments of %d", m, err, perSegment, perFragment)
	}
	at := int64(0)
	for _, f := range m.fragments {
		list = append(list, video[at:f.begin])
		at = f.begin
		if len(list) == 1 {
			list = [][]byte{video[:f.begin]}
		}
	}
	list = append(list, video[at:m.whole], video[m.whole:])
	return list
}

// The epochs of the source in the story, and after it.
const (
	epochA, epochB, epochC = msg.Epoch(0xa), msg.Epoch(0xb), msg.Epoch(0xc)
)

// story is what happens to a writer: a recording whose ffmpeg is killed in its
// second segment, one that is killed before its first fragment, and one of the
// source's next run that ends well. know is told, at each step, which frames were
// sent and which of them were synced.
func story(dir string, pieces [][]byte, know func(what string, sent, synced map[msg.Epoch]msg.Seq)) error {
	a, err := testFiler(dir, 1, "boot")
	if err != nil {
		return err
	}
	defer a.closeAll()
	sent, synced := map[msg.Epoch]msg.Seq{}, map[msg.Epoch]msg.Seq{}
	var w *writing
	cut := func(what string) {
		if w != nil {
			sent[w.epoch] = w.next
			if what == "synced" {
				synced[w.epoch] = w.next
			}
		}
		know(what, sent, synced)
	}
	a.step = cut
	for _, part := range []struct {
		epoch  msg.Epoch
		first  msg.Seq // frames before it are lost on the way from the source
		frames int
		why    string
	}{
		{epochA, 0, 2*perSegment - 8, "killed"},
		{epochA, 2*perSegment - 8, 3, "killed"},
		{epochA, 2 * perSegment, 3, "killed"},
		{epochB, 1, perSegment + perFragment, ""},
	} {
		if w, err = a.begin(part.epoch, part.first, pieces); err == nil {
			cut("begun")
			err = w.film(part.frames, cut)
		}
		if err == nil {
			err = w.over(part.why)
		}
		if err != nil {
			return err
		}
		cut("over")
	}
	return nil
}

// resume is the next run of the writer: it settles what is there, and records
// one segment more, of the same run of the source or the next one.
func resume(dir string, pieces [][]byte, run msg.Epoch, boot string, epoch msg.Epoch, sent map[msg.Epoch]msg.Seq) (err error) {
	a, err := testFiler(dir, run, boot)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.closeAll()) }()
	first := sent[epoch]
	if e, end := a.recorded(); e == epoch && end > first {
		return fmt.Errorf("recorded() = %s %d; %d frames were sent", e, end, first)
	}
	if err := errors.Join(a.setStraysAside(), a.advance(context.Background())); err != nil {
		return err
	}
	if len(a.queue) > 0 {
		return fmt.Errorf("%d recordings are left, the first one is %s", len(a.queue), a.queue[0].name)
	}
	w, err := a.begin(epoch, first+2, pieces) // two more are lost while the writer is away
	if err != nil {
		return err
	}
	if err := w.film(perSegment, func(string) {}); err != nil {
		return err
	}
	sent[epoch] = w.next
	return w.over("")
}

// count counts where each frame is: in a segment, or missing in one.
func count(t *testing.T, dir string) (in, missing map[msg.Epoch]map[msg.Seq]int) {
	t.Helper()
	in, missing = map[msg.Epoch]map[msg.Seq]int{}, map[msg.Epoch]map[msg.Seq]int{}
	add := func(to map[msg.Epoch]map[msg.Seq]int, e msg.Epoch, first, last msg.Seq) {
		if to[e] == nil {
			to[e] = map[msg.Seq]int{}
		}
		for seq := first; seq <= last; seq++ {
			to[e][seq]++
		}
	}
	paths, err := filepath.Glob(dir + "/born/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		side, err := sidecar.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(dir + "/born/" + side.Name)
		if errors.Is(err, fs.ErrNotExist) { // a sidecar comes first
			continue
		}
		if sum := sha256.Sum256(file); err != nil || hex.EncodeToString(sum[:]) != side.SHA256 {
			t.Errorf("%s has %d bytes, %v; its sidecar tells of others", side.Name, len(file), err)
		}
		m, err := readFilm(bytes.NewReader(file), int64(len(file)))
		if err != nil || len(m.shown) != int(side.Items) {
			t.Errorf("%s has %d pictures, %v; want %d", side.Name, len(m.shown), err, side.Items)
		}
		lost := uint64(0)
		gaps := map[msg.Seq]bool{}
		for _, s := range side.Frames.Missing {
			add(missing, side.Start.Epoch, s.First, s.Last)
			lost += uint64(s.Last-s.First) + 1
			for seq := s.First; seq <= s.Last; seq++ {
				gaps[seq] = true
			}
		}
		for seq := side.Start.Seq; seq <= side.End.Seq; seq++ {
			if !gaps[seq] {
				add(in, side.Start.Epoch, seq, seq)
			}
		}
		for _, s := range side.Frames.Earlier {
			add(missing, s.Epoch, s.First, s.Last)
		}
		if lost != side.Frames.Lost {
			t.Errorf("%s: lost %d; its spans have %d", brief(side), side.Frames.Lost, lost)
		}
	}
	return in, missing
}

// wantOnce wants each frame up to the one that must be known to be in one
// segment or missing in one, and no other frame twice.
func wantOnce(t *testing.T, dir string, sent, known map[msg.Epoch]msg.Seq) {
	t.Helper()
	in, missing := count(t, dir)
	for epoch, end := range sent {
		for seq := range end {
			n := in[epoch][seq] + missing[epoch][seq]
			if n != 1 && (n > 1 || seq < known[epoch]) {
				t.Errorf("frame %s/%d of %d (%d must be known) is in %d segments and missing in %d; want one in all", epoch, seq, end, known[epoch],
					in[epoch][seq], missing[epoch][seq])
			}
		}
	}
	for epoch, frames := range in {
		for seq := range frames {
			if seq >= sent[epoch] {
				t.Errorf("frame %s/%d is in a segment and was never sent", epoch, seq)
			}
		}
	}
	for _, place := range []string{"work", "quarantine"} {
		left, err := os.ReadDir(filepath.Join(dir, place))
		if err != nil && !errors.Is(err, fs.ErrNotExist) || len(left) > 0 {
			t.Errorf("%s/ has %v, %v; want nothing", place, left, err)
		}
	}
}

// sampled says which of many cases to try: one in so many, or all in a soak.
func sampled(t *testing.T, oneIn int) func(n int) bool {
	t.Helper()
	if testing.Short() {
		oneIn *= 3
	}
	sample := faultfs.NewSample(oneIn)
	t.Log(sample)
	return func(n int) bool { return sample.Next(0, n) == n }
}

// The writer is killed between any two of its steps. The next run files what is
// there, and each frame that was ever sent is in one segment, or missing in one.
func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	pieces, tried := piecesOf(t, video(t)), sampled(t, 6)
	base := t.TempDir()
	n := 0
	err := story(base+"/cache", pieces, func(what string, sent, _ map[msg.Epoch]msg.Seq) {
		if n++; !tried(n) {
			return
		}
		dir := fmt.Sprintf("%s/cut%d", base, n)
		if err := os.CopyFS(dir, os.DirFS(base+"/cache")); err != nil {
			t.Fatal(err)
		}
		epoch := epochA
		if sent[epochB] > 0 {
			epoch = epochB
		}
		now := map[msg.Epoch]msg.Seq{epochA: sent[epochA], epoch: sent[epoch]}
		if err := resume(dir, pieces, 2, "boot", epoch, now); err != nil {
			t.Fatalf("step %d, %q: %v", n, what, err)
		}
		wantOnce(t, dir, now, now)
		if t.Failed() {
			t.Fatalf("step %d, %q", n, what)
		}
	})
	if err != nil || n < 130 {
		t.Errorf("the story ends after %d steps with %v; want all of it", n, err)
	}
}

// The power fails between any two steps of a writer on a disk. What was synced is
// in one segment, or missing in one; what was not is in one at most.
func TestPowerCutBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	pieces, tried := piecesOf(t, video(t)), sampled(t, 6)
	base, err := os.MkdirTemp("/dev/shm", "p-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	image, disk := base+"/disk.img", base+"/disk"
	mount := func(image, at string) {
		t.Helper()
		err := errors.Join(os.Mkdir(at, 0o700), faultfs.MountDisk(image, at))
		if errors.Is(err, faultfs.ErrUnavailable) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := faultfs.MakeDisk(image, 8<<20); errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	mount(image, disk)
	defer func() {
		if err := faultfs.Unmount(disk); err != nil {
			t.Error(err)
		}
	}()
	n := 0
	err = story(disk+"/cache", pieces, func(what string, sent, synced map[msg.Epoch]msg.Seq) {
		if n++; !tried(n) {
			return
		}
		cut := fmt.Sprintf("%s/cut%d", base, n)
		if err := faultfs.CopyDisk(image, cut+".img"); err != nil {
			t.Fatal(err)
		}
		mount(cut+".img", cut)
		defer func() {
			if err := errors.Join(faultfs.Unmount(cut), os.Remove(cut+".img")); err != nil {
				t.Error(err)
			}
		}()
		now, known := map[msg.Epoch]msg.Seq{epochC: 0}, map[msg.Epoch]msg.Seq{}
		for epoch := range sent {
			now[epoch], known[epoch] = sent[epoch], synced[epoch]
		}
		if err := resume(cut+"/cache", pieces, 2, "next boot", epochC, now); err != nil {
			t.Fatalf("step %d, %q: %v", n, what, err)
		}
		wantOnce(t, cut+"/cache", now, known)
		if t.Failed() {
			t.Fatalf("step %d, %q", n, what)
		}
	})
	if err != nil || n < 130 {
		t.Errorf("the story ends after %d steps with %v; want all of it", n, err)
	}
}

// A segment that the disk does not give back holds up those behind it for a
// minute, and a full disk for as long as it is full.
func TestASegmentThatCannotBeFiled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r := &filer{}, &recording{name: "clips_000000000001.run"}
		eio := fmt.Errorf("open segment: %w", syscall.EIO)
		for second := range 60 {
			if a.hopeless(r, 3, eio) {
				t.Fatalf("given up after %d s; want 60", second)
			}
			if a.hopeless(r, 4, syscall.ENOSPC) {
				t.Fatal("a full disk is given up")
			}
			time.Sleep(time.Second)
		}
		if !a.hopeless(r, 3, eio) {
			t.Error("not given up after 60 s")
		}
		if a.hopeless(r, 4, eio) {
			t.Error("the next one is given up at once")
		}
	})
}

// A journal that cannot be opened, or is garbage, keeps nothing from being recorded.
// What was in it is missing in the next segment.
func TestADamagedJournal(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	pieces := piecesOf(t, video(t))
	for name, damage := range map[string]func(path string) error{
		"garbage": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x\n"), 1000), 0o600) },
		"folder":  func(path string) error { return errors.Join(os.Remove(path), os.MkdirAll(path+"/in", 0o700)) },
		"link":    func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
	} {
		dir := t.TempDir() + "/cache"
		a, err := testFiler(dir, 1, "boot")
		if err != nil {
			t.Fatal(err)
		}
		first, err := a.begin(epochA, 0, pieces)
		if err == nil {
			err = errors.Join(first.film(perSegment, func(string) {}), first.over(""))
		}
		var w *writing
		if err == nil {
			w, err = a.begin(epochA, perSegment, pieces)
		}
		if err == nil {
			err = errors.Join(w.film(perFragment, func(string) {}), a.closeAll(), damage(dir+"/work/"+w.name+"/"+journalName))
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, err := testFiler(dir, 2, "boot")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := b.advance(t.Context()); err != nil || len(b.queue) > 0 {
			t.Fatalf("%s: advance = %v, and %d recordings are left; want none", name, err, len(b.queue))
		}
		if w, err = b.begin(epochA, perSegment+perFragment+1, pieces); err == nil {
			err = errors.Join(w.film(perSegment, func(string) {}), w.over(""), b.closeAll())
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := b.w.Counter("damaged_journals").Value(); got != 1 {
			t.Errorf("%s: damaged_journals = %d; want 1", name, got)
		}
		in, missing := count(t, dir)
		if len(in[epochA]) != 2*perSegment || len(missing[epochA]) != perFragment+1 {
			t.Errorf("%s: %d frames are in segments, %d missing; want %d and %d", name, len(in[epochA]), len(missing[epochA]), 2*perSegment, perFragment+1)
		}
		if aside, err := os.ReadDir(dir + "/quarantine"); err != nil || len(aside) != 1 {
			t.Errorf("%s: quarantine/ has %v, %v; want the segment of frames that nobody knows", name, aside, err)
		}
	}
}

// The writer is killed at a call of its own or of ffmpeg's to the disk; the next
// run settles what is there.
func TestKilledAtAnyCall(t *testing.T) {
	needFFmpeg(t)
	const calls = 300
	tried := sampled(t, calls/4)
	for n := 1; n <= calls; n++ {
		if !tried(n) {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("segment = \"1s\"\nfragment = \"100ms\""))
			faults, _ := b.Faulty("cache")
			started := make(chan int, 1)
			faults.Break(n, func() { _ = syscall.Kill(<-started, syscall.SIGKILL) }) // it dies when this call has failed
			c := newCamera(t, b, pixel.YUV420, small(), killHz)
			stop := c.shoot()
			p := b.Start("h264writer", "clips")
			started <- p.PID()
			boxtest.Poll(t, "the call", faults.Broken)
			killWhole(t, p)
			faults.Break(0, nil)
			endOfKills(t, b, c, b.Start("h264writer", "clips"), stop)
		})
	}
}
