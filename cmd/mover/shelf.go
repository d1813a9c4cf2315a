package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/proc"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/wear"
	"github.com/perch-edge/perch/pkg/worker"
)

// shelf is where files are: the cache in RAM, and the store on disk.
type shelf struct {
	w      *worker.Worker
	cfg    Config
	cache  *spool.Spool
	store  *spool.Store
	out    *worker.Files
	wear   wear.Count
	ending bool // RAM may be lost soon

	asked time.Time // when free RAM was last asked for
	free  int64
}

func openShelf(w *worker.Worker, cfg Config) (*shelf, error) {
	n := w.Node()
	cache, err := spool.Open(n.CacheDir, spool.Work, spool.Born)
	if err != nil {
		return nil, err
	}
	s := &shelf{w: w, cfg: cfg, cache: cache, store: spool.NewStore(n.StoreDir, n.StoreMount, spool.Work, spool.Ready)}
	if s.wear, err = wear.Load(cache, w.Name(), w.BootID()); err != nil {
		w.Log.Warn("load wear", "err", err)
	}
	if s.out, err = w.PublishFiles(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *shelf) close() error {
	return errors.Join(s.wear.Save(s.cache, s.w.Name()), s.cache.Close(), s.store.Close())
}

// recover settles what was left half-way in both places.
func (s *shelf) recover() {
	var errs []error
	spools, foreign := []*spool.Spool{s.cache}, 0
	if store, err := s.store.Spool(); err == nil {
		spools = append(spools, store)
	}
	for _, one := range spools {
		n, err := s.out.Recover(one)
		errs, foreign = append(errs, err), foreign+n
	}
	s.w.Gauge("foreign_files", float64(foreign))
	s.w.TroubleWith("recovery", errors.Join(errs...))
	if err := s.wear.Save(s.cache, s.w.Name()); err != nil {
		s.w.Log.Warn("save wear", "err", err)
	}
}

// look says whether the store's disk is there, also while no file needs it.
func (s *shelf) look() bool {
	_, err := s.store.Spool()
	if !errors.Is(err, spool.ErrNotMounted) {
		err = nil
	}
	s.w.TroubleWith("mount", err)
	return err == nil
}

var (
	// errGone says that somebody else has seen to a file.
	errGone = errors.New("it is not there any more")
	// errWorn says that no more may be written today.
	errWorn = errors.New("written enough for these 24 hours")
)

// drop moves a file to dropped/.
func (s *shelf) drop(f *file) (err error) {
	h, err := s.hold(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Release()) }()
	side := s.sidecar(h, f, spool.Dropped)
	if err = h.Move(spool.Dropped, side); h.State() == spool.Dropped { // also where it fails after that
		s.done(f, side)
	}
	return err
}

// hold takes a file. It fails with errGone where that is done with: because it
// is gone, or because the store has had it since before the mover was killed.
func (s *shelf) hold(f *file) (*spool.Held, error) {
	h, err := s.cache.Hold(spool.Born, f.id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	store, err := s.store.Spool()
	if err != nil { // then nothing can be settled
		return h, nil
	}
	settled, err := h.Settle(store, s.w.Progress)
	if err == nil && !settled {
		return h, nil
	}
	if err == nil || errors.Is(err, spool.ErrLitter) {
		s.settled(store, f)
		err = errors.Join(err, errGone)
	}
	return nil, errors.Join(err, h.Release())
}

// settled counts and tells of a file that the store has: who brought it there has
// not, since that failed, or was killed, before it was done.
func (s *shelf) settled(store *spool.Spool, f *file) {
	s.w.Counter("settled_leftovers").Add(1)
	counter := "kept_files"
	if f.ruling.verdict == Keep {
		counter = f.ruling.counter
	}
	s.w.Counter(counter).Add(1)
	if side, err := store.Sidecar(spool.Ready, f.id); err == nil { // or it has gone on, and is known
		s.out.Tell(side)
	}
}

// done counts and tells of a file that is where its ruling says.
func (s *shelf) done(f *file, side *sidecar.Sidecar) {
	s.w.Counter(f.ruling.counter).Add(1)
	s.out.Tell(side)
}

// sidecar is the file's with what is decided about it.
func (s *shelf) sidecar(h *spool.Held, f *file, to spool.State) *sidecar.Sidecar {
	side := h.Sidecar()
	side.Detections, side.OmittedObjects = f.ruling.record, f.ruling.omitted
	if f.ruling.verdict == Keep {
		side.Verdict = string(Keep)
	}
	e := s.out.Event(string(to), f.ruling.reason)
	e.Rule = f.ruling.rule
	side.Add(e)
	return side
}

// decided begins the reason of an event that only tells of a decision.
const decided = "decided: "

// note writes down that a file is to be kept, for as long as it has to wait: who
// comes after us may know less of it. It says whether that needs no other try.
func (s *shelf) note(f *file) (bool, error) {
	h, err := s.cache.Hold(spool.Born, f.id)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	err = errors.Join(s.noteIn(h, f), h.Release())
	return err == nil, err
}

func (s *shelf) noteIn(h *spool.Held, f *file) error {
	if h.Sidecar().Verdict == string(Keep) {
		return nil
	}
	side := s.sidecar(h, f, spool.Born)
	last := &side.History[len(side.History)-1]
	last.Reason = decided + last.Reason
	return h.Amend(side)
}

// noted is the ruling that an earlier run wrote down; nil where there is none.
func noted(side *sidecar.Sidecar) *ruling {
	if side.Verdict != string(Keep) {
		return nil
	}
	last := side.History[len(side.History)-1]
	return &ruling{verdict: Keep, reason: strings.TrimPrefix(last.Reason, decided), rule: last.Rule, counter: "kept_files",
		evidence: evidence{record: side.Detections, omitted: side.OmittedObjects}}
}

// keep brings a file to disk. It fails with errWorn where that is to wait.
func (s *shelf) keep(f *file) (err error) {
	h, err := s.hold(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Release()) }()
	if s.cfg.Otherwise == Drop { // without it a kill from here on could cost the file
		if err := s.noteIn(h, f); err != nil {
			return err
		}
	}
	return s.toStore(h, f)
}

func (s *shelf) toStore(h *spool.Held, f *file) error {
	if s.overWear(f.bytes) {
		return fmt.Errorf("max_write = %q: %w", s.cfg.MaxWrite, errWorn)
	}
	store, err := s.store.Spool()
	if err != nil {
		return err
	}
	side := s.sidecar(h, f, spool.Ready)
	err = h.MoveTo(store, spool.Ready, side, s.w.Progress)
	s.wear.Add(s.w.Now().Boot, s.store.Written())
	if errors.Is(err, spool.ErrDamaged) {
		return s.quarantine(h, err)
	}
	if err != nil && !errors.Is(err, spool.ErrLitter) {
		return err
	}
	s.w.Counter("stored_bytes").Add(int(f.bytes))
	s.done(f, side)
	return err
}

// quarantine sets a file aside whose bytes are wrong.
func (s *shelf) quarantine(h *spool.Held, why error) error {
	side := h.Sidecar()
	side.Add(s.out.Event(string(spool.Quarantine), why.Error()))
	err := h.Move(spool.Quarantine, side)
	if h.State() == spool.Quarantine { // also where it fails after that
		s.w.Counter("damaged_files").Add(1)
		s.out.Tell(side)
	}
	return err
}

// overWear says whether a file is more than may be written today. Where RAM is
// short, or about to be lost, it is written all the same: a card that lasts
// longer is not worth a file.
func (s *shelf) overWear(bytes int64) bool {
	limit := int64(s.cfg.MaxWrite)
	_, short := s.room()
	return limit > 0 && !short && !s.ending && s.wear.Used(s.w.Now().Boot)+bytes > limit
}

// room says how much RAM is free for files, and whether that is too little. It
// asks once a second.
func (s *shelf) room() (free int64, short bool) {
	if now := time.Now(); now.Sub(s.asked) >= time.Second {
		s.asked = now
		s.free = freeIn(s.cache)
		s.w.Gauge("cache_free_bytes", float64(s.free))
	}
	return s.free, s.free < int64(s.cfg.MinFree)
}

// freeIn is how much a cache can take: what its file system has, and what the
// machine has, since it is in RAM.
func freeIn(cache *spool.Spool) int64 {
	room, err := cache.Room()
	if err != nil {
		return 0
	}
	return min(room.Free, proc.AvailableRAM())
}
