package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/topology"
)

// logsFolder is the logs' own, in the store or in the cache.
const logsFolder = "logs"

// logPlace is where logs are kept: in the store and, while its disk is absent,
// in the cache, which is RAM. What was kept there is brought to the disk when it
// comes. It is for one goroutine at a time, but for where.
type logPlace struct {
	node   topology.Node
	store  *spool.Store
	disk   *spool.Spool // that the folder is on; nil is the cache
	dir    *os.Root
	looked time.Time
	path   atomic.Pointer[string]
}

func newLogPlace(n topology.Node) *logPlace {
	p := &logPlace{node: n, store: spool.NewStore(n.StoreDir, n.StoreMount)}
	p.path.Store(new(string))
	return p
}

// where is the folder's path.
func (p *logPlace) where() string { return *p.path.Load() }

// folder is where logs are to be kept now; also with an error it may be one. It
// looks for the disk once a second.
func (p *logPlace) folder() (*os.Root, error) {
	if p.dir != nil && time.Since(p.looked) < time.Second {
		return p.dir, nil
	}
	p.looked = time.Now()
	disk, err := p.store.Spool()
	if err != nil && !errors.Is(err, spool.ErrNotMounted) {
		return p.dir, err
	}
	if p.dir != nil && disk == p.disk {
		if st, err := p.dir.Stat("."); err != nil || !removed(st) {
			return p.dir, nil
		}
	}
	next, err := p.open(disk)
	if err != nil {
		return p.dir, err
	}
	err = p.close()
	path := filepath.Clean(next.Name())
	p.disk, p.dir = disk, next
	p.path.Store(&path)
	if disk != nil {
		err = errors.Join(err, p.bring())
	}
	return p.dir, err
}

// removed says whether an open file or folder has no name any more.
func removed(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0
}

func (p *logPlace) open(disk *spool.Spool) (*os.Root, error) {
	if disk != nil {
		return disk.Folder(logsFolder)
	}
	cache, err := spool.Open(p.node.CacheDir)
	if err != nil {
		return nil, err
	}
	dir, err := cache.Folder(logsFolder)
	return dir, errors.Join(err, cache.Close())
}

func (p *logPlace) close() error {
	if p.dir == nil {
		return nil
	}
	dir := p.dir
	p.dir = nil
	return dir.Close()
}

// bring adds to the logs on disk what was kept in the cache.
func (p *logPlace) bring() error {
	from, err := os.OpenRoot(filepath.Join(p.node.CacheDir, logsFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	var errs []error
	for _, suffix := range []string{".log.1", ".log"} { // the older first
		names, err := fs.Glob(from.FS(), "*"+suffix)
		errs = append(errs, err)
		for _, name := range names {
			errs = append(errs, p.bringOne(from, name, strings.TrimSuffix(name, suffix)+".log"))
		}
	}
	return errors.Join(errs...)
}

func (p *logPlace) bringOne(from *os.Root, name, as string) error {
	text, err := from.ReadFile(name)
	if err != nil {
		return err
	}
	to := &rotating{dir: p.dir, name: as}
	err = to.write(text)
	if err = errors.Join(err, to.close()); err != nil {
		return err
	}
	return from.Remove(name)
}
