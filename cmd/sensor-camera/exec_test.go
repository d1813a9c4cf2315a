package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

// execBox is a camera that runs the test's generator; see frames.
func execBox(t *testing.T, format, stall, keys string, what ...string) *box {
	t.Helper()
	if !strings.Contains(keys, "slots") {
		keys += "\nslots = 200" // a second of the fastest: a reader may be kept waiting that long
	}
	words := fmt.Sprintf("%q", append([]string{"frames", "192x128", format}, what...))
	return newBox(t, fmt.Sprintf(`input = "exec:"
		command = %s
		stall_after = %q
		[sensor.porch.stream.video]
		size = "192x128"
		format = %q
		%s`, strings.ReplaceAll(words, `" "`, `", "`), stall, format, keys))
}

// runs reads whole runs of the generator: their numbers begin at 0 again, the
// stream's go on.
func (r *reader) runs(runs, frames int) {
	r.t.Helper()
	for i := range runs * frames {
		f := r.next()
		if n := number(r.t, f); int(n) != i%frames || int(f.Seq) != i {
			r.t.Fatalf("frame %d has the number %d; want %d", f.Seq, n, i%frames)
		}
		f.Release()
	}
}

func TestExecStartsACommandAgain(t *testing.T) {
	for _, test := range []struct {
		name    string
		format  string
		what    []string // after 8 good frames
		frames  int      // in a run
		corrupt int      // in a run
		trouble string
	}{
		{"that fails", "yuv420", []string{"8", "say:lens cap is on", "exit:3"}, 8, 0, "exit status 3; its last words: lens cap is on; starting it again"},
		{"that ends", "nv12", []string{"8"}, 8, 0, "exit status 0, and no more pictures"},
		{"that ends within a frame", "yuyv", []string{"8", "half"}, 8, 1, "exit status 0, and no more pictures"},
		{"that falls silent", "rgb24", []string{"8", "say:waiting for light", "hang"}, 8, 0, "silent: nothing came for 600ms; its last words: waiting for light"},
		{"that falls silent within a frame", "yuv420", []string{"8", "half", "hang"}, 8, 1, "silent: nothing came for 600ms"},
		{"of pictures", "mjpeg", []string{"4", "thumb", "3", "exit:1"}, 8, 0, "exit status 1"},
		{"of bad pictures", "mjpeg", []string{"noise", "4", "noise", "4", "small", "half", "exit:1"}, 8, 4, "exit status 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			stall := "20s"
			if slices.Contains(test.what, "hang") {
				stall = "600ms"
			}
			b := execBox(t, test.format, stall, "", append([]string{"200"}, test.what...)...)
			r := b.frames()
			p := b.start()
			r.runs(3, test.frames)
			s := r.state("two restarts", func(s *msg.State) bool { return s.Counters["restarts"] >= 2 && s.Trouble != "" })
			if !strings.Contains(s.Trouble, test.trouble) || !strings.HasPrefix(s.Trouble, "the source broke off: frames: ") {
				t.Errorf("Trouble = %q; want %q", s.Trouble, test.trouble)
			}
			if runs := s.Counters["restarts"]; s.Counters["corrupt_frames"] != runs*uint64(test.corrupt) {
				t.Errorf("%d corrupt frames in %d runs; want %d in each: %s", s.Counters["corrupt_frames"], runs, test.corrupt, p.output())
			}
			p.signal(15)
			if code := p.exit(); code != 0 {
				t.Errorf("exit code %d after SIGTERM; want 0", code)
			}
		})
	}
}

func TestTroubleEndsWithTheNextFrame(t *testing.T) {
	t.Parallel()
	b := execBox(t, "yuv420", "20s", "", "50", "30", "exit:1")
	r := b.frames()
	p := b.start()
	r.state("no trouble after a restart", func(s *msg.State) bool {
		return s.Counters["restarts"] > 0 && s.Trouble == "" && strings.Contains(p.output(), "trouble is over")
	})
}

// Frames for which there are no slots are taken off the pipe all the same.
func TestExecKeepsFramesBordersWithoutSlots(t *testing.T) {
	t.Parallel()
	b := execBox(t, "yuv420", "20s", "slots = 30", "200", "1000000")
	r := b.frames()
	b.start()
	r.next().Release()
	stop := boxtest.PinAll(t, filepath.Join(b.dir, "shm"), "porch.video", 30)
	r.state("dropped frames", func(s *msg.State) bool { return s.Counters["dropped_frames"] > 20 })
	stop()
	dropped := r.state("frames again", func(s *msg.State) bool { return s.Counters["dropped_frames"] > 0 })
	r.state("more frames", func(s *msg.State) bool { return s.Counters["frames"] > dropped.Counters["frames"]+100 })
	for range 50 {
		f, ok, err := r.frames.Newest(t.Context(), time.Now().Add(limit))
		if err != nil || !ok {
			t.Fatalf("Newest() = %v, %v; want a frame", ok, err)
		}
		if n := number(t, f); n <= uint64(f.Seq) {
			t.Fatalf("frame %d has the number %d; want a greater one after the drops", f.Seq, n)
		}
		f.Release()
	}
}

// A command that is faster than capture_hz: frames are chosen by time, and each
// is accounted for.
func TestExecAtALowerRate(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"yuv420", "mjpeg"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			const made = 300
			b := execBox(t, format, "20s", "capture_hz = 20", "100", fmt.Sprint(made), "hang")
			r := b.frames()
			b.start()
			s := r.state("every frame", func(s *msg.State) bool { return s.Counters["frames"]+s.Counters["skipped_frames"] >= made })
			if c := s.Counters; c["frames"]+c["skipped_frames"] != made || c["frames"] < 2 || c["skipped_frames"] == 0 ||
				c["dropped_frames"]+c["corrupt_frames"]+c["missed_frames"]+c["restarts"] != 0 {
				t.Errorf("counters: %v; want frames and skipped ones, %d of both", c, made)
			}
			var times []float64
			last := uint64(0)
			for i := range s.Counters["frames"] {
				f := r.next()
				n := number(t, f)
				if i == 0 && n != 0 || i > 0 && n <= last {
					t.Errorf("frame %d has the number %d after %d; want the first one, and greater ones", f.Seq, n, last)
				}
				last, times = n, append(times, f.Stamp.Boot.Seconds())
				f.Release()
			}
			wantAtMost(t, times, 20)
		})
	}
}

// An mjpeg source that sends nothing else than bad pictures is trouble.
func TestExecOfBadPicturesOnly(t *testing.T) {
	t.Parallel()
	b := execBox(t, "mjpeg", "600ms", "", append([]string{"20"}, strings.Split(strings.Repeat("small ", 400), " ")[:400]...)...)
	r := b.frames()
	b.start()
	s := r.state("trouble", func(s *msg.State) bool { return s.Trouble != "" })
	if want := "no good picture for 600ms: the last one is size 96x64: want 192x128"; s.Trouble != want {
		t.Errorf("Trouble = %q; want %q", s.Trouble, want)
	}
	if s.Counters["frames"] != 0 || s.Counters["corrupt_frames"] == 0 {
		t.Errorf("counters: %v; want corrupt frames only", s.Counters)
	}
}

// Frames that do not begin where they should are trouble within seconds, and not
// published as good for long.
func TestExecOutOfStepIsTrouble(t *testing.T) {
	for _, test := range []struct {
		name string
		what []string
		want string
	}{
		{"padded rows", []string{"pad:256"}, "rows padded to 256 bytes: set stride = 256"},
		{"text first", []string{"tell:Preview window unavailable", "100000"}, `the command writes text before its first frame: "Preview window unavailable"`},
		{"text between", []string{"20", "tell:frame 5 dropped", "100000"}, "they begin 16 bytes late"},
		{"a short frame", []string{"20", "short", "100000"}, "they begin 100 bytes early"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := execBox(t, "yuv420", "20s", "", append([]string{"25"}, test.what...)...)
			r := b.frames()
			b.start()
			s := r.state("trouble", func(s *msg.State) bool { return s.Trouble != "" })
			if !strings.Contains(s.Trouble, "frames out of step: ") || !strings.Contains(s.Trouble, test.want) {
				t.Errorf("Trouble = %q; want %q", s.Trouble, test.want)
			}
			shown := s.Counters["frames"]
			s = r.state("two more restarts", func(s *msg.State) bool { return s.Counters["restarts"] >= 3 })
			if more := s.Counters["frames"] - shown; more > shown+20 {
				t.Errorf("%d more frames published after the first %d; want them held back", more, shown)
			}
		})
	}
}

// One short frame is cured by a restart.
func TestExecIsInStepAfterARestart(t *testing.T) {
	t.Parallel()
	b := execBox(t, "yuv420", "20s", "", "25", "10", "once:"+filepath.Join(t.TempDir(), "x"), "short", "100000")
	r := b.frames()
	p := b.start()
	r.state("no trouble after a restart", func(s *msg.State) bool {
		return s.Counters["restarts"] == 1 && s.Trouble == "" && strings.Contains(p.output(), "trouble is over")
	})
	f, ok, err := r.frames.Newest(t.Context(), time.Now().Add(limit))
	if err != nil || !ok {
		t.Fatalf("Newest() = %v, %v; want a frame", ok, err)
	}
	if n := number(t, f); n < leastTrial {
		t.Errorf("the frame has the number %d; want one after the first %d of a run", n, leastTrial)
	}
	f.Release()
}

// Padded rows go into the slot as they are; the planes tell where the pixels lie.
func TestExecOfPaddedRows(t *testing.T) {
	for _, format := range []string{"yuv420", "nv12"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			b := execBox(t, format, "20s", "stride = 256", "100", "pad:256")
			r := b.frames()
			b.start()
			for i := range 30 {
				f := r.next()
				if n := number(t, f); n != uint64(i) || f.Planes[0].Stride != 256 || len(f.Bytes()) != 256*128*3/2 {
					t.Fatalf("frame %d has the number %d, %d bytes, planes %v; want rows of 256 bytes", i, n, len(f.Bytes()), f.Planes)
				}
				f.Release()
			}
		})
	}
}

// rpicam-vid pads rows of yuv420, which needs no key.
func TestExecKnowsThePaddingOfRpicam(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "rpicam-vid")
	must(t, os.WriteFile(program, []byte("#!/bin/sh\nexec frames \"$@\"\n"), 0o700))
	b := newBox(t, fmt.Sprintf(`input = "exec:"
		command = [%q, "208x128", "yuv420", "100", "pad:256"]
		[sensor.porch.stream.video]
		size = "208x128"
		slots = 200`, program))
	r := b.frames()
	b.start()
	for i := range 10 {
		f := r.next()
		if n := number(t, f); n != uint64(i) || f.Planes[0].Stride != 256 {
			t.Fatalf("frame %d has the number %d, planes %v; want rows of 256 bytes", i, n, f.Planes)
		}
		f.Release()
	}
}

// What a command says is in the trouble, wherever it says it, and is no picture.
func TestExecsLastWordsOnStandardOutput(t *testing.T) {
	for _, format := range []string{"yuv420", "mjpeg"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			b := execBox(t, format, "20s", "", "50", "say:ERROR: 2 of 3", "tell:^[[31mno camera^G found^[[0m", "exit:1")
			r := b.frames()
			b.start()
			s := r.state("three restarts", func(s *msg.State) bool { return s.Counters["restarts"] >= 3 && s.Trouble != "" })
			words, _ := strings.CutPrefix(s.Trouble, "the source broke off: frames: exit status 1; its last words: ")
			if words != "ERROR: 2 of 3 | no camera? found; starting it again" && words != "no camera? found | ERROR: 2 of 3; starting it again" {
				t.Errorf("Trouble = %q; want what it wrote to both", s.Trouble)
			}
			if s.Counters["corrupt_frames"] != 0 {
				t.Errorf("%d corrupt frames; want none", s.Counters["corrupt_frames"])
			}
		})
	}
}

// A command that goes on writing text and no picture is no silence.
func TestExecOfTextOnly(t *testing.T) {
	t.Parallel()
	b := execBox(t, "mjpeg", "600ms", "", append([]string{"20", "1"}, strings.Split(strings.Repeat("tell:busy ", 100000), " ")[:100000]...)...)
	r := b.frames()
	b.start()
	s := r.state("trouble", func(s *msg.State) bool { return s.Trouble != "" })
	if s.Counters["corrupt_frames"] != 0 {
		t.Errorf("%d corrupt frames; want none: %q", s.Counters["corrupt_frames"], s.Trouble)
	}
}

// A source slower than stall_after, which its settings do not tell, is told how to
// say so, and is waited for once it is known.
func TestExecOfASlowSource(t *testing.T) {
	t.Parallel()
	b := execBox(t, "yuv420", "300ms", "", "2", "100000")
	r := b.frames()
	p := b.start()
	s := r.state("frames of one run", func(s *msg.State) bool {
		return s.Trouble == "" && s.Counters["restarts"] > 0 && s.Counters["frames"] >= s.Counters["restarts"]+6
	})
	if s.Counters["restarts"] > 10 {
		t.Errorf("%d restarts; want a few", s.Counters["restarts"])
	}
	if want := "silent: nothing came for 300ms; if the command is slower than that, set capture_hz (0.1 for a frame in 10 s) or a longer stall_after; starting it again"; !p.logs(want) {
		t.Errorf("it logged no %q", want)
	}
}

// A camera that is killed takes its command with it.
func TestKilledCameraLeavesNoCommand(t *testing.T) {
	t.Parallel()
	b := execBox(t, "yuv420", "20s", "", "50", "1000000")
	r := b.frames()
	p := b.start()
	r.next().Release()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	must(t, err)
	var children []string
	for _, list := range lists {
		text, err := os.ReadFile(list)
		must(t, err)
		children = append(children, strings.Fields(string(text))...)
	}
	if len(children) != 1 {
		t.Fatalf("children %v; want the command", children)
	}
	p.signal(syscall.SIGKILL)
	p.exit()
	boxtest.Poll(t, "process "+children[0]+" to end", func() bool {
		stat, err := os.ReadFile("/proc/" + children[0] + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}
