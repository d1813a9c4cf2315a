package bme280

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perch-edge/perch/internal/simbme280"
)

// wantError compares an error with what it must be and say.
func wantError(t *testing.T, call string, err, is error, says ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("%s = %v; want %v", call, err, is)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s = %q; want it to contain %q", call, err, text)
		}
	}
}

func TestNoDevice(t *testing.T) {
	for _, tt := range []struct {
		bus  string
		addr uint16
		says []string
	}{
		{"sim:absent=true", 0x76, []string{"nothing answers at 0x76", "no such device or address", "wiring", "i2cdetect -y", "0x77"}},
		{"sim:", 0x77, []string{"nothing answers at 0x77", "a BME280 answers at 0x76: set that address"}},
		{"sim:address=0x77", 0x76, []string{"a BME280 answers at 0x77"}},
		{"sim:io_error_every=1", 0x76, []string{"remote I/O error", "i2cdetect"}},
		{"sim:chip_id=0x58", 0x76, []string{"id 0x58 (a BMP280, which has no humidity), want 0x60"}},
		{"sim:chip_id=0x55", 0x76, []string{"BMP180"}},
		{"sim:chip_id=0x61", 0x76, []string{"BME680"}},
		{"sim:chip_id=0xff", 0x76, []string{"the data line is held"}},
		{"/dev/i2c-250", 0x76, []string{"/dev/i2c-250", "dtparam=i2c_arm=on", "i2c-dev", "buses here: "}},
		{"250", 0x76, []string{"/dev/i2c-250"}},
		{"no-such-bus", 0x76, []string{`"no-such-bus"`, "buses here: "}},
	} {
		t.Run(tt.bus, func(t *testing.T) {
			_, err := Open(tt.bus, tt.addr)
			wantError(t, fmt.Sprintf("Open(%q, 0x%02x)", tt.bus, tt.addr), err, ErrNoDevice, tt.says...)
		})
	}
}

func TestAWrongChipIsNotWrittenTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{ChipID: 0x58})
		bus := &hooked{BusCloser: chip, after: func(w, r []byte) {
			if len(w) > 1 {
				t.Errorf("wrote % x to a chip that is no BME280; want nothing written", w)
			}
		}}
		_, err := New(bus, 0x76)
		wantError(t, "New", err, ErrNoDevice)
		if err := chip.Tx(0x76, []byte{regID}, make([]byte, 1)); err == nil {
			t.Error("bus is open after New failed; want it closed")
		}
	})
}

func TestAnIDMisreadByPeriphIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, ids := &hooked{BusCloser: simbme280.New(simbme280.Options{})}, 0
		bus.after = func(w, r []byte) {
			if w[0] == regID {
				if ids++; ids == 2 {
					r[0] = 0x58
				}
			}
		}
		_, err := New(bus, 0x76)
		wantError(t, "New", err, ErrNoDevice, "BMP280", "want a BME280")
	})
}

func TestBadTrimmingValuesAreRefused(t *testing.T) {
	set := func(reg byte, from int, value ...byte) func(w, r []byte) {
		return func(w, r []byte) {
			if w[0] == reg && len(r) > 1 {
				copy(r[from:], value)
			}
		}
	}
	once := func(f func(w, r []byte)) func(w, r []byte) {
		done := false
		return func(w, r []byte) {
			if w[0] == regTrimTP && len(r) > 1 && !done {
				done = true
				f(w, r)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		after func(w, r []byte)
		says  string
	}{
		{"T1 zero", set(regTrimTP, 0, 0, 0), "want those of a working chip"},
		{"P1 all ones", set(regTrimTP, 6, 0xFF, 0xFF), "want those of a working chip"},
		{"H2 zero", set(regTrimH, 0, 0, 0), "want those of a working chip"},
		{"H4 negative", set(regTrimH, 3, 0xFF), "H4 and H5"},
		{"H5 negative", set(regTrimH, 5, 0x80), "H4 and H5"},
		{"one bit, once", once(func(_, r []byte) { r[11] ^= 4 }), "two reads differ"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := New(&hooked{BusCloser: simbme280.New(simbme280.Options{}), after: tt.after}, 0x76)
				wantError(t, "New", err, ErrNoDevice, "trimming values", tt.says)
			})
		})
	}
}

func TestTrimmingValuesThatLoadSlowly(t *testing.T) {
	for _, tt := range []struct {
		polls int
		is    error
	}{{5, nil}, {1 << 30, ErrTimeout}} {
		synctest.Test(t, func(t *testing.T) {
			bus, polls := &hooked{BusCloser: simbme280.New(simbme280.Options{})}, 0
			bus.after = func(w, r []byte) {
				if w[0] == regStatus && polls < tt.polls {
					polls++
					r[0] |= statusLoading
				}
			}
			_, err := New(bus, 0x76)
			if !errors.Is(err, tt.is) {
				t.Errorf("New on a chip that loads for %d looks = %v; want %v", tt.polls, err, tt.is)
			}
		})
	}
}

func TestNodeErrors(t *testing.T) {
	dir := t.TempDir()
	node := filepath.Join(dir, "i2c-1")
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	denied := nodeError(node, &fs.PathError{Op: "open", Path: node, Err: syscall.EACCES})
	wantError(t, "nodeError(EACCES)", denied, ErrNoDevice, node, "permission denied", "group", "usermod -aG "+nodeGroup(node))
	wantError(t, "nodeError(EACCES)", denied, fs.ErrPermission)
	missing := nodeError(node+"2", &fs.PathError{Op: "open", Path: node + "2", Err: syscall.ENOENT})
	wantError(t, "nodeError(ENOENT)", missing, ErrNoDevice, "dtparam=i2c_arm=on", "raspi-config")
	gone := nodeError(node, &fs.PathError{Op: "open", Path: node, Err: syscall.ENXIO})
	wantError(t, "nodeError(ENXIO)", gone, ErrNoDevice, node, "dmesg")
}

func TestNodeGroup(t *testing.T) {
	if got := nodeGroup("/dev/no-such-node"); got != "i2c" {
		t.Errorf("nodeGroup of no node = %q; want i2c", got)
	}
	node := filepath.Join(t.TempDir(), "i2c-1")
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("giving a file to another group needs root")
	}
	if err := os.Chown(node, 0, 1); err != nil {
		t.Fatal(err)
	}
	if got := nodeGroup(node); got != "daemon" {
		t.Errorf("nodeGroup of a node of group 1 = %q; want daemon", got)
	}
}

func TestBusNode(t *testing.T) {
	link := filepath.Join(t.TempDir(), "sensors")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"1": "/dev/i2c-1", "/dev/i2c-1": "/dev/i2c-1", "/dev/i2c-250": "/dev/i2c-250", "I2C1": "", "FT232H": "", link: "", "-1": "",
	} {
		if got := busNode(name); got != want {
			t.Errorf("busNode(%q) = %q; want %q", name, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		bus  string
		addr uint16
		opts []Option
		says []string
	}{
		{"", 0x76, nil, []string{`bus is ""`, "/dev/i2c-1"}},
		{"sim:sed=1", 0x76, nil, []string{`did you mean "seed"`}},
		{"1", 0x40, nil, []string{"address is 0x40, want 0x76 or 0x77"}},
		{"1", 0x76, []Option{WithOversampling(Oversampling{4, 3, 0})}, []string{"of pressure is 3", "of humidity is 0", "want 1, 2, 4, 8 or 16"}},
		{"1", 0x76, []Option{WithFilter(3)}, []string{"filter is 3, want 0, 2, 4, 8 or 16"}},
		{"1", 0x76, []Option{WithRefresh(0), WithTimeout(time.Millisecond), WithClock(nil)}, []string{"refresh is 0s", "timeout is 1ms", "clock is nil"}},
		{"", 0, []Option{WithFilter(-1)}, []string{"bus is", "address is", "filter is"}},
	} {
		call := fmt.Sprintf("Check(%q, 0x%02x, %d options)", tt.bus, tt.addr, len(tt.opts))
		wantError(t, call, Check(tt.bus, tt.addr, tt.opts...), ErrConfig, tt.says...)
		if _, err := Open(tt.bus, tt.addr, tt.opts...); !errors.Is(err, ErrConfig) || errors.Is(err, ErrNoDevice) {
			t.Errorf("Open of the same = %v; want ErrConfig", err)
		}
	}
	if err := Check("/dev/i2c-250", 0x77, WithFilter(16), WithOversampling(Oversampling{1, 2, 8})); err != nil {
		t.Errorf("Check of a bus that is not there = %v; want nil, it touches nothing", err)
	}
	if _, err := New(simbme280.New(simbme280.Options{}), 0x10); !errors.Is(err, ErrConfig) {
		t.Errorf("New at 0x10 = %v; want ErrConfig", err)
	}
}
