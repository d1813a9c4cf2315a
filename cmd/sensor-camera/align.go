package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/perch-edge/perch/pkg/pixel"
)

// aligner detects when a command's raw frames are out of step. Nothing in the bytes
// marks where a frame ends, so it uses timing: a camera writes a frame and then
// pauses until the next one, so the pipe runs empty at the borders of frames. If
// most of the waiting is at other positions that repeat to the byte, the frames are
// out of step, and the distance of those positions is what the command really
// writes.
//
//	waits of the reader --read--> the last 64 --check--> in step, not known, or an alignError
//
// In doubt it reports nothing: for a command that never pauses (a decoder at full
// speed), one that pauses anywhere (a slow network), and one whose standard library
// holds back the end of a frame (stdio: up to 4095 bytes).
type aligner struct {
	format pixel.Format
	size   pixel.Size
	frame  int64 // bytes
	hz     float64
	others []layout // what the command may be writing instead

	begun  time.Time
	at     int64 // bytes of this run that were read
	pauses []pause
	offset int64 // from a border to the place where this command pauses, see shifted
	inStep bool  // it was seen to pause at borders
	looks  looks
	fresh  int    // pauses since the last check
	why    string // the doubt of the last check
	doubts int    // checks in a row that had it
}

// pause is a wait of the reader for more bytes.
type pause struct {
	at     int64 // bytes of this run before it
	waited time.Duration
	ended  time.Duration // since the run's beginning
}

const (
	mostPauses  = 64
	leastPauses = 6
	leastDoubts = 4
	leastWait   = time.Millisecond
	mostHeld    = 64 << 10 // bytes of a frame's end that a writer's buffer may keep back
)

// alignError is the reason why frames are believed to be out of step.
type alignError struct{ why string }

func (e *alignError) Error() string { return "frames out of step: " + e.why }

func newAligner(f pixel.Format, s pixel.Size, frame int64, hz float64) *aligner {
	a := &aligner{format: f, size: s, frame: frame, hz: hz, pauses: make([]pause, 0, mostPauses)}
	for _, l := range likely(f, s) {
		if l.bytes != frame {
			a.others = append(a.others, l)
		}
	}
	return a
}

// start forgets the run before.
func (a *aligner) start(now time.Time) {
	a.begun, a.at, a.pauses, a.offset, a.inStep, a.looks.n = now, 0, a.pauses[:0], 0, false, 0
	a.fresh, a.why, a.doubts = 0, "", 0
}

// read notes that n bytes came after a wait. The wait for the first ones is the
// command's start and is ignored.
func (a *aligner) read(n int, waited time.Duration, now time.Time) {
	if waited >= leastWait && a.at > 0 {
		if len(a.pauses) == mostPauses {
			a.pauses = a.pauses[:copy(a.pauses, a.pauses[1:])]
		}
		a.pauses = append(a.pauses, pause{a.at, waited, now.Sub(a.begun)})
		a.fresh++
	}
	a.at += int64(n)
}

// check judges by the last pauses, once the frame has come. A doubt that lasts for
// some more pauses is an *alignError.
func (a *aligner) check(frame []byte) error {
	a.looks.add(frame)
	if a.fresh == 0 {
		return nil
	}
	a.fresh = 0
	why := a.doubt(frame)
	if why == "" || why != a.why {
		a.why, a.doubts = why, 0
	}
	if a.doubts++; why == "" || a.doubts < leastDoubts {
		return nil
	}
	return &alignError{why}
}

func (a *aligner) doubt(frame []byte) (why string) {
	for n := leastPauses; n <= len(a.pauses); n *= 2 {
		w := newWindow(a.pauses[len(a.pauses)-n:])
		if w.total < w.span*3/10 {
			continue // it hardly waits: no conclusion
		}
		own := w.at(a.frame, a.offset, w.grain)
		if l, ok := a.recognise(w, own.share, frame); ok {
			return fmt.Sprintf("the command writes %d bytes at a time, and a frame of %s %s has %d; %s", l.bytes, a.size, a.format, a.frame, l.hint)
		}
		if own.clear() {
			a.inStep = true
			return ""
		}
		if own.share >= 0.1 {
			continue
		}
		if why := a.judge(w); why != "" {
			return why
		}
	}
	return ""
}

// judge looks for a cause that no known layout explains.
func (a *aligner) judge(w window) (why string) {
	if offset, s := w.mode(a.frame); s.clear() {
		return a.shifted(offset)
	}
	step := w.step()
	if step == 0 || a.frame%step == 0 || step%a.frame == 0 || step%1000 == 0 || step%1024 == 0 || !a.atDeclaredRate(w, step) {
		return ""
	}
	return fmt.Sprintf("the command writes %d bytes at a time, and a frame of %s %s has %d; see size, format and stride", step, a.size, a.format, a.frame)
}

// recognise finds the layout whose frames end where the command pauses. own is the
// share of our frames' borders.
func (a *aligner) recognise(w window, own float64, frame []byte) (found layout, ok bool) {
	best := 0.0
	for _, l := range a.others {
		for _, grain := range []int64{1, w.grain} {
			if 16*grain > l.bytes || l.bytes%w.block != 0 || !w.spaced(l.bytes, grain) {
				continue
			}
			s := w.most(l.bytes, grain)
			if s.clear() && s.share > best && a.proven(w, l.bytes, own, frame) {
				found, ok, best = l, true, s.share
			}
		}
	}
	return found, ok
}

// proven reports whether a command that pauses each so many bytes writes frames of
// that length. Some do not: one that writes several frames at once, or a frame in
// equal parts, or hands on blocks of a power of two. Then the look of the frames,
// or the rate, decides.
func (a *aligner) proven(w window, bytes int64, own float64, frame []byte) bool {
	switch {
	case bytes%a.frame == 0:
		return a.looks.repeat(int(bytes / a.frame))
	case a.frame%bytes == 0:
		return a.atDeclaredRate(w, bytes) || partsAlike(frame, int(bytes))
	case bytes&(bytes-1) == 0:
		return a.atDeclaredRate(w, bytes)
	}
	return own < 0.6
}

// atDeclaredRate reports whether frames of that length come at capture_hz.
func (a *aligner) atDeclaredRate(w window, bytes int64) bool {
	first, last := w.pauses[0], w.pauses[len(w.pauses)-1]
	rate := float64(last.at-first.at) / float64(bytes) / max((last.ended-first.ended).Seconds(), 1e-3)
	return a.hz > 0 && rate > 0.85*a.hz && rate < 1.15*a.hz
}

// shifted judges frames of the right length whose pauses are that far behind the
// borders. A command may write one plane and then the next, and from its beginning
// its library may keep back the end of a frame. Anything else came between.
func (a *aligner) shifted(offset int64) (why string) {
	if a.planeBegins(offset) || !a.inStep && offset >= a.frame-min(mostHeld, a.frame/2) {
		a.offset = offset
		return ""
	}
	late := (offset - a.offset + a.frame) % a.frame
	what := fmt.Sprintf("they begin %d bytes late", late)
	if late > a.frame/2 {
		what = fmt.Sprintf("they begin %d bytes early", a.frame-late)
	}
	return what + ": a frame was cut short, or something else was written to standard output (text belongs on standard error)"
}

func (a *aligner) planeBegins(offset int64) bool {
	planes, _, err := pixel.Layout(a.format, a.size)
	if err != nil {
		return false
	}
	for _, p := range planes {
		if a.frame*int64(p.Offset) == offset*int64(tight(planes)) { // padding is in proportion
			return true
		}
	}
	return false
}

func tight(planes []pixel.Plane) int {
	last := planes[len(planes)-1]
	return last.Offset + last.Stride*last.Rows
}

// window is some pauses in a row.
type window struct {
	pauses      []pause
	total, span time.Duration // waited, and passed

	// How exactly the places of the pauses are known: to the byte, or to a block
	// where a writer's buffer is written in whole blocks (4096 bytes in stdio), so
	// that a border is up to a block behind its pause.
	grain int64
	// What all places are multiples of: blocks this large are how programs hand on
	// streams, whatever is in them. 1 is nothing.
	block int64
}

func newWindow(pauses []pause) window {
	w := window{pauses: pauses, grain: 1, block: 1}
	for _, p := range pauses {
		w.total += p.waited
	}
	w.span = pauses[len(pauses)-1].ended - pauses[0].ended + pauses[0].waited
	for n := int64(4096); n <= 1<<20 && w.at(n, 0, 1).share >= 0.8; n *= 2 {
		switch {
		case n <= 8192:
			w.grain = n
		default:
			w.block = n
		}
	}
	return w
}

// agreement is how much of the waiting was at the same place of frames.
type agreement struct {
	share  float64
	pauses float64 // as many as would count if all were of the same length
}

// clear reports whether it cannot be chance: several pauses, and most of the waiting.
func (g agreement) clear() bool { return g.share >= 0.6 && g.pauses >= 3.5 }

// at is the agreement on borders of frames of that length, or less than grain
// before one; offset is how far behind its borders the command pauses.
func (w window) at(frame, offset, grain int64) agreement {
	var sum, squares float64
	for _, p := range w.pauses {
		if early := (offset - p.at%frame + 2*frame) % frame; early < grain {
			seconds := p.waited.Seconds()
			sum += seconds
			squares += seconds * seconds
		}
	}
	if sum == 0 {
		return agreement{}
	}
	return agreement{sum / w.total.Seconds(), sum * sum / squares}
}

// most is the best agreement on any offset.
func (w window) most(frame, grain int64) (best agreement) {
	for _, p := range w.pauses {
		for _, offset := range []int64{p.at % frame, p.at%frame + grain - 1} {
			if s := w.at(frame, offset, grain); s.share > best.share {
				best = s
			}
		}
	}
	return best
}

// mode is the offset at which most of the waiting was, to the byte.
func (w window) mode(frame int64) (offset int64, best agreement) {
	for _, p := range w.pauses {
		if s := w.at(frame, p.at%frame, 1); s.share > best.share {
			offset, best = p.at%frame, s
		}
	}
	return offset, best
}

// spaced reports whether one frame of that length lies between most long pauses and
// the long one before, and not several.
func (w window) spaced(frame, grain int64) bool {
	fit, all, last := 0, 0, int64(0)
	for _, p := range w.pauses {
		if 2*int(p.waited)*len(w.pauses) < int(w.total) {
			continue
		}
		if last > 0 {
			all++
			if d := p.at - last - frame; -grain < d && d < grain {
				fit++
			}
		}
		last = p.at
	}
	return 2*fit > all
}

// step is the distance from pause to pause where four fifths of them have the
// same, and 0 otherwise.
func (w window) step() int64 {
	for i := range w.pauses[1:] {
		step, same := w.pauses[i+1].at-w.pauses[i].at, 0
		for j, p := range w.pauses[1:] {
			if p.at-w.pauses[j].at == step {
				same++
			}
		}
		if 5*same >= 4*(len(w.pauses)-1) {
			return step
		}
	}
	return 0
}

// looks are points of the last frames, the newest last, to compare them by.
type looks struct {
	last [4 * mostAtOnce][points]byte
	n    int
}

const (
	points     = 256
	mostAtOnce = 8 // frames of ours in one of the command's
)

func (l *looks) add(frame []byte) {
	if l.n == len(l.last) {
		copy(l.last[:], l.last[1:])
		l.n--
	}
	for i := range points {
		l.last[l.n][i] = frame[i*len(frame)/points]
	}
	l.n++
}

// repeat reports whether each frame looks like the one that many frames before, and
// not like the one next to it: they are parts of larger ones. Of frames that a
// command writes several at once, neighbours are the most alike.
func (l *looks) repeat(period int) bool {
	if period < 2 || period > mostAtOnce || l.n < 3*period {
		return false
	}
	far, near := 0, 0
	for i := period; i < l.n; i++ {
		far += difference(l.last[i][:], l.last[i-period][:])
		near += difference(l.last[i][:], l.last[i-1][:])
	}
	return apart(near, far, (l.n-period)*points)
}

// partsAlike reports whether the parts of that many bytes look alike, though there is
// something to be seen in each: they are frames of their own.
func partsAlike(frame []byte, bytes int) bool {
	parts, within, across, n := len(frame)/bytes, 0, 0, 0
	for part := range parts - 1 {
		b := frame[part*bytes:]
		for i := range points {
			at := i * (bytes / 2) / points
			across += difference(b[at:at+1], b[at+bytes:at+bytes+1])
			within += difference(b[at:at+1], b[at+bytes/2:at+bytes/2+1])
			n++
		}
	}
	return parts > 1 && apart(within, across, n)
}

func difference(a, b []byte) (sum int) {
	for i := range a {
		sum += max(int(a[i])-int(b[i]), int(b[i])-int(a[i]))
	}
	return sum
}

// apart reports whether sums of n differences are so far apart that noise is no
// reason.
func apart(large, small, n int) bool { return large > 4*small+8*n }

// layout is what a command may write: how many bytes a frame has, and what to do
// about it.
type layout struct {
	bytes int64
	hint  string
}

// likely are the layouts that are known to be taken for frames of that format and
// size, the likeliest first.
func likely(f pixel.Format, s pixel.Size) (list []layout) {
	add := func(bytes int, hint string, args ...any) {
		list = append(list, layout{int64(bytes), fmt.Sprintf(hint, args...)})
	}
	planes, n, err := pixel.Layout(f, s)
	if err != nil || len(planes) == 0 {
		return nil
	}
	add(n, "that is without padding: remove stride")
	row := planes[0].Stride
	for _, to := range []int{64, 32, 128, 16, 256, 512, 8, 4} {
		stride := alignUp(row, to)
		if _, n, err := padded(f, s, stride); err == nil && stride > row {
			add(n, "rows padded to %d bytes: set stride = %d", stride, stride)
		}
		for _, height := range []int{alignUp(s.Height, 16), alignUp(s.Height, 8)} {
			taller := pixel.Size{Width: s.Width, Height: height}
			if _, n, err := padded(f, taller, stride); err == nil && height > s.Height {
				add(n, `that is %d rows of %d bytes: set size = "%s" and stride = %d`, height, stride, taller, stride)
			}
		}
	}
	if gst := gstreamerBytes(f, s); gst != n {
		add(gst, "rows padded as GStreamer does it: ask it for a width that is a multiple of 8")
	}
	for _, other := range pixel.Formats() {
		if _, n, err := pixel.Layout(other, s); err == nil && other != f && other != pixel.MJPEG {
			add(n, `that is %s: set format = "%s"`, other, other)
		}
	}
	pixels := s.Width * s.Height
	add(4*pixels, "that is 4 bytes a pixel (RGBA or BGRA): have the command write %s", f)
	add(pixels, "that is grey, a byte a pixel: have the command write %s", f)
	for _, other := range []pixel.Size{{Width: s.Width / 2, Height: s.Height / 2}, {Width: s.Width / 4, Height: s.Height / 4}, {Width: 2 * s.Width, Height: 2 * s.Height}} {
		if _, n, err := pixel.Layout(f, other); err == nil {
			add(n, `that is %s: set size = "%s"`, other, other)
		}
	}
	for _, text := range strings.Fields(commonSizes) {
		size, err := pixel.ParseSize(text)
		if err != nil || size == s {
			continue
		}
		if _, n, err := pixel.Layout(f, size); err == nil {
			add(n, `that is %s: set size = "%s"`, size, size)
		}
	}
	return list
}

// commonSizes are sizes that cameras offer.
const commonSizes = `160x120 176x144 320x180 320x240 352x288 424x240 480x270 480x360 640x360 640x400 640x480 720x480
	720x576 768x432 800x448 800x600 848x480 854x480 864x480 960x540 960x720 1024x576 1024x768 1152x648 1280x720 1280x800
	1280x960 1280x1024 1296x972 1332x990 1440x1080 1456x1088 1536x864 1600x896 1600x1200 1640x922 1640x1232 1920x1080
	1920x1088 1920x1200 2028x1080 2028x1520 2048x1536 2304x1296 2560x1440 2592x1944 3280x2464 3840x2160 4056x3040 4608x2592`

// gstreamerBytes is the length of a frame as GStreamer lays it out (video-info.c:
// rows of each plane in multiples of 4 bytes).
func gstreamerBytes(f pixel.Format, s pixel.Size) int {
	w, h := s.Width, alignUp(s.Height, 2)
	switch f {
	case pixel.YUV420:
		return alignUp(w, 4)*h + 2*alignUp((w+1)/2, 4)*(h/2)
	case pixel.NV12:
		return alignUp(w, 4) * h * 3 / 2
	case pixel.YUYV:
		return alignUp(2*w, 4) * s.Height
	}
	return alignUp(3*w, 4) * s.Height
}

// sniff recognises first bytes of a run that are certainly no pixels, and returns
// what they are.
func sniff(b []byte) (what string) {
	for _, known := range []struct{ starts, what string }{
		{"YUV4MPEG2 ", "a Y4M stream: have the command write raw video (ffmpeg: -f rawvideo)"},
		{"\xff\xd8\xff\xe0", `JPEG pictures: set format = "mjpeg"`},
		{"\xff\xd8\xff\xe1", `JPEG pictures: set format = "mjpeg"`},
		{"\xff\xd8\xff\xdb", `JPEG pictures: set format = "mjpeg"`},
		{"\x00\x00\x00\x01\x67", "H.264: have the command write raw video (rpicam-vid: --codec yuv420)"},
		{"\x00\x00\x00\x01\x27", "H.264: have the command write raw video (rpicam-vid: --codec yuv420)"},
		{"\x00\x00\x00\x01\x40\x01", "H.265: have the command write raw video"},
		{"\x1aE\xdf\xa3", "a Matroska file: have the command write raw video (ffmpeg: -f rawvideo)"},
		{"\x89PNG\r\n", "PNG pictures: have the command write raw video"},
	} {
		if bytes.HasPrefix(b, []byte(known.starts)) {
			return "the command writes " + known.what
		}
	}
	line, _, ended := bytes.Cut(b, []byte("\n"))
	if text, ok := words(append(bytes.Clone(line), '\n')); ended && ok && len(line) >= 4 {
		return fmt.Sprintf("the command writes text before its first frame: %.200q; it belongs on standard error", strings.TrimSpace(text))
	}
	return ""
}
