package turbojpeg

/*
#cgo CFLAGS: -O3
#include <stdint.h>

// The factors of a conversion, in 1/8192ths.
struct matrix {
	int16_t zero;               // the sample of black
	int16_t y;                  // of luma
	int16_t cb_y, cr_y;         // what chroma adds to luma
	int16_t cb_cb, cr_cb;
	int16_t cb_cr, cr_cr;
};

enum { BLOCK = 1024 };          // pixels of a row at a time: the sums stay in the first-level cache

// Sample times factor in 1/16ths: 7 and 13 bits of fraction, and 16 dropped.
static inline int16_t times(int16_t sample, int16_t factor) {
	return (int16_t)(((int32_t)(int16_t)(sample * 128) * factor) >> 16);
}

static inline uint8_t level(int16_t sixteenths) {
	int16_t v = (int16_t)(sixteenths + 8) >> 4;
	return v < 0 ? 0 : v > 255 ? 255 : v;
}

// The loops below use arrays of their own, so that the compiler vectorises them
// even if dst is src.
static void luma(uint8_t *dst, const uint8_t *src, int n, const int16_t *add, struct matrix m) {
	int16_t sum[BLOCK];
	if (add)
		for (int i = 0; i < n; i++) sum[i] = times((int16_t)(src[i] - m.zero), m.y) + add[i];
	else
		for (int i = 0; i < n; i++) sum[i] = times((int16_t)(src[i] - m.zero), m.y);
	for (int i = 0; i < n; i++) dst[i] = level(sum[i]);
}

static void chroma(uint8_t *dcb, uint8_t *dcr, const uint8_t *cb, const uint8_t *cr, int n, int16_t *add, struct matrix m) {
	int16_t u[BLOCK / 2], v[BLOCK / 2];
	for (int i = 0; i < n; i++) u[i] = (int16_t)(cb[i] - 128);
	for (int i = 0; i < n; i++) v[i] = (int16_t)(cr[i] - 128);
	if (add)
		for (int i = 0; i < n; i++) add[2 * i] = add[2 * i + 1] = times(u[i], m.cb_y) + times(v[i], m.cr_y);
	for (int i = 0; i < n; i++) dcb[i] = level(times(u[i], m.cb_cb) + times(v[i], m.cr_cb) + 128 * 16);
	for (int i = 0; i < n; i++) dcr[i] = level(times(u[i], m.cb_cr) + times(v[i], m.cr_cr) + 128 * 16);
}

// rows_per rows of luma share a row of chroma; two neighbouring pixels share a
// sample of chroma.
static void convert(unsigned char *dy, unsigned char *dcb, unsigned char *dcr, int dystride, int dcstride,
		const unsigned char *y, const unsigned char *cb, const unsigned char *cr, int ystride, int cbstride, int crstride,
		int width, int height, int rows_per, struct matrix m) {
	int16_t add[BLOCK];
	int mixed = m.cb_y || m.cr_y;
	for (int row = 0; row < height / rows_per; row++) {
		for (int x = 0; x < width; x += BLOCK) {
			int n = width - x < BLOCK ? width - x : BLOCK;
			chroma(dcb + (long)row * dcstride + x / 2, dcr + (long)row * dcstride + x / 2,
				cb + (long)row * cbstride + x / 2, cr + (long)row * crstride + x / 2, n / 2, mixed ? add : 0, m);
			for (int r = row * rows_per; r < (row + 1) * rows_per; r++)
				luma(dy + (long)r * dystride + x, y + (long)r * ystride + x, n, mixed ? add : 0, m);
		}
	}
}
*/
import "C"

import (
	"math"

	"github.com/perch-edge/perch/pkg/pixel"
)

// jfif is the colour of every JPEG picture (JFIF 1.02, page 3).
func jfif() pixel.Colour { return pixel.DefaultColour(pixel.MJPEG) }

// matrix makes the factors of a conversion to JFIF's colours: from YCbCr to RGB
// with the source's shares of red and blue, and back with those of BT.601. Both
// steps are linear, so one matrix does both, and nothing is clipped in between.
func matrix(from pixel.Colour) C.struct_matrix {
	luma, chroma, zero := 1.0, 1.0, 0
	if from.Range == pixel.Limited {
		luma, chroma, zero = 255.0/219, 255.0/224, 16
	}
	kr, kb := from.Matrix.Weights()
	kg := 1 - kr - kb
	// Red, green and blue of Cb and Cr, of which luma is taken away again.
	cb := [3]float64{0, -2 * (1 - kb) * kb / kg, 2 * (1 - kb)}
	cr := [3]float64{2 * (1 - kr), -2 * (1 - kr) * kr / kg, 0}
	r, b := pixel.BT601.Weights()
	row := func(rgb [3]float64) (y, toCb, toCr float64) {
		y = r*rgb[0] + (1-r-b)*rgb[1] + b*rgb[2]
		return chroma * y, chroma * (rgb[2] - y) / (2 * (1 - b)), chroma * (rgb[0] - y) / (2 * (1 - r))
	}
	fix := func(v float64) C.int16_t { return C.int16_t(math.Round(8192 * v)) }
	m := C.struct_matrix{zero: C.int16_t(zero), y: fix(luma)}
	y, toCb, toCr := row(cb)
	m.cb_y, m.cb_cb, m.cb_cr = fix(y), fix(toCb), fix(toCr)
	y, toCb, toCr = row(cr)
	m.cr_y, m.cr_cb, m.cr_cr = fix(y), fix(toCb), fix(toCr)
	return m
}

// convert writes src with the colours of JFIF to dst, which may be src. rowsPer
// is how many rows of luma share one of chroma.
func convert(dst, src planar, from pixel.Colour, rowsPer int) {
	C.convert(ptr(dst[0].Pix), ptr(dst[1].Pix), ptr(dst[2].Pix), C.int(dst[0].Stride), C.int(dst[1].Stride),
		ptr(src[0].Pix), ptr(src[1].Pix), ptr(src[2].Pix), C.int(src[0].Stride), C.int(src[1].Stride), C.int(src[2].Stride),
		C.int(src[0].Width), C.int(src[0].Count), C.int(rowsPer), matrix(from))
}
