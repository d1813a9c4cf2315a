// Counter is a sensor for tests: it publishes 0, 1, 2, … at a high rate and
// keeps a true account of how far it came.
//
//	n --> reading/<name>/count, and then --> <truth>/<epoch>: n+1 as text
//
// The account is written after each message is published, by one write into
// place, so it outlives a kill: what it says was published, and at most one
// message more. A test compares it with what arrived.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [sensor.NAME].
type Config struct {
	Truth  string                  `toml:"truth" doc:"folder for the true account"`
	Stream map[string]StreamConfig `toml:"stream" doc:"the one stream"`
}

// StreamConfig is the table [sensor.NAME.stream.STREAM].
type StreamConfig struct {
	CaptureHz float64 `toml:"capture_hz" doc:"numbers a second"`
	History   int     `toml:"history" doc:"numbers kept for readers that missed some"`
}

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	if len(c.Stream) != 1 {
		return topology.Bad("stream", "want one")
	}
	return nil
}

// Rings is the shared memory that the stream takes.
func (c *Config) Rings() (rings []worker.Ring) {
	for name, s := range c.Stream {
		rings = append(rings, worker.Ring{Stream: name, Kind: msg.KindReading, Slots: s.History, SlotBytes: msg.DefaultMessageBytes})
	}
	return rings
}

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "counter",
		Summary:   "Publishes 0, 1, 2, … for tests.",
		Publishes: []msg.Kind{msg.KindReading},
		Stream:    "count",
		Config: func() Config {
			return Config{Stream: map[string]StreamConfig{"": {CaptureHz: 1000, History: 16384}}}
		},
		Run: run,
	})
}

func run(ctx context.Context, w *worker.Worker, cfg Config) error {
	for name, s := range cfg.Stream {
		out, err := w.PublishReadings(name, []string{"n"}, s.History)
		if err != nil {
			return err
		}
		truth, err := os.Create(fmt.Sprintf("%s/%s", cfg.Truth, w.Epoch()))
		if err != nil {
			return err
		}
		defer truth.Close()
		w.Ready(ctx)
		if err := count(ctx, w, out, truth, s.CaptureHz); err != nil {
			return err
		}
	}
	return nil
}

// count catches up when it was late, so that the rate holds on a busy machine.
func count(ctx context.Context, w *worker.Worker, out *msg.ReadingStream, truth *os.File, hz float64) error {
	start, tick := time.Now(), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		w.Progress()
		for due := int(time.Since(start).Seconds() * hz); n < due; n++ {
			if _, err := out.Publish(w.Now(), []float64{float64(n)}, nil); err != nil {
				return err
			}
			if _, err := truth.WriteAt([]byte(fmt.Sprintf("%020d\n", n+1)), 0); err != nil {
				return err
			}
		}
	}
}
