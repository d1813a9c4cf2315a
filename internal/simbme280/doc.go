// Package simbme280 is a BME280 air sensor at register level, for a bench with no hardware and for tests.
//
//	driver --> i2c.BusCloser --> registers <-- conversion <-- inverse compensation <-- Truth(now)
//
// A [Chip] is an I²C bus with one BME280 on it. A driver that talks to it runs the very code that it runs
// over wires: it finds a chip id, trimming values, a measuring bit that lasts as long as the real one, and raw
// 20-bit codes that it must compensate itself. Section numbers below are those of Bosch's data sheet
// BST-BME280-DS002, revision 1.6.
//
//	0x88..0xA1  trimming T1..P9, H1 (4.2.2): the worked example of BST-BMP280-DS001, section 3.12
//	0xD0        chip id, 0x60 (5.4.1)
//	0xE0        0xB6 written here is a soft reset (5.4.2)
//	0xE1..0xE7  trimming H2..H6 (4.2.2): values common to real chips, since Bosch gives no example
//	0xF2        ctrl_hum: takes effect with the next write to ctrl_meas (5.4.3)
//	0xF3        status: bit 3 measuring, bit 0 trimming values being loaded, 2 ms from power-on (5.4.4, table 1)
//	0xF4        ctrl_meas: oversampling and mode (5.4.5)
//	0xF5        config: standby and IIR filter; a write restarts the filter (5.4.6, 3.4.4)
//	0xF7..0xFE  pressure, temperature, humidity; 0x80000, 0x80000, 0x8000 when skipped or since power-on (5.4.7-9)
//
// A write transaction is a list of register and value pairs, and a read counts the register up (6.2). A
// conversion takes the longest time that section 9.1 allows, so a driver that waits only the typical time sees
// the measuring bit. Its result appears at its end, all registers at once, with the resolution that oversampling
// and filter give (3.4.2, 3.4.3). Each transaction also takes its time on the wire, at 100 kHz unless SetSpeed
// says otherwise, so that a driver which polls without end is slowed as a real bus would slow it.
// Normal mode (3.3.4) is not there: mode 11 measures once, like forced mode.
//
// The air is a [Truth], a pure function of the time. The default, [Weather], is a mild day with its
// temperature curve, pressure tide and humidity. The chip turns it into the codes which a correct driver
// compensates back to the same values, to within the chip's resolution. There is no noise, so a measured humidity never
// has the code of one that was not: it moves up by one code, 0.006 %.
//
// It fails when asked to, and always at the same point of the traffic: see [Options] for what a configuration
// string can ask, and [Chip.FailNext], [Chip.SetStuck], [Chip.SetAbsent] and [Chip.Brownout] for what a test can
// do. Errors of the bus are flat text ending in the errno's message, as periph's sysfs driver gives them: errors.Is
// finds nothing in them here either.
package simbme280
