package simbme280

import (
	"math"
	"time"
)

// What the data registers hold for a channel that was not measured (5.4.7 to 5.4.9).
const (
	skipped20 = 0x80000
	skipped16 = 0x8000
)

// start begins a conversion with the settings in force.
func (c *Chip) start(now time.Time) {
	c.conversions++
	c.stuckNow = due(c.conversions, c.opts.StuckEvery)
	meas := c.reg[regCtrlMeas]
	c.doneAt = now.Add(conversionTime(meas>>5, meas>>2, c.ctrlHum))
}

// conversionTime is the longest time that 9.1 gives for the three oversampling fields.
func conversionTime(osrsT, osrsP, osrsH byte) time.Duration {
	µs := 1250 + 2300*samples(osrsT)
	for _, n := range []int{samples(osrsP), samples(osrsH)} {
		if n > 0 {
			µs += 2300*n + 575
		}
	}
	return time.Duration(µs) * time.Microsecond
}

// samples is how often a channel is sampled: 0, 1, 2, 4, 8, and 16 for each other value of its field (5.4.3).
func samples(osrs byte) int {
	if osrs &= 7; osrs == 0 {
		return 0
	}
	return 1 << (min(osrs, 5) - 1)
}

// settle ends the running conversion if its time has come. The air is that of the end, not of this look.
func (c *Chip) settle(now time.Time) {
	if c.doneAt.IsZero() || now.Before(c.doneAt) || c.stuckBit || c.stuckNow {
		return
	}
	c.latch(c.doneAt)
	c.doneAt = time.Time{}
	c.reg[regCtrlMeas] &^= modeMask // forced mode falls back to sleep (3.3.3)
}

func (c *Chip) latch(at time.Time) {
	t, p, h := c.cal.codes(c.opts.Truth(at))
	meas, coefficient := c.reg[regCtrlMeas], filterCoefficient(c.reg[regConfig])
	t = c.filter.t.next(t, meas>>5&7, coefficient)
	p = c.filter.p.next(p, meas>>2&7, coefficient)
	switch {
	case c.ctrlHum == 0:
		h = skipped16
	case h == skipped16:
		// A real converter's noise moves it off this code at the next look; here air that stands still would look
		// like no measurement for ever.
		h++
	}
	c.setData(p, t, h)
}

func (c *Chip) setData(p, t, h int) {
	copy(c.reg[regData:], []byte{
		byte(p >> 12), byte(p >> 4), byte(p << 4), byte(t >> 12), byte(t >> 4), byte(t << 4), byte(h >> 8), byte(h),
	})
}

// iir is the memory of the filter of 3.4.4, one for temperature and one for pressure.
type iir struct{ t, p channel }

type channel struct {
	memory float64
	filled bool
}

// next turns a converter's code into what the data registers show.
func (m *channel) next(code int, osrs byte, coefficient float64) int {
	if osrs == 0 {
		return skipped20 // the memory is kept
	}
	if coefficient == 0 {
		// 16 bits, and one more for each doubling (3.4.2): the lower ones read as zero.
		step := 1 << (4 - (min(osrs, 5) - 1))
		return min((code+step/2)/step*step, 1<<20-step)
	}
	if !m.filled {
		m.memory, m.filled = float64(code), true
	} else {
		m.memory = (m.memory*(coefficient-1) + float64(code)) / coefficient
	}
	return int(math.Round(m.memory))
}

// filterCoefficient is 0 (off), 2, 4, 8, or 16 for each other value of the field (5.4.6).
func filterCoefficient(config byte) float64 {
	if field := config >> 2 & 7; field != 0 {
		return float64(int(1) << min(field, 4))
	}
	return 0
}
