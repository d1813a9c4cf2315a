package names

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 33)
	for _, c := range []struct {
		name           string
		worker, stream bool
	}{
		{"air", true, true}, {"air-2", true, true}, {"rain_mm", false, true}, {"0", true, true},
		{"", false, false}, {"-a", false, false}, {"_a", false, false}, {"Air", false, false}, {"a.b", false, false},
		{"a/b", false, false}, {"..", false, false}, {"a\n", false, false}, {"ä", false, false}, {long[:32], true, true}, {long, false, false},
	} {
		if got := Worker(c.name) == nil; got != c.worker {
			t.Errorf("Worker(%q) accepts = %v; want %v", c.name, got, c.worker)
		}
		if got := Stream(c.name) == nil; got != c.stream {
			t.Errorf("Stream(%q) accepts = %v; want %v", c.name, got, c.stream)
		}
	}
}
