package reduce

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// exact is the mean to the last digit.
func exact(values []float64) float64 {
	sum := new(big.Rat)
	for _, v := range values {
		sum.Add(sum, new(big.Rat).SetFloat64(v))
	}
	mean, _ := sum.Quo(sum, big.NewRat(int64(len(values)), 1)).Float64()
	return mean
}

func columnOf(values []float64) (c column) {
	for _, v := range values {
		c.add(v)
	}
	return c
}

func TestMean(t *testing.T) {
	greatest := math.MaxFloat64
	for _, c := range [][]float64{
		{0.1, 0.1, 0.1}, {1e16, 1, -1e16}, {1, 1e100, 1, -1e100}, {greatest, greatest, greatest}, {greatest, -greatest},
		{-greatest, -greatest, -greatest, -greatest}, {5e-324, 5e-324}, {5e-324, 0}, {21.484375}, {100653.25, 100653.25, 100653.26},
	} {
		got, want := columnOf(c), exact(c)
		if mean := got.value("mean"); math.Abs(mean-want) > math.Abs(want)*0x1p-52 {
			t.Errorf("mean of %v = %v; want %v", c, mean, want)
		}
	}
}

func TestMeanOfMany(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		offset := math.Pow(10, float64(random.IntN(12)))
		values := make([]float64, 1+random.IntN(1000))
		for i := range values {
			values[i] = offset + random.NormFloat64()
		}
		c, want := columnOf(values), exact(values)
		if mean := c.value("mean"); math.Abs(mean-want) > math.Abs(want)*0x1p-52 {
			t.Errorf("mean of %d values about %g = %v; want %v", len(values), offset, mean, want)
		}
	}
}

func FuzzMeanIsAmongItsValues(f *testing.F) {
	f.Add(1.0, 2.0, 3.0)
	f.Add(math.MaxFloat64, -math.MaxFloat64, 5e-324)
	f.Fuzz(func(t *testing.T, a, b, c float64) {
		values := []float64{a, b, c}
		for _, v := range values {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return
			}
		}
		got := columnOf(values)
		if mean := got.value("mean"); !(mean >= min(a, b, c) && mean <= max(a, b, c)) {
			t.Errorf("mean of %v = %v; want one between them", values, mean)
		}
	})
}
