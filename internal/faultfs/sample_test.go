package faultfs

import (
	"slices"
	"testing"
)

// Seeds that follow each other cover a line of the matrix between them, each
// point once; a soak covers it at once.
func TestSample(t *testing.T) {
	points := func(line int) (chosen []int) {
		s := NewSample(4)
		for n := s.Next(line, 1); n <= 12; n = s.Next(line, n+1) {
			chosen = append(chosen, n)
		}
		return chosen
	}
	for line := range 5 {
		var all []int
		for _, seed := range []string{"8", "9", "10", "11"} {
			t.Setenv("PERCH_SEED", seed)
			if chosen := points(line); len(chosen) != 3 {
				t.Errorf("seed %s, line %d: points %v; want 3", seed, line, chosen)
			} else {
				all = append(all, chosen...)
			}
		}
		slices.Sort(all)
		if want := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; !slices.Equal(all, want) {
			t.Errorf("line %d: four seeds choose %v; want each point once", line, all)
		}
	}
	t.Setenv("PERCH_SOAK", "1h")
	if chosen := points(3); len(chosen) != 12 {
		t.Errorf("points of a soak: %v; want all 12", chosen)
	}
}

// A mistyped PERCH_SOAK is no ordinary run.
func TestBadSoak(t *testing.T) {
	for _, text := range []string{"1", "long", "-1h"} {
		t.Setenv("PERCH_SOAK", text)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Soak() with PERCH_SOAK=%s returned; want a panic", text)
				}
			}()
			Soak()
		}()
	}
}
