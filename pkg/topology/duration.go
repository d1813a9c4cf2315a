package topology

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written as "10s", "1.5h" or "250ms".
type Duration time.Duration

// D is the duration as the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string {
	text := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} { // 10m0s reads better as 10m
		if len(text) > len(zero) && text[len(text)-len(zero):] == zero {
			text = text[:len(text)-2]
		}
	}
	return text
}

// UnmarshalText reads what time.ParseDuration reads, not negative, and days: "30d".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf(`want a length of time such as "10s", "250ms", "1h30m" or "30d"`)
	}
	*d = Duration(v)
	return nil
}

func parseDuration(text string) (time.Duration, error) {
	digits, ok := strings.CutSuffix(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	days, err := strconv.ParseUint(digits, 10, 16)
	return time.Duration(days) * 24 * time.Hour, err
}

// MarshalText writes the duration as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
