package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/sidecar"
)

func TestNoticesTryAgain(t *testing.T) {
	var heard []sidecar.ID
	deaf := map[sidecar.ID]bool{"b": true}
	n := notices{announce: func(s *sidecar.Sidecar) error {
		if deaf[s.ID] {
			return errors.New("no free slot")
		}
		heard = append(heard, s.ID)
		return nil
	}}
	for _, id := range []sidecar.ID{"a", "b", "c"} {
		n.waiting = append(n.waiting, &sidecar.Sidecar{ID: id})
	}
	if givenUp, err := n.tell(); givenUp != 0 || err == nil || !strings.Contains(err.Error(), "1 pictures are there and not announced: no free slot") {
		t.Errorf("tell() = %d, %v; want none given up, and why", givenUp, err)
	}
	deaf["b"] = false
	for range 2 {
		if givenUp, err := n.tell(); givenUp != 0 || err != nil {
			t.Errorf("tell() = %d, %v; want all told", givenUp, err)
		}
	}
	if want := []sidecar.ID{"a", "c", "b"}; !slices.Equal(heard, want) {
		t.Errorf("announced %v; want %v, each once", heard, want)
	}
}

func TestNoticesAreBounded(t *testing.T) {
	n := notices{announce: func(*sidecar.Sidecar) error { return errors.New("no") }}
	givenUp := 0
	for i := range mostNotices + 3 {
		n.waiting = append(n.waiting, &sidecar.Sidecar{ID: sidecar.ID(fmt.Sprint(i))})
		more, err := n.tell()
		if err == nil {
			t.Fatal("tell() = nil; want the error")
		}
		givenUp += more
	}
	if givenUp != 3 || len(n.waiting) != mostNotices || n.waiting[0].ID != "3" {
		t.Errorf("%d given up, %d wait from %s on; want 3, %d, 3", givenUp, len(n.waiting), n.waiting[0].ID, mostNotices)
	}
}
