package bme280

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Column names a value of a Reading as perch's files and messages do.
type Column string

// The columns of a Reading, in its order.
const (
	Temperature Column = "temperature_c"
	Pressure    Column = "pressure_pa"
	Humidity    Column = "humidity_pct"
)

// ValueError is a value that was measured and is not believed.
type ValueError struct {
	Column   Column
	Value    float64
	Min, Max float64 // what was allowed at this moment
	Reason   string  // where Min and Max come from
}

// Error names the column, its value and the allowed range.
func (e *ValueError) Error() string {
	return fmt.Sprintf("%s is %g, want %g..%g: %s", e.Column, e.Value, e.Min, e.Max, e.Reason)
}

// sample is a good value and its time; the zero value is none yet.
type sample struct {
	value float64
	at    time.Time
}

// limit is what a column may be: the chip's operating range (tables 1 to 4), and how far it can be from the last good
// value, step at once and perSecond after it. Those are several times what weather, wind, an opened door or
// a ride in a lift do, so a breach is a fault of the chip or the bus. The allowance grows with time until the
// range is all that is left, so air that really did change is believed again.
type limit struct {
	column          Column
	min, max        float64
	step, perSecond float64
}

func limits() [3]limit {
	return [3]limit{
		{Temperature, -40, 85, 5, 1},
		{Pressure, 30000, 110000, 500, 200},
		{Humidity, 0, 100, 20, 20},
	}
}

// judge returns r with NaN for each value that is not believed, and an error that names it. All values are
// compensated with the temperature, so a bad one spoils the others. Good ones become what the next are compared with.
func (s *Sensor) judge(r Reading, frozen bool, at time.Time) (Reading, error) {
	values := [3]*float64{&r.TemperatureC, &r.PressurePa, &r.HumidityPct}
	var errs []error
	for i, l := range limits() {
		err := l.check(*values[i], s.good[i], at)
		if l.column == Humidity && frozen && err == nil {
			err = &ValueError{Humidity, *values[i], l.min, l.max, "the converter gave 0x8000, its not-measured code, three times"}
		}
		switch {
		case err == nil:
			s.good[i] = sample{*values[i], at}
		case l.column == Temperature:
			return unknown(), err
		default:
			errs = append(errs, err)
			*values[i] = math.NaN()
		}
	}
	return r, errors.Join(errs...)
}

func (l limit) check(v float64, last sample, at time.Time) error {
	if !(v >= l.min && v <= l.max) { // also NaN
		return &ValueError{l.column, v, l.min, l.max, "the chip's operating range"}
	}
	if last.at.IsZero() {
		return nil
	}
	elapsed := max(0, at.Sub(last.at))
	reach := l.step + l.perSecond*elapsed.Seconds()
	if math.Abs(v-last.value) <= reach {
		return nil
	}
	return &ValueError{l.column, v, max(l.min, last.value-reach), min(l.max, last.value+reach),
		fmt.Sprintf("it was %g %s ago, and air does not change so fast", last.value, elapsed.Round(time.Millisecond))}
}
