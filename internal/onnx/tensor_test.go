package onnx

import (
	"math"
	"testing"
)

func TestHalf(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, tt := range []struct { // IEEE 754-2019, binary16
		v    float32
		want uint16
		back float32
	}{
		{0, 0, 0}, {1, 0x3c00, 1}, {-2, 0xc000, -2}, {0.333251953125, 0x3555, 0.333251953125}, {1.0 / 3, 0x3555, 0.333251953125},
		{65504, 0x7bff, 65504}, {65519, 0x7bff, 65504}, {65520, 0x7c00, inf}, {1e9, 0x7c00, inf}, {-inf, 0xfc00, -inf},
		{6.103515625e-05, 0x0400, 6.103515625e-05}, {5.9604644775390625e-08, 1, 5.9604644775390625e-08}, {2.9e-08, 0, 0},
		{2049, 0x6800, 2048}, {2051, 0x6802, 2052}, // ties to even
	} {
		if got := toHalf(tt.v); got != tt.want || fromHalf(got) != tt.back {
			t.Errorf("toHalf(%g) = %#04x, which is %g; want %#04x, %g", tt.v, got, fromHalf(got), tt.want, tt.back)
		}
	}
	if h := toHalf(float32(math.NaN())); fromHalf(h) == fromHalf(h) {
		t.Errorf("toHalf(NaN) = %#04x, which is %g; want no number", h, fromHalf(h))
	}
	for h := range 0x7c00 { // all that are finite come back
		if got := toHalf(fromHalf(uint16(h))); got != uint16(h) {
			t.Fatalf("toHalf(fromHalf(%#04x)) = %#04x", h, got)
		}
	}
}
