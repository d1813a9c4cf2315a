package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// take is one run of ffmpeg: frames go in, and lines about closed segments come
// out, which it passes to the filer.
type take struct {
	w       *worker.Worker
	out     *recording
	filer   *filer
	process *ffmpeg.Process
	listed  chan struct{} // closed when ffmpeg's list has ended
	stall   time.Duration

	epoch msg.Epoch
	first time.Duration // boot time of the first frame
	last  time.Duration // and of the last
	at    time.Duration // the last frame's time in the video
	begun time.Time
	head  []byte    // reused
	held  msg.Frame // its pages may be in the pipe
}

// endPatience is how long ffmpeg may take to end after its list has.
const endPatience = 2 * time.Second

// begun starts ffmpeg for a stream that begins with that frame. It is not ended
// with ctx: the last segment is to be closed.
func (r *recorder) begun(ctx context.Context, encoder string, f msg.Frame) (_ *take, err error) {
	head, err := streamHead(f.Geometry)
	if err != nil {
		return nil, err
	}
	out, err := r.filer.newRecording(r.topic, f)
	if err != nil {
		return nil, err
	}
	pattern := path.Join(strings.ReplaceAll(r.filer.spool.Path(spool.Work, out.name), "%", "%%"), "%06d"+mp4)
	command := ffmpeg.FFmpeg(ffmpeg.Piped(), append(roomArgs(r.cfg.Segment.D()), r.cfg.encode(encoder, f.Geometry, pattern)...)...)
	command.Stdin, command.Stdout = true, true
	command.Lend = r.cfg.Splice
	command.Small = len(f.Bytes()) // more in the pipe would be lost with ffmpeg
	t := &take{w: r.w, out: out, filer: r.filer, listed: make(chan struct{}), stall: r.cfg.StallAfter.D(),
		epoch: f.Epoch, first: f.Stamp.Boot, at: -1, begun: time.Now(), last: f.Stamp.Boot}
	t.process, err = ffmpeg.Start(context.WithoutCancel(ctx), command)
	if err != nil {
		return nil, errors.Join(err, out.close(), r.filer.work.RemoveAll(out.name))
	}
	r.filer.add(out)
	go t.list(t.process.Stdout)
	if err := t.process.Feed([][]byte{head}, t.stall, r.w.Progress); err != nil {
		return nil, t.fail(err)
	}
	return t, nil
}

// send writes a frame to ffmpeg, from where it is.
func (t *take) send(f msg.Frame, parts [][]byte, bytes int) error {
	at := (f.Stamp.Boot - t.first).Truncate(time.Microsecond)
	if at <= t.at { // two frames at a time cannot be told apart
		t.w.Counter("irregular_frames").Add(1)
		at = t.at + time.Millisecond
	}
	sent := sentFrame{Seq: f.Seq, Time: msg.Time{Time: f.Stamp.Wall}, BootNS: int64(f.Stamp.Boot), Synced: f.Stamp.Synced, At: at}
	if err := t.out.send(sent); err != nil {
		return err
	}
	t.head = frameHead(t.head[:0], at, bytes)
	if err := t.process.Feed(append([][]byte{t.head}, parts...), t.stall, t.w.Progress); err != nil {
		return errors.Join(err, t.out.unsend())
	}
	t.at, t.last = at, max(t.last, f.Stamp.Boot)
	return nil
}

// keep takes over the lease of a frame that was sent. Where its pages were lent
// to the pipe it is held until the next one has been sent, which takes the whole
// pipe: ffmpeg has then read this one.
func (t *take) keep(f msg.Frame) {
	if !t.process.Lends(len(f.Bytes())) {
		f.Release()
		return
	}
	t.held.Release()
	t.held = f
}

// made reports whether ffmpeg has written a fragment.
func (t *take) made() bool {
	indices, err := t.out.left()
	if err != nil || len(indices) == 0 {
		return false
	}
	f, err := t.out.file(indices[0], os.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false
	}
	m, err := readFilm(f, st.Size())
	return indices[0] > 0 || err == nil && len(m.shown) > 0
}

// border reports whether that frame begins another segment.
func (t *take) border(f msg.Frame, segment time.Duration) bool {
	return (f.Stamp.Boot-t.first)/segment > (t.last-t.first)/segment
}

// ran is for how long.
func (t *take) ran() time.Duration { return time.Since(t.begun) }

// list passes on the segments that ffmpeg closes, each as one line:
// "000003.mp4,12.000000,15.966667".
func (t *take) list(out io.Reader) {
	defer close(t.listed)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		index, start, err := parseListed(lines.Text())
		if err != nil {
			t.w.Log.Warn("a line of ffmpeg's segment list is not understood", "err", err)
			continue
		}
		if err := t.out.segmentClosed(index, start); err != nil {
			t.w.Log.Warn("cannot note that a segment is closed: if the writer ends now, the segment is filed as recovered", "err", err)
		}
		t.filer.poke()
	}
}

func parseListed(text string) (index int, start time.Duration, err error) {
	name, times, _ := strings.Cut(text, ",")
	from, _, both := strings.Cut(times, ",")
	index, ok := segmentIndex(name)
	seconds, err := strconv.ParseFloat(from, 64)
	if !ok || !both || err != nil || !(seconds > -1 && seconds < 1e9) {
		return 0, 0, fmt.Errorf("parse segment list: %.100q: want NAME,START,END", text)
	}
	return index, time.Duration(seconds * float64(time.Second)), nil
}

// finish closes the last segment and ends ffmpeg. The error is why that did not
// go as it should.
func (t *take) finish(why string) error {
	t.w.Log.Info("video ends", "why", why)
	err := t.process.EndInput()
	if err == nil {
		err = t.awaitList()
	}
	if err != nil {
		return t.fail(err)
	}
	if err := t.process.Wait(endPatience); err != nil {
		return t.over(err)
	}
	t.held.Release()
	t.out.end("")
	t.filer.poke()
	return nil
}

// awaitList waits until ffmpeg has no more to say.
func (t *take) awaitList() error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(t.stall); time.Now().Before(deadline); {
		select {
		case <-t.listed:
			return nil
		case <-tick.C:
			t.w.Progress()
		}
	}
	return fmt.Errorf("no end within %s of that of its input: %w", t.stall, os.ErrDeadlineExceeded)
}

// fail ends ffmpeg after an error, and returns the error with ffmpeg's own.
func (t *take) fail(err error) error {
	exit := (*ffmpeg.ExitError)(nil)
	_ = t.process.EndInput() // so that one which is well ends
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.process.Stop()
		err = &ffmpeg.ExitError{Program: "ffmpeg", Err: fmt.Errorf("hangs: %w", err), Words: t.process.Words()}
	} else if waitErr := t.process.Wait(endPatience); errors.As(waitErr, &exit) {
		err = waitErr // it says more than our broken pipe
	}
	return t.over(err)
}

// over passes what ffmpeg left to the filer.
func (t *take) over(err error) error {
	<-t.listed
	t.held.Release() // the pipe is gone with ffmpeg
	t.out.end(err.Error())
	t.filer.poke()
	return err
}
