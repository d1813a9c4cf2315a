package spool

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"
)

// Who only looks makes nothing.
func TestLook(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	if _, err := Look(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Look() of no spool = %v; want fs.ErrNotExist", err)
	}
	if _, err := NewStore(dir, "/proc/self/fd/absent").Look(); !errors.Is(err, ErrNotMounted) {
		t.Errorf("Look() of a store without its disk = %v; want ErrNotMounted", err)
	}
	s, err := Open(dir, Work)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	seen, err := NewStore(dir, "").Look()
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	if in, err := seen.Entries(Ready); err != nil || len(in) > 0 {
		t.Errorf("Entries() of a state that has no folder = %v, %v; want none", in, err)
	}
	if names, err := fs.Glob(s.root.FS(), "*"); err != nil || len(names) != 2 {
		t.Errorf("the spool holds %v, %v after a look; want what Open has made, work and the reserve", names, err)
	}
}

func TestPeek(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	for name, c := range map[string]struct {
		dir, mount string
		there      bool
		want       error
	}{
		"made":                 {openStates(t, Ready).Dir(), "", true, nil},
		"not made":             {dir, "", false, nil},
		"below a file":         {"/proc/version/spool", "", false, syscall.ENOTDIR},
		"on no mount":          {dir, filepath.Dir(dir), false, ErrNotMounted},
		"on a mount not made":  {dir + "/at/spool", dir + "/at", false, ErrNotMounted},
		"not made, on a mount": {"/dev/shm/no-such-spool", "/dev/shm", false, nil},
	} {
		s, there, err := Peek(c.dir, c.mount)
		if there != c.there || (s != nil) != c.there || !errors.Is(err, c.want) {
			t.Errorf("Peek() of one that is %s = %v, %v, %v; want %v, %v", name, s, there, err, c.there, c.want)
		}
		if s != nil {
			s.Close()
		}
	}
}

func TestRoom(t *testing.T) {
	s := openStates(t, Ready)
	room, err := s.Room()
	if err != nil || room.Total <= 0 || room.Free < 0 || room.Free > room.Total {
		t.Errorf("Room() = %+v, %v; want more in all than free", room, err)
	}
}

func TestFolder(t *testing.T) {
	s := openStates(t, Ready)
	for range 2 {
		root, err := s.Folder("gone")
		if err != nil {
			t.Fatal(err)
		}
		root.Close()
	}
	if err := s.root.Symlink("/", "out"); err != nil {
		t.Fatal(err)
	}
	if root, err := s.Folder("out"); err == nil {
		root.Close()
		t.Error("Folder() of a link that leads out = nil; want an error")
	}
}

// An entry tells when its sidecar was written, so that nobody need read it again.
func TestEntriesTellOfTheirSidecars(t *testing.T) {
	s := openStates(t, Ready)
	put(t, s, Ready, heldID, "text")
	before, err := s.Entries(Ready)
	if err != nil || len(before) != 1 || before[0].Told.IsZero() {
		t.Fatalf("Entries() = %+v, %v; want one with a sidecar", before, err)
	}
	if err := s.root.Remove(sidecarIn(Ready, heldID)); err != nil {
		t.Fatal(err)
	}
	after, err := s.Entries(Ready)
	if err != nil || len(after) != 1 || !after[0].Told.IsZero() {
		t.Errorf("Entries() = %+v, %v; want one without a sidecar", after, err)
	}
}
