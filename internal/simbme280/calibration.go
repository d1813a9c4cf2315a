package simbme280

import "sort"

// calibration holds the trimming values which Bosch burns into each chip (4.2.2, table 16).
type calibration struct {
	t1                             uint16
	t2, t3                         int16
	p1                             uint16
	p2, p3, p4, p5, p6, p7, p8, p9 int16
	h1, h3                         uint8
	h2, h4, h5                     int16
	h6                             int8
}

// workedExample is BST-BMP280-DS001, section 3.12, for temperature and pressure. Bosch publishes no example
// for humidity: those values are typical of chips in the field.
func workedExample() calibration {
	return calibration{
		t1: 27504, t2: 26435, t3: -1000,
		p1: 36477, p2: -10685, p3: 3024, p4: 2855, p5: 140, p6: -7, p7: 15500, p8: -14600, p9: 6000,
		h1: 75, h2: 362, h3: 0, h4: 319, h5: 50, h6: 30,
	}
}

// store writes the trimming values where a driver looks for them (table 16).
func (c calibration) store(reg *[256]byte) {
	words := []uint16{
		c.t1, uint16(c.t2), uint16(c.t3), c.p1, uint16(c.p2), uint16(c.p3), uint16(c.p4),
		uint16(c.p5), uint16(c.p6), uint16(c.p7), uint16(c.p8), uint16(c.p9),
	}
	for i, w := range words {
		reg[regTrimTP+2*i], reg[regTrimTP+2*i+1] = byte(w), byte(w>>8)
	}
	reg[regTrimH1] = c.h1
	reg[regTrimH], reg[regTrimH+1] = byte(c.h2), byte(uint16(c.h2)>>8)
	reg[regTrimH+2] = c.h3
	// H4 and H5 have 12 bits each and share a byte.
	reg[regTrimH+3] = byte(c.h4 >> 4)
	reg[regTrimH+4] = byte(c.h4&0xF) | byte(c.h5&0xF)<<4
	reg[regTrimH+5] = byte(c.h5 >> 4)
	reg[regTrimH+6] = byte(c.h6)
}

// fine returns t_fine, the temperature as the other two formulas want it: 5120 a °C (8.1).
func (c calibration) fine(code float64) float64 {
	x := code/16384 - float64(c.t1)/1024
	y := code/131072 - float64(c.t1)/8192
	return x*float64(c.t2) + y*y*float64(c.t3)
}

// pressurePa is the compensated pressure in pascal (8.1).
func (c calibration) pressurePa(code, fine float64) float64 {
	d := fine/2 - 64000
	offset := d*d*float64(c.p6)/32768 + d*float64(c.p5)*2
	offset = offset/4 + float64(c.p4)*65536
	scale := (float64(c.p3)*d*d/524288 + float64(c.p2)*d) / 524288
	scale = (1 + scale/32768) * float64(c.p1)
	p := (1048576 - code - offset/4096) * 6250 / scale
	return p + (float64(c.p9)*p*p/2147483648+p*float64(c.p8)/32768+float64(c.p7))/16
}

// humidityPct is the compensated relative humidity in percent (8.1), not clamped to 0..100.
func (c calibration) humidityPct(code, fine float64) float64 {
	d := fine - 76800
	h := code - (float64(c.h4)*64 + float64(c.h5)/16384*d)
	h *= float64(c.h2) / 65536 * (1 + float64(c.h6)/67108864*d*(1+float64(c.h3)/67108864*d))
	return h * (1 - float64(c.h1)*h/524288)
}

// codes is the inverse: what the converter would have to read for the formulas to give this air.
func (c calibration) codes(tempC, pressurePa, humidityPct float64) (t, p, h int) {
	t = closest(1<<20, func(i int) float64 { return c.fine(float64(i)) }, tempC*5120)
	fine := tempC * 5120
	// More pressure is a smaller code.
	p = closest(1<<20, func(i int) float64 { return -c.pressurePa(float64(i), fine) }, -pressurePa)
	h = closest(1<<16, func(i int) float64 { return c.humidityPct(float64(i), fine) }, humidityPct)
	return t, p, h
}

// closest returns the i in 0..n-1 for which the rising function f comes closest to want.
func closest(n int, f func(int) float64, want float64) int {
	i := sort.Search(n, func(i int) bool { return f(i) >= want })
	if i == n || i > 0 && want-f(i-1) < f(i)-want {
		return i - 1
	}
	return i
}
