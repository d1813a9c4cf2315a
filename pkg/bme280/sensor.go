package bme280

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/bmxx80"
)

var (
	// ErrConfig marks arguments that no device could satisfy.
	ErrConfig = errors.New("bad configuration")
	// ErrNoDevice marks a bus that is absent or may not be opened, and an address where no BME280 answers. From
	// Open it is final; from Read it means that three attempts to find the chip failed just now.
	ErrNoDevice = errors.New("no BME280")
	// ErrTimeout marks a chip that did not finish in time. The next Read resets it.
	ErrTimeout = errors.New("chip did not finish in time")
	// ErrStuck marks a transaction that the kernel does not return from. A goroutine and the bus are lost with it,
	// every later Read returns ErrStuck at once, and only the end of the process helps.
	ErrStuck = errors.New("bus does not return")
)

// Reading is one measurement. A value that is not known is NaN, never zero.
type Reading struct {
	TemperatureC float64 // °C, in steps of 0.01
	PressurePa   float64 // Pa, at the height of the chip
	HumidityPct  float64 // relative humidity in %, in steps of 0.001
}

func unknown() Reading { return Reading{math.NaN(), math.NaN(), math.NaN()} }

// Counters is what a Sensor went through since it was opened.
type Counters struct {
	Created   uint64 // drivers created, the first included
	BrownOuts uint64 // measurements thrown away because the chip had lost its settings
	Retries   uint64 // repetitions of transactions that had failed
}

// Sensor is one BME280. Its methods may not be called concurrently, but for Counters and String.
type Sensor struct {
	settings
	name    string
	bus     i2c.BusCloser
	line    *line
	want    registers
	dev     *bmxx80.Dev // nil after an error: the next Read creates it
	created time.Time
	good    [3]sample // the last good value of each column
	stuck   bool

	creations, brownOuts atomic.Uint64
}

// Open finds the chip on the named bus and prepares it. The address is 0x76 or 0x77. Its errors are marked ErrConfig,
// ErrNoDevice or ErrStuck; a bus without permission is fs.ErrPermission as well.
func Open(bus string, addr uint16, opts ...Option) (*Sensor, error) {
	if err := Check(bus, addr, opts...); err != nil {
		return nil, err
	}
	b, err := openBus(bus, newSettings(opts))
	if err != nil {
		return nil, err
	}
	return newSensor(b, bus, addr, newSettings(opts))
}

// New is Open on a bus that is open already, such as a recorded one. The Sensor closes it, also when New fails.
func New(bus i2c.BusCloser, addr uint16, opts ...Option) (*Sensor, error) {
	s := newSettings(opts)
	if err := s.check(addr); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrConfig, err), bus.Close())
	}
	return newSensor(bus, bus.String(), addr, s)
}

func newSensor(bus i2c.BusCloser, name string, addr uint16, set settings) (*Sensor, error) {
	s := &Sensor{settings: set, name: name, bus: bus, line: &line{bus: bus, addr: addr}, want: set.registers()}
	err := s.watch(context.Background(), s.create)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, ErrStuck):
		return nil, err // Close would wait for the lost transaction
	case !errors.Is(err, ErrNoDevice):
		err = fmt.Errorf("%w: %w", ErrNoDevice, err)
	}
	return nil, errors.Join(err, bus.Close())
}

// String names the chip, for people.
func (s *Sensor) String() string { return fmt.Sprintf("BME280 at 0x%02x on %s", s.line.addr, s.name) }

// Counters may be called at any time.
func (s *Sensor) Counters() Counters {
	return Counters{Created: s.creations.Load(), BrownOuts: s.brownOuts.Load(), Retries: s.line.retries.Load()}
}

// Close releases the bus. After ErrStuck there is nothing to release, and it says so.
func (s *Sensor) Close() error {
	if s.stuck {
		return fmt.Errorf("close %s: %w", s, ErrStuck)
	}
	s.dev = nil
	if err := s.bus.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s, err)
	}
	return nil
}

// Read measures once. With a ValueError, or several joined, the columns that they name are NaN and the
// others good; with any other error all are NaN. A Read after any error begins with a new driver.
// It returns within twice the timeout, or as soon as ctx ends and the transaction under way with it.
func (s *Sensor) Read(ctx context.Context) (Reading, error) {
	var env physic.Env
	var frozen bool
	err := s.watch(ctx, func() (err error) {
		env, frozen, err = s.measure()
		return err
	})
	if err != nil {
		return unknown(), fmt.Errorf("read %s: %w", s, err)
	}
	r, err := s.judge(Reading{
		TemperatureC: env.Temperature.Celsius(),
		PressurePa:   float64(env.Pressure) / float64(physic.Pascal),
		HumidityPct:  float64(env.Humidity) / float64(physic.PercentRH),
	}, frozen, s.now())
	if err != nil {
		s.dev = nil
		return r, fmt.Errorf("read %s: %w", s, err)
	}
	return r, nil
}

// watch runs work under the timeout. When it or ctx ends first, the line is cut, work fails at its next transaction,
// and the reason is returned; if work does not come back even then, the sensor is lost. The work touches the
// sensor only while watch waits for it, but for that last case.
func (s *Sensor) watch(ctx context.Context, work func() error) error {
	if s.stuck {
		return ErrStuck
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, ErrTimeout)
	defer cancel()
	s.line.cut.Store(false)
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	s.line.cut.Store(true)
	lost := time.NewTimer(s.timeout)
	defer lost.Stop()
	select {
	case err := <-done:
		if err == nil {
			return nil // it was done before it noticed
		}
		if cause := context.Cause(ctx); !errors.Is(cause, ErrTimeout) {
			return cause
		}
		return fmt.Errorf("%w: %s passed, status register 0x%02x: %w", ErrTimeout, s.timeout, s.line.seen[regStatus], err)
	case <-lost.C:
		s.stuck = true
		return fmt.Errorf("%w: a transaction has lasted more than %s", ErrStuck, s.timeout)
	}
}
