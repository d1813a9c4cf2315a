package main

import (
	"fmt"

	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [worker.NAME].
type Config struct {
	Dir   string `toml:"dir" doc:"where the files are; default: the node's store_dir"`
	Flush Flush  `toml:"flush" doc:"when rows are synced to disk: \"instant\", each one at once, or \"1hz\", once a second, which spares an SD card"`
}

// Flush says when rows are synced to disk.
type Flush string

// The values of flush.
const (
	Instant    Flush = "instant"
	OneASecond Flush = "1hz"
)

// UnmarshalText reads one of the two words.
func (f *Flush) UnmarshalText(text []byte) error {
	switch v := Flush(text); v {
	case Instant, OneASecond:
		*f = v
		return nil
	}
	return fmt.Errorf(`want "instant" or "1hz"`)
}

// DefaultConfig syncs each row: a power cut costs none.
func DefaultConfig() Config { return Config{Flush: Instant} }

// Rings is the shared memory that the file events take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.FileHistory()} }
