package bme280

import (
	"errors"
	"sync/atomic"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// errCut is what a transaction on a cut line gets.
var errCut = errors.New("time is up")

// Noise spoils single transactions. All of the chip's may be repeated: they read registers, or set them to fixed
// values. A chip that lost its settings in between is found by settingsHeld, as without a repetition.
const (
	tries    = 3
	tryAgain = 5 * time.Millisecond // longer than the chip starts up
)

// line is the bus as the periph driver sees it. It repeats failed transactions. It can be cut, which ends the
// driver's polling, and it keeps what was read of each register, since the driver hands out compensated values only.
type line struct {
	bus     i2c.Bus
	addr    uint16
	cut     atomic.Bool
	retries atomic.Uint64
	seen    [256]byte
}

var _ i2c.Bus = (*line)(nil)

// String names the bus.
func (l *line) String() string { return l.bus.String() }

// SetSpeed is the bus's own.
func (l *line) SetSpeed(f physic.Frequency) error { return l.bus.SetSpeed(f) }

// Tx passes a transaction on, unless the line is cut. One with the chip is tried up to three times.
func (l *line) Tx(addr uint16, w, r []byte) error {
	err := l.once(addr, w, r)
	for n := 1; n < tries && addr == l.addr && err != nil && !errors.Is(err, errCut); n++ {
		time.Sleep(tryAgain) //nolint:forbidigo // under watch, which bounds it
		l.retries.Add(1)
		err = l.once(addr, w, r)
	}
	return err
}

func (l *line) once(addr uint16, w, r []byte) error {
	if l.cut.Load() {
		return errCut
	}
	if err := l.bus.Tx(addr, w, r); err != nil {
		return err
	}
	if addr == l.addr && len(w) == 1 {
		for i, v := range r {
			l.seen[w[0]+byte(i)] = v
		}
	}
	return nil
}

// read reads n registers from reg on and returns them as seen.
func (l *line) read(reg byte, n int) error { return l.Tx(l.addr, []byte{reg}, make([]byte, n)) }

// write writes one register.
func (l *line) write(reg, value byte) error { return l.Tx(l.addr, []byte{reg, value}, nil) }
