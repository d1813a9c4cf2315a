package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/internal/rtspcam"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// networkCamera is a network camera: rtspcam receives, ffmpeg decodes.
//
//	rtspcam.Session --feed--> ffmpeg's stdin (IVF)   ffmpeg's stdout (NUT) --next--> slot
//	       └─ time of capture -----------timestamp, in and out-----------------> shot.stamp
//
// JPEG pictures of a camera whose stream is to be mjpeg are not decoded.
type networkCamera struct {
	w      *worker.Worker
	cfg    Config
	dial   rtspcam.Config
	stream StreamConfig
	frames settled
	shape  rtspcam.Shape // what the frames were made for

	session *rtspcam.Session
	process *ffmpeg.Process // nil where nothing is decoded
	reader  *ffmpeg.FrameReader
	stdout  io.Reader
	cancel  context.CancelFunc // ends what start began
	fed     chan error         // why feed ended
	passing passage
	last    pace
}

// waitsForKey is how long a camera may send without a key frame before that is
// reported.
const waitsForKey = 10 * time.Second

// keyFrame is trouble of its own: see worker.TroubleWith.
const keyFrame = "key frame"

// openRTSP connects to the camera, again and again until it sends, since its
// stream says what the frames are. The session is kept for start.
func openRTSP(ctx context.Context, w *worker.Worker, cfg Config) (input, settled, error) {
	name, s := cfg.stream()
	address, err := rtspcam.ParseAddress(cfg.Input.Rest)
	if err != nil {
		return nil, settled{}, err
	}
	n := &networkCamera{w: w, cfg: cfg, stream: s}
	n.dial = rtspcam.Config{Address: address, UDP: cfg.Transport == transportUDP, AllowBasic: cfg.AllowBasic, CAFile: cfg.CAFile, Timeout: rtspTimeout,
		StallAfter: cfg.patience(s.CaptureHz), Now: w.Now,
		Warn: func(kind, text string) { w.Log.Warn(text, "camera", address.String(), "kind", kind) }}
	if n.shape, err = n.connectUntilAnswered(ctx); err != nil {
		return nil, settled{}, err
	}
	hz, size := s.CaptureHz, s.Size
	if hz == 0 || n.shape.Hz > 0 && n.shape.Hz < hz {
		hz = n.shape.Hz
	}
	if size == (pixel.Size{}) {
		size = cfg.turn(n.shape.Size)
	}
	n.frames, err = settle(s.Format, size, hz, address.String())
	if err != nil {
		n.session.Close()
		return nil, settled{}, topology.Problems{w.Entry().Table.Problem("stream."+name+".size", "not set, and the camera's own will not do: %v", err)}
	}
	n.stream.Colour = colourOf(ffmpeg.Video{Size: n.shape.Size, Colour: n.shape.Colour}, s.Colour) // by the camera's own size
	n.frames.setColour(frameColour(s.Format, n.stream.Colour))
	return n, n.frames, nil
}

// connectUntilAnswered waits for the camera's first picture.
func (n *networkCamera) connectUntilAnswered(ctx context.Context) (rtspcam.Shape, error) {
	retry := newRetry()
	for {
		n.w.Status("connecting to %s", n.dial.Address)
		shape, err := n.connect(ctx)
		if err == nil {
			err = n.fits(shape)
		}
		if err == nil {
			n.w.Trouble(nil)
			return shape, nil
		}
		n.disconnect()
		if ctx.Err() != nil {
			return rtspcam.Shape{}, ctx.Err()
		}
		n.w.Trouble(fmt.Errorf("%w; asking again", err))
		if err := n.w.Wait(ctx, time.Now().Add(pauseAfter(err, retry.Failed(0)))); err != nil {
			return rtspcam.Shape{}, err
		}
	}
}

// pauseAfter is longer where a camera may lock out who asks too often.
func pauseAfter(err error, pause time.Duration) time.Duration {
	if rtspcam.Refused(err) {
		return max(pause, 30*time.Second)
	}
	return pause
}

// connect lets the camera send and waits for its first picture.
func (n *networkCamera) connect(ctx context.Context) (rtspcam.Shape, error) {
	opened := make(chan error, 1)
	go func() {
		session, err := rtspcam.Open(ctx, n.dial)
		n.session = session
		opened <- err
	}()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		select {
		case err := <-opened:
			if err != nil {
				return rtspcam.Shape{}, err
			}
			return n.session.Begin(ctx, n.alive)
		case <-tick.C:
			n.w.Progress()
		}
	}
}

// alive is called while the camera sends nothing that can be decoded.
func (n *networkCamera) alive() {
	n.w.Progress()
	if n.session.KeyFrameAfter() >= waitsForKey { // always the same text: each change would be logged
		n.w.TroubleWith(keyFrame, fmt.Errorf("%s: has sent no key frame for more than %v, and nothing can be decoded before one: set a shorter key frame interval (GOP) in the camera",
			n.dial.Address, waitsForKey))
	}
}

func (n *networkCamera) disconnect() {
	if n.session != nil {
		n.session.Close()
		n.session = nil
	}
}

// fits fails for pictures that would be distorted as frames.
func (n *networkCamera) fits(shape rtspcam.Shape) error {
	own, size := n.cfg.turn(shape.Size), n.stream.Size
	if own == (pixel.Size{}) {
		if size == own {
			return fmt.Errorf("%s: %s does not declare the size of its pictures: set size", n.dial.Address, n.session.Name())
		}
		return nil
	}
	if size == (pixel.Size{}) || alike(size, own.Width, own.Height) {
		return nil
	}
	if p := shape.Pixel; p[0] > 0 && p[1] > 0 {
		if own != shape.Size { // turned
			p[0], p[1] = p[1], p[0]
		}
		if alike(size, own.Width*p[0], own.Height*p[1]) {
			return nil
		}
	}
	return fmt.Errorf("%s: its pictures are %s, and size = %q would distort them: set size to one of the same shape, as %s, or remove it", n.dial.Address, own, size, own)
}

// alike reports whether a picture of one size shows what one of another size does
// when it is scaled, but for what rounding to even numbers makes of it.
func alike(size pixel.Size, width, height int) bool {
	a, b := float64(size.Width)*float64(height), float64(size.Height)*float64(width)
	return math.Abs(a-b) <= 0.02*max(a, b)
}

// start uses the session of open, or connects again.
func (n *networkCamera) start(ctx context.Context) error {
	if n.session == nil {
		shape, err := n.connect(ctx)
		if err == nil {
			err = n.changed(shape)
		}
		if err != nil {
			n.disconnect()
			return n.broken(ctx, err)
		}
	}
	ctx, n.cancel = context.WithCancel(ctx)
	n.passing.reset(n.stream.CaptureHz)
	n.last = pace{}
	if n.verbatim() {
		return nil
	}
	command := ffmpeg.FFmpeg(ffmpeg.Units(n.session.FourCC()), n.output()...)
	command.Stdin, command.Stdout, command.Grace = true, true, 200*time.Millisecond
	process, err := ffmpeg.Start(ctx, command)
	if err != nil {
		return err
	}
	n.process, n.stdout, n.fed = process, n.patient(ctx, process.Stdout), make(chan error, 1)
	n.reader = ffmpeg.NewFrameReader(n.stdout)
	go func(session *rtspcam.Session, stdin *os.File) {
		err := n.feed(ctx, session, stdin)
		_ = stdin.Close() // so that ffmpeg lets go of what it has
		n.fed <- err
	}(n.session, process.Stdin)
	return nil
}

// verbatim reports whether the camera's JPEG pictures are published unchanged.
func (n *networkCamera) verbatim() bool {
	return n.stream.Format == pixel.MJPEG && n.session.FourCC() == rtspcam.JPEG && len(n.cfg.filters()) == 0 && n.frames.size() == n.shape.Size
}

// errChanged marks changes that need another ring.
var errChanged = errors.New("changed")

// changed fails for pictures that the ring was not made for and that ffmpeg cannot
// scale to it.
func (n *networkCamera) changed(shape rtspcam.Shape) error {
	switch {
	case shape.Colour != n.shape.Colour:
		return fmt.Errorf("%s %w the colours of its pictures from %q to %q: starting anew with them", n.dial.Address, errChanged, n.shape.Colour, shape.Colour)
	case shape.Size == n.shape.Size:
		return nil
	case n.stream.Size == (pixel.Size{}):
		return fmt.Errorf("%s %w the size of its pictures from %s to %s: starting anew with it", n.dial.Address, errChanged, n.shape.Size, shape.Size)
	}
	return n.fits(shape)
}

// broken marks an error after which start may be tried again.
func (n *networkCamera) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errChanged) {
		return worker.Temporary(err)
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

// output is how ffmpeg writes the frames.
func (n *networkCamera) output() []string {
	size := n.frames.size()
	filters := n.cfg.filters()
	if n.stream.CaptureHz > 0 {
		filters = slices.Insert(filters, 0, "select='mod(pts,2)'") // see passage
	}
	filters = append(filters, scaled(n.stream, size)...)
	args := []string{"-map", "0:v:0", "-threads", "1", "-vf", strings.Join(filters, ",")} // an encoder with threads holds pictures back, even that of rawvideo
	args = append(args, encoding(n.stream.Format)...)
	return append(args, ffmpeg.Timestamped()...)
}

// feed passes the camera's units to ffmpeg, until one of them ends.
func (n *networkCamera) feed(ctx context.Context, session *rtspcam.Session, stdin *os.File) error {
	container := ffmpeg.IVF{FourCC: session.FourCC(), Width: n.shape.Size.Width, Height: n.shape.Size.Height}
	var head []byte
	scaled := n.shape.Size
	for {
		unit, err := session.Next(ctx, func() {})
		if err != nil {
			return err
		}
		if err := n.changed(unit.Shape); err != nil {
			return err
		}
		if unit.Shape.Size != scaled {
			scaled = unit.Shape.Size
			n.w.Log.Warn("the camera changed the size of its pictures", "camera_size", scaled.String(), "size", n.frames.size().String())
		}
		head = container.Append(head[:0], len(unit.Data), n.passing.in(unit, n.w.Now().Boot))
		for _, part := range [][]byte{head, unit.Data} {
			if err := write(ctx, stdin, part); err != nil {
				return err
			}
		}
	}
}

// write waits until all of b is in the pipe, or ctx is done.
func write(ctx context.Context, pipe *os.File, b []byte) error {
	for len(b) > 0 {
		if err := pipe.SetWriteDeadline(time.Now().Add(step)); err != nil {
			return err
		}
		k, err := pipe.Write(b)
		b = b[k:]
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("feed ffmpeg: %w", err)
		}
	}
	return nil
}

// pace spreads out pictures that come at once, those of the past when a session
// begins and those that waited for ffmpeg to start: no more than 1.25 times as fast
// as they were captured, so that readers can follow and no ring is overrun.
type pace struct {
	captured time.Duration
	at       time.Time
}

const mostPause = time.Second

func (p *pace) wait(ctx context.Context, w *worker.Worker, captured time.Duration) error {
	if due := p.at.Add(min((captured-p.captured)*4/5, mostPause)); !p.at.IsZero() && time.Now().Before(due) {
		if err := w.Wait(ctx, due); err != nil {
			return err
		}
	}
	p.captured, p.at = captured, time.Now()
	return nil
}

// patient reads ffmpeg's output, shows that it is alive meanwhile, and has
// patience with ffmpeg as long as the camera sends nothing.
func (n *networkCamera) patient(ctx context.Context, pipe *os.File) io.Reader {
	return readerFunc(func(b []byte) (int, error) {
		for {
			if err := pipe.SetReadDeadline(time.Now().Add(step)); err != nil {
				return 0, fmt.Errorf("read pipe: %w", err)
			}
			k, err := pipe.Read(b)
			switch {
			case k > 0:
				return k, nil
			case ctx.Err() != nil:
				return 0, ctx.Err()
			case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
				return 0, err
			}
			n.alive()
			if d := n.passing.waiting(n.w.Now().Boot); d > n.dial.StallAfter+firstPicture {
				return 0, fmt.Errorf("%w: ffmpeg has made no picture for %v of what the camera sends", errSilent, d.Round(time.Second))
			}
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func (n *networkCamera) next(ctx context.Context, _ msg.Seq, slot []byte) (shot, error) {
	if n.process == nil {
		return n.pass(ctx, slot)
	}
	frame, err := n.reader.Next()
	if err != nil {
		return shot{}, n.ended(ctx, err)
	}
	if frame.Bytes > len(slot) || n.stream.Format != pixel.MJPEG && frame.Bytes != n.frames.slotBytes {
		return shot{}, n.ended(ctx, fmt.Errorf("a frame of %d bytes from ffmpeg: want %d", frame.Bytes, n.frames.slotBytes))
	}
	k := copy(slot[:frame.Bytes], frame.Prefix)
	if _, err := io.ReadFull(n.stdout, slot[k:frame.Bytes]); err != nil {
		return shot{}, n.ended(ctx, err)
	}
	if err := n.last.wait(ctx, n.w, frame.PTS); err != nil {
		return shot{}, err
	}
	got := n.passing.out(frame.PTS)
	got.bytes = frame.Bytes
	got.stamp = n.stampOf(frame.PTS)
	n.w.TroubleWith(keyFrame, nil)
	return got, nil
}

// pass takes a picture that is a frame already.
func (n *networkCamera) pass(ctx context.Context, slot []byte) (shot, error) {
	for {
		unit, err := n.session.Next(ctx, n.alive)
		if err == nil {
			err = n.changed(unit.Shape)
		}
		if err != nil {
			return shot{}, n.ended(ctx, err)
		}
		pts := n.passing.in(unit, n.w.Now().Boot)
		if pts%wantedMark == 0 {
			continue
		}
		if err := n.last.wait(ctx, n.w, unit.Captured); err != nil {
			return shot{}, err
		}
		got := n.passing.out(pts)
		got.stamp = n.stampOf(unit.Captured)
		if len(unit.Data) > len(slot) {
			got.corrupt = fmt.Errorf("a picture of %d bytes: there are %d for one", len(unit.Data), len(slot))
			return got, nil
		}
		got.bytes = copy(slot, unit.Data)
		n.w.TroubleWith(keyFrame, nil)
		return got, nil
	}
}

// stampOf is the stamp of a moment of boot time that has passed.
func (n *networkCamera) stampOf(boot time.Duration) msg.Stamp {
	now := n.w.Now()
	return at(now, now.Boot-boot)
}

// ended stops what start began, and returns why.
func (n *networkCamera) ended(ctx context.Context, err error) error {
	why := n.stop(errors.Is(err, io.EOF))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if why == nil || errors.Is(why, context.Canceled) {
		why = err
	}
	n.passing.end()
	return n.broken(ctx, why)
}

// stop ends ffmpeg and the session. The error is what ended the session or
// ffmpeg by itself.
func (n *networkCamera) stop(finished bool) (err error) {
	if n.process != nil {
		if !finished {
			n.cancel()
		}
		exit := error(nil)
		if finished {
			exit = n.process.Wait(endPatience)
		}
		n.cancel()
		err = <-n.fed
		n.process.Stop()
		switch byItself := finished && (errors.Is(err, context.Canceled) || errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EPIPE)); {
		case byItself && exit == nil:
			err = &ffmpeg.ExitError{Program: "ffmpeg", Err: errors.New("exit status 0, and no more pictures"), Words: n.process.Words()}
		case byItself:
			err = exit
		}
		n.process = nil
	} else if n.cancel != nil {
		n.cancel()
	}
	n.disconnect()
	return err
}

func (n *networkCamera) close() error {
	_ = n.stop(false) // it was asked to end
	return nil
}

// passage accounts for the pictures that are on their way through ffmpeg, and
// chooses those that capture_hz wants. All are decoded, as others refer to them;
// the timestamps of those that are wanted are odd numbers of microseconds, so
// that ffmpeg can discard the others itself.
type passage struct {
	hz float64 // capture_hz

	mu        sync.Mutex
	inside    []inside // in the order in which they are shown
	pace      pacer
	latest    time.Duration
	reordered bool    // the stream has pictures that are shown before one that came earlier
	slots     []int64 // of 1/hz seconds, that have their picture
	lost      int     // to be reported with the next picture
}

type inside struct {
	pts    time.Duration
	since  time.Duration
	missed int
	wanted bool
	hidden bool
}

const wantedMark = 2 * time.Microsecond // of which a wanted picture's timestamp has half

func (p *passage) reset(hz float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hz, p.inside, p.reordered, p.latest = hz, nil, false, 0
	p.pace.hz = hz
}

// in notes a picture and returns its timestamp for ffmpeg.
func (p *passage) in(u rtspcam.Unit, now time.Duration) (pts time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := inside{pts: u.Captured.Truncate(wantedMark), since: now, missed: u.Missed, hidden: u.Hidden}
	if e.wanted = !u.Hidden && p.wants(u.Captured); e.wanted {
		e.pts += wantedMark / 2
	}
	i, _ := slices.BinarySearchFunc(p.inside, e.pts, func(e inside, t time.Duration) int { return cmp.Compare(e.pts, t) })
	p.inside = slices.Insert(p.inside, i, e)
	return e.pts
}

// wants chooses by the times of the pictures, as for other inputs. Where they are
// out of order, it is the first one of each 1/hz seconds.
func (p *passage) wants(captured time.Duration) bool {
	p.reordered = p.reordered || captured < p.latest
	p.latest = max(p.latest, captured)
	if p.hz == 0 {
		return true
	}
	slot := int64(captured.Seconds()*p.hz + 0.001)
	taken := slices.Contains(p.slots, slot)
	ok := !taken
	if !p.reordered {
		ok = p.pace.take(captured)
	}
	if ok && !taken {
		p.slots = append(p.slots[max(0, len(p.slots)-31):], slot)
	}
	return ok
}

// out finds a picture that came out. Those to be shown before it will not come
// any more.
func (p *passage) out(pts time.Duration) (got shot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.inside) && p.inside[n].pts <= pts {
		n++
	}
	for i, e := range p.inside[:n] {
		got.missed += e.missed
		switch {
		case i == n-1 || e.hidden:
		case e.wanted:
			got.missed++
		default:
			got.skipped++
		}
	}
	p.inside = slices.Delete(p.inside, 0, n)
	got.missed += p.lost
	p.lost = 0
	return got
}

// end counts what will not come out any more.
func (p *passage) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.inside {
		p.lost += e.missed
		if e.wanted {
			p.lost++
		}
	}
	p.inside = nil
}

// waiting is how long ffmpeg has had the oldest picture.
func (p *passage) waiting(now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.inside) == 0 {
		return 0
	}
	return now - p.inside[0].since
}
