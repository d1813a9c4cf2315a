package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/perch-edge/perch/pkg/bme280"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/shm"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [sensor.NAME].
type Config struct {
	Bus     string                  `toml:"bus" doc:"/dev/i2c-1, a periph bus name, or sim: for a simulated chip"`
	Address uint16                  `toml:"address" doc:"0x76 (118) or 0x77 (119)"`
	Stream  map[string]StreamConfig `toml:"stream" doc:"the one stream of readings"`
}

// StreamConfig is the table [sensor.NAME.stream.STREAM].
type StreamConfig struct {
	CaptureHz    float64  `toml:"capture_hz" doc:"measurements a second"`
	RoundingBits int      `toml:"rounding_bits" doc:"a value is rounded to a multiple of 2^-rounding_bits"`
	Columns      []string `toml:"columns" doc:"which values, in which order"`
	History      int      `toml:"history" doc:"readings kept in RAM for readers that missed some; 0 is 10 s, and 1024 at least"`
}

// minHistory is the least that a ring can hold.
const minHistory = 3

// maxHz is what forced mode allows: one measurement at 4x oversampling takes
// 27 ms with its bus traffic.
const maxHz = 25

// DefaultConfig is one stream at 1 Hz, from the bus of a Raspberry Pi's header.
func DefaultConfig() Config {
	return Config{Bus: "/dev/i2c-1", Address: 0x76, Stream: map[string]StreamConfig{"": defaultStream()}}
}

func defaultStream() StreamConfig {
	return StreamConfig{CaptureHz: 1, RoundingBits: 6, Columns: columns()}
}

func columns() []string {
	return []string{string(bme280.Temperature), string(bme280.Pressure), string(bme280.Humidity)}
}

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	var errs []error
	if err := bme280.Check(c.Bus, c.Address); err != nil {
		errs = append(errs, topology.Bad("bus", "%v", err))
	}
	if len(c.Stream) != 1 {
		errs = append(errs, topology.Bad("stream", "%d streams: want one table such as [sensor.NAME.stream.environment]", len(c.Stream)))
	}
	for name, s := range c.Stream {
		errs = append(errs, s.validate("stream."+name))
	}
	return errors.Join(errs...)
}

func (s StreamConfig) validate(path string) error {
	var errs []error
	if !(s.CaptureHz >= 1.0/86400 && s.CaptureHz <= maxHz) { // also NaN, which TOML has
		errs = append(errs, topology.Bad(path+".capture_hz", "want once a day (1.16e-5) to %d: a measurement takes 27 ms", maxHz))
	}
	if s.RoundingBits < 0 || s.RoundingBits > 30 {
		errs = append(errs, topology.Bad(path+".rounding_bits", "want 0 to 30"))
	}
	if s.History != 0 && (s.History < minHistory || s.History > shm.MaxSlots) {
		errs = append(errs, topology.Bad(path+".history", "want 0, or %d to %d", minHistory, shm.MaxSlots))
	}
	if len(s.Columns) == 0 {
		errs = append(errs, topology.Bad(path+".columns", "want at least one of %v", columns()))
	}
	for i, c := range s.Columns {
		if !slices.Contains(columns(), c) || slices.Contains(s.Columns[:i], c) {
			errs = append(errs, topology.Bad(path+".columns", "column %q: want each at most once of %v", c, columns()))
		}
	}
	return errors.Join(errs...)
}

// stream is the one stream and its name.
func (c *Config) stream() (string, StreamConfig) {
	for name, s := range c.Stream {
		return name, s
	}
	panic(fmt.Sprint("config without a stream passed Validate: ", c))
}

func (s StreamConfig) history() int {
	if s.History > 0 {
		return s.History
	}
	return max(msg.DefaultHistory, int(10*s.CaptureHz))
}

// Rings is the shared memory that the stream takes.
func (c *Config) Rings() []worker.Ring {
	name, s := c.stream()
	return []worker.Ring{{Stream: name, Kind: msg.KindReading, Slots: s.history(), SlotBytes: msg.DefaultMessageBytes}}
}
