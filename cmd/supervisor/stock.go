package main

import (
	"context"
	"errors"
	"time"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/topology"
)

// Files says how many files there are in each state, as they were counted last.
// A state that has none is left out.
type Files struct {
	Cache   map[spool.State]Stock `json:"cache"`
	Store   map[spool.State]Stock `json:"store"`
	Trouble string                `json:"trouble,omitempty"` // why some could not be counted
}

// Stock is how many files there are, sidecars left out.
type Stock struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// countEvery is how many seconds there are between two counts of the files: ten
// thousand take some tens of milliseconds.
const countEvery = 10

// disk is what is known of the store's.
type disk struct {
	mounted bool
	free    uint64 // bytes
}

// watchStore looks at the store each second, and counts the files now and then,
// until ctx is done. It has a goroutine of its own: a disk that hangs must not
// hold the state of the box up.
func (f *fleet) watchStore(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		f.lookAtDisk()
		if n%countEvery == 0 {
			files := countFiles(f.plan.top.Node)
			f.files.Store(&files)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fleet) lookAtDisk() {
	n, d := f.plan.top.Node, disk{}
	if d.mounted = notMounted(n) == nil; d.mounted {
		d.free = freeBytes(n.StoreDir)
	}
	f.disk.Store(&d)
}

func countFiles(n topology.Node) Files {
	cache, notCache := countIn(n.CacheDir, "")
	store, notStore := countIn(n.StoreDir, n.StoreMount)
	files := Files{Cache: cache, Store: store}
	if err := errors.Join(notCache, notStore); err != nil {
		files.Trouble = err.Error()
	}
	return files
}

// countIn counts in a spool, which need not be there yet.
func countIn(dir, mount string) (map[spool.State]Stock, error) {
	stocks := map[spool.State]Stock{}
	s, there, err := spool.Peek(dir, mount)
	if !there {
		return stocks, err
	}
	var errs []error
	for _, state := range append(spool.Stages(), spool.Work) {
		entries, err := s.Entries(state)
		errs = append(errs, err)
		for _, e := range entries {
			stock := stocks[state]
			stocks[state] = Stock{stock.Files + 1, stock.Bytes + e.Bytes}
		}
	}
	return stocks, errors.Join(append(errs, s.Close())...)
}
