package reduce

import "math"

// column is what is known of the good values of one column.
type column struct {
	count           uint64
	min, max, last  float64
	sum, correction float64 // Neumaier's: the sum, and what was lost by rounding it
	running         float64 // the mean so far, for sums beyond the greatest number
}

func (c *column) add(x float64) {
	c.count++
	if c.count == 1 {
		c.min, c.max = x, x
	}
	c.min, c.max, c.last = min(c.min, x), max(c.max, x), x
	sum := c.sum + x
	if math.Abs(c.sum) >= math.Abs(x) {
		c.correction += (c.sum - sum) + x
	} else {
		c.correction += (x - sum) + c.sum
	}
	c.sum = sum
	n := float64(c.count)
	c.running += x/n - c.running/n
}

// value is the column's value in the record; not a number where no value was good.
func (c *column) value(way string) float64 {
	switch {
	case c.count == 0:
		return math.NaN()
	case way == "min":
		return c.min
	case way == "max":
		return c.max
	case way == "last":
		return c.last
	}
	return c.mean()
}

// mean is correct to the last digit or the one before, and never outside of the values.
func (c *column) mean() float64 {
	mean := (c.sum + c.correction) / float64(c.count)
	if math.IsNaN(mean) || math.IsInf(mean, 0) {
		mean = c.running
	}
	return min(max(mean, c.min), c.max)
}
