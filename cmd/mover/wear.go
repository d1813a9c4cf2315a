package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/worker"
)

// wear counts what is written to the store in the last 24 hours of boot time.
// It is kept in RAM, across the worker's own death.
type wear struct {
	BootID string    `json:"boot_id"`
	Hours  [24]int64 `json:"hours"` // bytes, by the hour since boot, modulo 24
	Hour   int64     `json:"hour"`  // the last one that was counted
	total  int64     // that the store had written when it was last asked
}

func wearName(w *worker.Worker) string { return "work/" + w.Name() + ".wear" }

// loadWear reads what an earlier run counted in this boot.
func loadWear(cache *spool.Spool, w *worker.Worker) wear {
	var c wear
	text, err := cache.ReadAtom(wearName(w))
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.Log.Warn("the count of written bytes begins anew", "err", err)
	}
	if err != nil || c.BootID != w.BootID() {
		return wear{BootID: w.BootID()}
	}
	return c
}

func (c *wear) save(cache *spool.Spool, w *worker.Worker) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return cache.WriteAtom(wearName(w), text)
}

// turn brings the count to the present hour.
func (c *wear) turn(now time.Duration) {
	hour := int64(now / time.Hour)
	for h := max(c.Hour+1, hour-23); h <= hour; h++ {
		c.Hours[h%24] = 0
	}
	c.Hour = max(c.Hour, hour)
}

// add counts what the store has written since it was last asked.
func (c *wear) add(now time.Duration, total int64) {
	c.turn(now)
	c.Hours[c.Hour%24] += total - c.total
	c.total = total
}

// used is how many bytes were written in the last 24 hours.
func (c *wear) used(now time.Duration) (sum int64) {
	c.turn(now)
	for _, n := range c.Hours {
		sum += n
	}
	return sum
}
