package main

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [worker.NAME].
type Config struct {
	Dir     string            `toml:"dir" doc:"where pictures are born; default: the node's cache_dir"`
	Every   topology.Duration `toml:"every" doc:"time from picture to picture"`
	Quality int               `toml:"quality" doc:"JPEG quality, 1 to 100; an mjpeg camera's pictures keep their own"`
	Latest  string            `toml:"latest" doc:"name of the newest picture for people, beside born/; each jpegwriter needs its own; \"\" is none"`
}

// DefaultConfig is a picture every four seconds.
func DefaultConfig() Config {
	return Config{Every: topology.Duration(4 * time.Second), Quality: 85, Latest: "latest.jpg"}
}

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	var errs []error
	if c.Every.D() < 10*time.Millisecond || c.Every.D() > 24*time.Hour {
		errs = append(errs, topology.Bad("every", `want "10ms" to "24h"`))
	}
	if c.Quality < 1 || c.Quality > 100 {
		errs = append(errs, topology.Bad("quality", "want 1 to 100"))
	}
	if c.Latest != "" && (c.Latest != filepath.Base(c.Latest) || filepath.Ext(c.Latest) != ".jpg" || c.Latest[0] == '.') {
		errs = append(errs, topology.Bad("latest", "want a file's name that ends in .jpg, without a folder"))
	}
	return errors.Join(errs...)
}

// Rings is the shared memory that the file events take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.FileHistory()} }

// Cached says whether files are born in RAM.
func (c *Config) Cached() worker.Cached {
	if c.Dir != "" {
		return ""
	}
	return worker.Fills
}

// Pins is how many frames it holds at once.
func (c *Config) Pins() int { return 1 }
