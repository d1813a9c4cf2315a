package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// video plays a file. ffmpeg decodes ahead, as far as the pipe has room; each
// frame is published when it is due by its timestamp in the file, and the frame
// carries that time, however long the decoder took for it.
type video struct {
	w       *worker.Worker
	command ffmpeg.Command
	rounds  []string // the arguments that also decode all later rounds of a loop, where ffmpeg can
	frames  settled
	size    pixel.Size // of the file's pictures, as ffprobe reports it
	stall   time.Duration
	loop    bool
	stillHz float64       // how often a single picture is shown, with loop
	between time.Duration // from a round's last frame to the next one's first
	times   timeline

	process *ffmpeg.Process
	from    *pipeReader
	reader  *ffmpeg.FrameReader
	padded  chan pixel.Size // pictures of another shape, to be logged
	logged  []pixel.Size    // those that were
	damaged bool            // ffmpeg complained, and it was logged
	slow    bool            // a frame was late, and it was logged
	over    error           // it cut a picture short; final
	shown   int             // pictures of this round
	single  []byte          // the only picture of a file, to be shown again
	first   []byte          // with loop, a copy of the round's first picture: it may be the only one
}

const (
	stillHz  = 1.0
	usualHz  = 25.0              // of files without a rate
	maxPause = time.Hour         // a longer one is no pause but a fault of the file
	maxBack  = time.Second / 2   // timestamps that go back by more begin a new count
	minStep  = time.Second / 1e3 // between two frames: maxHz
)

// openFile settles a file's frames by what Validate found out about it.
func openFile(w *worker.Worker, cfg Config) (input, settled, error) {
	if cfg.unprobed != nil {
		return nil, settled{}, worker.Temporary(cfg.unprobed)
	}
	_, s := cfg.stream()
	hz := cfg.video.Hz
	again := stillHz
	if s.CaptureHz > 0 {
		again = s.CaptureHz
		if hz == 0 || s.CaptureHz < hz {
			hz = s.CaptureHz
		}
	}
	if cfg.video.Still && cfg.Loop {
		hz = again
	}
	frames, err := settle(s.Format, cfg.size(s), hz, cfg.Input.String())
	if err != nil {
		return nil, settled{}, err
	}
	s.Colour = colourOf(cfg.video, s.Colour)
	frames.setColour(frameColour(s.Format, s.Colour))
	if warning, _ := cfg.Check(context.Background()); warning != nil {
		w.Log.Warn("distorted pictures", "why", warning)
	}
	in := ffmpeg.File(cfg.Input.Rest)
	nominal := nominalStep(cfg.video.Hz)
	between := nominal
	if s.CaptureHz > 0 {
		between = max(nominal, nominalStep(s.CaptureHz))
	}
	out := fileOutput(s, cfg.size(s), slices.Concat(sameShape(cfg.video), cfg.filters()), nominal)
	v := &video{w: w, size: cfg.video.Size, command: ffmpeg.FFmpeg(in, out...), frames: frames, stall: cfg.patience(frames.Hz), loop: cfg.Loop, stillHz: again,
		between: between, times: timeline{nominal: nominal}, padded: make(chan pixel.Size, mostPadded)}
	v.command.Stdout, v.command.Notice = true, v.notice
	if cfg.Loop && cfg.video.Rewinds {
		v.rounds = ffmpeg.FFmpeg(in.With("-stream_loop", "-1"), out...).Argv
	}
	return v, frames, nil
}

// Check warns of a size that distorts a file's pictures.
func (c *Config) Check(context.Context) (warning, err error) {
	name, s := c.stream()
	own := c.turn(c.video.Size)
	if c.Input.Scheme != File || s.Size == (pixel.Size{}) || alike(s.Size, own.Width, own.Height) {
		return nil, nil
	}
	return topology.Bad("stream."+name+".size", "the file's pictures are %s, and this distorts them: give a size of the same shape, or none", own), nil
}

func nominalStep(hz float64) time.Duration {
	if hz == 0 {
		hz = usualHz
	}
	return time.Duration(float64(time.Second) / min(hz, maxHz))
}

// fileOutput is how ffmpeg writes a file's frames: with timestamps that only
// increase, those that capture_hz chooses, changed by the given filters and
// scaled.
func fileOutput(s StreamConfig, size pixel.Size, change []string, nominal time.Duration) []string {
	filters := []string{"settb=1/1000000", steadyClock(nominal)}
	if s.CaptureHz > 0 {
		filters = append(filters, thinOut(s.CaptureHz))
	}
	filters = slices.Concat(filters, change, scaled(s, size))
	args := []string{"-map", "0:V:0", "-vf", strings.Join(filters, ",")}
	return slices.Concat(args, encoding(s.Format), ffmpeg.Timestamped())
}

// steadyClock is a filter that repairs timestamps, which count microseconds: of
// a file that was damaged, cut or put together from several. Where one is
// missing, jumps back by more than maxBack or ahead by more than maxPause, its
// frame follows the last one after the nominal step, and the count goes on from
// there. A small step back is only kept from being one.
func steadyClock(nominal time.Duration) string {
	us := func(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
	next := "PREV_OUTPTS+" + us(nominal)
	return "setpts='st(1,PTS+ld(0)-PREV_OUTPTS);if(isnan(PREV_OUTPTS),if(isnan(PTS),0,PTS),if(isnan(PTS)," + next +
		",if(gte(ld(1),-" + us(maxBack) + ")*lte(ld(1)," + us(maxPause) + "),max(PTS+ld(0),PREV_OUTPTS+" + us(minStep) + "),PTS+st(0," + next + "-PTS))))'"
}

// sameShape is a filter that keeps pictures from being distorted where a file
// changes their size: those of another shape than v.Size get black bars.
// It prints their size to standard error: see video.notice. Half a pixel of
// chroma cannot be padded, so odd sizes are left alone.
func sameShape(v ffmpeg.Video) []string {
	if v.Still || v.Size.Width%2 != 0 || v.Size.Height%2 != 0 {
		return nil
	}
	// How wide a picture is for its height, compared with v.Size. The limits are
	// those of alike, and those of ffmpeg.Video for pixels that are not square.
	wide := fmt.Sprintf("(iw*if(between(sar,0.25,4),sar,1)*%d/(ih*%d))", v.Size.Height, v.Size.Width)
	printed := fmt.Sprintf("0*print(iw*%d+ih,16)", printedWidth) // 16 is AV_LOG_ERROR
	return []string{fmt.Sprintf("pad=w='iw/if(lt(%[1]s,0.98),%[1]s,1)':h='ih*if(gt(%[1]s,1.02),%[1]s,1)+if(between(%[1]s,0.98,1.02),0,%[2]s)':x='(ow-iw)/2':y='(oh-ih)/2'", wide, printed)}
}

const (
	printedWidth = 1 << 16
	mostPadded   = 16 // sizes that are logged
)

// notice reads what sameShape printed, and ffmpeg's note that it did so again. It
// is called on the goroutine that reads ffmpeg's standard error.
func (v *video) notice(line string) bool {
	if strings.HasPrefix(line, "Last message repeated ") {
		return true
	}
	number, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
	if err != nil || !strings.HasSuffix(line, ".000000") || number < printedWidth {
		return false
	}
	select {
	case v.padded <- pixel.Size{Width: int(number) / printedWidth, Height: int(number) % printedWidth}:
	default: // enough of them wait to be logged
	}
	return true
}

// logPadded logs each size of pictures that were padded, once.
func (v *video) logPadded() {
	for {
		select {
		case size := <-v.padded:
			if len(v.logged) == mostPadded || slices.Contains(v.logged, size) {
				continue
			}
			v.logged = append(v.logged, size)
			v.w.Log.Warn("the file changes the shape of its pictures: these get black bars; split the file to have them in their own size",
				"file", v.frames.from, "size", v.size.String(), "changed_to", size.String())
		default:
			return
		}
	}
}

// thinOut is a filter that chooses frames as pacer does, so that none has to be
// scaled and sent through the pipe to be thrown away.
func thinOut(hz float64) string {
	rate := strconv.FormatFloat(hz, 'f', -1, 64)
	return "select='st(1,if(isnan(prev_t),1,max(t-prev_t,0)*" + rate + "));st(0,min(ld(0)+ld(1)," + strconv.Itoa(mostSaved) + "));" +
		"st(2,gte(ld(0)+if(isnan(prev_t),0,ld(1)/2),0.999999));st(0,ld(0)-ld(2));ld(2)'"
}

func (v *video) start(ctx context.Context) error {
	process, err := ffmpeg.Start(ctx, v.command)
	if err != nil {
		return err
	}
	v.process, v.shown, v.over = process, 0, nil
	v.from = &pipeReader{source: source{pipe: process.Stdout, patience: v.stall, slack: firstPicture, now: v.w.Now, alive: v.w.Progress}}
	v.reader = ffmpeg.NewFrameReader(v.from)
	return nil
}

// pipeReader reads a source for as long as the context of the present call lasts.
type pipeReader struct {
	source
	ctx context.Context
}

func (p *pipeReader) Read(dst []byte) (int, error) { return p.read(p.ctx, dst) }

// fill reads a picture, of which prefix was read already.
func (p *pipeReader) fill(slot, prefix []byte) (n int, err error) {
	for n = copy(slot, prefix); n < len(slot); {
		more, err := p.Read(slot[n:])
		if err != nil {
			return n, err
		}
		n += more
	}
	return n, nil
}

func (v *video) next(ctx context.Context, _ msg.Seq, slot []byte) (shot, error) {
	for {
		if v.single != nil {
			return v.again(ctx, slot)
		}
		got, err := v.decoded(ctx, slot)
		if err == nil {
			return got, nil
		}
		if err = v.ended(ctx, err); err != nil {
			return shot{}, err
		}
	}
}

// decoded reads the next picture when it is due.
func (v *video) decoded(ctx context.Context, slot []byte) (shot, error) {
	if v.over != nil {
		return shot{}, v.over
	}
	v.logPadded()
	v.from.ctx = ctx
	frame, err := v.reader.Next()
	if err != nil {
		return shot{}, err
	}
	if jpeg := v.frames.Format == string(pixel.MJPEG); frame.Bytes > v.frames.slotBytes || (!jpeg && frame.Bytes < v.frames.slotBytes) {
		return shot{}, fmt.Errorf("a frame of %d bytes; want %d", frame.Bytes, v.frames.slotBytes)
	}
	if err := v.wait(ctx, v.times.due(frame.PTS)); err != nil {
		return shot{}, err
	}
	if n, err := v.from.fill(slot[:frame.Bytes], frame.Prefix); err != nil {
		v.over = err
		return shot{corrupt: fmt.Errorf("cut short: %d of %d bytes", n, frame.Bytes)}, nil
	}
	if v.shown++; v.loop && v.shown == 1 {
		v.first = append(v.first[:0], slot[:frame.Bytes]...)
	}
	if late := time.Since(v.times.last); late > mostLate && v.shown > 1 && !v.slow { // the first one waited for ffmpeg to start
		v.slow = true
		v.w.Log.Warn("the file is decoded more slowly than it should be shown: its frames get later times; a smaller capture_hz or size, or a file of less resolution, helps",
			"file", v.frames.from, "late", late)
	}
	return shot{bytes: frame.Bytes, stamp: v.times.stamp(v.w.Now)}, nil
}

// wait waits for the next frame, and sets the status during a long pause.
func (v *video) wait(ctx context.Context, due time.Time) error {
	pause := time.Until(due)
	if pause > v.stall {
		v.w.Status("a pause of %v in %s", pause.Round(time.Second), v.frames.from)
		defer v.w.Status("%s", v.frames)
	}
	return v.w.Wait(ctx, due)
}

// again shows a single picture once more.
func (v *video) again(ctx context.Context, slot []byte) (shot, error) {
	if err := v.w.Wait(ctx, v.times.after(time.Duration(float64(time.Second)/v.stillHz))); err != nil {
		return shot{}, err
	}
	return shot{bytes: copy(slot, v.single), stamp: v.times.stamp(v.w.Now)}, nil
}

// ended handles the end of the pictures, and begins the next round of a loop. A
// round has at least two pictures, which are shown at their times; with fewer this
// could spin. So could an ffmpeg that loops by itself, which it therefore does
// only from the second round on.
func (v *video) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	process := v.process
	v.process = nil
	if errors.Is(err, io.EOF) {
		err = process.Wait(endPatience)
	} else {
		process.Stop()
		err = &ffmpeg.ExitError{Program: v.command.Argv[0], Err: err, Words: process.Words()}
	}
	v.logPadded()
	words := strings.Join(process.Words(), " | ")
	switch {
	case err != nil:
		return fmt.Errorf("decode %s: %w", v.frames.from, err)
	case v.shown == 0:
		return fmt.Errorf("decode %s: not one frame in it could be decoded: ffmpeg's last words: %q", v.frames.from, words)
	}
	if words != "" && !v.damaged {
		v.damaged = true
		v.w.Log.Warn("the file is damaged: frames may be missing or have faults", "file", v.frames.from, "ffmpeg", words)
	}
	switch {
	case !v.loop:
		return io.EOF
	case v.shown == 1:
		v.single = v.first
		return nil
	}
	if v.rounds != nil {
		v.command.Argv = v.rounds
	}
	v.times.restart(v.between)
	return v.start(ctx)
}

func (v *video) close() error {
	if v.process != nil {
		v.process.Stop()
	}
	return nil
}

// timeline turns the timestamps of a file into moments: they are counted from
// when the first frame came.
type timeline struct {
	nominal time.Duration // from one frame to the next without usable timestamps
	pts     time.Duration // of the last frame
	last    time.Time     // when it was due; zero before the first
	next    time.Duration // to the next frame, whatever its timestamp; 0 is by that
}

// mostLate is how late a frame may be; then the times begin anew with it.
const mostLate = time.Second

// due is when the frame with that timestamp is to be shown.
func (t *timeline) due(pts time.Duration) time.Time {
	step := pts - t.pts
	// Below 0.1 ms is what ffmpeg makes of a timestamp that is no greater than
	// the last: the container has none of those.
	switch {
	case t.next > 0:
		step = t.next
	case step < minStep/10 || step > maxPause:
		step = t.nominal
	}
	t.pts, t.next = pts, 0
	return t.after(step)
}

// after is when a frame is to be shown that has no timestamp.
func (t *timeline) after(step time.Duration) time.Time {
	if t.last.IsZero() {
		t.last = time.Now()
	} else {
		t.last = t.last.Add(step)
	}
	return t.last
}

// restart begins a new count of timestamps, whose first one is due after step.
func (t *timeline) restart(step time.Duration) { t.next = step }

// stamp is the moment of the frame that was due, and has come now. The two clocks
// are read again where the scheduler came between them: its pause would be an
// error of the stamp.
func (t *timeline) stamp(clock func() msg.Stamp) msg.Stamp {
	var now msg.Stamp
	var late time.Duration
	for range 5 {
		begun := time.Now()
		now, late = clock(), begun.Sub(t.last)
		if time.Since(begun) < 100*time.Microsecond {
			break
		}
	}
	if late > mostLate {
		t.last, late = t.last.Add(late), 0
	}
	return at(now, late)
}

// checkFile asks ffprobe what a file is.
func (c *Config) checkFile() error {
	path := c.Input.Rest
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		whole, _ := filepath.Abs(path) // for people
		return topology.Bad("input", "there is no file %s", whole)
	}
	if err != nil {
		return topology.Bad("input", "%v", err)
	}
	if !info.Mode().IsRegular() {
		return topology.Bad("input", "%s is no regular file: %v", path, info.Mode())
	}
	if info.Size() == 0 {
		return topology.Bad("input", "%s is empty", path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probePatience)
	defer cancel()
	c.video, err = ffmpeg.Probe(ctx, ffmpeg.File(path))
	if errors.Is(err, context.DeadlineExceeded) { // says nothing about the file: the machine is busy
		c.unprobed = err
		return nil
	}
	if err != nil {
		return topology.Bad("input", "%v%s", err, fileHint(path, err))
	}
	return nil
}

// fileHint is what can be done about a file that ffmpeg cannot read.
func fileHint(path string, err error) string {
	var head [16]byte
	if f, err := os.Open(path); err == nil { // a hint less where it cannot be read
		_, _ = io.ReadFull(f, head[:])
		_ = f.Close()
	}
	switch said := err.Error(); {
	case string(head[4:8]) == "ftyp" && slices.Contains([]string{"heic", "heix", "mif1", "msf1", "hevc"}, string(head[8:12])):
		return "; this ffmpeg reads no HEIC: convert the picture to JPEG or PNG"
	case strings.Contains(said, "moov atom not found"):
		return "; the file is not whole: an MP4 can be read once its recorder has closed it. Wait until then, copy it again, or record fragmented MP4, MKV or TS"
	case string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP":
		return "; ffmpeg reads no animated WebP: convert it to MP4 or GIF"
	}
	return ""
}
