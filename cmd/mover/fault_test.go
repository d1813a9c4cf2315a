package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
)

// A mover whose disk fails at any call of its work, or that is killed there, loses
// no file, makes no second one, and none that is not whole.
func TestFaultAtEachCall(t *testing.T) {
	boxtest.Ordeal(t, 50, 6, func(t *testing.T) *boxtest.Trial {
		b, faults := boxtest.NewFaulty(t, fleet("keep = 'items == 2'\notherwise = \"drop\""))
		s := stageOn(t, b)
		s.items = 1
		dropped := s.born(0)
		s.items = 2
		kept := s.born(0)
		return &boxtest.Trial{Box: b, Faults: faults, Program: "mover", Name: "keep",
			Counters: map[string]uint64{"kept_files": 1, "dropped_files": 1},
			Done:     func() bool { return b.Is(kept, "store/ready") && b.Is(dropped, "cache/dropped") },
			Whole: func(when string) {
				s.wantOneOf(when, kept, "[cache/born]", "[cache/born store/ready]", "[store/ready]")
				s.wantOneOf(when, dropped, "[cache/born]", "[cache/dropped]")
			},
			End: func() {
				s.wantHistory("store/ready", kept, "born", "born", "ready") // decided, and carried out
				s.wantHistory("cache/dropped", dropped, "born", "dropped")
			}}
	})
}

func (s *stage) wantOneOf(when string, side *sidecar.Sidecar, places ...string) {
	s.t.Helper()
	if got := fmt.Sprint(s.Lies(side)); !slices.Contains(places, got) {
		s.t.Errorf("%s: %s is in %s; want one of %v", when, side.Name, got, places)
	}
}

func (s *stage) wantHistory(place string, side *sidecar.Sidecar, want ...string) {
	s.t.Helper()
	if got := fmt.Sprint(s.Lies(side)); got != "["+place+"]" {
		s.t.Errorf("%s is in %s; want %s", side.Name, got, place)
	} else if diff := cmp.Diff(want, s.States(place, side.ID)); diff != "" {
		s.t.Errorf("history of %s in %s (-want +got):\n%s", side.Name, place, diff)
	}
}
