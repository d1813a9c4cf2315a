package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perch-edge/perch/internal/anchor"
	"github.com/perch-edge/perch/internal/redact"
	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

const (
	// scanEvery is how often the folder is looked through for files of which
	// no message told.
	scanEvery = time.Minute
	// rescanEvery is how often that is tried where it fails.
	rescanEvery = 2 * time.Second
	// settleAgain is the same for what was left half-way.
	settleAgain = 10 * time.Second
	// lookEvery is how often the state is brought up to date.
	lookEvery = 500 * time.Millisecond
)

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	u, err := openUploader(w, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.close()) }()
	in, err := w.Messages(nil)
	if err != nil {
		return err
	}
	u.look() // what is known of the clock comes before the first file
	next := u.scan(ctx)
	sending, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	for range cfg.Parallel {
		group.Go(func() { u.deliver(sending) })
	}
	defer func() { stop(); group.Wait() }()
	w.Ready(ctx)
	for {
		if u.look() {
			next = time.Now()
		}
		m, ok, err := in.Next(ctx, time.Now().Add(lookEvery))
		if err != nil {
			return err
		}
		if ok {
			u.hear(m)
		}
		if time.Now().After(next) {
			next = u.scan(ctx)
		}
	}
}

// What may be in trouble by itself.
const (
	theStore    = "store"
	theReceiver = "receiver"
	theScan     = "scan"
	theRecovery = "recovery"
	theClock    = "clock"
)

// uploader sends what is in ready/.
type uploader struct {
	w        *worker.Worker
	cfg      Config
	files    *worker.Files
	anchors  *anchor.Anchors
	to       receiver
	queue    *queue
	lookedAt time.Time
	rejected atomic.Int64 // files in rejected/

	settled    *spool.Spool // the store that recovery was at last
	settleNext time.Time    // when it is due again

	mu    sync.Mutex // of store, which is for one goroutine
	store *spool.Store

	idle func()
}

func openUploader(w *worker.Worker, cfg Config) (*uploader, error) {
	n := w.Node()
	u := &uploader{w: w, cfg: cfg, queue: newQueue(cfg.Priority, cfg.RetryMost.D()),
		store: spool.NewStore(n.StoreDir, n.StoreMount, spool.Work, spool.Ready, spool.Sent)}
	u.anchors = anchor.Open(u.spool)
	transport, err := newTransport(&cfg, w.Counter("network_sent_bytes").Add)
	if err != nil {
		return nil, worker.BadConfig(err)
	}
	u.idle = transport.CloseIdleConnections
	if u.to, err = newReceiver(&cfg, transport); err != nil {
		return nil, worker.BadConfig(err)
	}
	if u.files, err = w.PublishFiles(); err != nil {
		return nil, err
	}
	return u, nil
}

func newReceiver(cfg *Config, transport http.RoundTripper) (receiver, error) {
	discreetly := &redact.Transport{RoundTripper: transport}
	switch cfg.To.scheme {
	case schemeS3:
		return newBucket(cfg, &redact.Transport{RoundTripper: transport, Secrets: secretsOf(cfg.TokenFile)})
	case schemeTus:
		return &tus{newClient(cfg, discreetly), cfg.To, cfg.proof()}, nil
	}
	return &web{newClient(cfg, discreetly), cfg.To, cfg.Method, cfg.proof()}, nil
}

func (u *uploader) close() error {
	u.idle()
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.store.Close()
}

// spool is the store, where its disk is there.
func (u *uploader) spool() (*spool.Spool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.store.Spool()
}

// hear queues the file that a message tells of, if the store has it. Nothing of
// the message is believed but that it is worth looking.
func (u *uploader) hear(m msg.Message) {
	f, err := m.File()
	if err != nil {
		u.w.Counter("malformed_messages").Add(1)
		return
	}
	if f.State != string(spool.Ready) {
		return
	}
	sp, err := u.spool()
	if err == nil {
		err = u.admit(sp, sidecar.ID(f.ID))
	}
	if err != nil { // the next scan finds what was readable after all
		u.w.Counter("unknown_files").Add(1)
		u.w.Log.Debug("file message without a file", "id", f.ID, "err", err)
	}
}

// scan queues what lies in ready/, and says when it is to be done again.
func (u *uploader) scan(ctx context.Context) time.Time {
	err := u.scanReady(ctx)
	u.w.TroubleWith(theScan, err)
	if err != nil { // perhaps the disk is not there yet
		return time.Now().Add(rescanEvery)
	}
	next := time.Now().Add(scanEvery)
	if u.settleNext.Before(next) {
		next = u.settleNext
	}
	return next
}

func (u *uploader) scanReady(ctx context.Context) error {
	sp, err := u.spool()
	if err != nil {
		return err
	}
	u.recover(sp)
	rejected, err := sp.Entries(spool.Rejected)
	if err != nil {
		return err
	}
	u.rejected.Store(int64(len(rejected)))
	entries, err := sp.Entries(spool.Ready)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		u.w.Progress()
		if err := u.admit(sp, e.ID); err != nil && !errors.Is(err, fs.ErrNotExist) && len(errs) < 3 {
			errs = append(errs, fmt.Errorf("look at %s: %w", e.Name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// recover settles what was left half-way in the store: there need not be a mover
// that does.
func (u *uploader) recover(sp *spool.Spool) {
	if sp == u.settled && time.Now().Before(u.settleNext) {
		return
	}
	foreign, err := u.files.Recover(sp)
	u.settled, u.settleNext = sp, time.Now().Add(scanEvery)
	if err != nil {
		u.settleNext = time.Now().Add(settleAgain)
	}
	u.w.Gauge("foreign_files", float64(foreign))
	u.w.TroubleWith(theRecovery, err)
}

// admit queues a file by what its sidecar says.
func (u *uploader) admit(sp *spool.Spool, id sidecar.ID) error {
	if u.queue.has(id) {
		return nil
	}
	side, err := sp.Sidecar(spool.Ready, id)
	if err != nil {
		return err
	}
	now := u.w.Now()
	born := age{wall: side.End.Time.Time}
	if old, ok := rule.Age(side, now, u.w.BootID()); ok {
		born = age{known: true, boot: now.Boot - old}
	}
	u.queue.add(id, side.Class(), born)
	return nil
}

// look brings the state up to date, and says whether the store has come or gone.
func (u *uploader) look() (turned bool) {
	if time.Since(u.lookedAt) < lookEvery {
		return false
	}
	u.lookedAt = time.Now()
	now := u.w.Now()
	if err := u.anchors.Note(now, u.w.BootID()); !errors.Is(err, spool.ErrNotMounted) { // of which scan tells
		u.w.TroubleWith(theClock, err)
	}
	_, err := u.spool()
	absent := errors.Is(err, spool.ErrNotMounted)
	turned = u.queue.setAbsent(absent)
	byClass, oldest, known := u.queue.count()
	waiting := 0
	for _, class := range sidecar.Classes() {
		waiting += byClass[class]
		u.w.Gauge("queued_"+string(class)+"_files", float64(byClass[class]))
	}
	age := time.Duration(0)
	if known {
		age = now.Boot - oldest
	}
	u.w.Gauge("oldest_queued_s", age.Seconds())
	rest := u.queue.rest(time.Now())
	u.w.Gauge("pause_s", rest.Seconds())
	u.w.Gauge("in_rejected_files", float64(u.rejected.Load()))
	switch {
	case absent:
		u.w.Status("%d files wait for the store", waiting)
	case rest > 0:
		u.w.Status("%d files wait; the next attempt is in %s", waiting, rest.Round(time.Second))
	case waiting > 0:
		u.w.Status("sending %d files to %s", waiting, u.cfg.To)
	case u.rejected.Load() > 0:
		u.w.Status("%d files are rejected; all else is sent to %s", u.rejected.Load(), u.cfg.To)
	default:
		u.w.Status("all is sent to %s", u.cfg.To)
	}
	return turned
}
