package simbme280

import (
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"periph.io/x/conn/v3/physic"
)

// still is air that does not move.
func still(t, p, h float64) Truth {
	return func(time.Time) (float64, float64, float64) { return t, p, h }
}

// tx runs one transaction that must succeed.
func tx(t *testing.T, c *Chip, w []byte, n int) []byte {
	t.Helper()
	r := make([]byte, n)
	if err := c.Tx(0x76, w, r); err != nil {
		t.Fatalf("Tx(0x76, % x, %d bytes) = %v; want nil", w, n, err)
	}
	return r
}

// bubble runs f where time passes only when everything waits for it.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestFormulasGiveTheWorkedExample(t *testing.T) {
	c := workedExample()
	fine := c.fine(519888)
	if got := fine / 5120; math.Abs(got-25.08) > 0.005 {
		t.Errorf("temperature of code 519888 = %v °C; want 25.08", got)
	}
	if got := c.pressurePa(415148, fine); math.Abs(got-100653.27) > 0.05 {
		t.Errorf("pressure of code 415148 = %v Pa; want 100653.27", got)
	}
	// Humidity has no published example: this is what the integer formula of 4.2.3 gives.
	if got := c.humidityPct(30281, fine); math.Abs(got-54.4297) > 0.02 {
		t.Errorf("humidity of code 30281 = %v %%; want 54.43", got)
	}
}

func TestCodesInvertTheFormulas(t *testing.T) {
	c := workedExample()
	for temp := -40.0; temp <= 85; temp += 12.5 {
		for press := 30000.0; press <= 110000; press += 8000 {
			for hum := 0.5; hum < 100; hum += 9.9 {
				tc, pc, hc := c.codes(temp, press, hum)
				fine := c.fine(float64(tc))
				gotT, gotP, gotH := fine/5120, c.pressurePa(float64(pc), fine), c.humidityPct(float64(hc), fine)
				if math.Abs(gotT-temp) > 0.0003 || math.Abs(gotP-press) > 0.2 || math.Abs(gotH-hum) > 0.01 {
					t.Fatalf("compensate(codes(%v, %v, %v)) = %v, %v, %v; want the same", temp, press, hum, gotT, gotP, gotH)
				}
			}
		}
	}
}

func TestCodesOutOfReachSaturate(t *testing.T) {
	c := workedExample()
	for _, v := range []float64{-1e300, 1e300, math.NaN()} {
		tc, pc, hc := c.codes(v, v, v)
		if tc < 0 || tc >= 1<<20 || pc < 0 || pc >= 1<<20 || hc < 0 || hc >= 1<<16 {
			t.Errorf("codes(%v) = %d, %d, %d; want codes of 20, 20 and 16 bits", v, tc, pc, hc)
		}
	}
}

func TestPowerOnRegisters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := New(Options{})
		if got := tx(t, c, []byte{regID}, 1); got[0] != 0x60 {
			t.Errorf("id = 0x%02x; want 0x60", got[0])
		}
		if got := tx(t, c, []byte{regCtrlHum}, 4); !cmp.Equal(got, []byte{0, 0, 0, 0}) {
			t.Errorf("ctrl_hum, status, ctrl_meas, config = % x; want zeros", got)
		}
		if got := tx(t, c, []byte{regData}, 8); !cmp.Equal(got, []byte{0x80, 0, 0, 0x80, 0, 0, 0x80, 0}) {
			t.Errorf("data = % x; want the codes of channels that were not measured", got)
		}
		want := []byte{0x70, 0x6B, 0x43, 0x67, 0x18, 0xFC, 0x7D, 0x8E}
		if got := tx(t, c, []byte{regTrimTP}, 8); !cmp.Equal(got, want) {
			t.Errorf("T1 T2 T3 P1 = % x; want % x", got, want)
		}
		// 319 = 0x13F and 50 = 0x032 share the byte 0xE5.
		if got := tx(t, c, []byte{0xE4}, 3); !cmp.Equal(got, []byte{0x13, 0x2F, 0x03}) {
			t.Errorf("H4 H5 = % x; want 13 2f 03", got)
		}
	})
}

func TestCtrlHumTakesEffectWithCtrlMeas(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := New(Options{})
		measure := func() []byte {
			time.Sleep(50 * time.Millisecond)
			return tx(t, c, []byte{0xFD}, 2)
		}
		tx(t, c, []byte{regCtrlMeas, 0x25}, 0)
		tx(t, c, []byte{regCtrlHum, 1}, 0)
		if got := measure(); !cmp.Equal(got, []byte{0x80, 0}) {
			t.Errorf("humidity after ctrl_hum alone = % x; want 80 00, not measured", got)
		}
		tx(t, c, []byte{regCtrlMeas, 0x25}, 0)
		if got := measure(); cmp.Equal(got, []byte{0x80, 0}) {
			t.Errorf("humidity after ctrl_hum and ctrl_meas = % x; want a measured code", got)
		}
	})
}

func TestMeasuringBitAndLatch(t *testing.T) {
	// 9.1 with all channels at x1, x4, x16: 1.25 + 2.3n + (2.3n + 0.575) + (2.3n + 0.575) ms.
	for osrs, want := range map[byte]time.Duration{1: 9300 * time.Microsecond, 3: 30 * time.Millisecond, 5: 112800 * time.Microsecond} {
		bubble(t, func(t *testing.T) {
			c := New(Options{Truth: still(20, 100000, 50)})
			if err := c.SetSpeed(physic.MegaHertz); err != nil {
				t.Fatal(err)
			}
			tx(t, c, []byte{regCtrlHum, osrs, regCtrlMeas, osrs<<5 | osrs<<2 | 1}, 0)
			start := time.Now()
			for {
				b := tx(t, c, []byte{regStatus}, regData-regStatus+1)
				if b[0]&statusMeasuring == 0 {
					break
				}
				if got := b[regData-regStatus]; got != 0x80 {
					t.Fatalf("data changed to 0x%02x while measuring; want it at the end", got)
				}
			}
			if got := time.Since(start); got < want || got > want+time.Millisecond {
				t.Errorf("osrs %d measured for %v; want %v", osrs, got, want)
			}
			if got := tx(t, c, []byte{regCtrlMeas}, 1)[0]; got&modeMask != 0 {
				t.Errorf("ctrl_meas after forced mode = 0x%02x; want sleep", got)
			}
			// A later look must not change what was latched.
			first := tx(t, c, []byte{regData}, 8)
			c.SetTruth(still(30, 90000, 10))
			time.Sleep(time.Second)
			if got := tx(t, c, []byte{regData}, 8); !cmp.Equal(got, first) {
				t.Errorf("data a second later = % x; want % x", got, first)
			}
		})
	}
}

func TestSkippedChannels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := New(Options{})
		tx(t, c, []byte{regCtrlMeas, 0x21}, 0) // temperature only
		time.Sleep(50 * time.Millisecond)
		got := tx(t, c, []byte{regData}, 8)
		if p, h := got[:3], got[6:]; !cmp.Equal(p, []byte{0x80, 0, 0}) || !cmp.Equal(h, []byte{0x80, 0}) {
			t.Errorf("skipped pressure and humidity = % x, % x; want 80 00 00, 80 00", p, h)
		}
		if got[5]&0xF0 != 0 || cmp.Equal(got[3:6], []byte{0x80, 0, 0}) {
			t.Errorf("temperature at x1 = % x; want a code of 16 bits", got[3:6])
		}
	})
}

func TestMeasuredHumidityNeverLooksSkipped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cal := workedExample()
		c := New(Options{Truth: still(20, 100000, cal.humidityPct(skipped16, 20*5120))})
		tx(t, c, []byte{regCtrlHum, 1, regCtrlMeas, 0x25}, 0)
		time.Sleep(50 * time.Millisecond)
		if got := tx(t, c, []byte{0xFD}, 2); !cmp.Equal(got, []byte{0x80, 0x01}) {
			t.Errorf("humidity whose code would be 0x8000 = % x; want 80 01", got)
		}
	})
}

func TestFilterFollowsASlowStep(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := New(Options{Truth: still(20, 100000, 50)})
		code := func() int {
			tx(t, c, []byte{regCtrlMeas, 0x25}, 0)
			time.Sleep(50 * time.Millisecond)
			b := tx(t, c, []byte{0xFA}, 3)
			return int(b[0])<<12 | int(b[1])<<4 | int(b[2])>>4
		}
		tx(t, c, []byte{regConfig, 2 << 2}, 0) // coefficient 4
		from := code()
		c.SetTruth(still(30, 100000, 50))
		to, _, _ := c.cal.codes(30, 100000, 50)
		// Table 6: three quarters of a step after 5 samples.
		var reached []float64
		for range 5 {
			reached = append(reached, float64(code()-from)/float64(to-from))
		}
		if reached[0] < 0.24 || reached[0] > 0.26 || reached[3] >= 0.75 || reached[4] < 0.75 {
			t.Errorf("parts of a step after 1..5 samples = %.2f; want 0.25 first and 0.75 passed at the fifth", reached)
		}
		tx(t, c, []byte{regConfig, 2 << 2}, 0)
		if got := code(); got != to {
			t.Errorf("code after config was written = %d; want %d, the filter restarted", got, to)
		}
	})
}

func TestSoftResetLoadsTrimmingAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := New(Options{})
		tx(t, c, []byte{regCtrlHum, 5, regConfig, 0x10}, 0)
		tx(t, c, []byte{regReset, 0x11}, 0)
		if got := tx(t, c, []byte{regCtrlHum}, 1)[0]; got != 5 {
			t.Errorf("ctrl_hum after a wrong reset word = %d; want 5", got)
		}
		tx(t, c, []byte{regReset, resetWord}, 0)
		if got := tx(t, c, []byte{regTrimTP}, 2); !cmp.Equal(got, []byte{0, 0}) {
			t.Errorf("T1 at once after reset = % x; want zeros", got)
		}
		if got := tx(t, c, []byte{regCtrlHum}, 4); !cmp.Equal(got, []byte{0, statusLoading, 0, 0}) {
			t.Errorf("ctrl_hum, status, ctrl_meas, config = % x; want 00 01 00 00", got)
		}
		time.Sleep(startUp)
		if got := tx(t, c, []byte{regTrimTP}, 2); !cmp.Equal(got, []byte{0x70, 0x6B}) {
			t.Errorf("T1 after start-up = % x; want 70 6b", got)
		}
	})
}

func TestTransactionsTakeTimeOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := New(Options{})
		start := time.Now()
		tx(t, c, []byte{regData}, 8)
		if got, want := time.Since(start), 1010*time.Microsecond; got != want { // 9*(1+1) + 9*(1+8) + 2 clocks
			t.Errorf("reading 8 bytes at 100 kHz took %v; want %v", got, want)
		}
	})
}

func TestFaults(t *testing.T) {
	ok, remote, nobody := "", syscall.EREMOTEIO.Error(), syscall.ENXIO.Error()
	for _, tt := range []struct {
		name string
		opts Options
		do   func(*Chip)
		addr uint16
		want []string // of one transaction after the other
	}{
		{"none", Options{}, nil, 0x76, []string{ok, ok, ok}},
		{"wrong address", Options{}, nil, 0x77, []string{nobody}},
		{"other address", Options{Address: 0x77}, nil, 0x77, []string{ok}},
		{"absent", Options{Absent: true}, nil, 0x76, []string{nobody, nobody}},
		{"back again", Options{Absent: true}, func(c *Chip) { c.SetAbsent(false) }, 0x76, []string{ok}},
		{"next two", Options{}, func(c *Chip) { c.FailNext(2) }, 0x76, []string{remote, remote, ok}},
		{"every third", Options{IOErrorEvery: 3}, nil, 0x76, []string{ok, ok, remote, ok, ok, remote}},
		{"two of four", Options{IOErrorEvery: 4, IOErrorRun: 2}, nil, 0x76, []string{ok, ok, ok, remote, remote, ok, ok, remote, remote, ok}},
		{"closed", Options{}, func(c *Chip) { _ = c.Close() }, 0x76, []string{"file already closed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := New(tt.opts)
				if tt.do != nil {
					tt.do(c)
				}
				for i, want := range tt.want {
					err := c.Tx(tt.addr, []byte{regID}, make([]byte, 1))
					if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
						t.Errorf("transaction %d = %v; want %q", i+1, err, want)
					}
				}
			})
		})
	}
}

func TestBrownoutAndStuckOnSchedule(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := New(Options{BrownoutEvery: 3, StuckEvery: 2})
		tx(t, c, []byte{regCtrlHum, 3}, 0)
		if got := tx(t, c, []byte{regCtrlHum}, 1)[0]; got != 3 {
			t.Errorf("ctrl_hum before the brown-out = %d; want 3", got)
		}
		if got := tx(t, c, []byte{regCtrlHum}, 1)[0]; got != 0 {
			t.Errorf("ctrl_hum after the brown-out = %d; want 0", got)
		}
	})
	bubble(t, func(t *testing.T) {
		c := New(Options{StuckEvery: 2})
		measuring := func() bool {
			tx(t, c, []byte{regCtrlMeas, 0x25}, 0)
			time.Sleep(time.Second)
			return tx(t, c, []byte{regStatus}, 1)[0]&statusMeasuring != 0
		}
		if measuring() {
			t.Error("first conversion still runs; want it done")
		}
		if !measuring() {
			t.Error("second conversion is done; want it stuck")
		}
		tx(t, c, []byte{regReset, resetWord}, 0)
		if measuring() {
			t.Error("third conversion, after a reset, still runs; want it done")
		}
	})
}
