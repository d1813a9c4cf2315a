package msg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/private"
	"github.com/perch-edge/perch/pkg/shm"
)

const (
	// linger bounds how long Close waits for a peer to take what is queued.
	linger = 500 * time.Millisecond
	// reconnect is how soon a subscriber tries again: a publisher that was
	// killed is back on the bus within that and its own start.
	reconnect = 10 * time.Millisecond
	// reconnectSeldom is the same for a publisher that is mostly away: ZeroMQ
	// tries after one to two such times.
	reconnectSeldom = 250 * time.Millisecond
	// queue bounds what waits on each side of a lossless endpoint.
	queue = 1000
)

// Config is what all endpoints of a process have in common.
type Config struct {
	Node   string       // the box's name
	Name   Source       // the worker's name: what it publishes as, and is known by where it reads
	RunDir string       // where endpoints are
	ShmDir string       // where rings are
	Clock  *clock.Clock // nil is the machine's
}

// Bus is one process's part of the bus.
type Bus struct {
	cfg Config
	ctx *zmq4.Context
	dir *shm.Dir

	mu     sync.Mutex
	run    *os.Root
	open   []func() error // how to close what was opened
	bound  []*bound       // endpoints
	closed bool
}

// bound is an endpoint of this process: its socket file and the lock on it.
type bound struct {
	end  *endpoint
	file string
	info fs.FileInfo // of the file
	lock *lockfile.Lock
}

// Open prepares the folders and ZeroMQ. Close it to let queued messages out.
func Open(cfg Config) (*Bus, error) {
	if err := errors.Join(cfg.Name.Check(), checkNode(cfg.Node)); err != nil {
		return nil, fmt.Errorf("open the bus: %w", err)
	}
	if cfg.Clock == nil {
		system, err := clock.System()
		if err != nil {
			return nil, err
		}
		cfg.Clock = system
	}
	if err := checkBootID(cfg.Clock.BootID()); err != nil {
		return nil, fmt.Errorf("open the bus: %w", err)
	}
	dir, err := shm.OpenDir(cfg.ShmDir)
	if err != nil {
		return nil, err
	}
	run, err := openRun(cfg.RunDir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	ctx, err := zmq4.NewContext()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ZeroMQ: %w", err), dir.Close(), run.Close())
	}
	return &Bus{cfg: cfg, ctx: ctx, dir: dir, run: run}, nil
}

// closeLater registers how to close what was opened.
func (b *Bus) closeLater(how func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = append(b.open, how)
}

// Clock stamps what this process publishes.
func (b *Bus) Clock() *clock.Clock { return b.cfg.Clock }

// Close closes what was opened on the bus, newest first, and waits up to half
// a second for queued messages to leave. Nothing of the bus may be in use by
// then, but for frames that are held: they stay until their Release.
func (b *Bus) Close() error {
	b.mu.Lock()
	open, endpoints, closed := b.open, b.bound, b.closed
	b.open, b.bound, b.closed = nil, nil, true
	b.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	for _, how := range slices.Backward(open) {
		errs = append(errs, how())
	}
	errs = append(errs, b.ctx.Term())
	// ZeroMQ leaves the file of a bound socket behind. The lock goes last, so
	// that nobody's successor loses its file.
	for _, e := range endpoints {
		if !e.lock.Current() { // somebody removed the file, and another process may have the name
			errs = append(errs, e.lock.Drop())
			continue
		}
		if err := b.run.Remove(e.file); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, e.lock.Release())
	}
	return errors.Join(append(errs, b.dir.Close(), b.run.Close())...)
}

// Mend recreates endpoints whose files somebody removed, perhaps with the whole run folder
// (a cleaner, or logind at a user's last logout): existing connections stay, but nobody
// else could connect. Call it about once a second. It fails if an endpoint cannot be
// recreated, for example because another process has taken the name.
func (b *Bus) Mend() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	if err := b.mendRun(); err != nil {
		return err
	}
	var errs []error
	for _, e := range b.bound {
		if err := b.mendEndpoint(e); err != nil {
			errs = append(errs, fmt.Errorf("recreate %s: %w", e.end.path, err))
		}
	}
	return errors.Join(errs...)
}

// mendRun opens the run folder again if its path names another one.
func (b *Bus) mendRun() error {
	there, err := os.Stat(b.cfg.RunDir)
	own, ownErr := b.run.Stat(".")
	if err == nil && ownErr == nil && os.SameFile(there, own) {
		return nil
	}
	run, err := openRun(b.cfg.RunDir)
	if err != nil {
		return err
	}
	_ = b.run.Close() // the folder is gone: nothing can be done in it
	b.run = run
	return nil
}

func (b *Bus) mendEndpoint(e *bound) error {
	info, err := b.run.Lstat(e.file)
	there := err == nil && os.SameFile(info, e.info)
	if there && e.lock.Current() {
		return nil
	}
	if !e.lock.Current() {
		lock, err := lockfile.Acquire(b.run, e.file+".lock")
		if err != nil {
			return err
		}
		_ = e.lock.Drop() // of a file that is gone
		e.lock = lock
	}
	if there {
		return nil
	}
	if err := e.end.rebind(); err != nil {
		return err
	}
	e.info, err = b.run.Lstat(e.file)
	return err
}

// openRun opens the folder of sockets. Its path is absolute, since it becomes
// part of endpoints.
func openRun(path string) (*os.Root, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("run_dir %q: want an absolute path", path)
	}
	return private.Open(path, "run_dir", 0o022)
}
