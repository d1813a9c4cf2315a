package bme280

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/i2c/i2ctest"

	"github.com/perch-edge/perch/internal/simbme280"
)

// still is air that does not move.
func still(t, p, h float64) simbme280.Truth {
	return func(time.Time) (float64, float64, float64) { return t, p, h }
}

// mustNew is New on a bus that is expected to work; the sensor is closed with the test.
func mustNew(t *testing.T, bus i2c.BusCloser, opts ...Option) *Sensor {
	t.Helper()
	s, err := New(bus, 0x76, opts...)
	if err != nil {
		t.Fatalf("New = %v; want nil", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// near tells whether a reading is the truth to within the chip's resolution at four samples.
func near(r Reading, tempC, pressurePa, humidityPct float64) bool {
	return math.Abs(r.TemperatureC-tempC) < 0.012 && math.Abs(r.PressurePa-pressurePa) < 1 && math.Abs(r.HumidityPct-humidityPct) < 0.03
}

// wantRead reads and compares with the truth.
func wantRead(t *testing.T, s *Sensor, tempC, pressurePa, humidityPct float64) {
	t.Helper()
	r, err := s.Read(t.Context())
	if err != nil || !near(r, tempC, pressurePa, humidityPct) {
		t.Errorf("Read = %+v, %v; want %v °C, %v Pa, %v %%", r, err, tempC, pressurePa, humidityPct)
	}
}

func isUnknown(r Reading) bool {
	return math.IsNaN(r.TemperatureC) && math.IsNaN(r.PressurePa) && math.IsNaN(r.HumidityPct)
}

// hooked is a bus that calls before ahead of each transaction and after behind it.
type hooked struct {
	i2c.BusCloser
	mu     sync.Mutex
	count  int
	before func(count int) error
	after  func(w, r []byte)
}

func (h *hooked) Tx(addr uint16, w, r []byte) error {
	h.mu.Lock()
	h.count++
	n, before, after := h.count, h.before, h.after
	h.mu.Unlock()
	if before != nil {
		if err := before(n); err != nil {
			return err
		}
	}
	err := h.BusCloser.Tx(addr, w, r)
	if after != nil && err == nil {
		after(w, r)
	}
	return err
}

func (h *hooked) restart(before func(count int) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count, h.before = 0, before
}

func TestWorkedExampleThroughPeriph(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var regs registerFile
		chip := simbme280.New(simbme280.Options{})
		for reg, n := range map[byte]int{regTrimTP: 26, regTrimH: 7} {
			if err := chip.Tx(0x76, []byte{reg}, regs.reg[reg:][:n]); err != nil {
				t.Fatal(err)
			}
		}
		regs.reg[regID] = idBME280
		// BST-BMP280-DS001, 3.12: adc_P = 415148 and adc_T = 519888; the humidity code is ours.
		copy(regs.reg[0xF7:], []byte{0x65, 0x5A, 0xC0, 0x7E, 0xED, 0x00, 0x76, 0x49})
		r, err := mustNew(t, &regs).Read(t.Context())
		if err != nil || r.TemperatureC != 25.08 || math.Abs(r.PressurePa-100653.27) > 0.03 || math.Abs(r.HumidityPct-54.43) > 0.005 {
			t.Errorf("Read = %+v, %v; want 25.08 °C, 100653.27 Pa, 54.43 %%", r, err)
		}
	})
}

func TestWeatherDay(t *testing.T) {
	for _, tt := range []struct {
		bus  string
		opts []Option
	}{
		{"sim:seed=3", nil},
		{"sim:seed=4", []Option{WithOversampling(Oversampling{16, 16, 16})}},
	} {
		t.Run(tt.bus, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := Open(tt.bus, 0x76, tt.opts...)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				seed := uint64(tt.bus[len(tt.bus)-1] - '0')
				for minute := range 24 * 60 {
					truth := at(simbme280.WeatherOf(seed))
					wantRead(t, s, truth[0], truth[1], truth[2])
					if t.Failed() {
						t.Fatalf("in minute %d", minute)
					}
					time.Sleep(time.Minute)
				}
				// A reading is due a little later than the tenth minute, so that one in eleven refreshes.
				if got := s.Counters(); got.Created < 24*60/11 || got.Created > 24*60/10+1 || got.BrownOuts != 0 {
					t.Errorf("Counters after a day = %+v; want a creation each ten minutes and no brown-out", got)
				}
			})
		})
	}
}

func TestRealClock(t *testing.T) {
	s, err := Open("sim:temperature_c=21.5,pressure_pa=98765,humidity_pct=43.2", 0x76)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantRead(t, s, 21.5, 98765, 43.2)
	if got, want := s.String(), "BME280 at 0x76 on sim:temperature_c=21.5,pressure_pa=98765,humidity_pct=43.2"; got != want {
		t.Errorf("String() = %q; want %q", got, want)
	}
}

func TestTraffic(t *testing.T) {
	open := []i2ctest.IO{
		{W: []byte{0xD0}, R: make([]byte, 1)},                          // whose address is it
		{W: []byte{0xE0, 0xB6}},                                        // soft reset
		{W: []byte{0xF3}, R: make([]byte, 1)},                          // trimming values loaded
		{W: []byte{0xD0}, R: make([]byte, 1)},                          // NewI2C
		{W: []byte{0x88}, R: make([]byte, 26)},                         //
		{W: []byte{0xE1}, R: make([]byte, 7)},                          //
		{W: []byte{0xF4, 0x6C, 0xF2, 0x03, 0xF5, 0xA0, 0xF4, 0x6C}},    //
		{W: []byte{0xF3}, R: make([]byte, 1)},                          // second look at the trimming values
		{W: []byte{0x88}, R: make([]byte, 26)},                         //
		{W: []byte{0xE1}, R: make([]byte, 7)},                          //
		{W: []byte{0xF4, 0x6D}}, {W: []byte{0xF3}, R: make([]byte, 1)}, // Sense: force, poll
		{W: []byte{0xF7}, R: make([]byte, 8)},                          //
		{W: []byte{0xF2}, R: make([]byte, 4)},                          // settings read back
		{W: []byte{0xF4, 0x6D}}, {W: []byte{0xF3}, R: make([]byte, 1)}, // the second reading
		{W: []byte{0xF7}, R: make([]byte, 8)}, {W: []byte{0xF2}, R: make([]byte, 4)},
	}
	synctest.Test(t, func(t *testing.T) {
		record := &i2ctest.Record{Bus: simbme280.New(simbme280.Options{Truth: still(21.5, 98765, 43.2)})}
		s := mustNew(t, struct {
			i2c.Bus
			io.Closer
		}{record, io.NopCloser(nil)})
		wantRead(t, s, 21.5, 98765, 43.2)
		wantRead(t, s, 21.5, 98765, 43.2)
		if diff := cmp.Diff(open, shape(record.Ops)); diff != "" {
			t.Errorf("traffic of open and two readings differs (-want +got):\n%s", diff)
		}

		playback := &i2ctest.Playback{Ops: record.Ops, DontPanic: true}
		again, err := New(playback, 0x76)
		if err != nil {
			t.Fatalf("New on the recorded traffic = %v; want nil", err)
		}
		wantRead(t, again, 21.5, 98765, 43.2)
		wantRead(t, again, 21.5, 98765, 43.2)
		if err := again.Close(); err != nil {
			t.Errorf("Close = %v; want nil, all traffic used", err)
		}
	})
}

// shape keeps what was written and how much was read, and one poll of several.
func shape(ops []i2ctest.IO) []i2ctest.IO {
	var out []i2ctest.IO
	for _, op := range ops {
		next := i2ctest.IO{W: op.W}
		if op.R != nil {
			next.R = make([]byte, len(op.R))
		}
		if len(out) > 0 && len(op.W) == 1 && op.W[0] == regStatus && cmp.Equal(out[len(out)-1], next) {
			continue
		}
		out = append(out, next)
	}
	return out
}

func TestFilterIsSetInForcedMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
		s := mustNew(t, chip, WithFilter(4))
		wantRead(t, s, 20, 100000, 50)
		chip.SetTruth(still(24, 100400, 50))
		time.Sleep(time.Minute)
		if r, err := s.Read(t.Context()); err != nil || math.Abs(r.TemperatureC-21) > 0.1 {
			t.Errorf("first Read after a step from 20 to 24 °C = %+v, %v; want a quarter of the way, 21", r, err)
		}
	})
}

func TestBrownOutIsFoundInTheSameRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
		s := mustNew(t, chip)
		wantRead(t, s, 20, 100000, 50)
		chip.Brownout()
		time.Sleep(time.Second)
		wantRead(t, s, 20, 100000, 50)
		if got, want := s.Counters(), (Counters{Created: 2, BrownOuts: 1}); got != want {
			t.Errorf("Counters = %+v; want %+v", got, want)
		}
	})
}

// Wherever the supply dips, and however many readings follow, what is called good must be the truth.
func TestBrownOutAtEachTransaction(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		for at := 1; at <= 35; at++ {
			synctest.Test(t, func(t *testing.T) {
				chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
				bus := &hooked{BusCloser: chip}
				s := mustNew(t, bus)
				if fresh {
					s.dev = nil // as after an error
				}
				bus.restart(func(n int) error {
					if n == at {
						chip.Brownout()
					}
					return nil
				})
				good := 0
				for range 4 {
					r, err := s.Read(t.Context())
					switch {
					case err == nil && !near(r, 20, 100000, 50):
						t.Errorf("brown-out before transaction %d (new driver: %t): Read = %+v; want 20, 100000, 50 or an error", at, fresh, r)
					case err == nil:
						good++
					case !isUnknown(r):
						t.Errorf("brown-out before transaction %d (new driver: %t): Read = %+v, %v; want NaN beside the error", at, fresh, r, err)
					}
					time.Sleep(time.Second)
				}
				if good < 3 {
					t.Errorf("brown-out before transaction %d (new driver: %t): %d good readings of 4; want 3 or more", at, fresh, good)
				}
			})
		}
	}
}

func TestEachLostSettingIsFound(t *testing.T) {
	for name, write := range map[string][]byte{
		"ctrl_hum": {0xF2, 0x05}, "humidity off": {0xF2, 0}, "osrs_t": {0xF4, 0x8C}, "osrs_p": {0xF4, 0x70}, "config": {0xF5, 0x10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
				bus := &hooked{BusCloser: chip}
				s := mustNew(t, bus)
				bus.restart(func(n int) error {
					if n != 2 { // after Sense wrote ctrl_meas
						return nil
					}
					return chip.Tx(0x76, write, nil)
				})
				wantRead(t, s, 20, 100000, 50)
				if got := s.Counters().BrownOuts; got != 1 {
					t.Errorf("BrownOuts = %d; want 1", got)
				}
			})
		})
	}
}

func TestSettingsThatNeverHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{})
		bus := &hooked{BusCloser: chip}
		s := mustNew(t, bus)
		bus.after = func(w, r []byte) {
			if w[0] == regCtrlHum {
				r[0] = 0
			}
		}
		r, err := s.Read(t.Context())
		if !errors.Is(err, errLost) || !isUnknown(r) {
			t.Errorf("Read = %+v, %v; want NaN and an error about lost settings", r, err)
		}
		if got := s.Counters().BrownOuts; got != 2 {
			t.Errorf("BrownOuts = %d; want 2, one repetition only", got)
		}
	})
}

func TestFaultyDayNeverGivesAWrongValue(t *testing.T) {
	for _, tt := range []struct {
		bus                         string
		failed, timeouts, brownOuts int // at least so many of 1000 readings
	}{
		{"sim:seed=5,io_error_every=83,io_error_run=3,brownout_every=101", 100, 0, 100},
		{"sim:seed=5,stuck_every=20", 0, 40, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, err := Open(tt.bus, 0x76)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			air, good, failed, timeouts := simbme280.WeatherOf(5), 0, 0, 0
			for range 1000 {
				r, err := s.Read(t.Context())
				truth := at(air)
				switch {
				case err != nil && !isUnknown(r):
					t.Fatalf("%s: Read = %+v, %v; want NaN beside the error", tt.bus, r, err)
				case errors.Is(err, ErrTimeout):
					timeouts++
				case err != nil:
					failed++
				case !near(r, truth[0], truth[1], truth[2]):
					t.Fatalf("%s: Read = %+v; want %v", tt.bus, r, truth)
				default:
					good++
				}
				time.Sleep(time.Minute)
			}
			if got := s.Counters(); good < 700 || failed < tt.failed || timeouts < tt.timeouts || int(got.BrownOuts) < tt.brownOuts {
				t.Errorf("%s: %d good, %d failed, %d timed out, %+v; want 700 good and %+v", tt.bus, good, failed, timeouts, got, tt)
			}
		})
	}
}

func TestReadErrorThenRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
		s := mustNew(t, chip)
		chip.FailNext(3)
		if r, err := s.Read(t.Context()); err == nil || errors.Is(err, ErrNoDevice) || !isUnknown(r) {
			t.Errorf("Read on a failing bus = %+v, %v; want NaN and an error that is not ErrNoDevice", r, err)
		}
		chip.FailNext(2) // two of three attempts
		wantRead(t, s, 20, 100000, 50)
		chip.SetAbsent(true)
		if _, err := s.Read(t.Context()); err == nil {
			t.Error("Read of an absent chip = nil; want an error")
		}
		if _, err := s.Read(t.Context()); !errors.Is(err, ErrNoDevice) {
			t.Errorf("second Read of an absent chip = %v; want ErrNoDevice", err)
		}
		chip.SetAbsent(false)
		wantRead(t, s, 20, 100000, 50)
	})
}

// A transaction that fails costs a few milliseconds, whichever it is: not the reading, and no new driver.
func TestFailedTransactionsAreRepeated(t *testing.T) {
	const open, reading = 10, 4 // transactions: TestTraffic
	for fail := range open + 2*reading {
		synctest.Test(t, func(t *testing.T) {
			chip, n := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)}), 0
			bus := &hooked{BusCloser: chip, after: func(_, _ []byte) {
				if n++; n == fail {
					chip.FailNext(2)
				}
			}}
			if fail == 0 {
				chip.FailNext(2)
			}
			s := mustNew(t, bus)
			begin := time.Now()
			wantRead(t, s, 20, 100000, 50)
			wantRead(t, s, 20, 100000, 50)
			if took := time.Since(begin); took > 200*time.Millisecond {
				t.Errorf("failing after transaction %d: two readings took %v; want at most 200ms", fail, took)
			}
			if got, want := s.Counters(), (Counters{Created: 1, Retries: 2}); got != want {
				t.Errorf("failing after transaction %d: Counters() = %+v; want %+v", fail, got, want)
			}
		})
	}
}

// On a noisy bus nearly all readings come.
func TestNoisyBus(t *testing.T) {
	for _, every := range []int{2, 5, 15, 20, 30} {
		synctest.Test(t, func(t *testing.T) {
			s := mustNew(t, simbme280.New(simbme280.Options{Truth: still(20, 100000, 50), IOErrorEvery: every}))
			for range 100 {
				wantRead(t, s, 20, 100000, 50)
				time.Sleep(time.Second)
			}
			if got := s.Counters(); got.Created != 1 || got.Retries < 100/uint64(every) {
				t.Errorf("each %d. transaction fails: Counters() = %+v; want 1 driver, and the repetitions", every, got)
			}
		})
	}
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, simbme280.New(simbme280.Options{}), WithRefresh(30*time.Second))
		for range 9 {
			if _, err := s.Read(context.Background()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		// At 0 s by New, and by the readings at 30 and 60 s.
		if got := s.Counters().Created; got != 3 {
			t.Errorf("Created after nine readings in 90 s = %d; want 3", got)
		}
	})
}

func TestCloseEndsTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{})
		s := mustNew(t, chip)
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v; want nil", err)
		}
		if err := chip.Tx(0x76, []byte{regID}, make([]byte, 1)); err == nil {
			t.Error("Tx after Close = nil; want an error")
		}
		if r, err := s.Read(t.Context()); err == nil || !isUnknown(r) {
			t.Errorf("Read after Close = %+v, %v; want an error", r, err)
		}
	})
}

// at is the air now.
func at(air simbme280.Truth) []float64 {
	t, p, h := air(time.Now())
	return []float64{t, p, h}
}
