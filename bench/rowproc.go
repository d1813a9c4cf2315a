package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// The names on the bus in the measurement of readings.
const (
	sensorName = "air"
	rowsName   = "rows"
)

// published is what a publisher of readings says when it is done.
type published struct {
	CPU   float64 `json:"cpu_us"`
	First int64   `json:"first"` // CLOCK_BOOTTIME ns of the first reading
	Last  int64   `json:"last"`
}

// rowPublisherCommand publishes readings at a rate, a batch each millisecond.
// It is told "go", or "fill" where nobody reads yet: the history then holds all. It stays until its
// stdin ends.
type rowPublisherCommand struct {
	place
	Rate    int `required:"" help:"Readings a second."`
	Rows    int `required:"" help:"Readings in all."`
	History int `required:"" help:"Readings that the ring holds."`
}

// Run obeys until stdin ends.
func (c *rowPublisherCommand) Run(ctx context.Context) (err error) {
	bus, err := c.open(sensorName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bus.Close()) }()
	pub, err := bus.Publisher()
	if err != nil {
		return err
	}
	out, err := pub.Readings("environment", []string{"temperature_c", "pressure_pa", "humidity_pct"},
		msg.Retention{Messages: c.History, MessageBytes: 512, Expect: []string{rowsName}})
	if err != nil {
		return err
	}
	ctx, lines := orders(ctx)
	if err := answer(struct{}{}); err != nil {
		return err
	}
	for order := range lines {
		if order == "go" && len(pub.Gate([]string{rowsName}, 10*time.Second, ctx.Done())) > 0 {
			return errors.New("csvwriter did not subscribe")
		}
		p, err := c.publish(ctx, bus, out)
		if err != nil {
			return err
		}
		if err := answer(p); err != nil {
			return err
		}
	}
	return nil
}

func (c *rowPublisherCommand) publish(ctx context.Context, bus *msg.Bus, out *msg.ReadingStream) (p published, err error) {
	const perSecond = 1000
	tick, err := newTicker(perSecond)
	if err != nil {
		return p, err
	}
	defer tick.close()
	before, values := cpuMicros(), make([]float64, 3)
	ticks, sent := 0, 0
	for sent < c.Rows {
		passed, err := tick.wait()
		if err := errors.Join(err, ctx.Err()); err != nil {
			return p, err
		}
		for ticks += passed; sent < min(ticks*c.Rate/perSecond, c.Rows); sent++ {
			stamp := bus.Clock().Now()
			if p.Last = int64(stamp.Boot); sent == 0 {
				p.First = p.Last
			}
			// Multiples of 2^-6, as a sensor's own rounding makes them.
			values[0], values[1], values[2] = 20+float64(sent%640)/64, 101325+float64(sent%64)/64, 50+float64(sent%1280)/64
			if _, err := out.Publish(stamp, values, nil); err != nil {
				return p, fmt.Errorf("reading %d: %w", sent, err)
			}
		}
	}
	p.CPU = cpuMicros() - before
	return p, nil
}
