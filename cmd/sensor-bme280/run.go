package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/pkg/bme280"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func run(ctx context.Context, w *worker.Worker, cfg Config) error {
	name, stream := cfg.stream()
	chip, err := bme280.Open(cfg.Bus, cfg.Address)
	if errors.Is(err, bme280.ErrNoDevice) {
		return worker.NoDevice(err)
	}
	if err != nil {
		return fmt.Errorf("open sensor: %w", err)
	}
	defer func() { _ = chip.Close() }() // only read from: nothing can be lost by it
	out, err := w.PublishReadings(name, stream.Columns, stream.history())
	if err != nil {
		return err
	}
	w.Status("%s at %g Hz", chip, stream.CaptureHz)
	w.Ready(ctx)
	s := &sampler{w: w, chip: chip, out: out, cfg: stream,
		retry: backoff.Backoff{First: 200 * time.Millisecond, Most: 30 * time.Second}}
	return s.sample(ctx)
}

// sampler reads the chip at its deadlines.
type sampler struct {
	w     *worker.Worker
	chip  *bme280.Sensor
	out   *msg.ReadingStream
	cfg   StreamConfig
	retry backoff.Backoff
	pause time.Time // no try before
}

// sample keeps absolute deadlines: a late reading does not make the next one
// late, and one that is missed altogether is counted.
func (s *sampler) sample(ctx context.Context) error {
	period := time.Duration(float64(time.Second) / s.cfg.CaptureHz)
	deadline := time.Now()
	for {
		if err := s.w.Wait(ctx, deadline); err != nil {
			return err
		}
		if !time.Now().Before(s.pause) {
			if err := s.once(ctx); err != nil {
				return err
			}
		} else {
			s.w.Counter("missed_readings").Add(1)
		}
		deadline = deadline.Add(period)
		if late := time.Since(deadline); late > 0 {
			missed := int(late / period)
			s.w.Counter("missed_readings").Add(missed)
			deadline = deadline.Add(time.Duration(missed) * period)
		}
	}
}

// once measures and publishes. Only what ends the process is an error.
func (s *sampler) once(ctx context.Context) error {
	stamp := s.w.Now()
	reading, err := s.chip.Read(ctx)
	counts := s.chip.Counters()
	s.w.Gauge("chip_setups", float64(counts.Created))
	s.w.Gauge("brown_outs", float64(counts.BrownOuts))
	s.w.Gauge("bus_retries", float64(counts.Retries))
	switch bad := badValues(err); {
	case err == nil || bad != nil:
		s.retry.Succeeded()
		s.w.Counter("bad_values").Add(len(bad))
		s.w.Trouble(err)
		_, err = s.out.Publish(stamp, s.values(reading), s.reasons(bad))
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, bme280.ErrStuck):
		return err // a system call that never returns: only a new process is free of it
	}
	wait := s.retry.Failed(0)
	s.pause = time.Now().Add(wait)
	s.w.Counter("read_errors").Add(1)
	s.w.Counter("missed_readings").Add(1)
	s.w.Trouble(fmt.Errorf("no reading: %w; trying again", err))
	return nil
}

// values are the stream's columns, rounded.
func (s *sampler) values(r bme280.Reading) []float64 {
	values := make([]float64, len(s.cfg.Columns))
	for i, c := range s.cfg.Columns {
		switch bme280.Column(c) {
		case bme280.Temperature:
			values[i] = round(r.TemperatureC, s.cfg.RoundingBits)
		case bme280.Pressure:
			values[i] = round(r.PressurePa, s.cfg.RoundingBits)
		case bme280.Humidity:
			values[i] = round(r.HumidityPct, s.cfg.RoundingBits)
		}
	}
	return values
}

// round gives the nearest multiple of 2^-bits, which a binary number holds exactly.
func round(v float64, bits int) float64 {
	return math.Ldexp(math.Round(math.Ldexp(v, bits)), -bits)
}

// badValues lists the implausible values in an error, by column; nil when the
// error is of another kind.
func badValues(err error) map[string]string {
	var bad map[string]string
	var walk func(error)
	walk = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
		} else if inner := errors.Unwrap(err); inner != nil {
			walk(inner) // there may be several within
		} else if v := (*bme280.ValueError)(nil); errors.As(err, &v) {
			if bad == nil {
				bad = map[string]string{}
			}
			bad[string(v.Column)] = v.Error()
		}
	}
	walk(err)
	return bad
}

// reasons keeps those of the stream's own columns.
func (s *sampler) reasons(bad map[string]string) map[string]string {
	own := map[string]string{}
	for _, c := range s.cfg.Columns {
		if why, ok := bad[c]; ok {
			own[c] = why
		}
	}
	return own
}
