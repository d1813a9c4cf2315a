package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// TestMain lets the test binary be two programs: a sensor that counts, and a
// worker that adds up what it reads.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){
		"ticker": func() {
			Main(Program[tickerConfig]{Name: "ticker", Summary: "Counts.", Publishes: []msg.Kind{msg.KindReading}, Stream: "count",
				Config: tickerDefaults, Run: runTicker})
		},
		"adder": func() {
			Main(Program[adderConfig]{Name: "adder", Summary: "Adds up.", Reads: []msg.Kind{msg.KindReading}, Publishes: []msg.Kind{msg.KindFile},
				Config: func() adderConfig { return adderConfig{} }, Run: runAdder,
				Verbs: []Verb[adderConfig]{{Name: "sources", Summary: "List what it reads.", Run: listSources}}})
		},
	})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

type tickerConfig struct {
	Every  topology.Duration       `toml:"every" doc:"time from number to number"`
	End    string                  `toml:"end" doc:"how it ends: done, failed, device, temporary, config, held, loss, deaf, hang or \"\""`
	After  int                     `toml:"after" doc:"numbers before it ends"`
	Stream map[string]tickerStream `toml:"stream" doc:"its one stream"`
}

type tickerStream struct {
	Columns []string `toml:"columns" doc:"names of its columns"`
}

func tickerDefaults() tickerConfig {
	return tickerConfig{Every: topology.Duration(20 * time.Millisecond), Stream: map[string]tickerStream{"": {Columns: []string{"n"}}}}
}

func (c *tickerConfig) Validate() error {
	if c.Every <= 0 {
		return topology.Bad("every", "want more than none")
	}
	return nil
}

func (c *tickerConfig) Rings() []Ring {
	return []Ring{{Stream: "count", Kind: msg.KindReading, Slots: 64, SlotBytes: msg.DefaultMessageBytes}}
}

func runTicker(ctx context.Context, w *Worker, cfg tickerConfig) error {
	if err := endings()[cfg.End]; err != nil && cfg.After == 0 {
		return err
	}
	out, err := w.PublishReadings("count", []string{"n"}, 64)
	if err != nil {
		return err
	}
	w.Status("counting every %s\nand more", cfg.Every)
	w.Ready(ctx)
	for n := 0; ; n++ {
		if err := w.Wait(ctx, time.Now().Add(cfg.Every.D())); err != nil && cfg.End != "deaf" {
			if cfg.End == "loss" {
				return errors.Join(err, errors.New("three rows are lost"))
			}
			return err
		} else if err != nil {
			w.Status("told to stop")
			<-make(chan int)
		}
		if _, err := out.Publish(w.Now(), []float64{float64(n)}, nil); err != nil {
			return err
		}
		w.Counter("numbers").Add(1)
		w.Gauge("last_n", float64(n))
		if n%2 == 1 {
			w.Trouble(fmt.Errorf("%d is odd", n))
		} else {
			w.Trouble(nil)
		}
		if n+1 == cfg.After {
			if cfg.End == "hang" {
				w.Status("hanging")
				<-make(chan int)
			}
			return endings()[cfg.End]
		}
	}
}

// endings are the errors that a run ends with, by the key "end".
func endings() map[string]error {
	return map[string]error{
		"failed":    errors.New("the cause of it"),
		"device":    NoDevice(errors.New("no such chip")),
		"temporary": fmt.Errorf("try later: %w", Temporary(errors.New("busy"))),
		"config":    BadConfig(errors.New("no such mode")),
		"canceled":  context.Canceled, // of something else than the run's own context
	}
}

type adderConfig struct {
	Fail bool `toml:"fail" doc:"let the verb fail"`
}

func listSources(_ context.Context, of Asked, cfg adderConfig) error {
	if cfg.Fail {
		return Unavailable(errors.New("as asked"))
	}
	_, err := fmt.Fprintln(of.Out, of.Entry.Name, of.Entry.Sources, of.JSON)
	return err
}

func runAdder(ctx context.Context, w *Worker, _ adderConfig) error {
	in, err := w.Messages(nil)
	if err != nil {
		return err
	}
	w.Ready(ctx)
	for {
		m, ok, err := in.Next(ctx, time.Now().Add(time.Second))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		r, err := m.Reading()
		if err != nil {
			return err
		}
		w.Counter("sum").Add(int(r.Values[0]))
		if w.Counter("rows").Add(1); w.Counter("rows").Value() == 5 {
			w.Status("five from %s", r.Source)
		}
		if os.Getenv("ADDER_CRASH") != "" {
			panic("as asked")
		}
	}
}
