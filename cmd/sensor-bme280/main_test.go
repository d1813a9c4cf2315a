package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/bme280"
	"github.com/perch-edge/perch/pkg/msg"
)

// TestMain lets the test binary be the program itself.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"sensor-bme280": main})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

// station is a sensor over a simulated chip, and the test that reads it.
type station struct {
	*boxtest.Process
	t    *testing.T
	feed *boxtest.Feed
	last msg.State
}

// start runs a sensor with these options of the chip and keys of the stream.
func start(t *testing.T, bus, stream string) *station {
	t.Helper()
	b := boxtest.New(t, fmt.Sprintf(`start_gate = "20s"
[sensor.air]
program = "sensor-bme280"
bus = "sim:%s"
[sensor.air.stream.environment]
%s
[worker.look]
program = "look"
source = "air"
`, bus, stream))
	feed := b.Follow(b.Bus("look"), []msg.Kind{msg.KindReading, msg.KindState}, "air")
	return &station{b.Start("sensor-bme280", "air"), t, feed, msg.State{}}
}

// reading is the next one.
func (s *station) reading() msg.Reading {
	s.t.Helper()
	for {
		m := s.feed.Next()
		var err error
		if m.Kind == msg.KindReading {
			r, err := m.Reading()
			if err != nil {
				s.t.Fatal(err)
			}
			return r
		}
		if s.last, err = m.State(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// readings takes them until something is true of the state.
func (s *station) readings(what string, is func(msg.State) bool) (list []msg.Reading) {
	s.t.Helper()
	for deadline := time.Now().Add(boxtest.Limit); !is(s.last); {
		list = append(list, s.reading())
		if time.Now().After(deadline) {
			s.t.Fatalf("no state with %s within %s; the last is %+v", what, boxtest.Limit, s.last)
		}
	}
	return list
}

// Deadlines are absolute: however late single readings are, the later ones are not later for it.
// On a busy machine any may be late, so it reads on until one is on time.
func TestRateDoesNotDrift(t *testing.T) {
	t.Parallel()
	const hz, count = 10, 40
	const period = time.Second / hz
	s := start(t, "", fmt.Sprintf("capture_hz = %d.0", hz))
	first := s.reading()
	early, late := period, period // the first half's least, and the last one's
	n, slot := 1, int64(0)
	for ; n < count || late > early+15*time.Millisecond; n++ {
		r := s.reading()
		if r.Seq != first.Seq+msg.Seq(n) || r.Epoch != first.Epoch {
			t.Fatalf("reading %s after %d others; want no gap", r.ID(), n)
		}
		after := time.Duration(r.BootNS - first.BootNS)
		slot = int64(math.Round(float64(after) / float64(period)))
		if late = after - time.Duration(slot)*period; n < count/2 {
			early = min(early, late)
		}
		if n == 100*count {
			t.Fatalf("%d readings at %d Hz, each later than %s after its time; want no drift", n, hz, early+15*time.Millisecond)
		}
	}
	s.readings("the missed counted", func(state msg.State) bool {
		return state.Published["reading/air/environment"] >= uint64(n) && int64(state.Counters["missed_readings"]) >= slot-int64(n-1)
	})
	s.Stop()
}

func TestValuesAreRoundedToABinaryFraction(t *testing.T) {
	t.Parallel()
	const air = "temperature_c=21.37,pressure_pa=101234.5,humidity_pct=47.77"
	for _, tt := range []struct {
		bits   int
		keys   string
		truth  []float64
		column []string
	}{
		{6, "", []float64{21.37, 101234.5, 47.77}, []string{"temperature_c", "pressure_pa", "humidity_pct"}},
		{0, "rounding_bits = 0", []float64{21.37, 101234.5, 47.77}, []string{"temperature_c", "pressure_pa", "humidity_pct"}},
		{3, "rounding_bits = 3\ncolumns = [\"humidity_pct\", \"temperature_c\"]", []float64{47.77, 21.37}, []string{"humidity_pct", "temperature_c"}},
	} {
		t.Run(fmt.Sprint(tt.bits), func(t *testing.T) {
			t.Parallel()
			s := start(t, air, "capture_hz = 20\n"+tt.keys)
			for range 5 {
				r := s.reading()
				if diff := cmp.Diff(tt.column, r.Columns); diff != "" {
					t.Fatalf("columns (-want +got):\n%s", diff)
				}
				step := math.Ldexp(1, -tt.bits)
				for i, v := range r.Values {
					if v/step != math.Trunc(v/step) {
						t.Errorf("%s = %v; want a multiple of %v", r.Columns[i], v, step)
					}
					if off := math.Abs(v - tt.truth[i]); off > step/2+0.2*math.Max(1, tt.truth[i]/1e5)*resolution(r.Columns[i]) {
						t.Errorf("%s = %v; want %v, rounded to %v", r.Columns[i], v, tt.truth[i], step)
					}
				}
				if len(r.Bad) != 0 {
					t.Errorf("bad = %v; want none", r.Bad)
				}
			}
			s.Stop()
		})
	}
}

// resolution is how far the chip itself is off at most, five times over.
func resolution(column string) float64 {
	if column == "pressure_pa" {
		return 10
	}
	return 0.1
}

func TestRoundIsExact(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		bits int
		want float64
	}{{21.37, 6, 21.375}, {-0.01, 6, -0.015625}, {0.5, 0, 1}, {-0.5, 0, -1}, {100653.25, 1, 100653.5}, {2.25, 30, 2.25}} {
		if got := round(tt.v, tt.bits); got != tt.want {
			t.Errorf("round(%v, %d) = %v; want %v", tt.v, tt.bits, got, tt.want)
		}
	}
	if got := round(math.NaN(), 6); !math.IsNaN(got) {
		t.Errorf("round(NaN) = %v; want NaN", got)
	}
}

// Errors on the bus that outlast the repetitions cost the readings they hit, which
// are counted, and lead to a new set-up; the state says so, and the readings go on.
func TestErrorsOnTheBus(t *testing.T) {
	t.Parallel()
	s := start(t, "io_error_every=40,io_error_run=3,temperature_c=20,humidity_pct=50", "capture_hz = 20")
	troubled := false
	list := s.readings("three errors", func(state msg.State) bool {
		troubled = troubled || strings.Contains(state.Trouble, "remote I/O error") && strings.Contains(state.Trouble, "trying again")
		return state.Counters["read_errors"] >= 3 && troubled
	})
	c := s.last.Counters
	if c["missed_readings"] < c["read_errors"] || s.last.Gauges["chip_setups"] < float64(c["read_errors"]) {
		t.Errorf("state = %+v; want each error counted, and a set-up after it", s.last)
	}
	if s.last.Gauges["bus_retries"] < 2*float64(c["read_errors"]) {
		t.Errorf("bus_retries = %v with %d read errors; want two for each", s.last.Gauges["bus_retries"], c["read_errors"])
	}
	if len(list) < 12 {
		t.Errorf("%d readings in all; want them to go on", len(list))
	}
	wantTruth(t, append(list, s.reading()), 20, 50)
	s.Stop()
}

// wantTruth wants each value to be what the air is, or null.
func wantTruth(t *testing.T, list []msg.Reading, temperature, humidity float64) {
	t.Helper()
	for _, r := range list {
		for i, want := range map[int]float64{0: temperature, 2: humidity} {
			if v := r.Values[i]; !math.IsNaN(v) && math.Abs(v-want) > 0.1 {
				t.Errorf("%s: %s = %v; want %v or null", r.ID(), r.Columns[i], v, want)
			}
			if _, bad := r.Bad[r.Columns[i]]; bad != math.IsNaN(r.Values[i]) {
				t.Errorf("%s: %s = %v with the reasons %v; want one for each null", r.ID(), r.Columns[i], r.Values[i], r.Bad)
			}
		}
	}
}

// A chip that loses its supply for a moment loses its settings, and gives a
// wrong humidity without an error: none of them is published.
func TestBrownOuts(t *testing.T) {
	t.Parallel()
	s := start(t, "brownout_every=60,temperature_c=20,humidity_pct=50", "capture_hz = 20")
	list := s.readings("two brown-outs", func(state msg.State) bool { return state.Gauges["brown_outs"] >= 2 })
	if len(list) < 10 {
		t.Errorf("%d readings in all; want them to go on", len(list))
	}
	wantTruth(t, append(list, s.reading()), 20, 50)
	s.Stop()
}

// A conversion that never ends is given up, the chip is reset, and readings go on.
func TestStuckConversion(t *testing.T) {
	t.Parallel()
	s := start(t, "stuck_every=8,temperature_c=20,humidity_pct=50", "capture_hz = 20")
	list := s.readings("an error", func(state msg.State) bool { return state.Counters["read_errors"] >= 1 })
	wantTruth(t, append(list, s.reading(), s.reading()), 20, 50)
	s.Stop()
}

// What cannot be is null, with its reason, and is never taken for a value.
func TestImplausibleValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		air, keys string
		null      []string // of the columns
	}{
		{"pressure_pa=20000,humidity_pct=50", "", []string{"pressure_pa"}},
		{"temperature_c=-60", "", []string{"temperature_c", "pressure_pa", "humidity_pct"}},
		{"pressure_pa=20000", `columns = ["humidity_pct"]`, nil},
	} {
		t.Run(tt.air, func(t *testing.T) {
			t.Parallel()
			s := start(t, tt.air, "capture_hz = 20\n"+tt.keys)
			r := s.reading()
			var null []string
			for i, v := range r.Values {
				if math.IsNaN(v) {
					null = append(null, r.Columns[i])
				}
			}
			if diff := cmp.Diff(tt.null, null); diff != "" {
				t.Errorf("null columns (-want +got):\n%s", diff)
			}
			for column := range r.Bad {
				if !strings.Contains(strings.Join(tt.null, " "), column) {
					t.Errorf("bad = %v; want reasons for %v only", r.Bad, tt.null)
				}
			}
			if len(tt.null) > 0 && len(r.Bad) == 0 {
				t.Error("no reason for a null; want one")
			}
			s.readings("bad values", func(state msg.State) bool { return state.Counters["bad_values"] > 0 && state.Trouble != "" })
			s.Stop()
		})
	}
}

func TestStopsWithEitherSignal(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		s := start(t, "", "capture_hz = 0.01")
		s.reading() // and then a wait of 100 s
		s.Signal(signal)
		if code := s.Wait(); code != 0 {
			t.Errorf("exit code after %s = %d; want 0", signal, code)
		}
	}
}

func TestBadValuesAreFoundInAnyError(t *testing.T) {
	dry, cold := &bme280.ValueError{Column: bme280.Humidity}, &bme280.ValueError{Column: bme280.Temperature}
	for _, tt := range []struct {
		err  error
		want int // -1 is nil
	}{
		{nil, -1},
		{errors.New("remote I/O error"), -1},
		{dry, 1},
		{fmt.Errorf("read: %w", errors.Join(dry, cold)), 2},
		{errors.Join(fmt.Errorf("read: %w", dry), nil), 1},
	} {
		got := badValues(tt.err)
		if len(got) != max(tt.want, 0) || (got == nil) != (tt.want < 0) {
			t.Errorf("badValues(%v) = %v; want %d", tt.err, got, tt.want)
		}
	}
}
