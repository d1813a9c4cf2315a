package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

const (
	// lookEvery is how often the files are looked at while messages come.
	lookEvery = 100 * time.Millisecond
	// idleEvery is the same while none do.
	idleEvery = 500 * time.Millisecond
	// scanEvery is how often the folders are looked at for what no message told.
	scanEvery = time.Minute
)

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	m, err := openMover(w, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.shelf.close()) }()
	in, err := w.Messages(nil)
	if err != nil {
		return err
	}
	m.shelf.recover()
	m.scan()
	m.say()
	w.Ready(ctx)
	for next := time.Now(); ; { // at once, for what is there already
		got, ok, err := in.Next(ctx, next)
		if err != nil {
			m.last()
			return err
		}
		if ok {
			m.take(&got)
			next = m.looked.Add(lookEvery)
		}
		if now := time.Now(); !now.Before(next) {
			m.looked = now
			m.look()
			next = time.Now().Add(idleEvery)
		}
	}
}

// mover is the work loop's view of files and detections.
type mover struct {
	w       *worker.Worker
	cfg     Config
	judge   judge
	sources *sources
	shelf   *shelf
	files   []*file // in born/, by their end
	known   map[sidecar.ID]bool
	started time.Duration // boot time
	looked  time.Time
	scanned time.Time
	retry   *backoff.Backoff // of a store that takes nothing
	after   time.Time        // when it is tried again
	failed  int              // files in a row that could not be stored
}

func openMover(w *worker.Worker, cfg Config) (*mover, error) {
	s, err := openShelf(w, cfg)
	if err != nil {
		return nil, err
	}
	m := &mover{w: w, cfg: cfg, shelf: s, sources: newSources(w), known: map[sidecar.ID]bool{}, started: w.Now().Boot,
		retry: newRetry()}
	m.judge = judge{cfg: cfg, sights: sights{}}
	m.judge.detectors = func(camera msg.Source) []msg.Source { return m.sources.detectors(camera, m.judge.sights) }
	return m, nil
}

// newRetry spaces out what fails, of a file or of them all.
func newRetry() *backoff.Backoff { return &backoff.Backoff{First: time.Second, Most: 10 * time.Second} }

// take takes a message in. What is wrong with one is counted and harms nobody.
func (m *mover) take(got *msg.Message) {
	switch got.Kind {
	case msg.KindDetection:
		d, err := got.Detection()
		if err != nil || d.BootID != m.w.BootID() {
			m.w.Counter("refused_detections").Add(1)
			return
		}
		if !m.judge.sights.take(&d, m.w.Now().Boot) {
			m.w.Counter("refused_detections").Add(1)
		}
	case msg.KindFile:
		f, err := got.File()
		if err == nil && f.State != string(spool.Born) {
			return
		}
		id := sidecar.ID(f.ID)
		if err != nil || id.Check() != nil || !m.sources.write(id.Worker()) && !m.sources.announces(got.Source) {
			m.w.Counter("refused_files").Add(1)
			m.w.Log.Debug("refuse file message", "id", f.ID, "from", string(got.Source), "err", err)
			return
		}
		if m.sources.write(id.Worker()) {
			m.adopt(id)
		}
	}
}

// scan finds the files in born/ that no message told of, settles what kills
// left, and looks at the folders again in a minute.
func (m *mover) scan() {
	m.scanned = time.Now()
	entries, err := m.shelf.cache.Entries(spool.Born)
	m.w.TroubleWith("scan", err)
	for _, e := range entries {
		if m.sources.write(e.ID.Worker()) {
			m.adopt(e.ID)
		}
	}
}

// adopt takes a file in born/ on. One that is not there (any more) is nobody's.
func (m *mover) adopt(id sidecar.ID) {
	if m.known[id] {
		return
	}
	side, err := m.shelf.cache.Sidecar(spool.Born, id)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.w.Log.Warn("a file without a readable sidecar waits for recovery", "id", string(id), "err", err)
		}
		return
	}
	f := m.fileOf(side)
	at, _ := slices.BinarySearchFunc(m.files, f, func(a, b *file) int { return cmp.Compare(a.end, b.end) })
	m.files = slices.Insert(m.files, at, f)
	m.known[id] = true
}

func (m *mover) fileOf(side *sidecar.Sidecar) *file {
	now := m.w.Now()
	f := &file{id: side.ID, retry: *newRetry(), start: time.Duration(side.Start.BootNS), end: time.Duration(side.End.BootNS), bytes: side.Bytes,
		foreign: side.Start.BootID != m.w.BootID() || side.End.BootID != m.w.BootID(),
		facts:   factsOf(side, now, m.w.BootID())}
	f.camera, f.ruling = msg.Source(f.facts.Source), noted(side)
	f.noted = f.ruling != nil
	f.deadline = max(f.end, m.started) + m.cfg.patience()
	if f.foreign {
		f.start, f.end, f.deadline = 0, 0, 0 // before all that is of this boot
	}
	return f
}

// look decides about files and carries decisions out. Those that cannot be
// carried out stay for the next time.
func (m *mover) look() {
	now := m.w.Now().Boot
	for _, f := range m.files {
		if f.ruling == nil {
			f.ruling = m.judge.rule(f, now, false)
		}
	}
	m.evacuate()
	m.carryOut(m.shelf.look())
	if time.Since(m.scanned) >= scanEvery {
		m.shelf.recover()
		m.scan()
	}
	m.say()
}

// evacuate decides about the oldest undecided files when RAM is short: they are
// kept.
func (m *mover) evacuate() {
	free, short := m.shelf.room()
	if !short {
		return
	}
	for _, f := range m.files {
		if free >= int64(m.cfg.MinFree) {
			return
		}
		if f.ruling == nil {
			f.ruling = m.kept(f, fmt.Sprintf("undecided, and RAM is short: %d MB free, min_free = %q", free/1e6, m.cfg.MinFree), "evacuated_files")
		}
		free += f.bytes
	}
}

// kept is a ruling that no rule made.
func (m *mover) kept(f *file, reason, counter string) *ruling {
	e := m.judge.sights.evidence(f, m.judge.detectors(f.camera), m.cfg.Pre.D(), m.cfg.Post.D())
	return &ruling{verdict: Keep, reason: reason, counter: counter, evidence: e}
}

// carryOut does what is decided. Without the store's disk files that are kept wait.
func (m *mover) carryOut(store bool) {
	m.files = slices.DeleteFunc(m.files, func(f *file) bool {
		if f.ruling == nil || time.Now().Before(f.after) {
			return false
		}
		m.w.Progress()
		if f.ruling.verdict == Keep && (!store || time.Now().Before(m.after)) {
			m.note(f)
			return false
		}
		done := m.carry(f)
		if done {
			delete(m.known, f.id)
		}
		return done
	})
}

// carry carries a decision out, and says whether the file is done with. One
// that fails does not keep others waiting; several in a row do.
func (m *mover) carry(f *file) bool {
	do := m.shelf.keep
	if f.ruling.verdict == Drop {
		do = m.shelf.drop
	}
	switch err := do(f); {
	case err == nil, errors.Is(err, errGone):
		m.failed = 0
		m.retry.Succeeded()
		return true
	case errors.Is(err, spool.ErrHeld):
		f.after = time.Now().Add(time.Second)
	case errors.Is(err, errWorn):
		f.stuck, f.after = err, time.Now().Add(time.Second)
		m.note(f)
	default:
		f.stuck, f.after = err, time.Now().Add(f.retry.Failed(0))
		m.note(f)
		if m.failed++; m.failed >= mostFailed && !m.shelf.ending {
			m.failed, m.after = 0, time.Now().Add(m.retry.Failed(0))
		}
	}
	return false
}

// note writes down that a file which has to wait is to be kept, once.
func (m *mover) note(f *file) {
	if f.noted || f.ruling.verdict != Keep {
		return
	}
	done, err := m.shelf.note(f)
	if f.noted = done; !done {
		f.after = time.Now().Add(noteEvery)
		m.w.Log.Debug("note a decision", "id", string(f.id), "err", err)
	}
}

// noteEvery is how often that is tried.
const noteEvery = 2 * time.Second

// mostFailed is how many files in a row may fail before none is tried for a while.
const mostFailed = 3

// last decides about all that is left, and carries it out as far as that goes:
// what is in RAM may be lost soon.
func (m *mover) last() {
	now := m.w.Now().Boot
	for _, f := range m.files {
		if f.ruling == nil {
			f.ruling = m.judge.rule(f, now, true)
		}
		f.after = time.Time{}
	}
	m.after, m.shelf.ending = time.Time{}, true
	m.carryOut(m.shelf.look())
	m.say()
	if n := len(m.files); n > 0 {
		m.w.Log.Warn("files stay in RAM", "files", n)
	}
}

// say tells how it stands.
func (m *mover) say() {
	undecided, waiting, stuck := 0, 0, error(nil)
	for _, f := range m.files {
		switch {
		case f.ruling == nil:
			undecided++
		case f.stuck != nil && stuck == nil:
			stuck = f.stuck
			waiting++
		default:
			waiting++
		}
	}
	if stuck != nil {
		stuck = fmt.Errorf("%d files wait in RAM: %w", waiting, stuck)
	}
	m.w.TroubleWith("files", stuck)
	m.w.Gauge("undecided_files", float64(undecided))
	m.w.Gauge("waiting_files", float64(waiting))
	m.w.Gauge("written_24h_bytes", float64(m.shelf.wear.Used(m.w.Now().Boot)))
	m.w.Status("%d undecided, %d wait for the disk", undecided, waiting)
}
