package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/perch-edge/perch/internal/proc"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/wear"
	"github.com/perch-edge/perch/pkg/worker"
)

// shelf is where files are: the cache in RAM, and the store on disk.
type shelf struct {
	w        *worker.Worker
	cfg      Config
	cache    *spool.Spool
	store    *spool.Store
	out      *worker.Files
	wear     wear.Count
	troubles *troubles
	ending   bool // RAM may be lost soon

	asked time.Time // when free RAM was last asked for
	free  int64
}

func openShelf(w *worker.Worker, cfg Config) (*shelf, error) {
	n := w.Node()
	cache, err := spool.Open(n.CacheDir, spool.Work, spool.Born)
	if err != nil {
		return nil, err
	}
	s := &shelf{w: w, cfg: cfg, cache: cache, store: spool.NewStore(n.StoreDir, n.StoreMount, spool.Work, spool.Ready), troubles: &troubles{}}
	if s.out, err = w.PublishFiles(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if s.wear, err = wear.Load(cache, w.Name(), w.BootID()); err != nil {
		w.Log.Warn("load wear", "err", err)
	}
	return s, nil
}

func (s *shelf) close() error {
	return errors.Join(s.wear.Save(s.cache, s.w.Name()), s.cache.Close(), s.store.Close())
}

// recover settles what was left half-way in both places.
func (s *shelf) recover(deep bool) {
	var errs []error
	report, err := s.cache.Recover(s.out.Recovery(deep))
	errs = append(errs, err)
	s.count(report)
	if store, err := s.store.Spool(); err == nil {
		report, err = store.Recover(s.out.Recovery(deep))
		errs = append(errs, err)
		s.count(report)
	}
	if err := errors.Join(errs...); err != nil {
		s.troubles.set("recovery", fmt.Errorf("recover spool: %w", err))
	} else {
		s.troubles.set("recovery", nil)
	}
	if err := s.wear.Save(s.cache, s.w.Name()); err != nil {
		s.w.Log.Warn("save wear", "err", err)
	}
}

func (s *shelf) count(r spool.Report) {
	s.w.Counter("recovered_files").Add(len(r.Recovered))
	s.w.Counter("damaged_files").Add(len(r.Damaged))
	s.w.Counter("settled_leftovers").Add(r.Unfinished + r.Orphans + r.Finished)
	s.w.Gauge("foreign_files", float64(len(r.Foreign)))
	for _, side := range append(r.Recovered, r.Damaged...) {
		s.w.Log.Warn("file recovered", "file", side.Name, "state", side.State(), "why", side.History[len(side.History)-1].Reason)
		s.announce(side)
	}
	if len(r.Foreign) > 0 {
		s.w.Log.Debug("left alone: none of ours", "files", r.Foreign)
	}
}

// look says whether the store's disk is there, also while no file needs it.
func (s *shelf) look() {
	_, err := s.store.Spool()
	if !errors.Is(err, spool.ErrNotMounted) {
		err = nil
	}
	s.troubles.set("mount", err)
}

// announce tells of a file. One that cannot be told of is found by those who
// look at the folders.
func (s *shelf) announce(side *sidecar.Sidecar) {
	if err := s.out.Announce(side); err != nil {
		s.w.Counter("unannounced_files").Add(1)
		s.w.Log.Error("announce file", "file", side.Name, "err", err)
	}
}

// drop moves a file to dropped/, and says whether it is done with.
func (s *shelf) drop(f *file) bool {
	h, done := s.hold(f)
	if h == nil {
		return done
	}
	defer h.Release()
	side := s.sidecar(h, f, spool.Dropped)
	err := h.Move(spool.Dropped, side)
	s.troubles.set("drop", err)
	if err != nil {
		return false
	}
	s.w.Counter(f.ruling.counter).Add(1)
	s.announce(side)
	return true
}

// hold takes a file. Without one it says whether that is done with: because it
// is gone, or because the store has had it since before the mover was killed.
func (s *shelf) hold(f *file) (h *spool.Held, done bool) {
	h, err := s.cache.Hold(spool.Born, f.id)
	if err != nil {
		return nil, s.lost(err)
	}
	if store, err := s.store.Spool(); err == nil {
		if done, err = h.Settle(store, s.w.Progress); done || err != nil {
			return nil, errors.Join(err, h.Release()) == nil || s.lost(err)
		}
	}
	s.troubles.set("hold", nil)
	return h, false
}

// lost says whether a file that could not be held is no longer ours to move.
func (s *shelf) lost(err error) bool {
	gone := errors.Is(err, fs.ErrNotExist)
	if !gone && !errors.Is(err, spool.ErrHeld) {
		s.troubles.set("hold", err)
	}
	return gone
}

// sidecar is the file's with what is decided about it.
func (s *shelf) sidecar(h *spool.Held, f *file, to spool.State) *sidecar.Sidecar {
	side := h.Sidecar()
	side.Detections, side.OmittedObjects = f.ruling.record, f.ruling.omitted
	e := s.out.Event(string(to), f.ruling.reason)
	e.Rule = f.ruling.rule
	side.Add(e)
	return side
}

// keep brings a file to disk, and says whether it is done with. The error is
// one of the store, for all files alike.
func (s *shelf) keep(f *file) (bool, error) {
	store, err := s.store.Spool()
	if err != nil {
		s.troubles.set("store", fmt.Errorf("files wait in RAM: %w", err))
		return false, err
	}
	h, done := s.hold(f)
	if h == nil {
		return done, nil
	}
	defer h.Release()
	if s.overWear(f.bytes) {
		return false, nil
	}
	side := s.sidecar(h, f, spool.Ready)
	switch err := h.MoveTo(store, spool.Ready, side, s.w.Progress); {
	case errors.Is(err, spool.ErrDamaged):
		return s.quarantine(h, err), nil
	case err != nil:
		s.troubles.set("store", fmt.Errorf("files wait in RAM: %w", err))
		return false, err
	}
	s.troubles.set("store", nil)
	s.wear.Add(s.w.Now().Boot, s.store.Written())
	s.w.Counter(f.ruling.counter).Add(1)
	s.w.Counter("stored_bytes").Add(int(f.bytes))
	s.announce(side)
	return true, nil
}

// quarantine sets a file aside whose bytes are wrong.
func (s *shelf) quarantine(h *spool.Held, why error) bool {
	side := h.Sidecar()
	side.Add(s.out.Event(string(spool.Quarantine), why.Error()))
	if err := h.Move(spool.Quarantine, side); err != nil {
		s.troubles.set("drop", err)
		return false
	}
	s.w.Counter("damaged_files").Add(1)
	s.announce(side)
	return true
}

// overWear says whether a file is more than may be written today. Where RAM is
// short, or about to be lost, it is written all the same: a card that lasts
// longer is not worth a file.
func (s *shelf) overWear(bytes int64) bool {
	limit := int64(s.cfg.MaxWrite)
	_, short := s.short()
	if limit == 0 || short || s.ending || s.wear.Used(s.w.Now().Boot)+bytes <= limit {
		s.troubles.set("wear", nil)
		return false
	}
	s.troubles.set("wear", fmt.Errorf("files wait in RAM: max_write = %q is used up for these 24 hours", s.cfg.MaxWrite))
	return true
}

// short says how much RAM is free for files, and whether that is too little. It
// asks once a second.
func (s *shelf) short() (free int64, short bool) {
	if now := time.Now(); now.Sub(s.asked) >= time.Second {
		s.asked = now
		s.free = freeIn(s.cache)
		s.w.Gauge("cache_free_bytes", float64(s.free))
	}
	return s.free, s.free < int64(s.cfg.MinFree)
}

// freeIn is how much a cache can take: what its file system has and, where that
// is RAM, what the machine has.
func freeIn(cache *spool.Spool) int64 {
	room, err := cache.Room()
	if err != nil {
		return 0
	}
	return min(room.Free, proc.AvailableRAM())
}
