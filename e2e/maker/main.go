// Maker is a sensor for tests: it makes files at a rate, and keeps a true
// account of each.
//
//	random bytes --> <truth>/<epoch>: "begun", its id, sha256 and items --> cache_dir/born/ --> "complete" --> file message
//
// The account is appended to before a file is begun and after it is complete,
// so it outlives a kill: what it calls complete is in born/, and of all others
// only the last one of a run may be. Files have one item and two in turn, so that
// a rule can tell them apart. A test compares it with what became of them.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [sensor.NAME].
type Config struct {
	Truth string  `toml:"truth" doc:"folder for the true account"`
	Hz    float64 `toml:"hz" doc:"files a second"`
	Bytes int     `toml:"bytes" doc:"length of each"`
}

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	if c.Hz <= 0 || c.Hz > 1000 {
		return topology.Bad("hz", "want more than 0, and at most 1000")
	}
	return nil
}

// Rings is the shared memory that the file events take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.FileHistory()} }

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "maker",
		Summary:   "Makes files for tests.",
		Publishes: []msg.Kind{msg.KindFile},
		Config:    func() Config { return Config{Hz: 20, Bytes: 20 << 10} },
		Run:       run,
	})
}

func run(ctx context.Context, w *worker.Worker, cfg Config) (err error) {
	m := &maker{w: w}
	if m.cache, err = spool.Open(w.Node().CacheDir, spool.Work, spool.Born); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.cache.Close()) }()
	if _, err := m.cache.RemoveUnfinished(w.Name(), spool.Born); err != nil {
		return err
	}
	if m.files, err = w.PublishFiles(); err != nil {
		return err
	}
	m.truth, err = os.OpenFile(fmt.Sprintf("%s/%s", cfg.Truth, w.Epoch()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.truth.Close()) }()
	w.Ready(ctx)
	tick := time.NewTicker(time.Duration(float64(time.Second) / cfg.Hz))
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		w.Progress()
		if err := m.make(1+n%2, cfg.Bytes); err != nil {
			return err
		}
	}
}

type maker struct {
	w     *worker.Worker
	cache *spool.Spool
	files *worker.Files
	truth *os.File
}

// make makes a file.
func (m *maker) make(items uint64, bytes int) error {
	text := make([]byte, bytes)
	if _, err := rand.Read(text); err != nil {
		return err
	}
	now := m.w.Now()
	at := sidecar.Moment{Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: m.w.BootID(), Synced: now.Synced, Epoch: m.w.Epoch()}
	source := msg.TopicOf(msg.KindReading, msg.Source(m.w.Name()), "noise")
	side := m.files.Describe(m.files.NewID(at), ".bin", "application/octet-stream", source, at, at, items)
	side.History = []sidecar.Event{m.files.Event(string(spool.Born), "one after the other")}
	if _, err := fmt.Fprintf(m.truth, "begun %s %x %d\n", side.ID, sha256.Sum256(text), items); err != nil {
		return err
	}
	if err := m.file(text, side); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(m.truth, "complete %s\n", side.ID); err != nil {
		return err
	}
	return m.files.Announce(side)
}

// file writes it under work/ and moves it to born/.
func (m *maker) file(text []byte, side *sidecar.Sidecar) (err error) {
	f, err := m.cache.Create(side.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return err
	}
	return m.cache.Complete(f, spool.Born, side)
}
