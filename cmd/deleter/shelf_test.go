package main

import (
	"testing"

	"github.com/perch-edge/perch/internal/spool"
)

// What lies in quarantine never goes: no scan reads the sidecars there.
func TestScanReadsNoSidecarInQuarantine(t *testing.T) {
	x := newBox(t, "")
	costs := func(state spool.State) float64 {
		sp := openSpool(t, t.TempDir())
		x.fill(sp, state, 100)
		s := newShelf(disk, &Limits{})
		again := func() {
			if err := s.scan(sp, func() {}); err != nil {
				t.Fatal(err)
			}
		}
		again()
		return testing.AllocsPerRun(3, again)
	}
	if known, quarantined := costs(spool.Ready), costs(spool.Quarantine); quarantined > known+100 {
		t.Errorf("a scan of 100 files in quarantine allocates %.0f times, and of 100 that it knows %.0f times; want no more", quarantined, known)
	}
}
