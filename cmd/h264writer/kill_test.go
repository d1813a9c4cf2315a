package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// children are the processes that a process has started.
func children(pid int) (list []int) {
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is a good one
	for _, path := range paths {
		text, _ := os.ReadFile(path) // a thread may have ended
		for _, word := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(word); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// The frames of the tests that kill: 50 a second in real time, a fragment every
// tenth, and segments that are longer than a busy machine holds the test up.
const (
	killHz       = 50
	killSettings = "segment = \"4s\"\nfragment = \"100ms\""
	// A fragment, one frame, and some for a timer that is late and then hurries.
	mostMissing = killHz/10 + 4
)

// killSize is such that no more than a frame is in the pipe and in ffmpeg's own
// buffer of 32 KiB.
func killSize() pixel.Size { return pixel.Size{Width: 320, Height: 240} }

// shoot publishes frames in real time until stop is called.
func (c *camera) shoot() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second / killHz)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			c.publish(c.bus.Clock().Now())
		}
	}()
	return func() { cancel(); <-done }
}

// wait lets some time pass: a moment of chance.
func wait(d time.Duration) { <-time.After(d) }

// wantAccounted checks that each frame from the first segment's first to the
// last that was sent is in one segment, or missing in one.
func wantAccounted(t *testing.T, list []*sidecar.Sidecar, sent int) {
	t.Helper()
	spoken := make([]int, sent)
	for _, s := range list {
		missing := map[msg.Seq]bool{}
		for _, m := range s.Frames.Missing {
			for seq := m.First; seq <= m.Last; seq++ {
				missing[seq] = true
				spoken[seq]++
			}
		}
		if uint64(len(missing)) != s.Frames.Lost {
			t.Errorf("%s: lost %d; its spans have %d", brief(s), s.Frames.Lost, len(missing))
		}
		in := uint64(0)
		for seq := s.Start.Seq; seq <= s.End.Seq; seq++ {
			if !missing[seq] {
				in++
				spoken[seq]++
			}
		}
		if in != s.Items {
			t.Errorf("%s has %d pictures; want %d", brief(s), s.Items, in)
		}
	}
	for seq := int(list[0].Start.Seq); seq < sent; seq++ {
		if spoken[seq] != 1 {
			t.Errorf("frame %d of %d is spoken of %d times; want once", seq, sent, spoken[seq])
		}
	}
}

// tail is how many frames a segment says are missing after its end, by the death
// of ffmpeg. Where frames are missing before that too, the machine was so busy that
// the ring did not keep them until they were read: then it is not known.
func tail(s *sidecar.Sidecar) (n int) {
	for _, m := range s.Frames.Missing {
		if m.First > s.Start.Seq && m.First < s.End.Seq {
			return 0
		}
		if m.First > s.End.Seq {
			n += int(m.Last-m.First) + 1
		}
	}
	return n
}

func kills(t *testing.T) int {
	switch {
	case faultfs.Soak() > 0:
		return 100
	case testing.Short():
		return 3
	}
	return 5
}

// ffmpegs are the running ones that a process has started.
func ffmpegs(pid int) (list []int) {
	for _, child := range children(pid) {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child)); err == nil && string(name) == "ffmpeg\n" {
			list = append(list, child)
		}
	}
	return list
}

// newest is the newest recording in work/, and what its newest segment holds.
func newest(b *boxtest.Box) (name string, m film) {
	segments, _ := filepath.Glob(b.Dir + "/cache/work/*.run/*.mp4") // the pattern is a good one
	if len(segments) == 0 {
		return "", film{}
	}
	last := segments[len(segments)-1]
	if f, err := os.Open(last); err == nil {
		defer f.Close()
		if st, err := f.Stat(); err == nil {
			m, _ = readFilm(f, st.Size()) // it is being written
		}
	}
	return filepath.Base(filepath.Dir(last)), m
}

func TestKillsOfFFmpeg(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet(killSettings))
	c := newCamera(t, b, pixel.YUV420, killSize(), killHz)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	stop := c.shoot()
	killed, n := "", kills(t)
	for i := range n {
		boxtest.Poll(t, "an ffmpeg of its own recording", func() bool {
			name, m := newest(b)
			if name == killed || i > 0 && len(m.fragments) == 0 { // the first one is killed early
				return false
			}
			killed = name
			return true
		})
		wait(rand.N(300 * time.Millisecond))
		if list := ffmpegs(p.PID()); len(list) > 0 {
			_ = syscall.Kill(list[0], syscall.SIGKILL) // it may have ended
		}
	}
	boxtest.Poll(t, "another ffmpeg", func() bool {
		name, m := newest(b)
		return name > killed && len(m.fragments) > 0
	})
	stop()
	s := states.State("the last frame", func(s msg.State) bool {
		return len(s.Sources) == 1 && int(s.Sources[0].Received+s.Sources[0].Lost) == c.sent
	})
	if s.Counters["restarts"] < uint64(n)/2 {
		t.Errorf("restarts = %d after %d kills", s.Counters["restarts"], n)
	}
	p.Stop()
	list := born(t, b)
	wantAccounted(t, list, c.sent)
	for _, s := range list {
		wantTrue(t, b, s)
		if n := tail(s); n > mostMissing {
			t.Errorf("%s: %d frames are missing at the end; want at most %d", brief(s), n, mostMissing)
		}
	}
	wantNothingLeft(t, b)
	t.Logf("%d frames, %d segments: %s", c.sent, len(list), briefs(list))
}

func TestKillsOfTheWriter(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet(killSettings))
	c := newCamera(t, b, pixel.YUV420, killSize(), killHz)
	stop := c.shoot()
	p := b.Start("h264writer", "clips")
	for range kills(t) {
		boxtest.Poll(t, "an ffmpeg", func() bool { return len(ffmpegs(p.PID())) > 0 && strings.Contains(p.Log(), "ready") })
		wait(rand.N(700 * time.Millisecond))
		killWhole(t, p)
		p = b.Start("h264writer", "clips")
	}
	endOfKills(t, b, c, p, stop)
}

// killWhole kills a writer, and waits until its ffmpeg is gone with it.
func killWhole(t *testing.T, p *boxtest.Process) {
	t.Helper()
	orphans := children(p.PID())
	p.Kill()
	for _, pid := range orphans {
		boxtest.Poll(t, "ffmpeg to be gone with its writer", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	}
}

// endOfKills lets the last run record some fragments, and wants the account of
// all runs to close.
func endOfKills(t *testing.T, b *boxtest.Box, c *camera, p *boxtest.Process, stop func()) {
	t.Helper()
	p.Ready()
	boxtest.Poll(t, "the last run's fragments", func() bool {
		_, m := newest(b)
		return len(ffmpegs(p.PID())) > 0 && len(m.fragments) > 1
	})
	stop()
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	states.State("the last frame, and the older recordings filed", func(s msg.State) bool {
		runs, err := filepath.Glob(b.Dir + "/cache/work/*.run")
		return len(s.Sources) == 1 && int(s.Sources[0].Sent) == c.sent && err == nil && len(runs) <= 1
	})
	p.Stop()
	list := born(t, b)
	wantAccounted(t, list, c.sent)
	for _, s := range list {
		wantTrue(t, b, s)
		if n := tail(s); n > mostMissing {
			t.Errorf("%s: %d frames that were sent to ffmpeg are missing at the end; want at most %d", brief(s), n, mostMissing)
		}
	}
	wantNothingLeft(t, b)
	t.Logf("%d frames, %d segments: %s", c.sent, len(list), briefs(list))
}

// Killed again and again before ffmpeg has written a fragment, the writer still
// says of each frame that it sent that it is lost.
func TestKillsBeforeTheFirstFragment(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet(killSettings))
	c := newCamera(t, b, pixel.YUV420, killSize(), killHz)
	stop := c.shoot()
	p := b.Start("h264writer", "clips")
	boxtest.Poll(t, "a fragment", func() bool { _, m := newest(b); return len(m.fragments) > 0 }) // from here on each frame counts
	for range max(kills(t)/2, 3) {
		killWhole(t, p)
		before, _ := filepath.Glob(b.Dir + "/cache/work/*.run/journal") // the pattern is a good one
		p = b.Start("h264writer", "clips")
		boxtest.Poll(t, "a recording with frames", func() bool {
			paths, _ := filepath.Glob(b.Dir + "/cache/work/*.run/journal") // the pattern is a good one
			if len(paths) == 0 || len(before) > 0 && paths[len(paths)-1] <= before[len(before)-1] {
				return false
			}
			text, err := os.ReadFile(paths[len(paths)-1])
			return err == nil && strings.Contains(string(text), `{"fed":`)
		})
	}
	endOfKills(t, b, c, p, stop)
}

// slowProbe puts an ffprobe into the box that waits until allow lets it go on:
// the first n of its runs.
func slowProbe(t *testing.T, b *boxtest.Box) (start func() *boxtest.Process, allow func(n int)) {
	t.Helper()
	allow = func(n int) {
		t.Helper()
		if err := errors.Join(os.WriteFile(b.Dir+"/allowed.new", fmt.Appendln(nil, n), 0o600), os.Rename(b.Dir+"/allowed.new", b.Dir+"/allowed")); err != nil {
			t.Fatal(err)
		}
	}
	allow(0)
	real, err := exec.LookPath("ffprobe")
	if err == nil {
		err = os.Mkdir(b.Dir+"/bin", 0o700)
	}
	if err == nil {
		err = os.WriteFile(b.Dir+"/bin/ffprobe", fmt.Appendf(nil, `#!/bin/sh
echo one >> %[1]s/probes
n=$(wc -l < %[1]s/probes)
while [ $n -gt $(cat %[1]s/allowed) ]; do sleep 0.05; done
exec %[2]s "$@"
`, b.Dir, real), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() *boxtest.Process {
		return b.StartEnv([]string{"PATH=" + b.Dir + "/bin:" + os.Getenv("PATH")}, "h264writer", "--topology", b.Topology, "--name", "clips")
	}, allow
}

// probes is how often the slow ffprobe was started.
func probes(b *boxtest.Box) int {
	text, err := os.ReadFile(b.Dir + "/probes")
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "\n")
}

// A writer that is told to stop while ffprobe is still at what an earlier run
// left files nothing out of turn: a later segment would call frames missing that
// are there.
func TestStoppedDuringASlowRecovery(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet(killSettings))
	start, allow := slowProbe(t, b)
	c := newCamera(t, b, pixel.YUV420, killSize(), killHz)
	stop := c.shoot()
	p := start()
	recorded, last := 0, ""
	for n := range 4 {
		boxtest.Poll(t, "fragments of another recording", func() bool {
			name, m := newest(b)
			if name == last || len(m.fragments) < 2 {
				return false
			}
			recorded, last = recorded+len(m.shown), name
			return true
		})
		if n < 2 {
			killWhole(t, p)
		} else {
			p.Stop()
		}
		p = start()
	}
	allow(1000)
	endOfKills(t, b, c, p, stop)
	list := born(t, b)
	in := 0
	for _, s := range list {
		in += int(s.Items)
	}
	if in < recorded {
		t.Errorf("segments %s have %d frames; want the %d that were in whole fragments", briefs(list), in, recorded)
	}
}

// Killed between two recordings of its recovery, the writer still knows which
// frames the first one had.
func TestKilledDuringRecovery(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet(killSettings))
	start, allow := slowProbe(t, b)
	c := newCamera(t, b, pixel.YUV420, killSize(), killHz)
	stop := c.shoot()
	p := start()
	last := ""
	for n := range 2 {
		boxtest.Poll(t, "a fragment of another recording", func() bool {
			name, m := newest(b)
			if name == last || len(m.fragments) == 0 {
				return false
			}
			last = name
			return true
		})
		killWhole(t, p)
		if n == 1 {
			allow(probes(b) + 1) // the next run gets as far as the second recording
		}
		p = start()
	}
	boxtest.Poll(t, "the first recording to be filed and gone, and the second looked at", func() bool {
		paths, _ := filepath.Glob(b.Dir + "/cache/work/*.run") // the pattern is a good one
		allowed, err := os.ReadFile(b.Dir + "/allowed")
		return err == nil && len(born(t, b)) == 1 && len(paths) > 0 && filepath.Base(paths[0]) == last && fmt.Sprintln(probes(b)-1) == string(allowed)
	})
	killWhole(t, p)
	allow(1000)
	endOfKills(t, b, c, start(), stop)
}

// zombie reports whether a process has ended and nobody has buried it.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

// fake puts a program in ffmpeg's place that passes the trial of an encoder,
// and then does as the script says, until the file "mend" is in the box.
func fake(t *testing.T, b *boxtest.Box, script string) (env []string) {
	t.Helper()
	needFFmpeg(t)
	real, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b.Dir+"/bin", 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *lavfi*) exec %s \"$@\";; esac\n[ -e %s/mend ] && exec %s \"$@\"\n%s\n", real, b.Dir, real, script)
	if err := os.WriteFile(b.Dir+"/bin/ffmpeg", []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + b.Dir + "/bin:" + os.Getenv("PATH")}
}

// An ffmpeg that hangs, dies or refuses what it is told is in the state's
// trouble with its own words, and is started again.
func TestABadFFmpeg(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"hangs", "echo 'stuck at the gate' >&2; exec sleep 1000", "hangs: "},
		{"dies", "echo 'broken bones' >&2; exit 3", "exit status 3; its last words: broken bones"},
		{"refuses", "echo \"Unrecognized option 'fps_mode'.\" >&2; exit 1", "Unrecognized option 'fps_mode'"},
		{"is killed", "head -c 1000 >/dev/null; kill -9 $$", "signal: killed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("segment = \"1s\"\nstall_after = \"500ms\""))
			env := fake(t, b, tt.script)
			c := newCamera(t, b, pixel.YUV420, pixel.Size{Width: 320, Height: 240}, killHz)
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
			p := b.StartEnv(env, "h264writer", "--topology", b.Topology, "--name", "clips")
			c.ready()
			stop := c.shoot()
			states.State("trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, tt.want) && s.Counters["restarts"] > 0 })
			if err := os.WriteFile(b.Dir+"/mend", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			states.State("the trouble gone", func(s msg.State) bool { return s.Trouble == "" && s.Counters["segments"] > 0 })
			stop()
			p.Stop()
			list := born(t, b)
			for _, s := range list {
				wantTrue(t, b, s)
			}
			wantNothingLeft(t, b)
		})
	}
}

// A segment that does not play goes to quarantine, and work goes on.
func TestAnUnplayableSegment(t *testing.T) {
	t.Parallel()
	b, c, states, p := begin(t, "segment = \"4s\"\nfragment = \"100ms\"")
	c.film(c.bus.Clock().Now(), 50)
	states.State("all frames", fed(50))
	var files []string
	boxtest.Poll(t, "some fragments", func() bool {
		files, _ = filepath.Glob(b.Dir + "/cache/work/*.run/000000.mp4") // the pattern is a good one
		if len(files) != 1 {
			return false
		}
		st, err := os.Stat(files[0])
		return err == nil && st.Size() > 4000
	})
	p.Kill()
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], append([]byte("\x00\x00\x00\x04free"), text[8:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.Dir+"/cache/work/clips_20260101T000000Z_0123456789abcdef-000007.mp4", []byte("stray"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = b.Start("h264writer", "clips")
	states.State("two files in quarantine", func(s msg.State) bool { return s.Counters["quarantined"] == 2 })
	c.ready()
	c.film(c.bus.Clock().Now(), 10)
	states.State("the new frames", fed(10))
	p.Stop()
	aside, _ := filepath.Glob(b.Dir + "/cache/quarantine/*.mp4") // the pattern is a good one
	if len(aside) != 2 {
		t.Errorf("in quarantine: %v; want two files", aside)
	}
	// None of the frames is recorded twice; all of them are missing.
	if got, want := briefs(born(t, b)), "50-59 -0-49"; got != want {
		t.Errorf("segments %s; want %s", got, want)
	}
	wantNothingLeft(t, b)
}
