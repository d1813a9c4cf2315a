package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/internal/sidecar"
)

// hostile names none of which may reach a file.
func hostile() []string {
	good := sideOf(7).Name
	return []string{"", ".", "..", "../" + good, "/etc/passwd", "/" + good, good + "/x", "a/../" + good, strings.TrimSuffix(good, ".csv"),
		strings.TrimSuffix(good, ".csv") + ".json", strings.TrimSuffix(good, "csv"), good + "\x00", "x\x00" + good, strings.ToUpper(good), good + ".csv"}
}

func TestHostileNamesAreRefused(t *testing.T) {
	outside := t.TempDir()
	s := open(t, filepath.Join(outside, "spool"))
	for _, name := range hostile() {
		if f, err := s.Create(name); err == nil {
			f.Close()
			t.Errorf("Create(%q) = nil; want an error", name)
		}
		if f, err := s.Reopen(name); err == nil {
			f.Close()
			t.Errorf("Reopen(%q) = nil; want an error", name)
		}
		for what, err := range map[string]error{"Remove": s.Remove(name), "Discard": s.Discard(name, Ready), "SetAside": s.SetAside(name)} {
			if err == nil {
				t.Errorf("%s(%q) = nil; want an error", what, name)
			}
		}
		if _, err := s.Sidecar(Ready, sidecar.ID(name)); err == nil {
			t.Errorf("Sidecar(%q) = nil; want an error", name)
		}
		side := sideOf(7)
		f := create(t, s, side.Name, "rows")
		side.Name = name
		if err := s.Complete(f, Ready, side); err == nil {
			t.Errorf("Complete(%q) = nil; want an error", name)
		}
		if err := s.Remove(sideOf(7).Name); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(tree(t, outside)); len(got) != 0 {
		t.Errorf("files = %q; want none", got)
	}
}

// plants put something at a path that is no file of ours.
var plants = map[string]func(path, outside string) error{
	"symlink out": func(path, outside string) error { return os.Symlink(outside, path) },
	"symlink in":  func(path, _ string) error { return os.Symlink("other", path) },
	"hard link":   func(path, outside string) error { return os.Link(outside, path) },
	"fifo":        func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
	"folder":      func(path, _ string) error { return os.Mkdir(path, 0o700) },
}

func TestWhatIsNoPlainFileIsRefused(t *testing.T) {
	for what, plant := range plants {
		t.Run(what, func(t *testing.T) {
			base := t.TempDir()
			outside, dir := filepath.Join(base, "outside"), filepath.Join(base, "spool")
			s := open(t, dir)
			side := sideOf(1)
			err := errors.Join(os.WriteFile(outside, []byte("secret"), 0o600), os.WriteFile(filepath.Join(dir, "work/other"), nil, 0o600),
				plant(filepath.Join(dir, "work", side.Name), outside), plant(filepath.Join(dir, "ready", string(side.ID)+".json"), outside),
				plant(filepath.Join(dir, "air.journal"), outside))
			if err != nil {
				t.Fatal(err)
			}
			if f, err := s.Reopen(side.Name); err == nil {
				f.Close()
				t.Error("Reopen() = nil; want an error")
			}
			if f, err := s.Create(side.Name); err == nil {
				f.Close()
				t.Error("Create() = nil; want an error")
			}
			if _, err := s.Sidecar(Ready, side.ID); err == nil {
				t.Error("Sidecar() = nil; want an error")
			}
			if _, err := s.ReadAtom("air.journal"); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("ReadAtom() = %v; want a refusal", err)
			}
			listed, err := s.List(Work, "air-csv")
			if err != nil || what != "hard link" && len(listed) != 0 {
				t.Errorf("List() = %v, %v; want none", listed, err)
			}
			if text, err := os.ReadFile(outside); err != nil || string(text) != "secret" {
				t.Errorf("the file outside = %q, %v; want it unharmed", text, err)
			}
		})
	}
}

// What lies under a temporary name is replaced, never opened.
func TestTemporaryNamesAreNoTraps(t *testing.T) {
	for what, plant := range plants {
		t.Run(what, func(t *testing.T) {
			base := t.TempDir()
			outside, dir := filepath.Join(base, "outside"), filepath.Join(base, "spool")
			s := open(t, dir)
			side := sideOf(1)
			f := create(t, s, side.Name, "rows")
			err := errors.Join(os.WriteFile(outside, []byte("secret"), 0o600),
				plant(filepath.Join(dir, "work", string(side.ID)+".json.new"), outside), plant(filepath.Join(dir, "latest.jpg.new"), outside))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Complete(f, Ready, side); err != nil {
				t.Errorf("Complete() = %v; want nil", err)
			}
			if err := s.WriteAtom("latest.jpg", []byte("picture")); err != nil {
				t.Errorf("WriteAtom() = %v; want nil", err)
			}
			if text, err := os.ReadFile(outside); err != nil || string(text) != "secret" {
				t.Errorf("the file outside = %q, %v; want it unharmed", text, err)
			}
			if text, err := s.ReadAtom("latest.jpg"); err != nil || string(text) != "picture" {
				t.Errorf("ReadAtom() = %q, %v; want what was written", text, err)
			}
		})
	}
}
