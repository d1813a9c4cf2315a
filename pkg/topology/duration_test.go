package topology

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"10s": 10 * time.Second, "1h30m": 90 * time.Minute, "30d": 720 * time.Hour, "0s": 0} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.D() != want {
			t.Errorf("UnmarshalText(%q) = %s, %v; want %s", text, d, err, want)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1.5d", "1d12h", "99999d", "-1s", "soon"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("UnmarshalText(%q) = %s; want an error", text, d)
		}
	}
}
