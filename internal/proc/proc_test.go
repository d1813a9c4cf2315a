package proc

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSizes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meminfo")
	text := "MemAvailable:    2048 kB\nHugePages_Total:       0\nBad: x kB\nName:	sh\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]uint64{"MemAvailable": 2 << 20}, Sizes(path)); diff != "" {
		t.Errorf("Sizes() (-want +got):\n%s", diff)
	}
	if got := Sizes(path + ".absent"); got != nil {
		t.Errorf("Sizes(absent) = %v; want nil", got)
	}
	if AvailableRAM() <= 0 {
		t.Error("AvailableRAM() = 0; want what the kernel says")
	}
}
