package clock

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSystemStampsBothClocks(t *testing.T) {
	c, err := System()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.BootID()) != 36 {
		t.Errorf("BootID() = %q; want a UUID of 36 characters", c.BootID())
	}
	before := time.Now()
	first, second := c.Now(), c.Now()
	if first.Boot <= 0 || second.Boot < first.Boot {
		t.Errorf("boot times %v, %v; want positive and not falling", first.Boot, second.Boot)
	}
	if first.Wall.Before(before.Add(-time.Minute)) || first.Wall.Location() != time.UTC {
		t.Errorf("Wall = %v; want the present in UTC", first.Wall)
	}
}

// The kernel's own pair of answers shows which clock is which.
func TestClocksAreTheKernels(t *testing.T) {
	for name, c := range map[string]struct {
		id  int32
		now func() time.Duration
	}{"Boot": {unix.CLOCK_BOOTTIME, Boot}, "Monotonic": {unix.CLOCK_MONOTONIC, Monotonic}} {
		var before, after unix.Timespec
		if err := unix.ClockGettime(c.id, &before); err != nil {
			t.Fatal(err)
		}
		got := c.now()
		if err := unix.ClockGettime(c.id, &after); err != nil {
			t.Fatal(err)
		}
		if got < time.Duration(before.Nano()) || got > time.Duration(after.Nano()) {
			t.Errorf("%s() = %v; want %v to %v", name, got, time.Duration(before.Nano()), time.Duration(after.Nano()))
		}
	}
}
