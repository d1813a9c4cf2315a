package msg

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
)

// Somebody removes the run folder, or what is in it: who is connected stays so, and
// after Mend others can connect as before.
func TestRemovedEndpointsAreMadeAnew(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		remove func(run string) error
	}{
		{"nothing", func(string) error { return nil }},
		{"folder", os.RemoveAll},
		{"files", func(run string) error {
			files, err := filepath.Glob(run + "/*")
			for _, f := range files {
				err = errors.Join(err, os.Remove(f))
			}
			return err
		}},
		{"socket", func(run string) error { return os.Remove(run + "/air.ipc") }},
		{"lock", func(run string) error { return os.Remove(run + "/air.ipc.lock") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run, shm := folders(t)
			c := startCounter(t, run, shm, Retention{})
			video, err := c.pub.Frames("video", rgb16(), 4, 768)
			if err != nil {
				t.Fatal(err)
			}
			before := openBus(t, run, shm, "before")
			defer before.Close()
			first := subscribe(t, before, nil)
			c.hears(t, "before")
			if err := tt.remove(run); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := c.bus.Mend(); err != nil {
					t.Fatalf("Mend() = %v", err)
				}
			}
			after := openBus(t, run, shm, "after")
			second := subscribe(t, after, nil)
			c.hears(t, "after")
			if _, err := after.Frames(FrameSource{Source: "air", Stream: "video"}); err != nil {
				t.Fatal(err)
			}
			hasSubscribed(t, video.Gate, "after")
			c.publish(t, 10)
			expect(t, first, soon(t), 0, 10)
			expect(t, second, soon(t), 0, 10)
			twice := openBus(t, run, shm, "air")
			if _, err := twice.Publisher(); err == nil || !strings.Contains(err.Error(), "another worker of that name") {
				t.Errorf("Publisher() of the same name = %v; want it refused", err)
			}
			if err := errors.Join(twice.Close(), after.Close(), c.bus.Close()); err != nil {
				t.Error(err)
			}
			if left, _ := filepath.Glob(run + "/*"); left != nil {
				t.Errorf("left in the run folder: %v; want nothing", left)
			}
		})
	}
}

// A name that another process has taken meanwhile is left to it.
func TestMendLeavesANameToWhoHasIt(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	if err := os.RemoveAll(run); err != nil {
		t.Fatal(err)
	}
	other := openBus(t, run, shm, "air")
	defer other.Close()
	if _, err := other.Publisher(); err != nil {
		t.Fatal(err)
	}
	held := (*lockfile.HeldError)(nil)
	if err := c.bus.Mend(); !errors.As(err, &held) {
		t.Errorf("Mend() = %v; want that the lock is held", err)
	}
	if err := c.bus.Close(); err != nil {
		t.Error(err)
	}
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	subscribe(t, b, nil)
	pub := other.bound[0].end
	if missing := pub.gate([]string{"csv"}, 5*time.Second, nil); missing != nil {
		t.Errorf("the other one is not reached any more: its gate misses %v", missing)
	}
}
