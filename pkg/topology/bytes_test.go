package topology

import "testing"

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"200MB": 200e6, "1.5GB": 15e8, "64KiB": 64 << 10, "0": 0, "12B": 12, "2 GiB": 2 << 30} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("UnmarshalText(%q) = %d, %v; want %d", text, b, err, want)
		}
	}
	for _, text := range []string{"", "MB", "5", "-1MB", "1e30GB", "NaNMB", "5 apples"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("UnmarshalText(%q) = %d; want an error", text, b)
		}
	}
	for b, want := range map[Bytes]string{0: "0", 12: "12B", 200e6: "200MB", 15e8: "1.5GB", 65536: "65.5kB"} {
		if got := b.String(); got != want {
			t.Errorf("Bytes(%d).String() = %q; want %q", int64(b), got, want)
		}
	}
}
