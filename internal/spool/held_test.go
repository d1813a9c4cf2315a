package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

func noop() {}

// openStates makes a spool that is closed with the test.
func openStates(t *testing.T, states ...State) *Spool {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "spool"), append(states, Work)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

const heldID = sidecar.ID("porch-clips_20260517T094057Z_000283baec0033c3-000012")

// put makes a complete file.
func put(t *testing.T, s *Spool, state State, id sidecar.ID, text string) *sidecar.Sidecar {
	t.Helper()
	side := &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ".mp4", Media: "video/mp4", Worker: id.Worker()}
	side.Add(event(string(state), "made by a test"))
	f, err := s.Create(side.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := s.Complete(f, state, side); err != nil {
		t.Fatal(err)
	}
	return side
}

func event(state, reason string) sidecar.Event {
	return sidecar.Event{State: state, Reason: reason, By: "test", Time: msg.Time{}}
}

func hold(t *testing.T, s *Spool, state State, id sidecar.ID) *Held {
	t.Helper()
	h, err := s.Hold(state, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Release() })
	return h
}

// lying lists what lies in a spool, folders and the reserve left out.
func lying(t *testing.T, s *Spool) (list []string) {
	t.Helper()
	err := filepath.WalkDir(s.Dir(), func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != reserveName {
			rel, _ := filepath.Rel(s.Dir(), p)
			list = append(list, strings.Replace(rel, string(heldID), "ID", 1))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestHoldIsForOne(t *testing.T) {
	s := openStates(t, Born)
	put(t, s, Born, heldID, "x")
	h := hold(t, s, Born, heldID)
	if _, err := s.Hold(Born, heldID); !errors.Is(err, ErrHeld) {
		t.Errorf("Hold of a held file = %v; want ErrHeld", err)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	hold(t, s, Born, heldID)
	if _, err := s.Hold(Ready, heldID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Hold where there is none = %v; want fs.ErrNotExist", err)
	}
}

func TestMoveTakesFileAndSidecar(t *testing.T) {
	s := openStates(t, Born)
	put(t, s, Born, heldID, "x")
	h := hold(t, s, Born, heldID)
	side := h.Sidecar()
	side.Add(event("dropped", "nobody in it"))
	if err := h.Move(Dropped, side); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"dropped/ID.json", "dropped/ID.mp4"}, lying(t, s)); diff != "" {
		t.Errorf("after Move (-want +got):\n%s", diff)
	}
	got, err := s.Sidecar(Dropped, heldID)
	if err != nil || len(got.History) != 2 || got.State() != "dropped" {
		t.Errorf("Sidecar(dropped) = %+v, %v; want two events, the last one dropped", got, err)
	}
	if err := h.Remove(); err != nil {
		t.Fatal(err)
	}
	if left := lying(t, s); left != nil {
		t.Errorf("after Remove there is %v; want nothing", left)
	}
}

func TestMoveToCopiesVerifiesAndRemovesLast(t *testing.T) {
	cache, store := openStates(t, Born), openStates(t, Ready)
	text := strings.Repeat("picture ", 300_000) // more than one step
	put(t, cache, Born, heldID, text)
	h := hold(t, cache, Born, heldID)
	side := h.Sidecar()
	side.Add(event("ready", "a person"))
	steps := 0
	if err := h.MoveTo(store, Ready, side, func() { steps++ }); err != nil {
		t.Fatal(err)
	}
	if left := lying(t, cache); left != nil {
		t.Errorf("the cache has %v; want nothing", left)
	}
	got, err := os.ReadFile(store.Path(Ready, side.Name))
	if err != nil || string(got) != text || steps < 3 {
		t.Errorf("the store has %d bytes (%v) after %d steps; want %d bytes, in 3 steps or more", len(got), err, steps, len(text))
	}
	if store.Written() < int64(len(text)) {
		t.Errorf("Written() = %d; want at least the file's %d", store.Written(), len(text))
	}
}

func TestMoveToRefusesDamage(t *testing.T) {
	cache, store := openStates(t, Born), openStates(t, Ready)
	side := put(t, cache, Born, heldID, "right")
	if err := os.WriteFile(cache.Path(Born, side.Name), []byte("wrong"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := hold(t, cache, Born, heldID)
	if err := h.MoveTo(store, Ready, h.Sidecar(), noop); !errors.Is(err, ErrDamaged) {
		t.Errorf("MoveTo of changed bytes = %v; want ErrDamaged", err)
	}
	if got := lying(t, store); got != nil {
		t.Errorf("the store has %v; want nothing", got)
	}
	if got := lying(t, cache); len(got) != 2 {
		t.Errorf("the cache has %v; want the file and its sidecar", got)
	}
}

// A move that was killed behind its last step but one leaves the file in both
// places.
func TestMoveToSettlesBothCopies(t *testing.T) {
	for name, c := range map[string]struct {
		there string
		want  []string
	}{
		"a good one": {"same", []string{"ready/ID.json", "ready/ID.mp4"}},
		"a bad one":  {"sa", []string{"quarantine/ID.json", "quarantine/ID.mp4", "ready/ID.json", "ready/ID.mp4"}},
	} {
		t.Run(name, func(t *testing.T) {
			cache, store := openStates(t, Born), openStates(t, Ready)
			put(t, cache, Born, heldID, "same")
			put(t, store, Ready, heldID, c.there)
			h := hold(t, cache, Born, heldID)
			if err := h.MoveTo(store, Ready, h.Sidecar(), noop); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, lying(t, store)); diff != "" {
				t.Errorf("the store (-want +got):\n%s", diff)
			}
			if text, err := os.ReadFile(store.Path(Ready, string(heldID)+".mp4")); err != nil || string(text) != "same" {
				t.Errorf("ready has %q, %v; want the whole file", text, err)
			}
			if left := lying(t, cache); left != nil {
				t.Errorf("the cache has %v; want nothing", left)
			}
		})
	}
}

func TestVerifyHeld(t *testing.T) {
	s := openStates(t, Ready)
	put(t, s, Ready, heldID, "bytes")
	h := hold(t, s, Ready, heldID)
	steps := 0
	if err := h.Verify(func() { steps++ }); err != nil || steps == 0 {
		t.Errorf("Verify() = %v after %d steps; want nil, after at least one", err, steps)
	}
	for _, text := range []string{"bytez", "byte", "bytes "} {
		if err := os.WriteFile(s.Path(Ready, string(heldID)+".mp4"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.Verify(noop); !errors.Is(err, ErrDamaged) {
			t.Errorf("Verify() of %q = %v; want ErrDamaged", text, err)
		}
	}
}
