package spool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/perch-edge/perch/internal/faultfs"
)

// plug mounts a disk, which is unplugged with the test if not before.
func plug(t *testing.T, at string) {
	t.Helper()
	if err := faultfs.Tmpfs(at, 1<<20); errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = faultfs.Unmount(at) }) // it may be unplugged already
}

func unplug(t *testing.T, at string) {
	t.Helper()
	if err := faultfs.Unmount(at); err != nil {
		t.Fatal(err)
	}
}

func openStore(t *testing.T, dir, mount string) *Store {
	t.Helper()
	s := NewStore(dir, mount, Work, Ready)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func wantAbsent(t *testing.T, s *Store, mount string) {
	t.Helper()
	if sp, err := s.Spool(); !errors.Is(err, ErrNotMounted) || sp != nil {
		t.Errorf("Spool() with nothing mounted = %v, %v; want ErrNotMounted", sp, err)
	}
	if below, err := os.ReadDir(mount); err != nil || len(below) > 0 {
		t.Errorf("below the mount point there is %v, %v; want nothing", below, err)
	}
}

// A disk that is unplugged and plugged in again, or another, needs no restart;
// meanwhile nothing is written where it was.
func TestStoreComesAndGoes(t *testing.T) {
	mount := filepath.Join(t.TempDir(), "usb")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	cache := openStates(t, Born)
	side := put(t, cache, Born, heldID, "picture")
	store := openStore(t, filepath.Join(mount, "box", "store"), mount+"/")
	wantAbsent(t, store, mount)

	plug(t, mount)
	first, err := store.Spool()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := store.Spool(); err != nil || again != first {
		t.Errorf("Spool() again = %p, %v; want the same %p", again, err, first)
	}
	put(t, first, Ready, "porch-clips_20260517T094057Z_000283baec0033c3-000013", "on the first disk")
	written := store.Written()

	unplug(t, mount)
	h := hold(t, cache, Born, heldID)
	wantAbsent(t, store, mount)
	if err := h.MoveTo(first, Ready, h.Sidecar(), noop); err == nil {
		t.Error("MoveTo() a disk that is gone = nil; want an error")
	}
	wantAbsent(t, store, mount)

	plug(t, mount)
	second, err := store.Spool()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.MoveTo(second, Ready, h.Sidecar(), noop); err != nil {
		t.Fatal(err)
	}
	if got := readText(t, filepath.Join(mount, "box/store/ready", side.Name)); got != "picture" {
		t.Errorf("the second disk has %q; want the file", got)
	}
	if got := store.Written(); got <= written || written == 0 {
		t.Errorf("Written() = %d after %d on the first disk; want both disks' bytes", got, written)
	}

	// Another disk over it, without the first being unplugged.
	plug(t, mount)
	third, err := store.Spool()
	if err != nil {
		t.Fatal(err)
	}
	put(t, third, Ready, heldID, "on the third disk")
	if got := readText(t, filepath.Join(mount, "box/store/ready", side.Name)); got != "on the third disk" {
		t.Errorf("the third disk has %q; want the file", got)
	}
	unplug(t, mount)
	unplug(t, mount)
	wantAbsent(t, store, mount)
}

// The folder is taken away and made anew, by hand, on the same disk.
func TestStoreWhoseFolderIsReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	store := openStore(t, dir, "")
	old, err := store.Spool()
	if err != nil {
		t.Fatal(err)
	}
	put(t, old, Ready, heldID, "an earlier one")
	h := hold(t, old, Ready, heldID)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s, err := store.Spool()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, Ready, heldID, "picture")
	if err := h.Move(Sent, h.Sidecar()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Move() of a file that is held in the folder that is gone = %v; want os.ErrClosed", err)
	}
	if err := h.Release(); err != nil {
		t.Errorf("Release() = %v; want nil", err)
	}
	if got := readText(t, filepath.Join(dir, "ready", string(heldID)+".mp4")); got != "picture" {
		t.Errorf("the folder has %q; want the file", got)
	}
}

func TestStoreOnAnotherDiskIsRefused(t *testing.T) {
	base := t.TempDir()
	mount := filepath.Join(base, "usb")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	plug(t, mount)
	if err := os.MkdirAll(filepath.Join(mount, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	plug(t, filepath.Join(mount, "store")) // a disk on the disk
	if err := os.Symlink(base, filepath.Join(mount, "out")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(mount, "store"), filepath.Join(mount, "out"), filepath.Join(mount, "out", "new"), base, mount + "x"} {
		if s, err := openStore(t, dir, mount).Spool(); err == nil {
			t.Errorf("Spool() in %s with the mount %s = %s; want a refusal", dir, mount, s.Dir())
		}
	}
	if _, err := os.Stat(filepath.Join(base, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder was made outside the mount (%v)", err)
	}
}
