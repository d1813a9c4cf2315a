package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// archive files segments. It works in one goroutine of its own, so that hashing
// and syncing never keep a frame waiting; what is to be done comes as jobs, in
// order.
type archive struct {
	w      *worker.Worker
	cfg    Config
	spool  *spool.Spool
	work   *os.Root // the spool's work/
	files  *worker.Files
	onDisk bool
	jobs   chan job
	done   chan struct{}

	open  []*reel   // not all of their files are filed
	over  []job     // their reels are to be finished
	epoch msg.Epoch // of the frames that expect counts
	next  msg.Seq   // the first frame that no sidecar speaks of
	known bool      // epoch and next mean something
}

// job is one thing that happened to a reel.
type job struct {
	reel  *reel
	begun bool          // it has been made
	index int           // of the file that ffmpeg closed, when neither begun nor over
	start time.Duration // of that file within the reel
	over  bool          // ffmpeg has ended
	why   string        // it left a file unfinished, for people
}

// retryEvery is how often what could not be filed is tried again.
const retryEvery = time.Second

func openArchive(w *worker.Worker, cfg Config) (_ *archive, err error) {
	dir := cfg.Dir
	if dir == "" {
		dir = w.Node().CacheDir
	}
	a := &archive{w: w, cfg: cfg, jobs: make(chan job, 256), done: make(chan struct{})}
	if a.spool, err = spool.Open(dir, spool.Work, spool.Born); err != nil {
		return nil, err
	}
	if a.work, err = os.OpenRoot(a.spool.Path(spool.Work, "")); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), a.spool.Close())
	}
	var st unix.Statfs_t
	a.onDisk = unix.Statfs(dir, &st) != nil || st.Type != unix.TMPFS_MAGIC
	if a.files, err = w.PublishFiles(); err == nil {
		err = a.findReels()
	}
	if err != nil {
		return nil, errors.Join(err, a.closeRoots())
	}
	return a, nil
}

// findReels takes over what earlier runs of this worker left.
func (a *archive) findReels() error {
	entries, err := fs.ReadDir(a.work.FS(), ".")
	if err != nil {
		return fmt.Errorf("find reels: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), a.w.Name()+"_") && strings.HasSuffix(e.Name(), reelSuffix) {
			r, err := openReel(a.work, e.Name())
			if err != nil {
				return err
			}
			a.open = append(a.open, r)
		}
	}
	return nil
}

// run does the jobs until there are no more to come. It ends by itself once
// jobs is closed.
func (a *archive) run(ctx context.Context) {
	defer close(a.done)
	a.recover(ctx)
	every := retryEvery
	if a.onDisk {
		every = a.cfg.Fragment.D()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case j, more := <-a.jobs:
			if !more {
				return
			}
			a.w.TroubleWith(storing, a.do(ctx, j))
		case <-tick.C:
			a.w.TroubleWith(storing, a.again(ctx))
		}
	}
}

// recover files what earlier runs left.
func (a *archive) recover(ctx context.Context) {
	for _, r := range a.open {
		a.over = append(a.over, job{reel: r, over: true, why: "the writer was ended"})
	}
	strays := a.setStraysAside()
	a.w.TroubleWith(storing, errors.Join(strays, a.again(ctx)))
}

// setStraysAside moves files that no journal speaks of out of the way.
func (a *archive) setStraysAside() error {
	names, err := a.spool.List(spool.Work, a.w.Name())
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if !slices.ContainsFunc(a.open, func(r *reel) bool {
			return slices.ContainsFunc(r.filings, func(f *filing) bool { return f.name() == name })
		}) {
			a.w.Counter("quarantined").Add(1)
			errs = append(errs, a.spool.SetAside(name))
		}
	}
	return errors.Join(errs...)
}

func (a *archive) do(ctx context.Context, j job) error {
	switch {
	case j.begun:
		a.open = append(a.open, j.reel)
		return a.expect(j.reel)
	case j.over:
		a.over = append(a.over, j)
		return a.again(ctx)
	default:
		return errors.Join(a.closed(ctx, j), a.again(ctx))
	}
}

// again does what is decided and not yet done, and syncs what grows.
func (a *archive) again(ctx context.Context) error {
	var errs []error
	a.over = slices.DeleteFunc(a.over, func(j job) bool {
		err := a.finish(ctx, j)
		errs = append(errs, err)
		return err == nil
	})
	for _, r := range a.open {
		errs = append(errs, a.file(r))
		if a.onDisk && r.journal != nil {
			errs = append(errs, r.sync())
		}
	}
	return errors.Join(errs...)
}

// closed takes the file that ffmpeg says it closed, and those before it that
// could not be taken then.
func (a *archive) closed(ctx context.Context, j job) error {
	indices, err := j.reel.left()
	if err != nil {
		return err
	}
	for _, index := range indices {
		if index > j.index {
			break
		}
		start := time.Duration(-1)
		if index == j.index {
			start = j.start
		}
		if err := a.decide(ctx, j.reel, ending{index: index, start: start}); err != nil {
			return err
		}
	}
	return nil
}

var errNoFrames = errors.New("no frame of it is known")

// finish decides about all that a reel holds after ffmpeg's end: segments that
// it closed, and the one that it left. Then the reel's folder goes.
func (a *archive) finish(ctx context.Context, j job) error {
	r := j.reel
	if r.journal == nil { // it is of an earlier run of ours
		if r.head.Expect != nil {
			a.epoch, a.next, a.known = r.head.Epoch, *r.head.Expect, true
		}
		if err := r.compact(); err != nil {
			return err
		}
	}
	indices, err := r.left()
	if err != nil {
		return err
	}
	for i, index := range indices {
		e := ending{index: index, start: -1, cut: "the next one had begun"}
		if i == len(indices)-1 {
			e.cut, e.last = cmp.Or(j.why, "ffmpeg did not say that it closed it"), true
		}
		if err := a.decide(ctx, r, e); err != nil {
			return err
		}
	}
	if err := a.file(r); err != nil {
		return err
	}
	a.open = slices.DeleteFunc(a.open, func(each *reel) bool { return each == r })
	if lost := len(r.fed); lost > 0 {
		a.w.Log.Warn("frames of a segment without a whole fragment are lost", "source", r.head.Source, "epoch", r.head.Epoch.String(),
			"first_seq", r.fed[0].Seq, "last_seq", r.fed[lost-1].Seq, "frames", lost)
		a.seen(r.head.Epoch, r.fed[0].Seq)
	}
	err = errors.Join(r.close(), a.work.RemoveAll(r.name))
	if err != nil {
		return fmt.Errorf("remove reel: %w", err)
	}
	return nil
}

// expect notes in a new reel's journal which frames are spoken of, for whoever
// comes after us.
func (a *archive) expect(r *reel) error {
	if !a.known {
		return nil
	}
	a.seen(r.head.Epoch, 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	next := a.next
	r.head.Expect = &next
	return r.note(line{Head: &r.head})
}

// seen sets where the accounting of an epoch begins, where that is not known.
func (a *archive) seen(epoch msg.Epoch, first msg.Seq) {
	if !a.known {
		a.epoch, a.next, a.known = epoch, first, true
	} else if a.epoch != epoch { // read from its beginning
		a.epoch, a.next = epoch, 0
	}
}

// ending is how a file of ffmpeg's came to its end.
type ending struct {
	index int
	start time.Duration // within the reel; negative is not known
	cut   string        // why it may not be whole, for people; empty when ffmpeg closed it
	last  bool          // of the reel: nothing that was sent is still to come
}

// decide settles what becomes of a file: a segment, or a thing for quarantine.
// One that ffmpeg did not close, or a full disk did not take, is cut behind its
// last whole fragment that plays.
func (a *archive) decide(ctx context.Context, r *reel, e ending) error {
	f, err := r.file(e.index, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	m, why := readFilm(f, st.Size())
	if why != nil && !errors.Is(why, errNoFilm) {
		return why
	}
	if why == nil && m.end != st.Size() && e.cut == "" {
		e.cut = "it is not whole on the disk"
	}
	if why == nil && e.cut != "" {
		if len(m.shown) == 0 {
			return r.drop(e.index) // no fragment was whole
		}
		if err := f.Truncate(m.whole); err != nil {
			return fmt.Errorf("cut segment: %w", err)
		}
		why, err = a.plays(ctx, r, e.index, len(m.shown))
		if why != nil && m.drop() { // what was lost in it made it look whole
			if err := f.Truncate(m.whole); err != nil {
				return fmt.Errorf("cut segment: %w", err)
			}
			why, err = a.plays(ctx, r, e.index, len(m.shown))
		}
		if err != nil {
			return err // the next run will do it
		}
	}
	if why == nil {
		taken, err := a.take(r, m, e)
		if err != nil || taken {
			return err
		}
		why = errNoFrames
	}
	return a.setAside(r, e.index, why)
}

// plays says why a file does not play with that many pictures. Where nobody could
// say, since ffprobe was killed, say, its boxes are right, and that is all we
// know: no picture is given up for that. It fails when ctx is done.
func (a *archive) plays(ctx context.Context, r *reel, index, pictures int) (why, err error) {
	name := path.Join(r.name, segmentName(index))
	for range 3 {
		why = plays(ctx, a.spool.Path(spool.Work, name), pictures)
		if why == nil || errors.Is(why, ffmpeg.ErrBroken) {
			return why, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		a.w.Log.Warn("cannot tell whether a segment plays", "file", name, "err", why)
	}
	return nil, nil
}

// setAside decides that a file goes to quarantine.
func (a *archive) setAside(r *reel, index int, why error) error {
	now := a.w.Now()
	id := a.files.NewID(sidecar.Moment{Time: msg.Time{Time: now.Wall}})
	a.w.Counter("quarantined").Add(1)
	a.w.Log.Warn("segment goes to quarantine", "id", id, "err", why)
	next := msg.Seq(0)
	if r.head.Expect != nil {
		next = *r.head.Expect
	}
	return r.decide(&filing{Index: index, ID: id, Next: next})
}

// take decides that a file is a segment, and says whether it has frames of ours.
func (a *archive) take(r *reel, m film, e ending) (bool, error) {
	in, strange := r.match(m.shown, e.start)
	if len(in) == 0 {
		return false, nil
	}
	reason, tail := fmt.Sprintf("a segment of %s", a.cfg.Segment), []shot(nil)
	if e.cut != "" {
		reason = "recovered: " + e.cut
		a.w.Counter("recovered").Add(1)
	}
	if e.last {
		tail = r.fed
	}
	next, frames := a.account(r, in, tail)
	frames.Repeated = strange
	a.w.Counter("lost_frames").Add(int(frames.Lost))
	first, last := r.moment(in[0]), r.moment(in[len(in)-1])
	side := a.files.Describe(a.files.NewID(first), mp4, "video/mp4", r.head.Source, first, last, uint64(len(m.shown)))
	side.Frames = frames
	side.History = []sidecar.Event{a.files.Event(string(spool.Born), reason)}
	return true, r.decide(&filing{Index: e.index, ID: side.ID, Next: next, Side: side})
}

func (r *reel) moment(s shot) sidecar.Moment {
	return sidecar.Moment{Time: s.Time, BootNS: s.BootNS, BootID: r.head.BootID, Synced: s.Synced, Epoch: r.head.Epoch, Seq: s.Seq}
}

// maxSpans bounds the list of missing frames.
const maxSpans = 64

// account finds the frames that are in no segment, up to the last one of in and
// of tail.
func (a *archive) account(r *reel, in, tail []shot) (msg.Seq, *sidecar.Frames) {
	a.seen(r.head.Epoch, in[0].Seq)
	next, frames := a.next, &sidecar.Frames{}
	missing := func(first, end msg.Seq) {
		if first >= end {
			return
		}
		frames.Lost += uint64(end - first)
		if n := len(frames.Missing); n > 0 && frames.Missing[n-1].Last+1 == first {
			frames.Missing[n-1].Last = end - 1
		} else if n < maxSpans {
			frames.Missing = append(frames.Missing, sidecar.Span{First: first, Last: end - 1})
		}
	}
	for _, s := range in {
		missing(next, s.Seq)
		next = s.Seq + 1
	}
	if len(tail) > 0 {
		end := tail[len(tail)-1].Seq + 1
		missing(next, end)
		next = end
	}
	a.next = next
	return next, frames
}

// file does what is decided, in order.
func (a *archive) file(r *reel) error {
	did := false
	for len(r.filings) > 0 {
		if err := a.complete(r, r.filings[0]); err != nil {
			return fmt.Errorf("file segment %s: %w", r.filings[0].ID, err)
		}
		r.filings, did = r.filings[1:], true
	}
	if did {
		return r.compact()
	}
	return nil
}

// complete brings one file where it belongs. It begins where it was
// interrupted: in the reel's folder, in work/, or in born/ and not announced.
func (a *archive) complete(r *reel, f *filing) error {
	err := a.work.Rename(path.Join(r.name, segmentName(f.Index)), f.name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	there := false
	if _, err := a.work.Lstat(f.name()); err == nil {
		there = true
	}
	switch {
	case f.Side == nil && there:
		return a.spool.SetAside(f.name())
	case f.Side == nil:
		return nil
	case there:
		err := a.fill(f)
		if errors.Is(err, spool.ErrDamaged) { // a sync failed, and cost some of it
			a.w.Counter("quarantined").Add(1)
			a.w.Log.Warn("segment goes to quarantine", "id", f.ID, "err", err)
			return a.spool.SetAside(f.name())
		}
		if err != nil {
			return err
		}
	default: // interrupted before this step; somebody may have seen to the file since
		if f.Side, err = a.spool.Sidecar(spool.Born, f.ID); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := a.files.Announce(f.Side); err != nil {
		return err
	}
	a.w.Counter("segments").Add(1)
	return nil
}

func (a *archive) fill(f *filing) error {
	file, err := a.spool.Reopen(f.name())
	if err != nil {
		return err
	}
	return errors.Join(a.spool.Complete(file, spool.Born, f.Side), file.Close())
}

// close waits for the last job. What could not be filed waits for the next run.
func (a *archive) close(alive func()) error {
	close(a.jobs)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-a.done:
			waiting = false
		case <-tick.C:
			alive()
		}
	}
	var errs []error
	for _, r := range a.open {
		errs = append(errs, r.close())
	}
	return errors.Join(append(errs, a.closeRoots())...)
}

func (a *archive) closeRoots() error { return errors.Join(a.work.Close(), a.spool.Close()) }
