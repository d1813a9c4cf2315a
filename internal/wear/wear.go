// Package wear counts what a worker writes to a disk that wears out.
//
//	bytes written --Add--> 24 hours of boot time --Used--> written_24h_bytes, max_write
//
// The count is by hours since boot, so no clock that is stepped can forget or
// repeat any. It is kept in the cache, which is RAM, across the worker's own
// death; another boot begins anew. One that cannot be read does so too.
package wear

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/perch-edge/perch/internal/spool"
)

// Count is what was written in the last 24 hours of boot time. It is for one
// goroutine.
type Count struct {
	BootID string    `json:"boot_id"`
	Hours  [24]int64 `json:"hours"` // bytes, by the hour since boot, modulo 24
	Hour   int64     `json:"hour"`  // the last one that was counted
	total  int64     // that had been written when Add was last called
}

func name(worker string) string { return "work/" + worker + ".wear" }

// Load reads what an earlier run of a worker counted in this boot. With an
// error too the count can be used: it begins anew.
func Load(cache *spool.Spool, worker, bootID string) (Count, error) {
	text, err := cache.ReadAtom(name(worker))
	if errors.Is(err, fs.ErrNotExist) {
		return Count{BootID: bootID}, nil
	}
	var c Count
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return Count{BootID: bootID}, fmt.Errorf("the count of written bytes begins anew: %w", err)
	}
	if c.BootID != bootID || c.Hour < 0 {
		c = Count{BootID: bootID}
	}
	return c, nil
}

// Save keeps the count for the worker's next run.
func (c *Count) Save(cache *spool.Spool, worker string) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("save wear: %w", err)
	}
	return cache.WriteAtom(name(worker), text)
}

// turn brings the count to the present hour.
func (c *Count) turn(now time.Duration) {
	hour := int64(now / time.Hour)
	for h := max(c.Hour+1, hour-23); h <= hour; h++ {
		c.Hours[h%24] = 0
	}
	c.Hour = max(c.Hour, hour)
}

// Add counts what was written since it was last called; total is all that this
// run has written.
func (c *Count) Add(now time.Duration, total int64) {
	c.turn(now)
	c.Hours[c.Hour%24] += total - c.total
	c.total = total
}

// Used is how many bytes were written in the last 24 hours.
func (c *Count) Used(now time.Duration) (sum int64) {
	c.turn(now)
	for _, n := range c.Hours {
		sum += n
	}
	return sum
}
