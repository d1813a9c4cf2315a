package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A file is completed with the hash that its writer has counted, or not at all.
func TestCompleteWithAHash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	side := sideOf(1)
	f := create(t, s, side.Name, "a,b\n1,2\n")
	side.SHA256 = strings.Repeat("0", 64)
	if err := s.Complete(f, Ready, side); !errors.Is(err, ErrDamaged) || side.SHA256 != strings.Repeat("0", 64) {
		t.Errorf("Complete() with another hash = %v, and the hash is %s; want ErrDamaged, and the hash as it was", err, side.SHA256)
	}
	if got := names(tree(t, dir)); !cmp.Equal(got, []string{"work/" + side.Name}) {
		t.Errorf("files = %q; want the one in work/ alone", got)
	}
	sum := sha256.Sum256([]byte("a,b\n1,2\n"))
	side.SHA256 = hex.EncodeToString(sum[:])
	if err := s.Complete(f, Ready, side); err != nil {
		t.Errorf("Complete() with its hash = %v; want nil", err)
	}
}

func TestSetAsideAndReplace(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	side := sideOf(1)
	id := string(side.ID)
	create(t, s, id+".csv", "old")
	create(t, s, id+".salvage", "new")
	if err := s.SetAsideAs(id+".csv", id+".damaged"); err != nil {
		t.Fatal(err)
	}
	for _, before := range []func(){
		func() {},
		func() { create(t, s, id+".salvage", "new") }, // over the one that has the name
	} {
		before()
		if err := s.Replace(id+".salvage", id+".csv"); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"work/" + id + ".csv": "new", "quarantine/" + id + ".damaged": "old"}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"../x", "journal", id + ".json"} {
		if s.SetAsideAs(id+".csv", bad) == nil || s.Replace(id+".csv", bad) == nil {
			t.Errorf("a file was moved to %q; want a refusal", bad)
		}
	}
}

// OpenDamaged reads what Reopen does not write to, and nothing that is no file.
func TestOpenDamaged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	name := sideOf(1).Name
	create(t, s, name, "rows").Close()
	if err := os.Link(dir+"/work/"+name, dir+"/backup"); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Reopen(name); err == nil {
		f.Close()
		t.Error("Reopen() of a file with two names = nil; want a refusal")
	}
	f, err := s.OpenDamaged(name)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, script := range []func(string) error{
		func(p string) error { return os.Mkdir(p, 0o755) },
		func(p string) error { return os.Symlink(dir+"/backup", p) },
	} {
		if err := errors.Join(os.RemoveAll(dir+"/work/"+name), script(dir+"/work/"+name)); err != nil {
			t.Fatal(err)
		}
		if f, err := s.OpenDamaged(name); err == nil {
			f.Close()
			t.Errorf("OpenDamaged() of no regular file = nil; want a refusal")
		}
	}
	if err := os.Remove(dir + "/work/" + name); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenDamaged(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenDamaged() of nothing = %v; want fs.ErrNotExist", err)
	}
}
