package wear

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/spool"
)

func TestCountForgetsAfterADay(t *testing.T) {
	c := Count{}
	c.Add(time.Hour, 100)
	c.Add(2*time.Hour, 250)
	for at, want := range map[time.Duration]int64{3 * time.Hour: 250, 24*time.Hour + 30*time.Minute: 250, 25*time.Hour + 1: 150, 26*time.Hour + 1: 0} {
		copied := c
		if got := copied.Used(at); got != want {
			t.Errorf("Used(%s) = %d; want %d", at, got, want)
		}
	}
}

// The next run of a boot goes on; another boot, and a file that is none, begin anew.
func TestCountOutlivesItsWorker(t *testing.T) {
	dir := t.TempDir()
	cache, err := spool.Open(dir, spool.Work)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	used := func(boot string) (int64, error) {
		c, err := Load(cache, "keep", boot)
		c.Add(time.Hour, 10)
		return c.Used(time.Hour), err
	}
	if n, err := used("a"); n != 10 || err != nil {
		t.Errorf("Load() of nothing: %d, %v; want 10", n, err)
	}
	c := Count{BootID: "a"}
	c.Add(time.Hour, 100)
	if err := c.Save(cache, "keep"); err != nil {
		t.Fatal(err)
	}
	if n, err := used("a"); n != 110 || err != nil {
		t.Errorf("Load() in the same boot: %d, %v; want 110", n, err)
	}
	if n, err := used("b"); n != 10 || err != nil {
		t.Errorf("Load() in another boot: %d, %v; want 10", n, err)
	}
	for _, text := range []string{"{", `{"boot_id":"a","hour":-30}`} {
		if err := os.WriteFile(filepath.Join(dir, "work/keep.wear"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := used("a"); n != 10 || (err == nil) != (text != "{") {
			t.Errorf("Load() of %s: %d, %v; want 10, and an error where it is no JSON", text, n, err)
		}
	}
}
