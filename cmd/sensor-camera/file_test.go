package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// decoded is what ffmpeg by itself makes of a file: the sum of each frame.
func decoded(t *testing.T, path, pixFmt string, frameBytes int) (sums [][sha256.Size]byte) {
	t.Helper()
	all := tool(t, "ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", pixFmt, "-")
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
	want := decoded(t, path, "yuv420p", 640*480*3/2)
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
	path := clip(t, 0.6, "-threads", "1")
	for _, format := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			_, bytes, err := pixel.Layout(format, pixel.Size{Width: 96, Height: 64})
			must(t, err)
			want := decoded(t, path, format.FFmpeg(), bytes)
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

// Of 50 frames a second 20 are chosen: those nearest to when they are due, as
// of a device.
func TestFileAtALowerRate(t *testing.T) {
	t.Parallel()
	path := clip(t, 2)
	all := decoded(t, path, "yuv420p", 96*64*3/2)
	var want [][sha256.Size]byte
	for i, sum := range all {
		if slices.Contains([]int{0, 2, 5, 7}, i%10) {
			want = append(want, sum)
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
	want := decoded(t, path, "yuv420p", 96*64*3/2)
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
	want := decoded(t, path, "yuv420p", 96*64*3/2)
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

// times are when ffprobe says that a file's frames are to be shown.
func times(t *testing.T, path string) (list []time.Duration) {
	t.Helper()
	for _, line := range strings.Fields(string(tool(t, "ffprobe", "-v", "error", "-select_streams", "V:0", "-show_entries", "frame=best_effort_timestamp_time", "-of", "csv=p=0", path))) {
		seconds, err := strconv.ParseFloat(strings.Trim(line, ","), 64)
		must(t, err)
		list = append(list, time.Duration(seconds*1e9))
	}
	return list
}

// wantTimes reads the whole stream: its frames have those times, counted from
// the first.
func wantTimes(t *testing.T, r *reader, want []time.Duration) {
	t.Helper()
	var first time.Duration
	for i, at := range want {
		f := r.next()
		if i == 0 {
			first = f.Stamp.Boot
		}
		if d := f.Stamp.Boot - first - (at - want[0]); d < -time.Millisecond || d > time.Millisecond {
			t.Errorf("frame %d has the time %v; want %v, as in the file", i, f.Stamp.Boot-first, at-want[0])
		}
		f.Release()
	}
	r.ended(uint64(len(want)))
}

// unsteady makes a video of 10 frames at 30 a second, 3 at 5 a second, 10 at 30 a
// second, nothing for 1.2 s, and 5 at 30 a second: once under each name, which says
// the container. What has B-frames also has frames that the decoder holds back.
func unsteady(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	const when = "setpts='if(lt(N,10),N/30,if(lt(N,13),1/3+(N-10)/5,if(lt(N,23),14/15+(N-13)/30,2.5+(N-23)/30)))/TB'"
	args := []string{"-v", "error", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=28:d=1,settb=1/90000," + when}
	for _, name := range names {
		codec := map[string][]string{".webm": {"-c:v", "libvpx", "-deadline", "realtime"}, ".avi": {"-c:v", "mjpeg"}, ".flv": {"-c:v", "flv1"}}[filepath.Ext(name)]
		if codec == nil {
			codec = []string{"-c:v", "libx264", "-bf", "3"}
		}
		args = slices.Concat(args, []string{"-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-g", "20"}, codec, []string{filepath.Join(dir, name)})
	}
	tool(t, "ffmpeg", args...)
	return dir
}

// The frames of a file have the times that they have in it, whatever its header
// says of its rate, and those before a pause come before it. capture_hz is a
// maximum: more than the average is right.
func TestFileTimes(t *testing.T) {
	names := []string{"a.mkv", "a.mp4"}
	dir := unsteady(t, names...)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(dir, name)
			want := times(t, path)
			if d := want[len(want)-1] - want[0]; len(want) != 28 || d < 2600*time.Millisecond || d > 2700*time.Millisecond {
				t.Fatalf("%s has %d frames in %v; want 28 in 2.6 s", path, len(want), d)
			}
			b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 100\ncapture_hz = 60", "file:"+path))
			r := b.frames()
			b.start()
			wantTimes(t, r, want)
		})
	}
}

// The timestamps that come through the pipe are the container's, of every kind.
func TestFileTimestamps(t *testing.T) {
	names := []string{"a.mkv", "a.webm", "a.mp4", "a.ts", "a.avi", "a.flv"}
	dir := unsteady(t, names...)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(dir, name)
			c := ffmpeg.FFmpeg(ffmpeg.File(path), fileOutput(StreamConfig{Format: pixel.YUV420}, pixel.Size{Width: 96, Height: 64}, nil, 40*time.Millisecond)...)
			c.Stdout = true
			p, err := ffmpeg.Start(t.Context(), c)
			must(t, err)
			defer p.Stop()
			frames := ffmpeg.NewFrameReader(p.Stdout)
			picture := make([]byte, 96*64*3/2)
			want, got := times(t, path), []time.Duration{}
			for range want {
				f, err := frames.Next()
				must(t, err)
				_, err = io.ReadFull(p.Stdout, picture[len(f.Prefix):f.Bytes])
				must(t, err)
				got = append(got, f.PTS)
			}
			if len(want) != 28 {
				t.Fatalf("ffprobe says %d frames; want 28", len(want))
			}
			for i := range want {
				if d := got[i] - got[0] - (want[i] - want[0]); d < -time.Millisecond || d > time.Millisecond {
					t.Errorf("frame %d has the timestamp %v; want %v", i, got[i]-got[0], want[i]-want[0])
				}
			}
			if _, err := frames.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("Next() at the end = %v; want io.EOF", err)
			}
		})
	}
}

// Timestamps that no clock gives: twice the same, one back, a jump back to the
// beginning, a jump ahead by a day. The frames follow each other all the same.
func TestFileWithBrokenTimestamps(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "broken.nut")
	pts := []int{1000, 1040, 1080, 1080, 1120, 1115, 1160, 0, 70, 110, 90_000_000, 90_000_040, 90_000_080}
	want := []int{1000, 1040, 1080, 1081, 1120, 1121, 1160, 1200, 1270, 1310, 1350, 1390, 1430}
	// NUT's writer refuses what goes back: the packets' timestamps are broken behind it.
	expr := "0"
	for n, ms := range pts {
		expr += fmt.Sprintf("+eq(N,%d)*%d", n, ms)
	}
	tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=96x64:r=25:d=%g", 0.04*float64(len(pts))), "-pix_fmt", "yuv420p", path)
	filter := fileOutput(StreamConfig{Format: pixel.YUV420}, pixel.Size{Width: 96, Height: 64}, nil, 40*time.Millisecond)
	for i := range filter {
		if filter[i] == "-vf" {
			filter[i+1] = "settb=1/1000,setpts='" + expr + "'," + filter[i+1]
		}
	}
	filter[len(filter)-1] = filepath.Join(t.TempDir(), "repaired.nut")
	tool(t, "ffmpeg", slices.Concat([]string{"-v", "error", "-i", path}, filter)...)
	var got []int
	for _, at := range times(t, filter[len(filter)-1]) {
		got = append(got, int(at.Milliseconds()))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("timestamps in ms (-want +got):\n%s", diff)
	}
}

// The chooser that runs in ffmpeg is pacer.
func TestThinOutIsPacer(t *testing.T) {
	tests := []struct{ source, wanted float64 }{{30, 30}, {29.97, 30}, {60, 30}, {45, 30}, {50, 20}, {30, 1}, {30, 0.5}, {5, 30}, {30.03, 30}}
	dir, in, to := t.TempDir(), []string{"-v", "error"}, []string{}
	list := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	for i, test := range tests {
		// Milliseconds, as Matroska has them.
		in = append(in, "-f", "lavfi", "-i", fmt.Sprintf("color=s=16x16:r=%g:d=4,settb=1/1000,%s,showinfo", test.source, thinOut(test.wanted)))
		to = append(to, "-map", fmt.Sprint(i), "-fps_mode", "passthrough", "-enc_time_base", "1:1000", "-f", "framecrc", list(i))
	}
	tool(t, "ffmpeg", append(in, to...)...)
	for i, test := range tests {
		t.Run(fmt.Sprintf("%g of %g", test.wanted, test.source), func(t *testing.T) {
			out, err := os.ReadFile(list(i))
			must(t, err)
			var got, want []int
			for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
				if !strings.HasPrefix(line, "#") {
					ms, err := strconv.Atoi(strings.TrimSpace(strings.Split(line, ",")[2]))
					must(t, err)
					got = append(got, ms)
				}
			}
			p := pacer{hz: test.wanted}
			for n := 0; float64(n) < 4*test.source-1e-6; n++ {
				ms := math.Round(float64(n) / test.source * 1000)
				if p.take(time.Hour + time.Duration(ms)*time.Millisecond) {
					want = append(want, int(ms))
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("frames at, in ms (-want +got):\n%s", diff)
			}
		})
	}
}

// A file that ffmpeg cannot rewind begins anew all the same, and its time goes on.
func TestFileLoopsWithoutRewinding(t *testing.T) {
	for _, name := range []string{"a.ts", "a.264"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), name)
			tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.4", "-pix_fmt", "yuv420p", path)
			b := newBox(t, fmt.Sprintf("input = %q\nloop = true\n[sensor.porch.stream.video]\nslots = 100", "file:"+path))
			r := b.frames()
			b.start()
			var first, last time.Duration
			for n := range 30 {
				f := r.next()
				if n == 0 {
					first = f.Stamp.Boot
				}
				last = f.Stamp.Boot
				f.Release()
			}
			if d := last - first; d < 29*39*time.Millisecond { // more where this machine is slow
				t.Errorf("30 frames in %v; want 25 a second at most", d)
			}
		})
	}
}

// A still picture is one frame; with loop it is shown again, at capture_hz: also
// in a container that ffmpeg could rewind.
func TestStillPicture(t *testing.T) {
	for name, pixFmt := range map[string]string{"one.jpg": "yuvj420p", "one.gif": "yuv420p", "one.mkv": "yuv420p"} { // full range stays full
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), name)
			tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.04", "-frames:v", "1", path)
			want := decoded(t, path, pixFmt, 96*64*3/2)
			if len(want) != 1 {
				t.Fatalf("ffmpeg makes %d frames; want 1", len(want))
			}
			b := newBox(t, fmt.Sprintf("input = %q\nloop = true\n[sensor.porch.stream.video]\ncapture_hz = 20", "file:"+path))
			r := b.frames()
			b.start()
			var last time.Duration
			for n := range 6 {
				f := r.next()
				if sha256.Sum256(f.Bytes()) != want[0] {
					t.Errorf("frame %d is not the picture", n)
				}
				if d := f.Stamp.Boot - last; n > 0 && d < 49*time.Millisecond {
					t.Errorf("frame %d came %v after the last; want 50ms", n, d)
				}
				last = f.Stamp.Boot
				f.Release()
			}
		})
	}
}

// As with bare pixels: what the kernel copies out of the pipe lies at its place in
// the slot, and nothing is allocated for a frame. What stands between the frames
// takes a few small reads.
func TestPixelsOfAFileGoFromThePipeIntoTheSlot(t *testing.T) {
	const frames, bytes = 40, 640 * 480 * 3 / 2
	size := pixel.Size{Width: 640, Height: 480}
	path := filepath.Join(t.TempDir(), "a.mkv")
	tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=640x480:r=25:d=%g", float64(frames)/25), "-c:v", "mjpeg", path)
	c := ffmpeg.FFmpeg(ffmpeg.File(path), fileOutput(StreamConfig{Format: pixel.YUV420}, size, nil, 40*time.Millisecond)...)
	c.Stdout = true
	p, err := ffmpeg.Start(t.Context(), c)
	must(t, err)
	defer p.Stop()
	pipe := &watched{File: p.Stdout, reads: make([][]byte, 0, 1000)}
	from := &pipeReader{source: source{pipe: pipe, patience: limit, alive: func() {}}, ctx: t.Context()}
	reader := ffmpeg.NewFrameReader(from)
	slot := make([]byte, bytes)
	next := func() {
		pipe.reads = pipe.reads[:0]
		f, err := reader.Next()
		if err != nil || f.Bytes != bytes {
			t.Fatalf("Next() = %+v, %v; want %d bytes", f, err, bytes)
		}
		small := len(pipe.reads)
		if n, err := from.fill(slot[:f.Bytes], f.Prefix); err != nil || n != bytes {
			t.Fatalf("fill() = %d, %v; want %d bytes", n, err, bytes)
		}
		place := slot
		for _, r := range pipe.reads[small:] {
			if &r[0] != &place[0] {
				t.Fatal("pixels went elsewhere than into the slot")
			}
			place = place[len(r):]
		}
		if len(place) != 0 {
			t.Fatalf("%d bytes of the slot came from no read", len(place))
		}
	}
	next() // with the file's header before it
	if got := testing.AllocsPerRun(frames-3, next); got != 0 {
		t.Errorf("a frame takes %g allocations; want none", got)
	}
	if sums := decoded(t, path, "yuv420p", bytes); sha256.Sum256(slot) != sums[frames-2] {
		t.Errorf("the last picture read is not frame %d of the file", frames-2)
	}
}

// A film's cover is no film, also where it is the first stream.
func TestCoverPicture(t *testing.T) {
	t.Parallel()
	film, cover := clip(t, 0.2), filepath.Join(t.TempDir(), "cover.jpg")
	tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=red:s=320x240:d=0.04", "-frames:v", "1", cover)
	path := filepath.Join(t.TempDir(), "covered.mp4")
	tool(t, "ffmpeg", "-v", "error", "-i", film, "-i", cover, "-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic", path)
	coverFirst(t, path)
	if first := string(tool(t, "ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=codec_name", "-of", "csv=p=0", path)); first != "mjpeg\n" {
		t.Fatalf("the first stream is %q; want the cover", first)
	}
	b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 100", "file:"+path))
	r := b.frames()
	b.start()
	wantFrames(t, r, decoded(t, film, "yuv420p", 96*64*3/2))
}

// coverFirst moves an MP4's box "udta" to the beginning of "moov".
func coverFirst(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	box := func(name string) (begin, end int) {
		at := bytes.LastIndex(data, []byte(name)) - 4
		if at < 0 {
			t.Fatalf("no box %q in %s", name, path)
		}
		return at, at + int(binary.BigEndian.Uint32(data[at:]))
	}
	moov, _ := box("moov")
	begin, end := box("udta")
	moved := slices.Concat(data[:moov+8], data[begin:end], data[moov+8:begin], data[end:])
	must(t, os.WriteFile(path, moved, 0o600))
}

// Frames of a file whose pixels are not square have the shape that it is shown
// in, also turned.
func TestAnamorphicFile(t *testing.T) {
	for aspect, want := range map[string]pixel.Size{"16/15": {Width: 128, Height: 90}, "8/9": {Width: 106, Height: 90}} {
		path := filepath.Join(t.TempDir(), "a.mp4")
		tool(t, "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=120x90:r=25:d=0.2,setsar="+aspect, "-pix_fmt", "yuv420p", path)
		for _, rotation := range []int{0, 90} {
			t.Run(fmt.Sprintf("%s turned by %d", aspect, rotation), func(t *testing.T) {
				t.Parallel()
				want := want
				if rotation == 90 {
					want.Width, want.Height = want.Height, want.Width
				}
				b := newBox(t, fmt.Sprintf("input = %q\nrotation = %d\n[sensor.porch.stream.video]", "file:"+path, rotation))
				r := b.frames()
				b.start()
				f := r.next()
				defer f.Release()
				if got := (pixel.Size{Width: f.Width, Height: f.Height}); got != want {
					t.Errorf("frames are %v; want %v", got, want)
				}
			})
		}
	}
}

// resized makes a video of a white picture that has one size after the other,
// each for 0.2 s.
func resized(t *testing.T, sizes ...string) string {
	t.Helper()
	dir := t.TempDir()
	part := func(i int) string { return filepath.Join(dir, fmt.Sprintf("%d.ts", i)) }
	in, out := []string{"-v", "error"}, []string{}
	for i, size := range sizes {
		in = append(in, "-f", "lavfi", "-i", fmt.Sprintf("color=white:s=%s:r=25:d=0.2", size))
		out = append(out, "-map", fmt.Sprint(i), "-pix_fmt", "yuv420p", "-output_ts_offset", fmt.Sprint(0.2*float64(i)), part(i))
	}
	tool(t, "ffmpeg", append(in, out...)...)
	var all []byte
	for i := range sizes {
		data, err := os.ReadFile(part(i))
		must(t, err)
		all = append(all, data...)
	}
	path := filepath.Join(dir, "resize.ts")
	must(t, os.WriteFile(path, all, 0o600))
	return path
}

// A file that changes the shape of its pictures: those of another shape get black
// bars and are not squeezed, and a warning names both sizes. Those of another size
// and the same shape are scaled.
func TestFileThatChangesItsSize(t *testing.T) {
	path := resized(t, "96x64", "64x64", "192x128", "96x32")
	sizes := strings.Fields(string(tool(t, "ffprobe", "-v", "error", "-select_streams", "V:0", "-show_entries", "frame=width,height", "-of", "csv=p=0", path)))
	for _, format := range []pixel.Format{pixel.YUV420, pixel.YUYV, pixel.MJPEG} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 100\nformat = %q", "file:"+path, format))
			r := b.frames()
			p := b.start()
			for i, size := range sizes {
				f := r.next()
				img := image(t, f)
				dark := func(x, y int) bool {
					if format == pixel.YUYV {
						x *= 2
					}
					return img.Data[img.Planes[0].Offset+y*img.Planes[0].Stride+x] < 128
				}
				narrow, flat := strings.HasPrefix(size, "64,64"), strings.HasPrefix(size, "96,32")
				for _, at := range []struct {
					x, y int
					want bool
				}{{48, 32, false}, {4, 32, narrow}, {90, 32, narrow}, {20, 32, false}, {48, 4, flat}, {48, 60, flat}, {48, 20, false}} {
					if dark(at.x, at.y) != at.want {
						t.Errorf("frame %d of %s is dark at %d,%d: %v; want %v", i, size, at.x, at.y, !at.want, at.want)
					}
				}
				f.Release()
			}
			r.ended(uint64(len(sizes)))
			if code := p.exit(); code != 0 || len(sizes) < 12 {
				t.Errorf("exit code %d after %d frames; want 0 after 3 of each size at least", code, len(sizes))
			}
			log := p.output()
			for _, want := range []string{`"size":"96x64","changed_to":"64x64"`, `"size":"96x64","changed_to":"96x32"`} {
				if strings.Count(log, want) != 1 {
					t.Errorf("output %s; want %s once", log, want)
				}
			}
			if strings.Contains(log, "damaged") || strings.Contains(log, "192x128") {
				t.Errorf("output %s; want no other warning", log)
			}
		})
	}
}

// The times of a file's frames are those in the file, however they come.
func TestTimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := timeline{nominal: 40 * time.Millisecond}
		begun := time.Now()
		now := func() msg.Stamp { return msg.Stamp{Wall: time.Now(), Boot: time.Hour + time.Since(begun)} }
		take := func(pts, late time.Duration) time.Duration {
			time.Sleep(time.Until(line.due(pts)) + late)
			return line.stamp(now).Boot - time.Hour
		}
		ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
		for i, test := range []struct{ pts, late, want int }{
			{5000, 0, 0}, // whenever the first one came
			{5033, 7, 33},
			{5067, 30, 67},
			{8000, 2, 3000},      // a pause
			{8001, 0, 3001},      // a thousand frames a second
			{9_000_000, 0, 3041}, // a jump by more than an hour
			{9_000_040, 0, 3081}, //
			{9_000_040, 0, 3121}, // no step
			{1000, 900, 3161},    // a step back; late, but not so that all must move
			{1040, 0, 3201},      // due before the last one was ready
		} {
			if got, want := take(ms(test.pts), ms(test.late)), ms(test.want); got != want {
				t.Fatalf("frame %d with the timestamp %d ms has the time %v; want %v", i, test.pts, got, want)
			}
		}
		if got, want := take(ms(1080), 3*time.Second), time.Since(begun); got != want {
			t.Errorf("a frame that is 3 s late has the time %v; want the present, %v", got, want)
		}
		before := time.Since(begun)
		line.restart(ms(40))
		if got, want := take(0, 0), before+ms(40); got != want {
			t.Errorf("the first one of the next round has %v; want %v", got, want)
		}
		if got, want := take(ms(33), 0), before+ms(73); got != want {
			t.Errorf("the one after it has %v; want %v", got, want)
		}
	})
}
