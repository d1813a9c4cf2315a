package spool

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bringAgain tries to move the file in born/ to a store's ready/, where a bad copy
// of it lies.
func bringAgain(t *testing.T, cache, store *Spool, alive func()) error {
	t.Helper()
	h := hold(t, cache, Born, heldID)
	side := h.Sidecar()
	side.Add(event("ready", "made by a test"))
	return errors.Join(h.MoveTo(store, Ready, side, alive), h.Release())
}

// A bad copy stays in quarantine whatever happens to the next one: Recover does
// not take it for a file on its way out of there. Its sidecar says what is wrong.
func TestBadCopyStaysInQuarantine(t *testing.T) {
	cache, store := openStates(t, Born), openStates(t, Ready)
	put(t, cache, Born, heldID, "same")
	put(t, store, Ready, heldID, "sa")
	h := hold(t, cache, Born, heldID)
	if err := os.WriteFile(cache.Path(Born, h.side.Name), []byte("some"), 0o600); err != nil { // so that the next copy fails
		t.Fatal(err)
	}
	if err := h.MoveTo(store, Ready, h.Sidecar(), noop); !errors.Is(err, ErrDamaged) {
		t.Fatalf("MoveTo() of changed bytes = %v; want ErrDamaged", err)
	}
	want := []string{"quarantine/ID.json", "quarantine/ID.mp4"}
	for _, when := range []string{"the failed copy", "Recover"} {
		if diff := cmp.Diff(want, lying(t, store)); diff != "" {
			t.Errorf("the store after %s (-want +got):\n%s", when, diff)
		}
		if r, err := store.Recover(recovery()); err != nil || anything(r) {
			t.Errorf("Recover() = %+v, %v; want nothing to do", r, err)
		}
	}
	side, err := store.Sidecar(Quarantine, heldID)
	if err != nil || side.State() != "quarantine" || side.History[len(side.History)-1].Reason == "" {
		t.Errorf("its sidecar is %+v, %v; want one whose last event tells of the quarantine", side, err)
	}
}

// A sidecar that claims more than any disk holds is a damaged file, and no full disk.
func TestSizeThatCannotBe(t *testing.T) {
	cache, store := openStates(t, Born), openStates(t, Ready)
	put(t, cache, Born, heldID, "short")
	path := cache.Path(Born, string(heldID)+".json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lie := regexp.MustCompile(`"bytes": ?5\b`).ReplaceAll(text, []byte(`"bytes":1125899906842624`))
	if err := os.WriteFile(path, lie, 0o600); err != nil || bytes.Equal(lie, text) {
		t.Fatalf("the sidecar is as it was (%v): %s", err, text)
	}
	h := hold(t, cache, Born, heldID)
	if err := h.MoveTo(store, Ready, h.Sidecar(), noop); !errors.Is(err, ErrDamaged) {
		t.Errorf("MoveTo() of 5 bytes that are to be 2^50 = %v; want ErrDamaged", err)
	}
}

// A file of an earlier round in quarantine keeps none out, by whichever way it
// comes: the last one stays.
func TestSecondBrokenFile(t *testing.T) {
	name := string(heldID) + ".mp4"
	for what, do := range map[string]func(t *testing.T, s *Spool) error{
		"a bad copy": func(t *testing.T, s *Spool) error {
			cache := openStates(t, Born)
			put(t, cache, Born, heldID, "the whole")
			put(t, s, Ready, heldID, "second")
			h := hold(t, cache, Born, heldID)
			return h.MoveTo(s, Ready, h.Sidecar(), noop)
		},
		"Move": func(t *testing.T, s *Spool) error {
			put(t, s, Ready, heldID, "second")
			h := hold(t, s, Ready, heldID)
			return h.Move(Quarantine, h.Sidecar())
		},
		"Recover": func(t *testing.T, s *Spool) error {
			put(t, s, Ready, heldID, "second one")
			err := os.Truncate(s.Path(Ready, name), int64(len("second")))
			_, err2 := s.Recover(recovery())
			return errors.Join(err, err2)
		},
		"SetAside": func(t *testing.T, s *Spool) error {
			f, err := s.Create(name)
			if err != nil {
				return err
			}
			_, err = f.WriteString("second")
			return errors.Join(err, f.Close(), s.SetAside(name))
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := openStates(t, Ready, Quarantine)
			put(t, s, Quarantine, heldID, "first")
			if err := do(t, s); err != nil {
				t.Errorf("the second time = %v; want nil", err)
			}
			if text, err := os.ReadFile(s.Path(Quarantine, name)); err != nil || string(text) != "second" {
				t.Errorf("in quarantine is %q, %v; want the second file", text, err)
			}
			if _, err := s.Hold(Ready, heldID); what != "a bad copy" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Hold(ready) = %v; want nothing there", err)
			}
		})
	}
}

// A kill may leave a file in quarantine and a sidecar where it was, with as long
// a history or a longer one: the file stays.
func TestRecoverTakesNothingOutOfQuarantine(t *testing.T) {
	s := openStates(t, Ready, Quarantine)
	side := put(t, s, Ready, heldID, "broken").Clone()
	for _, err := range []error{s.makeState(Quarantine), os.Rename(s.Path(Ready, side.Name), s.Path(Quarantine, side.Name))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := s.Recover(recovery()); err != nil {
			t.Fatal(err)
		}
	}
	if got := lying(t, s); !slices.Equal(got, []string{"quarantine/ID.json", "quarantine/ID.mp4"}) {
		t.Errorf("after Recover there is %v; want the file in quarantine, with a sidecar", got)
	}
}

// A large file is made durable on the way, bit by bit, so that a slow disk shows
// no single long silence; after a failure its copy is not used any more.
func TestCopyIsSyncedInStrides(t *testing.T) {
	const strides = 3
	faults, _, at := mount(t)
	cache := openStates(t, Born)
	store, err := Open(at, Work, Ready)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	put(t, cache, Born, heldID, string(make([]byte, strides*syncStride)))
	part := "work/" + string(heldID) + ".part"
	count := func(calls []string, want string) (n int) {
		for _, call := range calls {
			if call == want {
				n++
			}
		}
		return n
	}
	faults.Calls()
	faults.FailSyncs(1, part, true)
	if err := bringAgain(t, cache, store, noop); err == nil {
		t.Error("MoveTo() with a sync that fails = nil; want an error")
	}
	if calls := faults.Calls(); count(calls, "sync failed "+part) != 1 || count(calls, "sync "+part) > 0 || calls[len(calls)-1] != "unlink "+part {
		t.Errorf("calls with a failing sync = %q; want one, and then that the copy is removed", calls)
	}
	var log []string
	if err := bringAgain(t, cache, store, func() { log = append(log, faults.Calls()...); log = append(log, "alive") }); err != nil {
		t.Fatal(err)
	}
	log = slices.DeleteFunc(append(log, faults.Calls()...), func(call string) bool { return call != "alive" && call != "sync "+part })
	if n := count(log, "sync "+part); n < strides {
		t.Errorf("the copy was synced %d times; want at least %d", n, strides)
	}
	for i, call := range log[1:strides] {
		if call == log[i] && call != "alive" {
			t.Errorf("calls = %q; want a sign of life between two syncs", log)
		}
	}
}
