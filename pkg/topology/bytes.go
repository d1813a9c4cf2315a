package topology

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is an amount of data, written as "200MB", "1.5GB" or "64KiB"; 0 is "0".
type Bytes int64

type byteUnit struct {
	name string
	size float64
}

// byteUnits are the units, the longest names first.
func byteUnits() []byteUnit {
	return []byteUnit{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}}
}

// UnmarshalText reads a number and its unit.
func (b *Bytes) UnmarshalText(text []byte) error {
	digits, size := string(text), 0.0
	for _, u := range byteUnits() {
		if cut, ok := strings.CutSuffix(digits, u.name); ok {
			digits, size = strings.TrimSpace(cut), u.size
			break
		}
	}
	if digits == "0" {
		size = 1
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || size == 0 || !(n >= 0 && n*size < math.MaxInt64/2) {
		return fmt.Errorf(`want an amount of data such as "200MB", "1.5GB" or "64KiB"`)
	}
	*b = Bytes(n * size)
	return nil
}

func (b Bytes) String() string {
	for _, u := range []byteUnit{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if n := float64(b) / u.size; n >= 1 {
			return strconv.FormatFloat(math.Round(n*10)/10, 'f', -1, 64) + u.name
		}
	}
	if b == 0 {
		return "0"
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// MarshalText writes the amount as String does.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
