package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/perch-edge/perch/internal/gone"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [worker.NAME].
type Config struct {
	EvictUnsent bool            `toml:"evict_unsent" doc:"may files be deleted that no receiver has: by when, and by min_free after all others; each leaves a line in a losses file"`
	Order       []sidecar.Class `toml:"order" doc:"classes of files, those that go first first"`
	History     topology.Bytes  `toml:"history" doc:"how much is kept in store_dir/gone of what was known of deleted files"`
	RAM         Limits          `toml:"ram" doc:"what may go from cache_dir, beside what was dropped"`
	Disk        Limits          `toml:"disk" doc:"what may go from store_dir"`
}

// Limits say what may go from a place: [worker.NAME.ram] is cache_dir,
// [worker.NAME.disk] store_dir.
type Limits struct {
	When     rule.Rule[rule.File] `toml:"when" doc:"rule for what goes, as 'sent and class == \"clips\" and age_h > 24'; default: nothing"`
	MaxAge   topology.Duration    `toml:"max_age" doc:"age above which files go; 0s is no limit"`
	MaxBytes topology.Bytes       `toml:"max_bytes" doc:"most that all files together may take up; 0 is no limit"`
	MinFree  topology.Bytes       `toml:"min_free" doc:"free room of the file system below which files go; 0 is no limit"`
}

// any says whether something is set.
func (l *Limits) any() bool {
	return l.When.Is() || l.MaxAge > 0 || l.MaxBytes > 0 || l.MinFree > 0
}

// DefaultConfig deletes what was dropped, and no more.
func DefaultConfig() Config {
	order := sidecar.Classes() // the dearest first
	slices.Reverse(order)
	return Config{Order: order, History: 64e6}
}

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	var errs []error
	if c.History < gone.MinBytes {
		errs = append(errs, topology.Bad("history", `want at least %q`, topology.Bytes(gone.MinBytes)))
	}
	if err := permutation(c.Order); err != nil {
		errs = append(errs, topology.Bad("order", "%v", err))
	}
	return errors.Join(errs...)
}

// permutation refuses an order in which a class is missing, or twice.
func permutation(order []sidecar.Class) error {
	var known []string
	for _, class := range sidecar.Classes() {
		known = append(known, string(class))
	}
	for i, class := range order {
		if !slices.Contains(known, string(class)) {
			return fmt.Errorf("unknown class %q%s", class, nearest.Hint(string(class), known))
		}
		if slices.Contains(order[:i], class) {
			return fmt.Errorf("class %q is there twice", class)
		}
	}
	for _, class := range sidecar.Classes() {
		if !slices.Contains(order, class) {
			return fmt.Errorf("class %q is missing: want all of %q", class, known)
		}
	}
	return nil
}

// Rings is the shared memory that the file events take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.FileHistory()} }
