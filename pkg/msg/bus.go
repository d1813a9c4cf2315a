package msg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pebbe/zmq4"
	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/pkg/shm"
)

const (
	// linger bounds how long Close waits for a peer to take what is queued.
	linger = 500 * time.Millisecond
	// reconnect is how soon a subscriber tries again: a publisher that was
	// killed is back on the bus within that and its own start.
	reconnect = 10 * time.Millisecond
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
	cfg   Config
	ctx   *zmq4.Context
	dir   *shm.Dir
	run   *os.Root
	open  []func() error   // how to close what was opened
	locks []*lockfile.Lock // of bound endpoints
}

// Open prepares the folders and ZeroMQ. Close it to let queued messages out.
func Open(cfg Config) (*Bus, error) {
	if err := cfg.Name.Check(); err != nil {
		return nil, err
	}
	if cfg.Clock == nil {
		system, err := clock.System()
		if err != nil {
			return nil, err
		}
		cfg.Clock = system
	}
	dir, err := shm.OpenDir(cfg.ShmDir)
	if err != nil {
		return nil, err
	}
	run, err := openPrivate(cfg.RunDir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	ctx, err := zmq4.NewContext()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open ZeroMQ: %w", err), dir.Close(), run.Close())
	}
	return &Bus{cfg: cfg, ctx: ctx, dir: dir, run: run}, nil
}

// openPrivate opens a folder of sockets: whoever may enter it may speak on the bus.
func openPrivate(path string) (*os.Root, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("run folder %q: want an absolute path", path)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make run folder: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("stat run folder %s: %w", path, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("run folder %s belongs to user %d with mode %#o: want user %d and writable by nobody else (chmod 700 %s, or another run_dir)",
			path, st.Uid, st.Mode&0o777, os.Geteuid(), path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open run folder: %w", err)
	}
	return root, nil
}

// Clock stamps what this process publishes.
func (b *Bus) Clock() *clock.Clock { return b.cfg.Clock }

// Close closes what was opened on the bus, newest first, and waits up to half
// a second for queued messages to leave.
func (b *Bus) Close() error {
	var errs []error
	for i := len(b.open) - 1; i >= 0; i-- {
		errs = append(errs, b.open[i]())
	}
	errs = append(errs, b.ctx.Term())
	// Only now: until ZeroMQ has ended it may still remove a socket file, and
	// must not remove that of a successor.
	for _, lock := range b.locks {
		errs = append(errs, lock.Release())
	}
	return errors.Join(append(errs, b.dir.Close(), b.run.Close())...)
}
