package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// fakeConfig is a worker that behaves as its topology says.
type fakeConfig struct {
	Behave string                `toml:"behave" doc:"ready, never, config, done, fail, exit1, exit78, deaf, hang, fork, loss or crash"`
	Trace  string                `toml:"trace" doc:"file that its starts and stops are added to"`
	Stream map[string]fakeStream `toml:"stream" doc:"streams"`

	kind msg.Kind
	pins int
}

type fakeStream struct {
	Slots     int `toml:"slots" doc:"slots of the ring"`
	SlotBytes int `toml:"slot_bytes" doc:"bytes of a slot"`
}

func fakeDefaults(kind msg.Kind, pins int) func() fakeConfig {
	return func() fakeConfig {
		return fakeConfig{Behave: "ready", kind: kind, pins: pins, Stream: map[string]fakeStream{"": {Slots: 8, SlotBytes: 1024}}}
	}
}

func (c *fakeConfig) Rings() (rings []worker.Ring) {
	for name, s := range c.Stream {
		if c.kind == "" {
			break // what reads here publishes nothing
		}
		rings = append(rings, worker.Ring{Stream: name, Kind: c.kind, Slots: s.Slots, SlotBytes: s.SlotBytes})
	}
	return rings
}

func (c *fakeConfig) Pins() int { return c.pins }

func fakeSensor() {
	worker.Main(worker.Program[fakeConfig]{Name: "fake-sensor", Publishes: []msg.Kind{msg.KindReading},
		Config: fakeDefaults(msg.KindReading, 0), Run: fakeRun})
}

func fakeReader() {
	worker.Main(worker.Program[fakeConfig]{Name: "fake-reader", Reads: []msg.Kind{msg.KindReading, msg.KindFile},
		Publishes: []msg.Kind{msg.KindFile}, Config: fakeDefaults("", 0), Run: fakeRun})
}

func fakeCamera() {
	worker.Main(worker.Program[fakeConfig]{Name: "fake-camera", Publishes: []msg.Kind{msg.KindFrame},
		Config: fakeDefaults(msg.KindFrame, 0), Run: fakeRun})
}

func fakeViewer() {
	worker.Main(worker.Program[fakeConfig]{Name: "fake-viewer", Reads: []msg.Kind{msg.KindFrame},
		Config: fakeDefaults("", 3), Run: fakeRun})
}

func fakeRun(ctx context.Context, w *worker.Worker, cfg fakeConfig) error {
	switch cfg.Behave {
	case "never":
		return fakeForever(ctx, w)
	case "config":
		return worker.BadConfig(errors.New("the model is of another kind"))
	case "fail":
		return errors.New("it broke")
	case "exit1":
		os.Exit(1)
	case "exit78":
		os.Exit(worker.ExitConfig)
	case "fork":
		// A grandchild that nothing ties to its parent: not its group, not its session.
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		w.Gauge("grandchild_pid", float64(cmd.Process.Pid))
	}
	out, err := w.PublishReadings("environment", []string{"temperature_c"}, 0)
	if err != nil {
		return err
	}
	if err := cfg.note("ready", w); err != nil {
		return err
	}
	w.Status("behaving: %s", cfg.Behave)
	w.Ready(ctx)
	switch cfg.Behave {
	case "done":
		return nil
	case "hang":
		select {}
	case "deaf":
		return fakeForever(context.Background(), w)
	case "thorough": // three times the grace of its test, at work all the while
		err := fakeForever(ctx, w)
		return errors.Join(err, w.Wait(context.Background(), time.Now().Add(4500*time.Millisecond)), cfg.note("stop", w))
	}
	if len(w.Entry().Sources) > 0 {
		in, err := w.Messages(nil)
		epochs := map[msg.Epoch]bool{}
		for err == nil {
			var m msg.Message
			if m, _, err = in.Next(ctx, time.Time{}); err == nil {
				epochs[m.Epoch] = true
				w.Gauge("epochs", float64(len(epochs)))
			}
		}
		switch cfg.Behave {
		case "loss":
			err = errors.Join(err, errors.New("7 rows could not be saved: the disk is full"))
		case "crash":
			panic("as asked")
		}
		return errors.Join(err, cfg.note("stop", w))
	}
	for {
		if err := w.Wait(ctx, time.Now().Add(50*time.Millisecond)); err != nil {
			return errors.Join(err, cfg.note("stop", w))
		}
		if _, err := out.Publish(w.Now(), []float64{20}, nil); err != nil {
			return err
		}
	}
}

func fakeForever(ctx context.Context, w *worker.Worker) error {
	for {
		if err := w.Wait(ctx, time.Now().Add(time.Hour)); err != nil {
			return err
		}
	}
}

// note adds a line to the trace.
func (c *fakeConfig) note(what string, w *worker.Worker) error {
	if c.Trace == "" {
		return nil
	}
	f, err := os.OpenFile(c.Trace, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, what, w.Name())
	return err
}

// fakeJobConfig is a job of which each run does something else.
type fakeJobConfig struct {
	Runs  []string `toml:"runs" doc:"what each run does: done, fail, config, slow, deaf or hang; the last again and again"`
	Trace string   `toml:"trace" doc:"file that its runs are added to"`
}

func fakeJob() {
	worker.Main(worker.Program[fakeJobConfig]{Name: "fake-job", Reads: []msg.Kind{msg.KindReading, msg.KindFile, msg.KindFrame},
		Config: func() fakeJobConfig { return fakeJobConfig{Runs: []string{"done"}} }, Run: fakeJobRun})
}

func fakeJobRun(ctx context.Context, w *worker.Worker, cfg fakeJobConfig) error {
	trace := fakeConfig{Trace: cfg.Trace}
	before, err := os.ReadFile(cfg.Trace)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	run := bytes.Count(before, []byte("run "+w.Name()+"\n"))
	if err := trace.note("run", w); err != nil {
		return err
	}
	what := cfg.Runs[min(run, len(cfg.Runs)-1)]
	w.Status("run %d: %s", run, what)
	switch what {
	case "fail":
		return errors.New("it broke")
	case "config":
		return worker.BadConfig(errors.New("the model is of another kind"))
	case "slow":
		return errors.Join(fakeForever(ctx, w), trace.note("stop", w))
	case "deaf":
		return fakeForever(context.Background(), w)
	case "hang":
		select {}
	}
	return nil
}
