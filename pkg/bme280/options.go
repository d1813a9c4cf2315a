package bme280

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"periph.io/x/devices/v3/bmxx80"

	"github.com/perch-edge/perch/internal/simbme280"
)

// Oversampling is how many samples of each channel the chip averages for a reading: 1, 2, 4, 8 or 16
// (3.4.1 to 3.4.3). None can be switched off: the pressure and the humidity need the temperature, and
// an absent column is what this package is there to notice.
type Oversampling struct{ Temperature, Pressure, Humidity int }

// Option changes a default of [Open] or [New].
type Option func(*settings)

// WithOversampling replaces the default of four samples of each channel.
func WithOversampling(o Oversampling) Option { return func(s *settings) { s.samples = o } }

// WithFilter sets the coefficient of the IIR filter for temperature and pressure: 2, 4, 8 or 16, or
// 0 for none, the default. A step reaches three quarters after 2, 5, 11 or 22 readings (table 6).
func WithFilter(coefficient int) Option { return func(s *settings) { s.filter = coefficient } }

// WithRefresh sets how long a driver is used before it is created anew; the default is ten minutes.
func WithRefresh(every time.Duration) Option { return func(s *settings) { s.refresh = every } }

// WithTimeout sets how long a Read may take before it is ended, 200 ms or more. The default, two seconds, is more
// than the one second after which Linux gives up a transaction, so that its error is seen first. A bus that
// does not answer at all takes as long again, before ErrStuck.
func WithTimeout(limit time.Duration) Option { return func(s *settings) { s.timeout = limit } }

// WithClock replaces time.Now, for the age of readings and of the driver and for a simulated chip.
func WithClock(now func() time.Time) Option { return func(s *settings) { s.now = now } }

// settings are what the options decide.
type settings struct {
	samples Oversampling
	filter  int
	refresh time.Duration
	timeout time.Duration
	now     func() time.Time
}

func newSettings(opts []Option) settings {
	s := settings{
		samples: Oversampling{Temperature: 4, Pressure: 4, Humidity: 4},
		refresh: 10 * time.Minute,
		timeout: 2 * time.Second,
		now:     time.Now,
	}
	for _, o := range opts {
		o(&s)
	}
	return s
}

// Check returns all that is wrong with the arguments of [Open], wrapped in [ErrConfig], without touching a device.
func Check(bus string, addr uint16, opts ...Option) error {
	var errs []error
	if bus == "" {
		errs = append(errs, errors.New(`bus is "", want "/dev/i2c-1", "1", or "sim:"`))
	}
	if strings.HasPrefix(bus, simbme280.Prefix) {
		_, err := simbme280.Parse(bus)
		errs = append(errs, err)
	}
	errs = append(errs, newSettings(opts).check(addr))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

func (s settings) check(addr uint16) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if addr != 0x76 && addr != 0x77 {
		bad("address is 0x%02x, want 0x76 or 0x77", addr)
	}
	for _, c := range []struct {
		name string
		n    int
	}{{"temperature", s.samples.Temperature}, {"pressure", s.samples.Pressure}, {"humidity", s.samples.Humidity}} {
		if _, ok := osrs(c.n); !ok {
			bad("oversampling of %s is %d, want 1, 2, 4, 8 or 16", c.name, c.n)
		}
	}
	if _, ok := filterField(s.filter); !ok {
		bad("filter is %d, want 0, 2, 4, 8 or 16", s.filter)
	}
	if s.refresh <= 0 {
		bad("refresh is %s, want more than 0", s.refresh)
	}
	if s.timeout < 200*time.Millisecond {
		bad("timeout is %s, want 200ms or more: the longest measurement takes 113ms", s.timeout)
	}
	if s.now == nil {
		bad("clock is nil")
	}
	return errors.Join(errs...)
}

// osrs is the register field for a number of samples (5.4.3).
func osrs(samples int) (bmxx80.Oversampling, bool) {
	switch samples {
	case 1:
		return bmxx80.O1x, true
	case 2:
		return bmxx80.O2x, true
	case 4:
		return bmxx80.O4x, true
	case 8:
		return bmxx80.O8x, true
	case 16:
		return bmxx80.O16x, true
	}
	return bmxx80.Off, false
}

// filterField is the register field for a filter coefficient (5.4.6).
func filterField(coefficient int) (bmxx80.Filter, bool) {
	switch coefficient {
	case 0:
		return bmxx80.NoFilter, true
	case 2:
		return bmxx80.F2, true
	case 4:
		return bmxx80.F4, true
	case 8:
		return bmxx80.F8, true
	case 16:
		return bmxx80.F16, true
	}
	return bmxx80.NoFilter, false
}
