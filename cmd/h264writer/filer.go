package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// filer turns the segments of recordings into files, strictly in the order in
// which they were recorded: each sidecar lists the frames that are missing since
// the segment before it, so that one has to be filed first.
//
//	decide: which frames has it?  --> journal, synced
//	rename work/<run>/000003.mp4 --> work/<id>.mp4, new header, sidecar, born/<id>.mp4, file message
//	after the last segment of a recording: position, synced --> remove the recording
//
// Each step can be repeated. A crash between any two leaves either no decision or
// one that the next run carries out. Filing has its own goroutine, so that hashing
// never delays a frame. Syncing what grows has another, so that a slow recovery does
// not delay it.
type filer struct {
	w        host
	log      *slog.Logger
	files    registry
	spool    *spool.Spool
	work     *os.Root      // the spool's work/
	segment  time.Duration // for people
	fragment time.Duration
	onDisk   bool
	step     func(what string) // called between steps, for tests that cut the power there

	wake chan struct{} // there is something to do
	quit chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	queue []*recording // not all of their segments are filed; the oldest first
	last  uint64       // the number of the last recording

	position position // of the filing goroutine
	bad      badSegment
}

// badSegment is the segment that could not be filed the last time.
type badSegment struct {
	recording string
	index     int
	since     time.Time
}

// giveUpAfter is how long a segment that the disk cannot read may hold up the later
// ones.
const giveUpAfter = time.Minute

// hopeless reports whether a segment has failed with EIO for so long that it should
// be given up. A full disk is not hopeless.
func (a *filer) hopeless(r *recording, index int, err error) bool {
	if !errors.Is(err, syscall.EIO) {
		return false
	}
	if a.bad.recording != r.name || a.bad.index != index {
		a.bad = badSegment{r.name, index, time.Now()}
	}
	return time.Since(a.bad.since) >= giveUpAfter
}

// host is what the filer needs of its worker.
type host interface {
	Name() string
	BootID() string
	Now() msg.Stamp
	Counter(name string) *worker.Counter
	TroubleWith(what string, err error)
}

// registry names files, begins their sidecars, and announces them.
type registry interface {
	NewID(start sidecar.Moment) sidecar.ID
	Describe(id sidecar.ID, ext, media string, source msg.Topic, start, end sidecar.Moment, items uint64) *sidecar.Sidecar
	Event(state, reason string) sidecar.Event
	Announce(side *sidecar.Sidecar) error
}

// retryEvery is how often what could not be filed is tried again.
const retryEvery = time.Second

func openFiler(w *worker.Worker, cfg Config) (_ *filer, err error) {
	dir := cmp.Or(cfg.Dir, w.Node().CacheDir)
	files, err := w.PublishFiles()
	if err != nil {
		return nil, err
	}
	return newFiler(dir, w, w.Log, files, cfg)
}

func newFiler(dir string, w host, log *slog.Logger, files registry, cfg Config) (_ *filer, err error) {
	a := &filer{w: w, log: log, files: files, segment: cfg.Segment.D(), fragment: cfg.Fragment.D(), step: func(string) {},
		wake: make(chan struct{}, 1), quit: make(chan struct{})}
	if a.spool, err = spool.Open(dir, spool.Work, spool.Born); err != nil {
		return nil, err
	}
	if a.work, err = os.OpenRoot(a.spool.Path(spool.Work, "")); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), a.spool.Close())
	}
	var st unix.Statfs_t
	a.onDisk = unix.Statfs(dir, &st) != nil || st.Type != unix.TMPFS_MAGIC
	if err := a.findRecordings(); err != nil {
		return nil, errors.Join(err, a.closeAll())
	}
	return a, nil
}

// findRecordings takes over what earlier runs of this worker left.
func (a *filer) findRecordings() (err error) {
	if a.position, err = readPosition(a.spool, a.w.Name()); err != nil {
		// Recording goes on; missing frames before it can no longer be declared.
		a.w.Counter("damaged_journals").Add(1)
		a.log.Error("the position cannot be read: frames missing between the last segment and the next one are not declared", "err", err)
	}
	entries, err := fs.ReadDir(a.work.FS(), ".")
	if err != nil {
		return fmt.Errorf("find recordings: %w", err)
	}
	a.last = a.position.Recording
	for _, e := range entries {
		number, ok := recordingNumber(a.w.Name(), e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		if number > 0 && number <= a.position.Recording { // it is finished; a crash came before it was removed
			if err := a.work.RemoveAll(e.Name()); err != nil {
				return fmt.Errorf("remove recording: %w", err)
			}
			continue
		}
		r, damage, err := openRecording(a.work, e.Name())
		if err != nil {
			a.w.Counter("damaged_journals").Add(1)
			a.log.Error("a recording of an earlier run is left where it is", "recording", e.Name(), "err", err)
			a.last = max(a.last, number)
			continue
		}
		if damage != nil {
			a.w.Counter("damaged_journals").Add(1)
			a.log.Error("the journal of a recording is damaged: the frames after the damage are given up", "recording", e.Name(), "err", damage)
		}
		r.head.Number = number
		a.queue = append(a.queue, r)
		a.last = max(a.last, number)
	}
	slices.SortStableFunc(a.queue, func(x, y *recording) int { return cmp.Compare(x.head.Number, y.head.Number) })
	return nil
}

// start begins to file.
func (a *filer) start(ctx context.Context) {
	a.done.Go(func() { a.run(ctx) })
	if a.onDisk {
		a.done.Go(a.keepSynced)
	}
}

// recorded is the end of the frames that earlier runs sent to ffmpeg, of the
// source's run that they read last. Such a frame is in a segment, or declared
// lost: it is not to be recorded again.
func (a *filer) recorded() (epoch msg.Epoch, end msg.Seq) {
	epoch, end = a.position.Epoch, max(a.position.Next, a.position.Sent)
	for _, r := range a.queue {
		if r.head.Epoch != epoch {
			epoch, end = r.head.Epoch, 0
		}
		end = max(end, r.sent)
		if r.head.Position != nil {
			end = max(end, r.head.Position.Next)
		}
	}
	return epoch, end
}

// newRecording begins a recording whose first frame is that one.
func (a *filer) newRecording(source msg.Topic, f msg.Frame) (*recording, error) {
	a.mu.Lock()
	a.last++
	number := a.last
	a.mu.Unlock()
	return newRecording(a.work, recordingName(a.w.Name(), number), head{Number: number, Source: source, Epoch: f.Epoch,
		BootID: a.w.BootID(), First: f.Seq, Segment: a.segment})
}

// add takes a new recording on.
func (a *filer) add(r *recording) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, r)
}

// poke wakes the filer: a segment is closed, or a recording ended.
func (a *filer) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run files segments until close is called, and then those that can be filed at
// once.
func (a *filer) run(ctx context.Context) {
	if err := a.setStraysAside(); err != nil {
		a.log.Error("cannot set aside files that no journal names: they stay in work/", "err", err)
	}
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for more := true; more; {
		a.w.TroubleWith(whileStoring, a.advance(ctx))
		select {
		case <-a.wake:
		case <-tick.C:
		case <-a.quit:
			more = false
		}
	}
	if err := a.advance(ctx); err != nil {
		a.w.TroubleWith(whileStoring, err)
		a.log.Warn("segments wait for the next run", "err", err)
	}
}

// keepSynced makes what is being recorded outlive a power cut.
func (a *filer) keepSynced() {
	tick := time.NewTicker(a.fragment)
	defer tick.Stop()
	for {
		select {
		case <-a.quit:
			return
		case <-tick.C:
		}
		a.mu.Lock()
		queue := slices.Clone(a.queue)
		a.mu.Unlock()
		var errs []error
		for _, r := range queue {
			err := r.sync()
			if errors.Is(err, os.ErrClosed) || errors.Is(err, fs.ErrNotExist) {
				err = nil // it was finished meanwhile
			}
			errs = append(errs, err)
		}
		a.w.TroubleWith(whileSyncing, errors.Join(errs...))
	}
}

// setStraysAside moves files that no journal names to quarantine.
func (a *filer) setStraysAside() error {
	names, err := a.spool.List(spool.Work, a.w.Name())
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		a.mu.Lock()
		known := slices.ContainsFunc(a.queue, func(r *recording) bool { return r.pending != nil && r.pending.name() == name })
		a.mu.Unlock()
		if !known {
			a.w.Counter("quarantined").Add(1)
			errs = append(errs, a.spool.SetAside(name))
		}
	}
	return errors.Join(errs...)
}

// first are the two oldest recordings.
func (a *filer) first() (r, next *recording) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) > 0 {
		r = a.queue[0]
	}
	if len(a.queue) > 1 {
		next = a.queue[1]
	}
	return r, next
}

// advance files all that can be filed, in order. It stops at the first thing that
// cannot be done yet: what comes behind it waits as well.
func (a *filer) advance(ctx context.Context) error {
	for {
		r, next := a.first()
		if r == nil {
			return nil
		}
		if next != nil {
			r.limit(next.head.Epoch, next.head.First)
		}
		r.mu.Lock()
		ended := r.ended // asked first: a recording that ends meanwhile comes again
		r.mu.Unlock()
		if err := a.fileSegments(ctx, r, ended); err != nil {
			return fmt.Errorf("file recording %s: %w", r.name, err)
		}
		if !ended {
			return nil
		}
		if err := a.finish(r); err != nil {
			return fmt.Errorf("finish recording %s: %w", r.name, err)
		}
	}
}

// fileSegments files the segments of a recording that ffmpeg has closed, or all
// that it left.
func (a *filer) fileSegments(ctx context.Context, r *recording, ended bool) error {
	for {
		for r.pending != nil { // one that is revoked leaves another
			d := r.pending
			err := a.carryOut(r)
			if err != nil && d.Side != nil && a.hopeless(r, d.Index, err) {
				err = a.revoke(r, d, err)
			}
			if err != nil {
				return fmt.Errorf("segment %s: %w", d.ID, err)
			}
		}
		if r.journalGrown() && !ended {
			if err := r.compact(); err != nil {
				a.log.Warn("the journal could not be written anew; it grows", "recording", r.name, "err", err)
			}
		}
		e, ok, err := a.nextEnding(r, ended)
		if err != nil || !ok {
			return err
		}
		if r.journalUseless() {
			if err := r.compact(); err != nil {
				return err
			}
		}
		err = a.decide(ctx, r, e)
		if err != nil && a.hopeless(r, e.index, err) {
			err = r.decide(a.quarantine(r, e.index, err), a.spool.Insist)
		}
		if err != nil {
			return err
		}
	}
}

// nextEnding is the next segment that can be filed, if there is one.
func (a *filer) nextEnding(r *recording, ended bool) (e ending, ok bool, err error) {
	indices, err := r.left()
	if err != nil || len(indices) == 0 {
		return e, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e = ending{index: indices[0], last: ended && len(indices) == 1}
	_, e.closed = r.closed[e.index]
	switch {
	case e.closed && r.head.BootID != a.w.BootID():
		e.cut = "the power failed" // what was not synced is gone
	case e.closed:
	case ended && e.last:
		e.cut = cmp.Or(r.why, "ffmpeg did not say that it closed it")
	case ended:
		e.cut = "the next one had begun"
	default: // a later one is closed: ffmpeg's line about this one was not understood
		behind := slices.ContainsFunc(indices, func(i int) bool { _, closed := r.closed[i]; return closed })
		return e, behind, nil
	}
	return e, true, nil
}

// ending is how a segment came to its end.
type ending struct {
	index  int
	closed bool   // as ffmpeg reported
	cut    string // why it may not be whole, for people; empty when ffmpeg closed it
	last   bool   // of the recording: no frame that was sent is still to come
}

var errNoFrames = errors.New("no frame of it is known")

// decide settles what becomes of a segment. One that may not be whole is cut behind
// its last whole fragment that plays, and whose frames are known.
func (a *filer) decide(ctx context.Context, r *recording, e ending) error {
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
	whole := why == nil && m.end == st.Size() && e.closed
	if why == nil && e.cut != "" && !whole {
		r.trim(&m, e.index)
		if len(m.shown) == 0 {
			return r.drop(e.index) // no fragment was whole
		}
		if err := f.Truncate(m.whole); err != nil {
			return fmt.Errorf("cut segment: %w", err)
		}
	}
	if why == nil && e.cut != "" {
		if why, err = a.plays(ctx, r, e.index, len(m.shown)); why != nil && m.drop() { // what was lost in it made it look whole
			whole = false
			if err := f.Truncate(m.whole); err != nil {
				return fmt.Errorf("cut segment: %w", err)
			}
			why, err = a.plays(ctx, r, e.index, len(m.shown))
		}
		if err != nil {
			return err // the next run will do it
		}
	}
	if whole {
		e.cut = ""
	}
	d, err := a.describe(r, f, m, e)
	if why == nil && errors.Is(err, errNoFrames) {
		why = err
	} else if why == nil && err != nil {
		return err
	}
	if why != nil {
		d = a.quarantine(r, e.index, why)
	}
	a.step("decide")
	return r.decide(d, a.spool.Insist)
}

// trim forgets fragments at the end with pictures of which no frame is known: a
// power cut may take the journal's end and leave the pictures.
func (r *recording) trim(m *film, index int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	start := r.begins(index)
	if len(r.frames) == 0 || start < 0 {
		return // it is of no use, and goes to quarantine
	}
	end := r.frames[len(r.frames)-1].At + timeGrain - start
	for len(m.shown) > 0 && m.shown[len(m.shown)-1] > end && m.drop() {
	}
}

// plays decodes a segment and returns why it does not play with that many pictures.
// If ffprobe itself fails, the segment is kept: its boxes are right. It fails when
// ctx is done.
func (a *filer) plays(ctx context.Context, r *recording, index, pictures int) (why, err error) {
	name := path.Join(r.name, segmentName(index))
	for range 3 {
		why = plays(ctx, a.spool.Path(spool.Work, name), pictures)
		if why == nil || errors.Is(why, ffmpeg.ErrBroken) {
			return why, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		a.log.Warn("cannot tell whether a segment plays", "file", name, "err", why)
	}
	return nil, nil
}

// quarantine decides that a segment is set aside. The next one declares its frames
// missing.
func (a *filer) quarantine(r *recording, index int, why error) *decision {
	now := a.w.Now()
	id := a.files.NewID(sidecar.Moment{Time: msg.Time{Time: now.Wall}})
	a.w.Counter("quarantined").Add(1)
	a.log.Warn("segment goes to quarantine", "id", id, "err", why)
	at := a.at(r)
	return &decision{Index: index, ID: id, Before: at, After: at}
}

// at is the position before the next segment of the oldest recording.
func (a *filer) at(r *recording) position {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.head.Position != nil {
		return *r.head.Position
	}
	return a.position.enter(r.head)
}

// describe decides that a segment becomes a file. It fails with errNoFrames where
// it shows none of ours that is not in a segment before it.
func (a *filer) describe(r *recording, f *os.File, m film, e ending) (*decision, error) {
	before := a.at(r)
	r.mu.Lock()
	in, strange := match(r.frames, m.shown, r.begins(e.index))
	end := msg.Seq(0)
	if e.last {
		end = r.sent
	}
	h := r.head
	r.mu.Unlock()
	for len(in) > 0 && in[0].Seq < before.Next { // only with a position that is not ours
		in, strange = in[1:], strange+1
	}
	if len(in) == 0 {
		return nil, errNoFrames
	}
	reason := fmt.Sprintf("a segment of %s", a.segment)
	if e.cut != "" {
		reason = "recovered: " + e.cut
	}
	first, last := h.moment(in[0]), h.moment(in[len(in)-1])
	created := time.Time{}
	if first.Synced {
		created = first.Time.Time
	}
	header, indexed, err := headerOf(f, m, created)
	if errors.Is(err, errNoFilm) {
		a.log.Debug("a segment stays without an index", "err", err)
	} else if err != nil {
		return nil, err
	}
	bytes := int64(0)
	if indexed {
		st, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("index segment: %w", err)
		}
		bytes = st.Size()
	}
	after, frames := before.account(in, end)
	frames.Repeated = strange
	side := a.files.Describe(a.files.NewID(first), mp4, "video/mp4", h.Source, first, last, uint64(len(m.shown)))
	side.Frames = frames
	side.History = []sidecar.Event{a.files.Event(string(spool.Born), reason)}
	return &decision{Index: e.index, ID: side.ID, Before: before, After: after, Side: side, Header: header, Bytes: bytes, Recovered: e.cut != ""}, nil
}

func (h *head) moment(f sentFrame) sidecar.Moment {
	return sidecar.Moment{Time: f.Time, BootNS: f.BootNS, BootID: h.BootID, Synced: f.Synced, Epoch: h.Epoch, Seq: f.Seq}
}

// carryOut carries out the pending decision. It begins where it was interrupted:
// in the recording's folder, in work/, or in born/ and not announced.
func (a *filer) carryOut(r *recording) error {
	d := r.pending
	a.step("rename")
	err := a.work.Rename(path.Join(r.name, segmentName(d.Index)), d.name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.doubtful(d.Index) {
		a.spool.Distrust(d.name())
	}
	_, err = a.work.Lstat(d.name())
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.step("complete")
	switch {
	case d.Side == nil && there:
		err = a.spool.SetAside(d.name())
	case d.Side == nil:
		err = nil
	case there:
		err = a.complete(d)
		if errors.Is(err, spool.ErrDamaged) { // a sync failed, and cost some of it
			return a.revoke(r, d, err)
		}
		if err == nil {
			err = a.announce(d)
		}
	default:
		err = a.announceBorn(d)
	}
	if err != nil {
		return err
	}
	a.step("done")
	r.done()
	return nil
}

// complete brings a segment from work/ to born/.
func (a *filer) complete(d *decision) error {
	file, err := a.spool.Reopen(d.name())
	if err != nil {
		return err
	}
	if len(d.Header) > 0 {
		_, err = file.WriteAt(d.Header, 0)
		a.step("header")
	}
	if err == nil && d.Bytes > 0 {
		err = a.spool.Insist(func() error { _, err := file.WriteAt(lastBox(), d.Bytes); return err })
		a.step("last box")
	}
	if err == nil {
		err = a.spool.Complete(file, spool.Born, d.Side)
	}
	return errors.Join(err, file.Close())
}

// announceBorn finishes what a crash interrupted behind the last rename. Somebody
// may have moved the file on since.
func (a *filer) announceBorn(d *decision) error {
	side, err := a.spool.Sidecar(spool.Born, d.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d.Side = side
	return a.announce(d)
}

func (a *filer) announce(d *decision) error {
	a.step("announce")
	if err := a.files.Announce(d.Side); err != nil {
		return err
	}
	a.w.Counter("segments").Add(1)
	if d.Recovered {
		a.w.Counter("recovered").Add(1)
	}
	if lost := int(d.Side.Frames.Lost) + lostEarlier(d.Side.Frames.Earlier); lost > 0 {
		a.w.Counter("lost_frames").Add(lost)
	}
	return nil
}

// revoke takes back a decision whose file cannot be completed. The file goes to
// quarantine, and the next segment declares its frames missing.
func (a *filer) revoke(r *recording, d *decision, why error) error {
	a.w.Counter("quarantined").Add(1)
	a.log.Warn("segment goes to quarantine", "id", d.ID, "err", why)
	return r.decide(&decision{Index: d.Index, ID: d.ID, Before: d.Before, After: d.Before}, a.spool.Insist)
}

// finish removes a recording whose segments are all filed, once its position is
// durable.
func (a *filer) finish(r *recording) error {
	p := a.at(r)
	if r.sent > p.Next && r.head.Source != "" {
		p.Sent = r.sent
		if len(r.frames) > 0 {
			a.log.Warn("frames without a whole fragment are lost; the next segment declares them", "source", r.head.Source,
				"epoch", r.head.Epoch.String(), "first_seq", p.Next, "last_seq", r.sent-1, "frames", r.sent-p.Next)
		}
	}
	if r.head.Source == "" { // a crash came before it had a journal, and so before its first frame
		p = a.position
	}
	p.Recording = max(p.Recording, r.head.Number)
	a.step("position")
	if err := writePosition(a.spool, a.w.Name(), p); err != nil {
		return err
	}
	a.position = p
	a.mu.Lock()
	a.queue = slices.DeleteFunc(a.queue, func(each *recording) bool { return each == r })
	a.mu.Unlock()
	a.step("remove")
	if err := errors.Join(r.close(), a.work.RemoveAll(r.name)); err != nil {
		a.log.Warn("a finished recording could not be removed; the next run will do it", "recording", r.name, "err", err)
	}
	a.step("removed")
	return syncFolder(a.work)
}

// close waits until the last segment is filed. What could not be filed waits for
// the next run.
func (a *filer) close(alive func()) error {
	close(a.quit)
	done := make(chan struct{})
	go func() { a.done.Wait(); close(done) }()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-tick.C:
			alive()
		}
	}
	return a.closeAll()
}

func (a *filer) closeAll() error {
	var errs []error
	for _, r := range a.queue {
		errs = append(errs, r.close())
	}
	return errors.Join(append(errs, a.work.Close(), a.spool.Close())...)
}
