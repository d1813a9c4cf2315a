package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/gone"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	c, err := open(w, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	in, err := w.Messages(nil)
	if err != nil {
		return err
	}
	if err := c.step(); err != nil {
		return err
	}
	w.Ready(ctx)
	for {
		m, ok, err := in.Next(ctx, c.due())
		if err == nil && ok {
			c.hear(m)
		}
		if err == nil && !time.Now().Before(c.due()) {
			err = c.step()
		}
		if err != nil {
			return errors.Join(err, c.last())
		}
	}
}

// last removes what was dropped at the very end.
func (c *cleaner) last() error {
	if len(c.hints) == 0 {
		return nil
	}
	c.next = time.Now()
	return c.step()
}

const (
	// planEvery is how often it looks how much room there is.
	planEvery = 10 * time.Second
	// scanEvery is how often it looks at all files.
	scanEvery = time.Minute
	// soon is how long a message waits for others.
	soon = 100 * time.Millisecond
	// batch is how many files are deleted before messages are read again.
	batch = 64
	// maxHints is how many files it looks at one by one, before it looks at all.
	maxHints = 1000
)

// cleaner is the deleter at work.
type cleaner struct {
	w      *worker.Worker
	cfg    Config
	files  *worker.Files
	cache  *spool.Spool
	store  *spool.Store
	disk   *spool.Spool // the store as it is now; nil while it is not there
	log    *gone.Log    // in it; nil where it could not be opened
	losses losses
	ram    *shelf
	kept   *shelf // on disk

	hints  map[sidecar.ID]bool // files that messages spoke of
	queue  []doomed            // what the last plan left to do
	told   map[sidecar.ID]bool // told of in a losses file, and not removed yet
	logged map[sidecar.ID]bool // told of in the log, and not removed yet
	next   time.Time           // when it plans anew
	scan   time.Time           // when it looks at all files

	away, sick, failed error // what is wrong with the store, with looking, with removing (the first)
	lacking            error // budgets that are not kept to
}

func open(w *worker.Worker, cfg Config) (*cleaner, error) {
	n := w.Node()
	c := &cleaner{w: w, cfg: cfg, hints: map[sidecar.ID]bool{}, told: map[sidecar.ID]bool{}, logged: map[sidecar.ID]bool{},
		store: spool.NewStore(n.StoreDir, n.StoreMount, spool.Work, spool.Ready)}
	c.ram, c.kept = newShelf(ram, &c.cfg.RAM), newShelf(disk, &c.cfg.Disk)
	var err error
	if c.files, err = w.PublishFiles(); err != nil {
		return nil, err
	}
	c.losses = losses{w: w, files: c.files}
	c.cache, err = spool.Open(n.CacheDir, spool.Work, spool.Born)
	return c, err
}

func (c *cleaner) close() error {
	err := c.losses.end()
	c.leaveStore()
	return errors.Join(err, c.store.Close(), c.cache.Close())
}

func (c *cleaner) shelf(at place) *shelf {
	if at == ram {
		return c.ram
	}
	return c.kept
}

// spool is where a place's files are; nil while it is not there.
func (c *cleaner) spool(at place) *spool.Spool {
	if at == ram {
		return c.cache
	}
	return c.disk
}

// hear takes a file's id out of a message. Nothing else in it is believed.
func (c *cleaner) hear(m msg.Message) {
	f, err := m.File()
	id := sidecar.ID(f.ID)
	if err == nil {
		err = id.Check()
	}
	switch {
	case err != nil:
		c.w.Counter("malformed_files").Add(1)
		c.w.Log.Warn("skip file message", "err", err)
		return
	case len(c.hints) >= maxHints:
		c.scan = time.Time{}
	default:
		c.hints[id] = true
	}
	if at := time.Now().Add(soon); at.Before(c.next) {
		c.next = at
	}
}

// due is when step has something to do.
func (c *cleaner) due() time.Time {
	if len(c.queue) > 0 {
		return time.Unix(1, 0) // at once
	}
	if at := c.losses.due(); !at.IsZero() && at.Before(c.next) {
		return at
	}
	return c.next
}

// step deletes what is next, or plans anew. It fails where another deleter is
// at work; everything else is trouble, and tried again.
func (c *cleaner) step() error {
	c.findStore()
	if now := time.Now(); len(c.queue) == 0 && !now.Before(c.next) {
		c.next = now.Add(planEvery)
		c.failed = c.moveIn()
		if held := (*lockfile.HeldError)(nil); errors.As(c.failed, &held) {
			return c.failed
		}
		c.look(now)
		c.plan()
	}
	if n := min(batch, len(c.queue)); n > 0 {
		some := c.queue[:n]
		c.queue = c.queue[n:]
		c.failed = cmp.Or(c.failed, c.remove(some))
	}
	if at := c.losses.due(); c.disk != nil && !at.IsZero() && !time.Now().Before(at) {
		c.failed = cmp.Or(c.failed, c.losses.turn())
	}
	c.say()
	return nil
}

// findStore opens the store if it is there.
func (c *cleaner) findStore() {
	sp, err := c.store.Spool()
	c.away = err
	if err == nil && sp == c.disk {
		return
	}
	c.leaveStore()
	if err != nil {
		c.kept.gone(err)
		return
	}
	c.disk, c.scan = sp, time.Time{}
}

// moveIn opens the log, and the losses file where one may be needed, unless
// they are open. A disk that is too full for them is no reason not to delete.
func (c *cleaner) moveIn() error {
	if c.disk == nil {
		return nil
	}
	var errs []error
	if c.log == nil {
		root, err := c.disk.Folder(gone.Folder)
		if err == nil {
			c.log, err = gone.Open(root, int64(c.cfg.History))
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, c.losses.open(c.disk, c.cfg.RAM.any() || c.cfg.Disk.any()))...)
}

// leaveStore lets go of a disk that is gone.
func (c *cleaner) leaveStore() {
	c.losses.leave()
	if c.log != nil {
		_ = c.log.Close() // what was told is durable
	}
	c.log, c.disk = nil, nil
}

// logGone writes sidecars of files that are to go to the log.
func (c *cleaner) logGone(sides []*sidecar.Sidecar) error {
	switch {
	case len(sides) == 0:
		return nil
	case c.log == nil:
		return fmt.Errorf("%d files wait to be deleted: there is no log to tell of them", len(sides))
	}
	return c.log.Append(sides...)
}

// look brings the shelves up to date.
func (c *cleaner) look(now time.Time) {
	c.sick = nil
	all := !now.Before(c.scan)
	for _, s := range []*shelf{c.ram, c.kept} {
		sp := c.spool(s.at)
		if sp == nil {
			continue
		}
		if err := c.lookAt(s, sp, all); err != nil {
			c.sick = errors.Join(c.sick, err)
		}
	}
	clear(c.hints)
	if all {
		c.scan = now.Add(scanEvery)
	}
	if c.sick != nil {
		c.scan = time.Time{}
	}
}

func (c *cleaner) lookAt(s *shelf, sp *spool.Spool, all bool) (err error) {
	if all {
		err = s.scan(sp, c.w.Progress)
	} else {
		for id := range c.hints {
			c.w.Progress()
			s.look(sp, id)
		}
	}
	if err == nil {
		s.room, err = sp.Room()
	}
	if err != nil {
		s.gone(err)
	}
	return err
}

// plan decides what goes next.
func (c *cleaner) plan() {
	p := planner{&c.cfg, c.w.Now(), c.w.BootID()}
	plan := p.plan(c.ram, c.kept)
	c.queue = plan.goes
	errs := []error{plan.rules}
	for _, s := range plan.short {
		errs = append(errs, s)
	}
	c.lacking = errors.Join(errs...)
	if soon := time.Now().Add(planEvery); len(plan.short) > 0 && c.scan.After(soon) {
		c.scan = soon // something may have been sent of which no message tells us
	}
}

// say tells of it in the worker's state.
func (c *cleaner) say() {
	for _, s := range []*shelf{c.ram, c.kept} {
		unsent := 0
		for _, f := range s.files {
			if !settled(f) && f.state != spool.Dropped {
				unsent++
			}
		}
		for name, n := range map[string]int64{"files": int64(len(s.files)), "unsent_files": int64(unsent), "used_bytes": s.used(), "free_bytes": s.room.Free} {
			c.w.Gauge(string(s.at)+"_"+name, float64(n))
		}
	}
	c.w.Gauge("waiting_files", float64(len(c.queue)))
	c.w.Trouble(errors.Join(c.away, c.sick, c.failed, c.lacking))
	c.w.Status("%d files in RAM (%s), %d on disk (%s, %s free); deleted %d", len(c.ram.files), topology.Bytes(c.ram.used()),
		len(c.kept.files), topology.Bytes(c.kept.used()), topology.Bytes(c.kept.room.Free), c.w.Counter("deleted_files").Value())
}
