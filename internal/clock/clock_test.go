package clock

import (
	"testing"
	"time"
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
