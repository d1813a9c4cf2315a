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
	m.shelf.recover(true)
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
	retry   *backoff.Backoff // of a store that fails
	after   time.Time        // when the store is tried again
}

func openMover(w *worker.Worker, cfg Config) (*mover, error) {
	s, err := openShelf(w, cfg)
	if err != nil {
		return nil, err
	}
	m := &mover{w: w, cfg: cfg, shelf: s, sources: newSources(w), known: map[sidecar.ID]bool{}, started: w.Now().Boot,
		retry: &backoff.Backoff{First: time.Second, Most: 30 * time.Second, Healthy: time.Minute}}
	m.judge = judge{cfg: cfg, sights: sights{}}
	m.judge.detectors = func(camera msg.Source) []msg.Source { return m.sources.detectors(camera, m.judge.sights) }
	return m, nil
}

// take takes a message in. What is wrong with one is counted and harms nobody.
func (m *mover) take(got *msg.Message) {
	switch got.Kind {
	case msg.KindDetection:
		d, err := got.Detection()
		if err != nil || d.BootID != m.w.BootID() {
			m.w.Counter("refused_detections").Add(1)
			return
		}
		m.judge.sights.take(&d)
	case msg.KindFile:
		f, err := got.File()
		id := sidecar.ID(f.ID)
		if err != nil || id.Check() != nil || !m.sources.write(id.Worker()) {
			m.w.Counter("refused_files").Add(1)
			m.w.Log.Debug("refuse file message", "id", f.ID, "from", string(got.Source), "err", err)
			return
		}
		if f.State == string(spool.Born) {
			m.adopt(id)
		}
	}
}

// scan finds the files in born/ that no message told of, settles what kills
// left, and looks at the folders again in a minute.
func (m *mover) scan() {
	m.scanned = time.Now()
	entries, err := m.shelf.cache.Entries(spool.Born)
	m.shelf.troubles.set("scan", err)
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
	f := &file{id: side.ID, start: time.Duration(side.Start.BootNS), end: time.Duration(side.End.BootNS), bytes: side.Bytes,
		foreign: side.Start.BootID != m.w.BootID() || side.End.BootID != m.w.BootID(),
		facts:   factsOf(side, now, m.w.BootID())}
	f.camera = msg.Source(f.facts.Source)
	f.deadline = max(f.end, m.started) + m.cfg.VerdictTimeout.D()
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
	m.shelf.look()
	m.evacuate()
	m.carryOut()
	if time.Since(m.scanned) >= scanEvery {
		m.shelf.recover(false)
		m.scan()
	}
	m.say()
}

// evacuate decides about the oldest undecided files when RAM is short: they are
// kept.
func (m *mover) evacuate() {
	free, short := m.shelf.short()
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

// carryOut does what is decided.
func (m *mover) carryOut() {
	m.files = slices.DeleteFunc(m.files, func(f *file) bool {
		done := f.ruling != nil && m.carry(f)
		if done {
			delete(m.known, f.id)
		}
		return done
	})
}

// carry carries a decision out, and says whether the file is done with.
func (m *mover) carry(f *file) bool {
	if f.ruling.verdict == Drop {
		return m.shelf.drop(f)
	}
	if time.Now().Before(m.after) {
		return false
	}
	done, err := m.shelf.keep(f)
	if err != nil {
		m.after = time.Now().Add(m.retry.Failed(0))
	} else if done {
		m.retry.Succeeded()
	}
	return done
}

// last decides about all that is left, and carries it out as far as that goes:
// what is in RAM may be lost soon.
func (m *mover) last() {
	now := m.w.Now().Boot
	for _, f := range m.files {
		if f.ruling == nil {
			f.ruling = m.judge.rule(f, now, true)
		}
	}
	m.after, m.shelf.ending = time.Time{}, true
	m.carryOut()
	m.say()
	if n := len(m.files); n > 0 {
		m.w.Log.Warn("files stay in RAM", "files", n)
	}
}

// say tells how it stands.
func (m *mover) say() {
	undecided, waiting := 0, 0
	for _, f := range m.files {
		if f.ruling == nil {
			undecided++
		} else {
			waiting++
		}
	}
	m.w.Gauge("undecided_files", float64(undecided))
	m.w.Gauge("waiting_files", float64(waiting))
	m.w.Gauge("written_24h_bytes", float64(m.shelf.wear.used(m.w.Now().Boot)))
	m.w.Status("%d undecided, %d wait for the disk", undecided, waiting)
	m.w.Trouble(m.shelf.troubles.all())
}
