package spool

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
)

// smallDisks are file systems that are soon full.
func smallDisks() map[string]func(t *testing.T) string {
	return map[string]func(t *testing.T) string{
		"tmpfs": func(t *testing.T) string {
			at := t.TempDir()
			if err := faultfs.Tmpfs(at, 8<<20); errors.Is(err, faultfs.ErrUnavailable) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := faultfs.Unmount(at); err != nil {
					t.Error(err)
				}
			})
			return at
		},
		"ext4": func(t *testing.T) string {
			_, at := diskImage(t, t.TempDir())
			return at
		},
	}
}

// choke writes to a file until the disk has no room left.
func choke(t *testing.T, ballast string) {
	t.Helper()
	f, err := os.OpenFile(ballast, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, bytes := range []int{1 << 20, 4096, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, bytes))
		}
		if !errors.Is(err, syscall.ENOSPC) || f.Sync() != nil {
			t.Fatalf("filling the disk = %v; want ENOSPC", err)
		}
	}
}

// On a disk that is full to the last byte all files go on, one after the other,
// to a state that has no folder yet, too.
func TestFilesGoOnOnAFullDisk(t *testing.T) {
	const files = 100
	for disk, mounted := range smallDisks() {
		for from, to := range map[State]State{Ready: Sent, Born: Dropped} {
			t.Run(disk+", "+string(from)+" to "+string(to), func(t *testing.T) {
				at := mounted(t)
				s, err := Open(filepath.Join(at, "spool"), Work, from)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				for n := range files {
					put(t, s, from, contendedID(n), clip)
				}
				ballast := filepath.Join(at, "ballast")
				choke(t, ballast)
				for n := range files {
					h := hold(t, s, from, contendedID(n))
					side := h.Sidecar()
					side.Add(event(string(to), strings.Repeat("told at length ", 20)))
					if err := h.Move(to, side); err != nil {
						t.Fatalf("Move() of file %d on a full disk = %v; want nil", n, err)
					}
					if err := h.Release(); err != nil {
						t.Fatal(err)
					}
					if n%20 == 0 { // somebody takes what is free
						choke(t, ballast)
					}
				}
				if got := wholeFiles(t, s); len(got) != files || got[string(contendedID(files-1))] != to {
					t.Errorf("%d files are there, the last one in %s; want %d, in %s", len(got), got[string(contendedID(files-1))], files, to)
				}
			})
		}
	}
}

// The reserve is filled again as soon as there is room: a removed file's, that
// Recover finds, or at the next start. To look it is not made.
func TestReserveIsFilledAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s, err := Open(dir, Work, Ready)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, Ready, heldID, clip)
	if took := roomOf(t, dir); took != reserveBytes {
		t.Fatalf("the reserve has %d bytes; want %d", took, reserveBytes)
	}
	for what, again := range map[string]func() error{
		"Recover": func() error { _, err := s.Recover(recovery()); return err },
		"Remove":  func() error { return hold(t, s, Ready, heldID).Remove() },
		"Open": func() error {
			s, err := Open(dir, Work, Ready)
			return errors.Join(err, s.Close())
		},
	} {
		for range 2 {
			if !s.spend() {
				t.Errorf("spend() before %s = false; want true", what)
			}
		}
		if took := roomOf(t, dir); took != reserveBytes-2*reserveStep {
			t.Errorf("the reserve has %d bytes after two steps; want %d", took, reserveBytes-2*reserveStep)
		}
		if err := again(); err != nil {
			t.Fatal(err)
		}
		if took := roomOf(t, dir); took != reserveBytes {
			t.Errorf("the reserve has %d bytes after %s; want %d", took, what, reserveBytes)
		}
	}
	for n := range reserveBytes / reserveStep {
		if !s.spend() {
			t.Errorf("spend() = false the %d. time; want true", n+1)
		}
	}
	if s.spend() {
		t.Error("spend() with nothing left = true; want false")
	}
	looked, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer looked.Close()
	if _, err := os.Lstat(filepath.Join(dir, reserveName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat(reserve) after Look = %v; want that there is none", err)
	}
}

// roomOf is the reserve's length, all of which has its room.
func roomOf(t *testing.T, dir string) int64 {
	t.Helper()
	st, err := os.Stat(filepath.Join(dir, reserveName))
	if err != nil {
		t.Fatal(err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Blocks*512 < st.Size() {
		t.Errorf("the reserve has %d bytes, and less room", st.Size())
	}
	return st.Size()
}

// A file system without inodes is full as well.
func TestFilesGoOnWithoutInodes(t *testing.T) {
	at := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=32", "tmpfs", at).CombinedOutput(); err != nil {
		t.Skipf("a tmpfs needs root: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := faultfs.Unmount(at); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(filepath.Join(at, "spool"), Work, Ready, Sent)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := []sidecar.ID{contendedID(0), contendedID(1)}
	for _, id := range ids {
		put(t, s, Ready, id, clip)
	}
	for n := 0; err == nil; n++ {
		err = os.WriteFile(filepath.Join(at, strconv.Itoa(n)), nil, 0o600)
	}
	for _, id := range ids {
		h := hold(t, s, Ready, id)
		if err := h.Move(Sent, h.Sidecar()); err != nil {
			t.Errorf("Move() without inodes = %v; want nil", err)
		}
	}
}
