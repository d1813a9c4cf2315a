package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

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
	"full folder": func(path, _ string) error {
		return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "x"), nil, 0o600))
	},
	"dangling":    func(path, _ string) error { return os.Symlink("nowhere", path) },
	"folder link": func(path, outside string) error { return os.Symlink(filepath.Dir(outside), path) },
	"device": func(path, _ string) error {
		if err := syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|7); !errors.Is(err, syscall.EPERM) { // /dev/full
			return err
		}
		return syscall.Mkfifo(path, 0o600)
	},
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

// What is planted in a spool is reported and left as it is, whatever name of ours
// it has, and nobody gets hold of it.
func TestRecoverLeavesAloneWhatIsPlanted(t *testing.T) {
	id := string(heldID)
	for what, plant := range plants {
		for _, name := range []string{"ready/" + id + ".mp4", "ready/" + id + ".json", "sent/" + id + ".json",
			"work/" + id + ".part", "work/" + id + ".json.new", "quarantine/" + id + ".mp4"} {
			t.Run(what+" "+name, func(t *testing.T) {
				base := t.TempDir()
				outside := filepath.Join(base, "outside")
				s, err := Open(filepath.Join(base, "spool"), append(Stages(), Work)...)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if name == "ready/"+id+".mp4" || name == "ready/"+id+".json" { // the other of the two is good
					put(t, s, Ready, heldID, "text")
					err = os.Remove(filepath.Join(s.Dir(), name))
				}
				err = errors.Join(err, os.WriteFile(outside, []byte("secret"), 0o600), plant(filepath.Join(s.Dir(), name), outside))
				if err != nil {
					t.Fatal(err)
				}
				before := looks(t, base)
				for range 2 {
					if r, err := s.Recover(recovery()); err != nil || !slices.Equal(r.Foreign, []string{name}) || anything(r) {
						t.Errorf("Recover() = %+v, %v; want %s reported as foreign", r, err, name)
					}
				}
				if diff := cmp.Diff(before, looks(t, base)); diff != "" {
					t.Errorf("what is there (-before +after):\n%s", diff)
				}
				for _, state := range []State{Ready, Sent, Quarantine} {
					if h, err := s.Hold(state, heldID); err == nil || errors.Is(err, ErrHeld) {
						t.Errorf("Hold(%s) = %v, %v; want a refusal", state, h, err)
					}
				}
			})
		}
	}
}

// looks is how everything below a folder looks.
func looks(t *testing.T, dir string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err == nil && !e.IsDir() {
			to, _ := os.Readlink(p)
			list[strings.TrimPrefix(p, dir+"/")] = fmt.Sprint(st.Mode(), st.Size(), st.ModTime(), to)
		} else if err == nil {
			list[strings.TrimPrefix(p, dir+"/")] = st.Mode().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A sidecar that is none, or another file's, does not lead to that file.
func TestSidecarsThatLie(t *testing.T) {
	id, next := string(heldID), other(1)
	for name, c := range map[string]struct {
		lie  func(t *testing.T, s *Spool) string // what is in the sidecar of heldID
		want counts
	}{
		"of another file": {func(t *testing.T, s *Spool) string {
			put(t, s, Ready, sidecar.ID(next), "next")
			return readText(t, s.Path(Ready, next+".json"))
		}, counts{Recovered: 1}},
		"of a file with another extension": {func(t *testing.T, s *Spool) string {
			return strings.Replace(readText(t, s.Path(Ready, id+".json")), id+".mp4", id+".jpg", 1)
		}, counts{Foreign: 1}},
		"that leads out": {func(t *testing.T, s *Spool) string {
			return strings.Replace(readText(t, s.Path(Ready, id+".json")), id+".mp4", "../../outside", 1)
		}, counts{Recovered: 1}},
		"too large": {func(*testing.T, *Spool) string { return strings.Repeat(" ", sidecar.MaxBytes+1) }, counts{Recovered: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStates(t, Ready, Sent)
			put(t, s, Ready, heldID, "text")
			if err := os.WriteFile(s.Path(Ready, id+".json"), []byte(c.lie(t, s)), 0o600); err != nil {
				t.Fatal(err)
			}
			if h, err := s.Hold(Ready, heldID); err == nil {
				t.Errorf("Hold() = %s; want an error", h.File().Name())
			}
			r, err := s.Recover(recovery())
			got := counts{r.Unfinished, r.Orphans, r.Finished, len(r.Recovered), len(r.Damaged), len(r.Foreign)}
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("Recover() (-want +got), %v:\n%s", err, diff)
			}
			if text := readText(t, s.Path(Ready, id+".mp4")); text != "text" {
				t.Errorf("the file has %q; want it unharmed", text)
			}
			if again, err := s.Recover(recovery()); err != nil || anything(again) {
				t.Errorf("the second Recover() = %+v, %v; want nothing to do", again, err)
			}
		})
	}
}

func readText(t *testing.T, p string) string {
	t.Helper()
	text, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A held file's step takes its own sidecar only.
func TestStepsRefuseAnothersSidecar(t *testing.T) {
	s := openStates(t, Ready)
	put(t, s, Ready, heldID, "text")
	theirs := put(t, s, Ready, sidecar.ID(other(1)), "theirs")
	h := hold(t, s, Ready, heldID)
	before := looks(t, s.Dir())
	for what, err := range map[string]error{"Move": h.Move(Sent, theirs), "Amend": h.Amend(theirs), "MoveTo": h.MoveTo(openStates(t, Ready), Ready, theirs, noop)} {
		if err == nil {
			t.Errorf("%s() with another's sidecar = nil; want an error", what)
		}
	}
	if diff := cmp.Diff(before, looks(t, s.Dir())); diff != "" {
		t.Errorf("what is there (-before +after):\n%s", diff)
	}
}

// Whatever the name, nothing outside the spool is made, changed or read, and
// nothing in it but a file of that name.
func FuzzNames(f *testing.F) {
	for _, name := range append(hostile(), sideOf(7).Name, string(heldID)+".mp4", string(heldID), "ready/"+sideOf(7).Name, sideOf(7).Name+".part") {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		base := ram(t)
		s, err := Open(base+"/spool", Work, Ready)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		theirs := put(t, s, Ready, heldID, "text")
		if err := errors.Join(os.WriteFile(base+"/outside", []byte("secret"), 0o600), os.WriteFile(s.Path(Work, "air.journal"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		before := looks(t, base)
		if h, err := s.Hold(Ready, sidecar.ID(name)); err == nil {
			if name != string(heldID) {
				t.Errorf("Hold(%q) = %s; want an error", name, h.File().Name())
			}
			h.Release()
		}
		ours := sideOf(9)
		file := create(t, s, ours.Name, "rows")
		ours.ID, ours.Name = sidecar.ID(strings.TrimSuffix(name, filepath.Ext(name))), name
		if err := s.Complete(file, Ready, ours); err == nil && name != sideOf(9).Name {
			t.Errorf("Complete(%q) = nil; want an error", name)
		}
		_ = s.Remove(sideOf(9).Name)
		if made, err := s.Create(name); err == nil {
			if filepath.Base(name) != name || made.Close() != nil {
				t.Errorf("Create(%q) = nil; want an error", name)
			}
		}
		if again, err := s.Reopen(name); err == nil {
			again.Close()
		}
		for _, err := range []error{s.SetAside(name), s.Remove(name), s.Discard(name, Ready)} {
			if err == nil && checkName(name) != nil {
				t.Errorf("a step with %q succeeded; want an error", name)
			}
		}
		after := looks(t, base)
		for p := range after {
			if p == "spool/quarantine" || filepath.Dir(p) == "spool/quarantine" && checkName(filepath.Base(p)) == nil || name == sideOf(9).Name {
				delete(after, p)
				delete(before, p)
			}
		}
		if diff := cmp.Diff(before, after); diff != "" && name != theirs.Name && name != sideOf(9).Name {
			t.Errorf("what is there after steps with %q (-before +after):\n%s", name, diff)
		}
	})
}
