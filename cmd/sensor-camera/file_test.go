package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// decoded is what ffmpeg by itself makes of a file: the sum of each frame.
func decoded(t *testing.T, path string, format pixel.Format, frameBytes int) (sums [][sha256.Size]byte) {
	t.Helper()
	all := tool(t, "ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", format.FFmpeg(), "-")
	if len(all)%frameBytes != 0 {
		t.Fatalf("ffmpeg made %d bytes; want frames of %d", len(all), frameBytes)
	}
	for ; len(all) > 0; all = all[frameBytes:] {
		sums = append(sums, sha256.Sum256(all[:frameBytes]))
	}
	return sums
}

// clip makes a video of 50 pictures a second that differ from one another.
func clip(t *testing.T, seconds float64, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clip.mp4")
	args = append([]string{"-v", "error", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=96x64:r=50:d=%g", seconds), "-pix_fmt", "yuv420p"}, args...)
	tool(t, "ffmpeg", append(args, path)...)
	return path
}

// wantFrames reads the whole stream: just those frames, in that order.
func wantFrames(t *testing.T, r *reader, want [][sha256.Size]byte) {
	t.Helper()
	for i, sum := range want {
		f := r.next()
		if sha256.Sum256(f.Bytes()) != sum || int(f.Seq) != i {
			t.Fatalf("frame %d is not frame %d as ffmpeg decodes it", f.Seq, i)
		}
		f.Release()
	}
	r.ended(uint64(len(want)))
}

// The clip of the test data: every frame, byte for byte, then the end.
func TestClip(t *testing.T) {
	data := os.Getenv("PERCH_TESTDATA")
	if data == "" {
		t.Skip("PERCH_TESTDATA is not set: the folder with clip.mp4")
	}
	t.Parallel()
	path := filepath.Join(data, "clip.mp4")
	want := decoded(t, path, pixel.YUV420, 640*480*3/2)
	if len(want) != 300 {
		t.Fatalf("ffmpeg makes %d frames of %s; want 300", len(want), path)
	}
	b := newBox(t, "input = \"file:"+path+"\"\n[sensor.porch.stream.video]\nslots = 30")
	r := b.frames()
	begun := time.Now()
	p := b.start()
	wantFrames(t, r, want)
	if took := time.Since(begun); took < 19*time.Second {
		t.Errorf("20 s of video took %v; want its own pace", took)
	}
	s := r.state("the last word", func(s *msg.State) bool { return s.Status == "done" })
	if s.Counters["frames"] != 300 || s.Counters["corrupt_frames"]+s.Counters["dropped_frames"]+s.Counters["missed_frames"] != 0 {
		t.Errorf("counters at the end: %v; want 300 frames and nothing else", s.Counters)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d at the end of the file; want 0", code)
	}
	if left := b.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFileInEveryRawFormat(t *testing.T) {
	for _, format := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			path := clip(t, 0.6, "-threads", "1")
			_, bytes, err := pixel.Layout(format, pixel.Size{Width: 96, Height: 64})
			must(t, err)
			want := decoded(t, path, format, bytes)
			b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 100\nformat = %q", "file:"+path, format))
			r := b.frames()
			p := b.start()
			wantFrames(t, r, want)
			if code := p.exit(); code != 0 {
				t.Errorf("exit code %d at the end of the file; want 0", code)
			}
		})
	}
}

func TestFileAsMJPEG(t *testing.T) {
	t.Parallel()
	b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 100\nsize = \"64x48\"\nformat = \"mjpeg\"", "file:"+clip(t, 0.4)))
	r := b.frames()
	b.start()
	for range 20 {
		f := r.next()
		if img := image(t, f); img.Size != (pixel.Size{Width: 64, Height: 48}) {
			t.Fatalf("frame %d is %s; want 64x48", f.Seq, img.Size)
		}
		f.Release()
	}
	r.ended(20)
}

// Of 50 frames a second 20 are chosen: those that are the first in their
// twentieth of a second.
func TestFileAtALowerRate(t *testing.T) {
	t.Parallel()
	path := clip(t, 2)
	all := decoded(t, path, pixel.YUV420, 96*64*3/2)
	var want [][sha256.Size]byte
	slot := -1.
	for i, sum := range all {
		if now := math.Floor(float64(i)*20/50 + 1e-9); now > slot {
			slot, want = now, append(want, sum)
		}
	}
	if len(want) != 40 {
		t.Fatalf("%d frames are wanted of %d; want 40", len(want), len(all))
	}
	b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 100\ncapture_hz = 20", "file:"+path))
	r := b.frames()
	b.start()
	wantFrames(t, r, want)
}

func TestFileLoops(t *testing.T) {
	t.Parallel()
	path := clip(t, 0.2)
	want := decoded(t, path, pixel.YUV420, 96*64*3/2)
	b := newBox(t, fmt.Sprintf("input = %q\nloop = true\n[sensor.porch.stream.video]\nslots = 100", "file:"+path))
	r := b.frames()
	p := b.start()
	for i := range 5 * len(want) {
		f := r.next()
		if sha256.Sum256(f.Bytes()) != want[i%len(want)] {
			t.Fatalf("frame %d is not frame %d of the file", f.Seq, i%len(want))
		}
		f.Release()
	}
	p.signal(15)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d after SIGTERM; want 0", code)
	}
}

// A camera that has published its last frame waits for a reader that has come
// and not looked yet, and ends then; what the reader holds stays.
func TestFileWaitsForALateReader(t *testing.T) {
	t.Parallel()
	path := clip(t, 0.1)
	want := decoded(t, path, pixel.YUV420, 96*64*3/2)
	b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]", "file:"+path))
	r := b.frames()
	p := b.start()
	r.state("all frames", func(s *msg.State) bool { return int(s.Counters["frames"]) == len(want) })
	held := r.next()
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d at the end of the file; want 0", code)
	}
	for range want[1:] {
		f := r.next()
		f.Release()
	}
	r.ended(uint64(len(want)))
	if sha256.Sum256(held.Bytes()) != want[0] {
		t.Error("a frame that is held changed when its camera ended")
	}
	held.Release()
}

// A file that is not whole gives what can be decoded.
func TestFileCutShort(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cut.ts")
	tool(t, "ffmpeg", "-v", "error", "-i", clip(t, 1, "-g", "10"), "-c", "copy", path)
	whole, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, whole[:len(whole)/2], 0o600))
	b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 100", "file:"+path))
	r := b.frames()
	p := b.start()
	f := r.next()
	if len(bytes.Trim(f.Bytes(), "\x00")) == 0 {
		t.Error("the first frame is empty")
	}
	f.Release()
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d at the end of a file that was cut; want 0", code)
	}
}

// The times of a file's pictures are those in the file, however they come.
func TestEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := evenly{hz: 15}
		begun := time.Now()
		now := func() msg.Stamp { return msg.Stamp{Wall: time.Now(), Boot: time.Hour + time.Since(begun)} }
		take := func(late time.Duration) time.Duration {
			time.Sleep(time.Until(e.due()) + late)
			return e.stamp(now()).Boot - time.Hour
		}
		for n := range 300 {
			got, want := take(time.Duration(n%7)*time.Millisecond), time.Duration(float64(n)/15*1e9)
			if n == 0 {
				begun = time.Now() // whenever the first one came
				continue
			}
			if d := got - want; d < -time.Microsecond || d > time.Microsecond {
				t.Fatalf("picture %d has the time %s; want %s", n, got, want)
			}
		}
		if got, want := take(3*time.Second), time.Since(begun); got != want {
			t.Errorf("a picture that is 3 s late has the time %s; want the present, %s", got, want)
		}
		if got, want := take(0), time.Since(begun); got != want {
			t.Errorf("the one after it has %s; want %s", got, want)
		}
	})
}
