package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [worker.NAME].
type Config struct {
	Keep           rule.Rule[scene]  `toml:"keep" doc:"rule for what is kept, as 'any(detections, .label == \"person\" && .score >= 0.5)'; default: everything"`
	Pre            topology.Duration `toml:"pre" doc:"how long before something was seen a file may end and still be judged by it"`
	Post           topology.Duration `toml:"post" doc:"how long after something was seen a file may begin and still be judged by it"`
	VerdictTimeout topology.Duration `toml:"verdict_timeout" doc:"how long after a file's end, and pre, its detectors may take"`
	Otherwise      Verdict           `toml:"otherwise" doc:"keep or drop: what becomes of a file of which too little is known by then"`
	MaxGap         topology.Duration `toml:"max_gap" doc:"longest time within a file that no detector looked at, for the rule to drop it"`
	MinFree        topology.Bytes    `toml:"min_free" doc:"free RAM below which undecided files go to disk, the oldest first"`
	MaxWrite       topology.Bytes    `toml:"max_write" doc:"most that this mover writes to disk in 24 hours, to spare an SD card: files above it wait in RAM as long as there is room; 0 is no limit"`
}

// DefaultConfig keeps everything.
func DefaultConfig() Config {
	return Config{VerdictTimeout: topology.Duration(15 * time.Second), Otherwise: Keep, MaxGap: topology.Duration(5 * time.Second), MinFree: 100e6}
}

// longest bounds what has to be remembered of detections.
const longest = 10 * time.Minute

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	var errs []error
	for key, d := range map[string]topology.Duration{"pre": c.Pre, "post": c.Post, "max_gap": c.MaxGap} {
		if d.D() > longest {
			errs = append(errs, topology.Bad(key, "want at most %q", longest))
		}
	}
	if d := c.VerdictTimeout.D(); d < time.Second || d > time.Hour {
		errs = append(errs, topology.Bad("verdict_timeout", `want "1s" to "1h"`))
	}
	return errors.Join(errs...)
}

// patience is how long after a file's end it is decided at last. Of frames within
// pre of the end nothing can have been said before.
func (c *Config) patience() time.Duration { return c.Pre.D() + c.VerdictTimeout.D() }

// Rings is the shared memory that the file events take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.FileHistory()} }

// Wants says which kinds there must be a source of.
func (c *Config) Wants() []msg.Kind {
	if c.Keep.Is() && c.Keep.Uses("detections") {
		return []msg.Kind{msg.KindFile, msg.KindDetection}
	}
	return []msg.Kind{msg.KindFile}
}

// Seeks are the labels that the rule asks for.
func (c *Config) Seeks() []string { return c.Keep.Compared("label") }

// Cached says that files are taken from RAM.
func (c *Config) Cached() worker.Cached { return worker.Empties }

// Verdict is what becomes of a file.
type Verdict string

// The two verdicts.
const (
	Keep Verdict = "keep"
	Drop Verdict = "drop"
)

// UnmarshalText reads one of the two words.
func (v *Verdict) UnmarshalText(text []byte) error {
	switch word := Verdict(text); word {
	case Keep, Drop:
		*v = word
		return nil
	}
	return fmt.Errorf("want keep or drop")
}

// scene is what the rule may speak of.
type scene struct {
	rule.File
	Detections []seen `expr:"detections"`
}

// seen is an object in a frame that belongs to the file.
type seen struct {
	Label    string    `expr:"label"`
	Score    float64   `expr:"score"`
	Box      []float64 `expr:"box"` // x0, y0, x1, y1 in pixels
	Detector string    `expr:"detector"`
	AtS      float64   `expr:"at_s"` // seconds from the file's start; negative before it
}

func newSeen(o msg.Object, detector msg.Source, at time.Duration) seen {
	return seen{Label: o.Label, Score: o.Score, Box: o.Box[:], Detector: string(detector), AtS: at.Seconds()}
}
