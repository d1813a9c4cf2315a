package bme280

import (
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/physic"
)

// registerFile is a chip that is nothing but registers: it measures nothing and may forget what is written.
type registerFile struct {
	reg    [256]byte
	forget bool
	noise  byte // added to the data registers at each read of them
}

func (f *registerFile) String() string                  { return "registers" }
func (f *registerFile) Close() error                    { return nil }
func (f *registerFile) SetSpeed(physic.Frequency) error { return nil }

func (f *registerFile) Tx(_ uint16, w, r []byte) error {
	time.Sleep(100 * time.Microsecond)
	for ; len(w) >= 2; w = w[2:] {
		if !f.forget && w[0] >= regCtrlHum && w[0] != regStatus && w[0] <= regConfig {
			f.reg[w[0]] = w[1]
			f.reg[0xF4] &^= 3 // measured already
		}
	}
	if len(w) == 0 {
		return nil
	}
	for i := range r {
		r[i] = f.reg[w[0]+byte(i)]
	}
	if w[0] == 0xF7 {
		for i := range 8 {
			f.reg[0xF7+i] += f.noise
		}
	}
	return nil
}

// Whatever the registers hold: no panic, no hang, and nothing called good outside of its range.
func FuzzRegisters(f *testing.F) {
	trim := []byte{
		0x70, 0x6B, 0x43, 0x67, 0x18, 0xFC, 0x7D, 0x8E, 0x43, 0xD6, 0xD0, 0x0B, 0x27, 0x0B, 0x8C, 0x00,
		0xF9, 0xFF, 0x8C, 0x3C, 0xF8, 0xC6, 0x70, 0x17, 0x00, 0x4B, 0x6A, 0x01, 0x00, 0x13, 0x2F, 0x03, 0x1E,
	}
	data := []byte{0x65, 0x5A, 0xC0, 0x7E, 0xED, 0x00, 0x76, 0x49}
	f.Add(trim, data, byte(0x60), byte(0), byte(0), false)
	f.Add(trim, data, byte(0x60), byte(0), byte(1), true)
	f.Add(trim, []byte{0x80, 0, 0, 0x80, 0, 0, 0x80, 0}, byte(0x60), byte(0), byte(0), false)
	f.Add(trim, []byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, byte(0x60), byte(0), byte(77), false)
	f.Add(trim, data, byte(0x60), byte(8), byte(0), false)
	f.Add(trim, data, byte(0x60), byte(1), byte(0), false)
	f.Add(trim, data, byte(0x58), byte(0), byte(0), false)
	f.Add([]byte{1}, []byte{}, byte(0x60), byte(0), byte(3), false)
	f.Fuzz(func(t *testing.T, trim, data []byte, id, status, noise byte, forget bool) {
		synctest.Test(t, func(t *testing.T) {
			regs := &registerFile{forget: forget, noise: noise}
			copy(regs.reg[regTrimTP:regTrimTP+26], trim)
			if len(trim) > 26 {
				copy(regs.reg[regTrimH:regTrimH+7], trim[26:])
			}
			copy(regs.reg[0xF7:], data)
			regs.reg[regID], regs.reg[regStatus] = id, status
			s, err := New(regs, 0x76, WithTimeout(200*time.Millisecond))
			if err != nil {
				if !errors.Is(err, ErrNoDevice) {
					t.Errorf("New = %v; want ErrNoDevice", err)
				}
				return
			}
			if id != idBME280 || status&statusLoading != 0 {
				t.Fatalf("New with id 0x%02x and status 0x%02x = nil; want an error", id, status)
			}
			for range 3 {
				r, err := s.Read(t.Context())
				checkReading(t, r, err)
				if err == nil && (forget || status&8 != 0) {
					t.Errorf("Read = %+v of a chip that forgets (%t) or is busy (status 0x%02x); want an error", r, forget, status)
				}
			}
		})
	})
}

func checkReading(t *testing.T, r Reading, err error) {
	t.Helper()
	for i, v := range []float64{r.TemperatureC, r.PressurePa, r.HumidityPct} {
		l := limits()[i]
		if inside := v >= l.min && v <= l.max; !inside && (err == nil || !math.IsNaN(v)) {
			t.Errorf("Read = %+v, %v; want %s within %v..%v, or NaN and an error", r, err, l.column, l.min, l.max)
		}
	}
	if bad := new(ValueError); err != nil && !errors.As(err, &bad) && !isUnknown(r) {
		t.Errorf("Read = %+v, %v; want NaN beside an error of the bus", r, err)
	}
}
