package spool

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
)

// ram is a folder for the time of a test, where syncs cost nothing.
func ram(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "spool-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// mount shows a folder whose calls are noted down, and fail when told to.
func mount(t *testing.T) (faults *faultfs.FS, backing, at string) {
	t.Helper()
	backing, at = ram(t), t.TempDir()
	faults, err := faultfs.Mount(backing, at)
	if errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := faultfs.Unmount(at); err != nil {
			t.Error(err)
		}
	})
	return faults, backing, at
}

// sidecarWritten is the calls that make a sidecar durable in a state.
func sidecarWritten(id sidecar.ID, to State) []string {
	tmp := "work/" + string(id) + ".json.new"
	return []string{"create " + tmp, "write " + tmp, "sync " + tmp, "rename " + tmp + " " + string(to) + "/" + string(id) + ".json", "sync " + string(to)}
}

// placing is the calls that bring a file to a state: whatever is relied on is
// durable before.
func placing(side *sidecar.Sidecar, from string, to State) []string {
	folder, _, _ := strings.Cut(from, "/")
	return append(sidecarWritten(side.ID, to), "rename "+from+" "+string(to)+"/"+side.Name, "sync "+string(to), "sync "+folder)
}

// What a power cut leaves depends on the order of these calls.
func TestOrderOfCalls(t *testing.T) {
	part := "work/" + string(heldID) + ".part"
	mp4, json := string(heldID)+".mp4", string(heldID)+".json"
	for name, c := range map[string]struct {
		do   func(h *Held, side *sidecar.Sidecar) error
		want func(side *sidecar.Sidecar) []string
	}{
		"Move": {func(h *Held, side *sidecar.Sidecar) error { return h.Move(Sent, side) },
			func(side *sidecar.Sidecar) []string {
				return append(placing(side, "ready/"+mp4, Sent), "unlink ready/"+json)
			}},
		"Amend": {func(h *Held, side *sidecar.Sidecar) error { return h.Amend(side) },
			func(side *sidecar.Sidecar) []string { return sidecarWritten(side.ID, Ready) }},
		"Remove": {func(h *Held, _ *sidecar.Sidecar) error { return h.Remove() },
			func(*sidecar.Sidecar) []string { return []string{"unlink ready/" + mp4, "unlink ready/" + json} }},
	} {
		t.Run(name, func(t *testing.T) {
			faults, _, at := mount(t)
			s, err := Open(at, Work, Ready, Sent)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			put(t, s, Ready, heldID, "picture")
			h := hold(t, s, Ready, heldID)
			faults.Calls()
			if err := c.do(h, h.Sidecar()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want(h.side), faults.Calls()); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("MoveTo", func(t *testing.T) {
		faults, _, at := mount(t)
		cache, err := Open(at+"/cache", Work, Born)
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		store, err := Open(at+"/store", Work, Ready)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		put(t, cache, Born, heldID, "picture")
		h := hold(t, cache, Born, heldID)
		faults.Calls()
		if err := h.MoveTo(store, Ready, h.Sidecar(), noop); err != nil {
			t.Fatal(err)
		}
		want := slices.Concat([]string{"create " + part, "write " + part, "sync " + part}, placing(h.side, part, Ready))
		for i, call := range want {
			verb, paths, _ := strings.Cut(call, " ")
			want[i] = verb + " store/" + strings.ReplaceAll(paths, " ", " store/")
		}
		want = append(want, "unlink cache/born/"+mp4, "unlink cache/born/"+json)
		got := withoutAllocate(faults.Calls())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// A sync that failed is not tried again: the kernel has marked the pages clean
// (fsync(2)), so the next one would succeed, and the bytes be gone. They are
// written anew, to a file of another name.
func TestFailedSyncIsNotTriedAgain(t *testing.T) {
	faults, _, at := mount(t)
	s := open(t, at)
	side := sideOf(1)
	name, part := "work/"+side.Name, "work/"+string(side.ID)+".part"
	f := create(t, s, side.Name, "rows")
	faults.Calls()
	faults.FailSyncs(1, "", true)
	if err := s.Complete(f, Ready, side); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Complete() with a failing sync = %v; want EIO", err)
	}
	if got := faults.Calls(); !slices.Equal(got, []string{"sync failed " + name}) {
		t.Errorf("calls = %q; want none after the failed sync", got)
	}
	faults.FailSyncs(1, part, true)
	if err := s.Complete(f, Ready, side); !errors.Is(err, syscall.EIO) {
		t.Errorf("Complete() with a failing sync of the copy = %v; want EIO", err)
	}
	if diff := cmp.Diff([]string{"create " + part, "write " + part, "sync failed " + part, "unlink " + part}, withoutAllocate(faults.Calls())); diff != "" {
		t.Errorf("calls with a failing sync of the copy (-want +got):\n%s", diff)
	}
	if err := s.Complete(f, Ready, side); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat([]string{"create " + part, "write " + part, "sync " + part, "rename " + part + " " + name}, placing(side, name, Ready))
	if diff := cmp.Diff(want, withoutAllocate(faults.Calls())); diff != "" {
		t.Errorf("calls of the third Complete (-want +got):\n%s", diff)
	}
	if got := tree(t, at)["ready/"+side.Name]; got != "rows" {
		t.Errorf("file = %q; want what was written", got)
	}
}

// Where the failed sync has cost the bytes, the file is not passed off as good.
func TestFailedSyncThatLostBytesIsSeen(t *testing.T) {
	faults, backing, at := mount(t)
	s := open(t, at)
	side := sideOf(1)
	f := create(t, s, side.Name, "rows")
	faults.FailSyncs(1, "", false)
	for want := range slices.Values([]error{syscall.EIO, ErrDamaged, ErrDamaged}) {
		if err := s.Complete(f, Ready, side); !errors.Is(err, want) {
			t.Errorf("Complete() = %v; want %v", err, want)
		}
	}
	if got := names(tree(t, backing)); !slices.Equal(got, []string{"work/" + side.Name}) {
		t.Errorf("files = %v; want the one in work/", got)
	}
	if err := s.Discard(side.Name, Ready); err != nil {
		t.Fatal(err)
	}
	if err := s.Complete(create(t, s, side.Name, "rows"), Ready, side); err != nil {
		t.Errorf("Complete() of a new file = %v; want nil", err)
	}
}

func withoutAllocate(calls []string) []string {
	return slices.DeleteFunc(calls, func(call string) bool { return strings.HasPrefix(call, "allocate ") })
}
