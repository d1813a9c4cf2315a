package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/backlog"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/choose"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/reduce"
	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/wear"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

const (
	// lookEvery is how often the state's numbers are brought up to date.
	lookEvery = time.Second
	// lastTry is how long the end may wait for the receiver; what it does not take goes to disk.
	lastTry = time.Second
	// roomEvery is how soon a full outbox is looked at again.
	roomEvery = 20 * time.Millisecond
)

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	j, err := open(w, cfg)
	if err != nil {
		return err
	}
	if j.in, err = w.MessagesOf(j.choice.Kinds(), j.out.resume, cfg.boxSource()...); err != nil {
		return errors.Join(err, j.close())
	}
	stop := j.start()
	w.Ready(ctx)
	err = j.read(ctx)
	return errors.Join(err, stop(), j.close())
}

// job is a running sender: what it reads, holds and sends.
type job struct {
	w      *worker.Worker
	cfg    Config
	in     *worker.Inbox
	out    *outbox
	cache  *spool.Spool
	sender *sender
	choice *choose.Choice
	reduce *reduce.Reducer // nil: each reading is sent
	wear   wear.Count
	looked time.Time
	boxed  time.Time // when the state of the box was last sent
	saving sync.Mutex
}

// supervisor publishes the state of the whole box.
const supervisor = "supervisor"

// boxSource is what is read besides the sources: with box, the supervisor.
func (c *Config) boxSource() []string {
	if c.Box == 0 {
		return nil
	}
	return []string{supervisor}
}

func open(w *worker.Worker, cfg Config) (*job, error) {
	cache, err := spool.Open(w.Node().CacheDir, spool.Work)
	if err != nil {
		return nil, err
	}
	j := &job{w: w, cfg: cfg, cache: cache}
	if j.choice, err = cfg.choice(w.Entry()); err == nil && cfg.Every > 0 {
		j.reduce, err = reduce.New(cfg.Reduce, cfg.Every.D())
	}
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	kept, err := loadProgress(cache, j.progressFile(), w.BootID())
	if err != nil {
		w.Log.Warn("begin anew", "err", err)
	}
	if j.wear, err = wear.Load(cache, w.Name(), w.BootID()); err != nil {
		w.Log.Warn("load wear", "err", err)
	}
	j.out = newOutbox(cfg.limits(), kept)
	j.out.disk.init(w.Node(), w.Name(), int64(cfg.SpoolMost))
	j.openDisk()
	j.noted() // where the backlog ends: what is found behind it after a kill went there meanwhile
	f, err := cfg.formatOf(w)
	if err != nil {
		return nil, errors.Join(err, j.close())
	}
	to, err := cfg.newSink(w, f)
	if err != nil {
		return nil, errors.Join(err, j.close())
	}
	most := to.Limits()
	j.out.limits.keyed = most.Keyed
	j.out.limits.records, j.out.limits.bytes = min(j.out.limits.records, most.Records), min(j.out.limits.bytes, most.Bytes)
	j.sender = &sender{w: w, out: j.out, format: f, sink: to, saved: j.noted,
		pause: backoff.Backoff{First: time.Second, Most: cfg.RetryMost.D(), Full: true},
		aside: &aside{disk: &j.out.disk, lost: func() { w.Counter("lost_set_aside_files").Add(1) }}}
	return j, nil
}

// openDisk opens the backlog. A disk that is absent, or fails, does not keep the sender from
// sending what it can hold in RAM.
func (j *job) openDisk() {
	j.out.disk.Lock()
	defer j.out.disk.Unlock()
	j.w.TroubleWith("spool", j.out.openDisk())
}

func (j *job) progressFile() string { return "work/" + j.w.Name() + ".sent" }

func (j *job) save() error {
	j.saving.Lock() // so that the newer one stays
	defer j.saving.Unlock()
	if err := j.out.progress(j.w.BootID()).save(j.cache, j.progressFile()); err != nil {
		return fmt.Errorf("note what was acknowledged: %w", err)
	}
	return nil
}

// start begins to send and to spool. stop ends both, after one last try to send, and fails when
// something is left that is neither acknowledged nor on disk.
func (j *job) start() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var delivery, spooling sync.WaitGroup
	delivery.Go(func() { j.sender.deliver(ctx) })
	spooling.Go(func() {
		j.out.spoolLoop(done, func(err error) {
			j.w.TroubleWith("spool", err)
			j.noted()
		})
	})
	return func() error {
		j.awaitEmpty(lastTry)
		cancel()
		err := j.sender.sink.Close()
		delivery.Wait()
		close(done)
		spooling.Wait()
		if err != nil {
			j.w.Log.Warn("close the link", "err", err)
		}
		return j.finish()
	}
}

// noted keeps what was acknowledged. The state shows when that fails: a kill would send it again.
func (j *job) noted() { j.w.TroubleWith("progress", j.save()) }

// awaitEmpty gives the receiver a moment to take the rest, as long as it takes anything.
func (j *job) awaitEmpty(most time.Duration) {
	for until := time.Now().Add(most); time.Now().Before(until) && j.out.left() > 0 && !j.sender.failing.Load(); {
		j.w.Progress()
		time.Sleep(roomEvery)
	}
}

// finish writes to disk what is left. It is tried twice, as a sync that fails makes the log begin
// a new file.
func (j *job) finish() error {
	err := j.out.spool()
	if err != nil {
		err = j.out.spool()
	}
	if n := j.out.left(); err != nil && n > 0 {
		j.w.Counter("unsaved_records").Add(n)
		return errors.Join(fmt.Errorf("%d records are neither acknowledged nor on disk: %w", n, err), j.save())
	}
	return j.save()
}

// lossCounter is the counter of what the backlog has lost. What a person gave up is no loss.
func lossCounter(reason string) string {
	if reason == string(backlog.Skipped) {
		return "given_up"
	}
	return "lost_" + reason
}

func (j *job) close() error {
	j.out.disk.Lock()
	defer j.out.disk.Unlock()
	return errors.Join(j.out.disk.close(), j.out.disk.store.Close(), j.wear.Save(j.cache, j.w.Name()), j.cache.Close())
}

// read takes in what the sources publish, until ctx is done.
func (j *job) read(ctx context.Context) error {
	for {
		m, ok, err := j.in.Next(ctx, j.next())
		if err == nil && ok {
			err = j.take(ctx, m)
		}
		if err == nil && j.reduce != nil {
			err = j.reduced(ctx)(j.reduce.Due(j.w.Now().Boot))
		}
		if err != nil {
			return j.end(err)
		}
		if now := time.Now(); now.Sub(j.looked) >= lookEvery {
			j.looked = now
			j.show()
		}
	}
}

// next is when there is something to do though no message comes.
func (j *job) next() time.Time {
	next := j.looked.Add(lookEvery)
	if j.reduce == nil {
		return next
	}
	if at, ok := j.reduce.Next(); ok {
		if due := time.Now().Add(at - j.w.Now().Boot); due.Before(next) {
			return due
		}
	}
	return next
}

// end sends the windows that are open when the sources are read out; err is why reading ended.
func (j *job) end(err error) error {
	if j.reduce == nil {
		return err
	}
	last, failed := j.reduce.Flush()
	for _, r := range last {
		j.out.add(r, r.Window.FirstSeq, nil)
	}
	return errors.Join(err, failed)
}

// take puts what is chosen of a message into the outbox, or into its window.
func (j *job) take(ctx context.Context, m msg.Message) error {
	if m.Source == supervisor && m.Kind == msg.KindState {
		if now := time.Now(); now.Sub(j.boxed) >= j.cfg.Box.D() {
			j.boxed = now
			j.out.add(record.Of(m), m.Seq, nil)
		}
		return nil
	}
	r, chosen, err := j.choice.Of(m)
	switch {
	case err != nil:
		j.w.Counter("malformed").Add(1)
		j.w.Log.Warn("skip message", "id", m.ID(), "err", err)
		j.skip(&m.Header)
		return nil
	case !chosen:
		j.w.Counter("not_chosen").Add(1)
		j.skip(&m.Header)
		return nil
	case j.reduce != nil && r.Kind == msg.KindReading:
		reading, err := r.Reading()
		if err != nil {
			return err
		}
		return j.reduced(ctx)(j.reduce.Add(&reading, j.w.Now().Boot))
	}
	return j.add(ctx, r, r.Seq)
}

// skip notes that a message is not sent. Where readings are reduced it may stand in an open window,
// and is read and skipped again after a restart.
func (j *job) skip(h *msg.Header) {
	if h.Kind != msg.KindState && j.reduce == nil {
		j.out.skip(h)
	}
}

// reduced puts records of finished windows into the outbox.
func (j *job) reduced(ctx context.Context) func([]record.Record, error) error {
	return func(list []record.Record, err error) error {
		for _, r := range list {
			err = errors.Join(err, j.add(ctx, r, r.Window.FirstSeq))
		}
		return err
	}
}

// add puts a record, which stands for the messages from first on, into the outbox. It may have to
// wait for room: what is published meanwhile waits in the histories.
func (j *job) add(ctx context.Context, r record.Record, first msg.Seq) error {
	for j.out.isFull() {
		j.show()
		if err := j.w.Wait(ctx, time.Now().Add(roomEvery)); err != nil {
			return err // it is read again from the history by the next run
		}
	}
	if j.out.add(r, first, nil) {
		j.w.Counter("states_replaced").Add(1)
	}
	return nil
}

// show brings the numbers of the state up to date.
func (j *job) show() {
	s := j.out.status(time.Now())
	j.w.Gauge("waiting_records", float64(s.ram+s.disk))
	j.w.Gauge("waiting_on_disk_records", float64(s.disk))
	j.w.Gauge("waiting_on_disk_bytes", float64(s.diskBytes))
	j.w.Gauge("oldest_waiting_s", s.oldest.Seconds())
	for reason, n := range j.out.newlyLost(s.losses) {
		j.w.Counter(lossCounter(reason)).Add(int(n))
	}
	j.wear.Add(j.w.Now().Boot, s.written)
	j.w.Gauge("written_24h_bytes", float64(j.wear.Used(j.w.Now().Boot)))
	switch {
	case s.ram+s.disk == 0:
		j.w.Status("all sent")
	case s.disk == 0:
		j.w.Status("%d to send", s.ram)
	default:
		j.w.Status("%d to send, %d of them on disk, the oldest for %s", s.ram+s.disk, s.disk, s.oldest.Round(time.Second))
	}
}
