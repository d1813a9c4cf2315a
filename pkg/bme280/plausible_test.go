package bme280

import (
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perch-edge/perch/internal/simbme280"
)

// wantBad reads and wants one column refused; the others are as given, NaN where spoiled too.
func wantBad(t *testing.T, s *Sensor, column Column, want Reading) *ValueError {
	t.Helper()
	r, err := s.Read(t.Context())
	var bad *ValueError
	if !errors.As(err, &bad) || bad.Column != column {
		t.Fatalf("Read = %+v, %v; want a ValueError of %s", r, err, column)
	}
	same := func(a, b, within float64) bool { return math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) < within }
	if !same(r.TemperatureC, want.TemperatureC, 0.012) || !same(r.PressurePa, want.PressurePa, 1) || !same(r.HumidityPct, want.HumidityPct, 0.03) {
		t.Errorf("Read = %+v beside %v; want %+v", r, err, want)
	}
	if bad.Value >= bad.Min && bad.Value <= bad.Max && bad.Reason == "" {
		t.Errorf("ValueError = %+v; want it to tell what is wrong", bad)
	}
	return bad
}

func TestOperatingRange(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		name     string
		air      [3]float64
		column   Column
		want     Reading
		min, max float64
	}{
		{"hot", [3]float64{86, 100000, 50}, Temperature, Reading{nan, nan, nan}, -40, 85},
		{"cold", [3]float64{-41, 100000, 50}, Temperature, Reading{nan, nan, nan}, -40, 85},
		{"thin", [3]float64{20, 29000, 50}, Pressure, Reading{20, nan, 50}, 30000, 110000},
		{"thick", [3]float64{20, 111000, 50}, Pressure, Reading{20, nan, 50}, 30000, 110000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chip := simbme280.New(simbme280.Options{Truth: still(tt.air[0], tt.air[1], tt.air[2])})
				s := mustNew(t, chip)
				if bad := wantBad(t, s, tt.column, tt.want); bad.Min != tt.min || bad.Max != tt.max {
					t.Errorf("allowed = %v..%v; want %v..%v", bad.Min, bad.Max, tt.min, tt.max)
				}
				// What was refused is not what the next reading is compared with.
				chip.SetTruth(still(20, 100000, 50))
				wantRead(t, s, 20, 100000, 50)
				if got := s.Counters().Created; got != 2 {
					t.Errorf("Created = %d; want 2, a new driver after the bad value", got)
				}
			})
		})
	}
}

func TestEdgesOfTheRangeAreGood(t *testing.T) {
	for _, air := range [][3]float64{{84.9, 100000, 50}, {-39.9, 100000, 50}, {20, 30010, 50}, {20, 109990, 50}, {20, 100000, 0}, {20, 100000, 100}} {
		synctest.Test(t, func(t *testing.T) {
			s := mustNew(t, simbme280.New(simbme280.Options{Truth: still(air[0], air[1], air[2])}))
			wantRead(t, s, air[0], air[1], air[2])
		})
	}
}

func TestJumps(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		name    string
		air     [3]float64
		column  Column
		want    Reading
		allowed time.Duration // after this long the same air is believed
	}{
		{"temperature", [3]float64{40, 100000, 50}, Temperature, Reading{nan, nan, nan}, 16 * time.Second},
		{"pressure", [3]float64{20, 97000, 50}, Pressure, Reading{20, nan, 50}, 13 * time.Second},
		{"humidity", [3]float64{20, 100000, 98}, Humidity, Reading{20, 100000, nan}, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
				s := mustNew(t, chip)
				wantRead(t, s, 20, 100000, 50)
				chip.SetTruth(still(tt.air[0], tt.air[1], tt.air[2]))
				time.Sleep(time.Second)
				bad := wantBad(t, s, tt.column, tt.want)
				if bad.Value >= bad.Min && bad.Value <= bad.Max {
					t.Errorf("ValueError = %+v; want a value outside of what it says is allowed", bad)
				}
				time.Sleep(tt.allowed)
				wantRead(t, s, tt.air[0], tt.air[1], tt.air[2])
			})
		})
	}
}

func TestWeatherAndDoorsAreNoJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
		s := mustNew(t, chip)
		wantRead(t, s, 20, 100000, 50)
		for _, air := range [][3]float64{{22, 99900, 65}, {19, 100100, 40}, {21, 100050, 75}, {24, 99700, 50}} {
			chip.SetTruth(still(air[0], air[1], air[2]))
			time.Sleep(time.Second)
			wantRead(t, s, air[0], air[1], air[2])
		}
	})
}

func TestHumidityConverterAtNotMeasured(t *testing.T) {
	for _, tt := range []struct {
		name  string
		times int // how many measurements in a row show 0x8000
		bad   bool
	}{{"once", 1, false}, {"twice", 2, false}, {"always", 1 << 30, true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus, shown := &hooked{BusCloser: simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})}, 0
				bus.after = func(w, r []byte) {
					if w[0] == 0xF7 && shown < tt.times {
						shown++
						r[6], r[7] = 0x80, 0
					}
				}
				s := mustNew(t, bus)
				if tt.bad {
					wantBad(t, s, Humidity, Reading{20, 100000, math.NaN()})
				} else {
					wantRead(t, s, 20, 100000, 50)
				}
			})
		})
	}
}

func TestJudgeNaN(t *testing.T) {
	s := &Sensor{}
	r, err := s.judge(Reading{20, math.NaN(), math.Inf(1)}, false, time.Now())
	if !math.IsNaN(r.PressurePa) || !math.IsNaN(r.HumidityPct) || r.TemperatureC != 20 {
		t.Errorf("judge = %+v; want the temperature only", r)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Errorf("judge = %v; want two errors", err)
	}
}

func TestValueErrorText(t *testing.T) {
	err := &ValueError{Temperature, 93.1, -40, 85, "the chip's operating range"}
	if got, want := err.Error(), "temperature_c is 93.1, want -40..85: the chip's operating range"; got != want {
		t.Errorf("Error() = %q; want %q", got, want)
	}
}
