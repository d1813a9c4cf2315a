package simbme280

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// Registers (5.3).
const (
	regTrimTP   = 0x88
	regTrimH1   = 0xA1
	regID       = 0xD0
	regReset    = 0xE0
	regTrimH    = 0xE1
	regCtrlHum  = 0xF2
	regStatus   = 0xF3
	regCtrlMeas = 0xF4
	regConfig   = 0xF5
	regData     = 0xF7

	resetWord       = 0xB6
	statusMeasuring = 1 << 3
	statusLoading   = 1 << 0
	modeMask        = 3
	startUp         = 2 * time.Millisecond // table 1
)

// Chip is an I²C bus with a simulated BME280 on it. It is an i2c.BusCloser and safe for concurrent use.
type Chip struct {
	opts Options
	cal  calibration

	mu           sync.Mutex
	speed        physic.Frequency
	reg          [256]byte
	pointer      byte      // the register that the next read begins with
	ctrlHum      byte      // ctrl_hum as it was at the last write to ctrl_meas: what conversions use
	loadedAt     time.Time // when the trimming values stand in the registers
	doneAt       time.Time // when the running conversion ends; zero when none runs
	filter       iir
	transactions int
	conversions  int
	failNext     int
	stuckBit     bool // by SetStuck
	stuckNow     bool // by StuckEvery, until a reset
	closed       bool
}

var _ i2c.BusCloser = (*Chip)(nil)

// New returns a powered chip that has been on for a while. Zero options are the defaults.
func New(opts Options) *Chip {
	if opts.Address == 0 {
		opts.Address = 0x76
	}
	if opts.ChipID == 0 {
		opts.ChipID = 0x60
	}
	if opts.Truth == nil {
		opts.Truth = WeatherOf(opts.Seed)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	c := &Chip{opts: opts, cal: workedExample(), speed: 100 * physic.KiloHertz}
	c.powerOn(opts.Now().Add(-startUp))
	return c
}

// Open returns the chip that a configuration string asks for: see [Parse]. A nil now is time.Now.
func Open(config string, now func() time.Time) (*Chip, error) {
	opts, err := Parse(config)
	if err != nil {
		return nil, err
	}
	opts.Now = now
	return New(opts), nil
}

// String names the bus.
func (c *Chip) String() string { return "sim" }

// SetSpeed sets the clock of the bus, which decides how long a transaction takes.
func (c *Chip) SetSpeed(f physic.Frequency) error {
	if f < physic.KiloHertz {
		return fmt.Errorf("set bus speed %s: want 1kHz or more", f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.speed = f
	return nil
}

// Close ends the bus: every later transaction fails.
func (c *Chip) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

// Tx writes w, then reads r, as one transaction (6.2). Its error is flat text, as that of a real bus.
func (c *Chip) Tx(addr uint16, w, r []byte) error {
	time.Sleep(c.wireTime(len(w), len(r))) //nolint:forbidigo // the wire takes its time
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fault(addr); err != nil {
		return fmt.Errorf("sim-i2c: %v", err) //nolint:errorlint // flat text, as from a real bus
	}
	now := c.opts.Now()
	c.settle(now)
	for ; len(w) >= 2; w = w[2:] {
		c.write(w[0], w[1], now)
	}
	if len(w) == 1 {
		c.pointer = w[0]
	}
	for i := range r {
		r[i] = c.read(c.pointer, now)
		c.pointer++
	}
	return nil
}

// wireTime is nine clocks a byte, an address byte before each direction, and a start and a stop.
func (c *Chip) wireTime(w, r int) time.Duration {
	clocks := 2
	for _, n := range []int{w, r} {
		if n > 0 {
			clocks += 9 * (n + 1)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(clocks) * c.speed.Period()
}

// fault counts the transaction and returns the error that it was asked to fail with.
func (c *Chip) fault(addr uint16) error {
	if c.closed {
		return os.ErrClosed
	}
	c.transactions++
	if due(c.transactions, c.opts.BrownoutEvery) {
		c.powerOn(c.opts.Now())
	}
	if c.opts.Absent || addr != c.opts.Address {
		return syscall.ENXIO
	}
	if c.failNext > 0 {
		c.failNext--
		return syscall.EREMOTEIO
	}
	if n := c.opts.IOErrorEvery; n > 0 && c.transactions >= n && c.transactions%n < max(c.opts.IOErrorRun, 1) {
		return syscall.EREMOTEIO
	}
	return nil
}

func due(count, every int) bool { return every > 0 && count%every == 0 }

// powerOn gives every register its value of 5.3 and begins to load the trimming values.
func (c *Chip) powerOn(now time.Time) {
	c.reg = [256]byte{regID: c.opts.ChipID}
	c.cal.store(&c.reg)
	c.setData(skipped20, skipped20, skipped16)
	c.ctrlHum, c.filter, c.stuckNow = 0, iir{}, false
	c.doneAt = time.Time{}
	c.loadedAt = now.Add(startUp)
}

func (c *Chip) write(reg, value byte, now time.Time) {
	switch reg {
	case regReset:
		if value == resetWord {
			c.powerOn(now)
		}
	case regCtrlHum:
		c.reg[reg] = value & 7
	case regConfig:
		c.reg[reg] = value &^ 2 // bit 1 is not there
		c.filter = iir{}
	case regCtrlMeas:
		c.reg[reg] = value
		c.ctrlHum = c.reg[regCtrlHum]
		if value&modeMask != 0 && c.doneAt.IsZero() {
			c.start(now)
		}
	}
}

func (c *Chip) read(reg byte, now time.Time) byte {
	loading := now.Before(c.loadedAt)
	switch {
	case reg == regStatus:
		var status byte
		if c.stuckBit || !c.doneAt.IsZero() {
			status |= statusMeasuring
		}
		if loading {
			status |= statusLoading
		}
		return status
	case loading && (reg >= regTrimTP && reg <= regTrimH1 || reg >= regTrimH && reg < regTrimH+7):
		return 0 // the data sheet promises nothing here: give a driver that does not wait the worst
	}
	return c.reg[reg]
}
