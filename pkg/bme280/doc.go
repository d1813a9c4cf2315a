// Package bme280 reads a Bosch BME280 air sensor and never passes on a value that it has reason to doubt.
//
//	Read(ctx) -> [every 10 min or after an error: identify, reset, NewI2C] -> Sense -> settings still there?
//	          -> plausible? -> Reading{TemperatureC, PressurePa, HumidityPct}
//
// The measuring and the compensation are periph.io's bmxx80 driver. This package is what a box needs above it that
// nobody visits for three months. Section numbers are those of the data sheet BST-BME280-DS002, revision 1.6.
//
// # The bus
//
// [Open] takes "/dev/i2c-1" (or a link to it), "1", any other name that periph's i2creg knows, or "sim:" for
// a chip simulated at register level, with options as internal/simbme280 has them ("sim:seed=3,brownout_every=50").
// All of them end in an i2c.BusCloser, and everything above that is the same code. The chip answers at 0x76, or at
// 0x77 where its pin SDO is high (6.2).
//
// # A reading
//
// Each [Sensor.Read] forces one measurement (3.3.3) and the chip sleeps in between, as 3.5.1 advises for
// weather: it does not warm itself. That section takes one sample of each channel a minute; the default here is
// four, because they about halve the noise, and the measurement still takes at most 31 ms (9.1). The IIR filter
// (3.4.4) is off, as in 3.5.1: it would smear over readings a second or a minute apart; where wind or doors disturb
// the pressure, [WithFilter] turns it on. It counts readings, not seconds, and begins anew at each re-creation.
//
// # How it fails
//
// A transaction that fails is tried again, up to three times in all, 5 ms apart: on a noisy bus that costs a few
// milliseconds, where a new driver takes a dozen transactions that may fail in turn. [Counters] has the repetitions.
//
// A dip of the supply puts every register back to its power-on value. The periph driver writes ctrl_hum only once,
// so it would go on with humidity switched off and report a wrong value with no error. Therefore ctrl_hum, ctrl_meas
// and config are read back after each measurement, in one transaction of 0.7 ms. They return to what was
// written only if this package writes them, so a reading followed by a good read-back was measured whole with the
// right settings. If they differ, the driver is created anew and the measurement repeated, once, in the same Read.
// The driver is also created anew after every error and every ten minutes ([WithRefresh]): that bounds the
// life of anything that this check cannot see, such as a trimming value that a disturbed bus misread.
//
// Creating it begins with the chip id, before anything is written to what may be another chip: 0x58 is a
// BMP280, which periph accepts and which has no humidity. Then follow a soft reset (5.4.2), which also frees a chip
// that hangs, the wait until its trimming values are loaded (5.4.4), periph's NewI2C, and a second look at the
// trimming values: they have no checksum, and one misread bit would bend every reading until the next creation.
//
// Values outside the operating range (1.1 to 1.4), faster than air changes, or from a humidity converter stuck
// at its not-measured code 0x8000 (5.4.9) come back as NaN with a [ValueError] that names the column.
//
// The periph driver polls a measuring bit without limit. It does so through a line of this package that fails
// once the time is up, so the poll ends: [ErrTimeout], and the next Read resets the chip. Only a transaction that
// the kernel does not return from cannot be ended: [ErrStuck], after which the process should end.
//
// An absent bus or chip is [ErrNoDevice], and its text says what to check. There is no other retry here: each
// error is returned, and a Read after an error begins with a new driver. The worker decides when.
package bme280
