package main

import (
	"time"

	"github.com/perch-edge/perch/pkg/shm"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [job.NAME].
type Config struct {
	Wait topology.Duration `toml:"wait" doc:"how long it waits for a worker to account for what it announced"`
}

// DefaultConfig is patient with a worker that is hashing a long file.
func DefaultConfig() Config { return Config{Wait: topology.Duration(30 * time.Second)} }

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	if c.Wait.D() < 3*time.Second || c.Wait.D() > time.Hour { // accounts come once a second
		return topology.Bad("wait", `want "3s" to "1h"`)
	}
	return nil
}

// ahead is how many messages nobody need have heard, at most: the history.
const ahead = 16384

// leastSlots is what the history has when there are few files: room for as many
// readers as a ring can have, and for who writes.
const leastSlots = shm.MaxReaders + 2

// Rings is the shared memory that its messages take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.NameHistory(ahead)} }
