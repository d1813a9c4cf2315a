package main

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/pixel"
)

// writer is a command as the reader of its pipe sees it: after each wait some
// bytes come. It is played without a clock.
type writer struct {
	t     *testing.T
	align *aligner
	now   time.Time
	frame []byte
	have  int
	seen  int // frames of ours
	err   error

	load *rand.Rand // of a busy machine: nil is an idle one
	shot func(n, at int) byte
	at   int
}

func newWriter(t *testing.T, f pixel.Format, s pixel.Size, hz float64) *writer {
	t.Helper()
	_, n, err := pixel.Layout(f, s)
	must(t, err)
	w := &writer{t: t, align: newAligner(f, s, int64(n), hz), now: time.Unix(0, 0), frame: make([]byte, n)}
	w.align.start(w.now)
	return w
}

// come lets bytes come after a wait. On a busy machine the reader is late itself
// at times and need not wait, and the writer is kept waiting within a frame.
func (w *writer) come(bytes int, wait time.Duration) {
	for bytes > 0 {
		chunk := bytes
		if w.load != nil {
			chunk = min(chunk, 4096*(1+w.load.IntN(64)))
			if w.load.IntN(3) == 0 {
				wait = min(wait, 300*time.Microsecond)
			}
		}
		bytes -= chunk
		w.read(chunk, wait)
		wait = 0
		if w.load != nil && w.load.IntN(16) == 0 {
			wait = time.Duration(w.load.ExpFloat64() * float64(4*time.Millisecond))
		}
	}
}

// read is what the camera does with bytes that have come.
func (w *writer) read(bytes int, wait time.Duration) {
	for bytes > 0 && w.err == nil {
		part := min(bytes, len(w.frame)-w.have)
		w.now = w.now.Add(wait)
		w.align.read(part, wait, w.now)
		if w.shot != nil {
			for i := range part {
				w.frame[w.have+i] = w.shot(0, w.at+i)
			}
		}
		w.at += part
		bytes -= part
		wait = 0
		if w.have += part; w.have == len(w.frame) {
			w.have = 0
			w.seen++
			w.err = w.align.check(w.frame)
		}
	}
}

// frames lets n writes of that many bytes come at a rate.
func (w *writer) frames(n, bytes int, hz float64) {
	for range n {
		w.come(bytes, time.Duration(float64(time.Second)/hz))
	}
}

// stdio lets n frames come as C's standard library writes them: whole blocks at
// once, and the rest with the next frame.
func (w *writer) stdio(n, bytes int, hz float64, kept int) {
	for range n {
		all := kept + bytes
		w.come(all/4096*4096, time.Duration(float64(time.Second)/hz))
		kept = all % 4096
	}
}

func vga() pixel.Size { return pixel.Size{Width: 640, Height: 480} }

const vgaBytes = 640 * 480 * 3 / 2

func TestGoodSourcesAreInStep(t *testing.T) {
	picture := scenery(vgaBytes)
	for name, play := range map[string]func(w *writer){
		"a write a frame":       func(w *writer) { w.frames(400, vgaBytes, 30) },
		"a frame in 10 s":       func(w *writer) { w.frames(40, vgaBytes, 0.1) },
		"stdio":                 func(w *writer) { w.stdio(400, vgaBytes, 30, 0) },
		"several at once":       func(w *writer) { w.frames(100, 5*vgaBytes, 6) },
		"two at once":           func(w *writer) { w.frames(100, 2*vgaBytes, 15) },
		"without a pause":       func(w *writer) { w.frames(2000, 65536, 1e9) },
		"blocks at a slow pace": func(w *writer) { w.frames(4000, 32768, 400) },
		"odd blocks of a slow network": func(w *writer) {
			for i := range 4000 {
				w.come(1448*(1+i*7%5), 2*time.Millisecond)
			}
		},
		"dd of a megabyte": func(w *writer) { w.frames(400, 1<<20, 13) },
		"luma, then chroma": func(w *writer) {
			for range 400 {
				w.come(640*480, 3*time.Millisecond)
				w.come(640*480/2, 30*time.Millisecond)
			}
		},
		"the last bytes kept back": func(w *writer) { w.come(vgaBytes-100, 0); w.frames(400, vgaBytes, 30) },
		"a frame in four parts":    func(w *writer) { w.frames(1600, vgaBytes/4, 120) },
		"a variable rate": func(w *writer) {
			for i := range 400 {
				w.come(vgaBytes, time.Duration(5+i*13%90)*time.Millisecond)
			}
		},
		"a backlog, then live": func(w *writer) { w.frames(60, vgaBytes, 1e6); w.frames(400, vgaBytes, 15) },
		"a pause of minutes": func(w *writer) {
			w.frames(40, vgaBytes, 30)
			w.come(vgaBytes, 5*time.Minute)
			w.frames(400, vgaBytes, 30)
		},
	} {
		for _, load := range []*rand.Rand{nil, rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(3, 4))} {
			for _, hz := range []float64{0, 30} {
				w := newWriter(t, pixel.YUV420, vga(), hz)
				w.load = load
				for i := range w.frame {
					w.frame[i] = picture(0, i)
				}
				if play(w); w.err != nil {
					t.Errorf("%s (load: %v, capture_hz = %g): after %d frames %v; want nothing", name, load != nil, hz, w.seen, w.err)
				}
			}
		}
	}
}

// scenery is a picture of that many bytes, again and again, with some noise.
func scenery(bytes int) func(n, at int) byte {
	return func(_, at int) byte {
		return byte(60 + at%bytes*150/bytes + at*7%5)
	}
}

func TestSourcesOutOfStepAreNoticed(t *testing.T) {
	size := pixel.Size{Width: 1296, Height: 972}
	const padded, tight = 1344 * 972 * 3 / 2, 1296 * 972 * 3 / 2
	for _, test := range []struct {
		name   string
		format pixel.Format
		size   pixel.Size
		hz     float64 // declared
		play   func(w *writer)
		within int // frames of ours
		want   string
	}{
		{"padded rows", pixel.YUV420, size, 0, func(w *writer) { w.frames(60, padded, 30) }, 20, "set stride = 1344"},
		{"padded rows by stdio", pixel.YUV420, size, 0, func(w *writer) { w.stdio(60, padded, 30, 0) }, 20, "set stride = 1344"},
		{"padded rows of a Pi 5", pixel.YUV420, size, 0, func(w *writer) { w.stdio(60, 1408*972*3/2, 30, 0) }, 20, "set stride = 1408"},
		{"padded rows of a slow camera", pixel.YUV420, size, 5, func(w *writer) { w.frames(20, padded, 5) }, 20, "a frame of 1296x972 yuv420 has 1889568; rows padded to 1344 bytes: set stride = 1344"},
		{"padded rows of nv12", pixel.NV12, size, 0, func(w *writer) { w.frames(60, padded, 30) }, 20, "set stride = 1344"},
		{"smaller", pixel.YUV420, vga(), 10, func(w *writer) { w.frames(100, 320*240*3/2, 10) }, 20, `that is 320x240: set size = "320x240"`},
		{"smaller, rate not declared", pixel.YUV420, vga(), 0, func(w *writer) { w.shot = scenery(320 * 240 * 3 / 2); w.frames(100, 320*240*3/2, 10) }, 20, `set size = "320x240"`},
		{"larger", pixel.YUV420, vga(), 0, func(w *writer) { w.frames(60, 800*600*3/2, 30) }, 30, `set size = "800x600"`},
		{"four times as large", pixel.YUV420, vga(), 30, func(w *writer) { w.shot = scenery(4 * vgaBytes); w.frames(60, 4*vgaBytes, 30) }, 60, `set size = "1280x960"`},
		{"yuyv", pixel.YUV420, vga(), 0, func(w *writer) { w.frames(60, 640*480*2, 30) }, 20, `set format = "yuyv"`},
		{"rgb24", pixel.YUV420, vga(), 30, func(w *writer) { w.shot = scenery(640 * 480 * 3); w.frames(60, 640*480*3, 30) }, 24, `set format = "rgb24"`},
		{"rgb24, rate not declared", pixel.YUV420, vga(), 0, func(w *writer) { w.shot = scenery(640 * 480 * 3); w.frames(60, 640*480*3, 30) }, 30, `set format = "rgb24"`},
		{"RGBA", pixel.RGB24, vga(), 0, func(w *writer) { w.frames(60, 640*480*4, 30) }, 20, "4 bytes a pixel"},
		{"GStreamer's padding", pixel.YUV420, pixel.Size{Width: 642, Height: 480}, 0, func(w *writer) { w.frames(60, 644*480+2*324*240, 30) }, 20, "as GStreamer does it"},
		{"rows and more rows", pixel.YUV420, pixel.Size{Width: 1920, Height: 1080}, 0, func(w *writer) { w.frames(60, 1920*1088*3/2, 30) }, 20, `set size = "1920x1088"`},
		{"text first", pixel.YUV420, vga(), 0, func(w *writer) { w.come(27, 0); w.frames(60, vgaBytes, 30) }, 20, "they begin 27 bytes late"},
		{"text between", pixel.YUV420, vga(), 0, func(w *writer) { w.frames(50, vgaBytes, 30); w.come(16, 0); w.frames(60, vgaBytes, 30) }, 72, "they begin 16 bytes late"},
		{"a short frame", pixel.YUV420, vga(), 0, func(w *writer) {
			w.frames(50, vgaBytes, 30)
			w.come(vgaBytes-100, time.Millisecond*33)
			w.frames(60, vgaBytes, 30)
		}, 72, "they begin 100 bytes early"},
		{"half a frame", pixel.YUV420, vga(), 0, func(w *writer) {
			w.frames(50, vgaBytes, 30)
			w.come(vgaBytes/3, time.Millisecond*33)
			w.frames(60, vgaBytes, 30)
		}, 72, "they begin 153600 bytes late"},
		{"a size that is none", pixel.YUV420, vga(), 30, func(w *writer) { w.frames(60, 500002, 30) }, 20, "see size, format and stride"},
	} {
		for _, load := range []*rand.Rand{nil, rand.New(rand.NewPCG(1, 2))} {
			t.Run(test.name, func(t *testing.T) {
				w := newWriter(t, test.format, test.size, test.hz)
				w.load = load
				within := test.within
				if load != nil {
					within *= 20 // it waits less at borders, and later agrees on one
					w.play(test.play, 10)
				} else {
					test.play(w)
				}
				if why := (*alignError)(nil); !errors.As(w.err, &why) || !strings.Contains(w.err.Error(), test.want) || w.seen > within {
					t.Errorf("after %d frames: %v; want %q within %d (load: %v)", w.seen, w.err, test.want, within, load != nil)
				}
			})
		}
	}
}

// play plays several times, as long as nothing was noticed.
func (w *writer) play(what func(*writer), times int) {
	for range times {
		if w.err == nil {
			what(w)
		}
	}
}

func TestSniff(t *testing.T) {
	picture := make([]byte, 300)
	for i := range picture {
		picture[i] = byte(60 + i%40)
	}
	for _, test := range []struct{ bytes, want string }{
		{"YUV4MPEG2 W320 H240 F10:1\nFRAME\n", "a Y4M stream"},
		{"\xff\xd8\xff\xe0\x00\x10JFIF", `set format = "mjpeg"`},
		{"\x00\x00\x00\x01\x67\x64\x00\x28", "--codec yuv420"},
		{"Preview window unavailable\n\x10\x10\x10", `text before its first frame: "Preview window unavailable"`},
		{"Kamera nicht verfügbar\n", "Kamera nicht verfügbar"},
		{string(picture), ""},
		{strings.Repeat("\x10", 300), ""},
		{strings.Repeat("A", 300), ""},
		{strings.Repeat("\n", 300), ""},
		{strings.Repeat(" ", 40) + "\n" + strings.Repeat("<", 300), ""},
	} {
		if got := sniff([]byte(test.bytes)); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("sniff(%.20q...) = %q; want %q", test.bytes, got, test.want)
		}
	}
}

func TestFramesAreCheckedWithoutAllocation(t *testing.T) {
	w := newWriter(t, pixel.YUV420, vga(), 30)
	w.frames(100, vgaBytes, 30)
	if got := testing.AllocsPerRun(100, func() { w.frames(1, vgaBytes, 30) }); got != 0 || w.err != nil {
		t.Errorf("a frame allocates %g times (%v); want never", got, w.err)
	}
}

func TestPadded(t *testing.T) {
	planes, n, err := padded(pixel.YUV420, pixel.Size{Width: 1296, Height: 972}, 1344)
	want := []pixel.Plane{{Offset: 0, Stride: 1344, Rows: 972}, {Offset: 1306368, Stride: 672, Rows: 486}, {Offset: 1632960, Stride: 672, Rows: 486}}
	if diff := cmp.Diff(want, planes); diff != "" || n != 1959552 || err != nil {
		t.Errorf("padded(1296x972, 1344) = %d, %v, -want +got:\n%s", n, err, diff)
	}
	for _, test := range []struct {
		format pixel.Format
		stride int
	}{{pixel.YUV420, 1295}, {pixel.YUV420, 1345}, {pixel.YUV420, 99999}, {pixel.MJPEG, 1344}, {pixel.RGB24, 1344}} {
		if _, _, err := padded(test.format, pixel.Size{Width: 1296, Height: 972}, test.stride); err == nil {
			t.Errorf("padded(%s, %d) = nil; want an error", test.format, test.stride)
		}
	}
}

func TestStrideOfRpicam(t *testing.T) {
	wide := pixel.Size{Width: 1296, Height: 972}
	align := 64
	if isPi5() {
		align = 128
	}
	for _, test := range []struct {
		argv   []string
		format pixel.Format
		want   int
	}{
		{[]string{"rpicam-vid", "--codec", "yuv420", "-o", "-"}, pixel.YUV420, alignUp(1296, align)},
		{[]string{"/usr/bin/libcamera-vid", "-o", "-"}, pixel.YUV420, alignUp(1296, align)},
		{[]string{"nice", "-n", "5", "rpicam-vid", "-o", "-"}, pixel.YUV420, alignUp(1296, align)},
		{[]string{"sh", "-c", "exec rpicam-vid --codec yuv420 -o -"}, pixel.YUV420, alignUp(1296, align)},
		{[]string{"sh", "-c", "rpicam-vid -o - | ffmpeg -i - -f rawvideo -"}, pixel.YUV420, 0},
		{[]string{"rpicam-vid", "--codec", "mjpeg"}, pixel.MJPEG, 0},
		{[]string{"ffmpeg"}, pixel.YUV420, 0},
	} {
		c := &Config{Input: Address{Scheme: Exec}, Command: test.argv}
		if got := c.stride(StreamConfig{Size: wide, Format: test.format}); got != test.want {
			t.Errorf("stride of %q = %d; want %d", test.argv, got, test.want)
		}
	}
	c := &Config{Input: Address{Scheme: Exec}, Command: []string{"rpicam-vid"}}
	if got := c.stride(StreamConfig{Size: wide, Format: pixel.YUV420, Stride: 1408}); got != 1408 {
		t.Errorf("stride of rpicam-vid with stride = 1408 is %d", got)
	}
}

func TestPatience(t *testing.T) {
	now := time.Unix(0, 0)
	p := newPatient(true, 5*time.Second)
	silence := func() error { return p.failed(errSilent) }
	p.start()
	p.frame(now)
	if err := silence(); !errors.Is(err, errSilent) || !strings.Contains(err.Error(), "set capture_hz (0.1 for a frame in 10 s) or a longer stall_after") {
		t.Errorf("failed(silent after one frame) = %v; want the keys that help", err)
	}
	p.start()
	p.frame(now)
	_ = silence()
	if p.wait() != 20*time.Second {
		t.Errorf("wait() after two such runs = %v; want 20s", p.wait())
	}
	p.start()
	p.frame(now)
	p.frame(now.Add(10 * time.Second))
	if p.wait() != 25*time.Second {
		t.Errorf("wait() when frames come each 10 s = %v; want 25s", p.wait())
	}
	if err := silence(); !errors.Is(err, errSilent) || err.Error() != errSilent.Error() {
		t.Errorf("failed(silent after two frames) = %v; want no advice", err)
	}
	for range 10 {
		p.start()
		p.frame(now)
		_ = silence()
	}
	if p.wait() != mostPatience {
		t.Errorf("wait() after many such runs = %v; want %v", p.wait(), mostPatience)
	}
	fast := newPatient(false, 5*time.Second)
	for i := range 10 {
		fast.frame(now.Add(time.Duration(i) * time.Second / 30))
	}
	if fast.wait() != 0 {
		t.Errorf("wait() of a fast source = %v; want what is set", fast.wait())
	}
}

func TestTrial(t *testing.T) {
	var tr trial
	now := time.Unix(0, 0)
	held := func() (n int) {
		for tr.frame() != nil {
			n++
		}
		return n
	}
	why := &alignError{"padded"}
	for i, want := range []int{0, 18, 36, 72, 144, 288, 576, 576} {
		tr.start(now)
		if got := held(); got != want {
			t.Errorf("run %d: %d frames held back; want %d", i, got, want)
		}
		now = now.Add(10 * time.Second)
		tr.failed(why, now)
	}
	tr.start(now)
	now = now.Add(2 * time.Minute)
	tr.failed(why, now)
	tr.start(now)
	if got := held(); got != leastTrial {
		t.Errorf("after a long good run: %d held back; want %d", got, leastTrial)
	}
	for range 100 {
		must(t, tr.frame())
	}
	tr.failed(why, now)
	tr.start(now)
	if got := held(); got != leastTrial+1+100 { // held counts the frame after
		t.Errorf("after %d frames of a run: %d held back; want as many", leastTrial+101, got)
	}
	tr.failed(errSilent, now)
	tr.start(now)
	if got := held(); got != 0 {
		t.Errorf("after a run that passed: %d held back; want none", got)
	}
}
