package spool

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

func open(t *testing.T, dir string) *Spool {
	t.Helper()
	s, err := Open(dir, Work, Ready)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// sideOf is the sidecar of the worker's n-th file, before Complete has measured it.
func sideOf(n uint64) *sidecar.Sidecar {
	id := sidecar.NewID("air-csv", start(), 0x1234, n)
	return &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ".csv", Media: "text/csv", Worker: "air-csv",
		Source: "reading/air/environment", History: []sidecar.Event{{State: "ready", Time: msg.Time{Time: start()}, By: "air-csv", Reason: "the date changed"}}}
}

func create(t *testing.T, s *Spool, name, text string) *os.File {
	t.Helper()
	f, err := s.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

// tree lists a folder's files with their texts, the reserve left out.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == reserveName {
			return err
		}
		text, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func names(files map[string]string) []string {
	var list []string
	for name := range files {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func TestCompleteMeasuresTheFileAndMovesIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	side := sideOf(1)
	f := create(t, s, side.Name, "time,seq\n1,2\n")
	if err := s.Complete(f, Ready, side); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("time,seq\n1,2\n"))
	if side.Bytes != 13 || side.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("sidecar has %d bytes, sha256 %s; want 13, %x", side.Bytes, side.SHA256, sum)
	}
	files := tree(t, dir)
	if got, want := names(files), []string{"ready/" + side.Name, "ready/" + string(side.ID) + ".json"}; !slices.Equal(got, want) {
		t.Fatalf("files = %v; want %v", got, want)
	}
	if got := files["ready/"+side.Name]; got != "time,seq\n1,2\n" {
		t.Errorf("file = %q; want what was written", got)
	}
	read, err := s.Sidecar(Ready, side.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(side, read); diff != "" {
		t.Errorf("Sidecar() (-want +got):\n%s", diff)
	}
}

// What a power cut leaves depends on the order of these calls: each name is
// made durable before the next step relies on it.
func TestCompleteSyncsBeforeItRelies(t *testing.T) {
	faults, _, at := mount(t)
	s := open(t, at)
	side := sideOf(1)
	f := create(t, s, side.Name, "rows")
	faults.Calls()
	if err := s.Complete(f, Ready, side); err != nil {
		t.Fatal(err)
	}
	id := string(side.ID)
	want := append([]string{"sync work/" + id + ".csv"}, placing(side, "work/"+id+".csv", Ready)...)
	if diff := cmp.Diff(want, faults.Calls()); diff != "" {
		t.Errorf("calls of Complete (-want +got):\n%s", diff)
	}
	if err := s.WriteAtom("latest.jpg", []byte("picture")); err != nil {
		t.Fatal(err)
	}
	want = []string{"create latest.jpg.new", "write latest.jpg.new", "sync latest.jpg.new", "rename latest.jpg.new latest.jpg", "sync ."}
	if diff := cmp.Diff(want, faults.Calls()); diff != "" {
		t.Errorf("calls of WriteAtom (-want +got):\n%s", diff)
	}
}

func TestCompleteReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first, second := sideOf(1), sideOf(1)
	if err := s.Complete(create(t, s, first.Name, "first"), Ready, first); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	f := create(t, s, second.Name, "second")
	if err := s.Complete(f, Ready, second); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Complete() over another file = %v; want fs.ErrExist", err)
	}
	before["work/"+second.Name] = "second"
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("files after it (-want +got):\n%s", diff)
	}
	if err := s.Discard(second.Name, Ready); err != nil {
		t.Fatal(err)
	}
	delete(before, "work/"+second.Name)
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("files after Discard, which must leave the other's sidecar (-want +got):\n%s", diff)
	}
}

// A kill between any two steps leaves a state that Complete can go on from.
func TestCompleteGoesOnWhereItWasCutOff(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	side := sideOf(1)
	f := create(t, s, side.Name, "rows")
	id := string(side.ID)
	for name, text := range map[string]string{"work/" + id + ".json.new": "{half a sid", "ready/" + id + ".json": "an older one"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Complete(f, Ready, side); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sidecar(Ready, side.ID); err != nil {
		t.Errorf("Sidecar() = %v; want the new one", err)
	}
	if got := names(tree(t, dir)); !slices.Equal(got, []string{"ready/" + id + ".csv", "ready/" + id + ".json"}) {
		t.Errorf("files = %v; want the file and its sidecar", got)
	}
}

func TestCompleteRefusesAnExchangedFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	side := sideOf(1)
	f := create(t, s, side.Name, "ours")
	name := filepath.Join(dir, "work", side.Name)
	if err := errors.Join(os.Remove(name), os.WriteFile(name, []byte("theirs"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Complete(f, Ready, side); err == nil {
		t.Error("Complete() of a file that was exchanged = nil; want an error")
	}
	if got := names(tree(t, dir)); !slices.Equal(got, []string{"work/" + side.Name}) {
		t.Errorf("files = %v; want the one in work/", got)
	}
}

func TestOpenRefusesAStateThatIsNoFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/tmp", filepath.Join(dir, "work")); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir, Work); err == nil {
		s.Close()
		t.Error("Open() with work/ a symbolic link = nil; want an error")
	}
}

func TestWriteAtomReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.ReadAtom("work/air.journal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadAtom() of nothing = %v; want fs.ErrNotExist", err)
	}
	for _, text := range []string{"a longer first one", "short"} {
		if err := s.WriteAtom("work/air.journal", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.ReadAtom("work/air.journal"); err != nil || string(got) != text {
			t.Errorf("ReadAtom() = %q, %v; want %q", got, err, text)
		}
	}
	if got := names(tree(t, dir)); !slices.Equal(got, []string{"work/air.journal"}) {
		t.Errorf("files = %v; want the journal alone", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, sidecar.MaxBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAtom("big"); err == nil {
		t.Error("ReadAtom() of more than a MiB = nil; want an error")
	}
}

func TestClaimHasOneHolder(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	c, err := s.Claim("latest.jpg")
	if err != nil {
		t.Fatal(err)
	}
	held := (*lockfile.HeldError)(nil)
	if _, err := other.Claim("latest.jpg"); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("Claim() of a claimed name = %v; want a HeldError that names process %d", err, os.Getpid())
	}
	if err := c.Write([]byte("picture")); err != nil {
		t.Error(err)
	}
	if err := c.Release(); err != nil {
		t.Error(err)
	}
	again, err := other.Claim("latest.jpg")
	if err != nil {
		t.Fatalf("Claim() after Release = %v; want nil", err)
	}
	if err := again.Release(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]string{"latest.jpg": "picture"}, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestRemoveUnfinishedLeavesNothingOfTheWorker(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	done, begun, half := sideOf(1), sideOf(2), sideOf(3)
	if err := s.Complete(create(t, s, done.Name, "done"), Ready, done); err != nil {
		t.Fatal(err)
	}
	create(t, s, begun.Name, "begun")
	create(t, s, half.Name, "half")
	// Killed in Complete: once before the sidecar's rename, once after it.
	others := map[string]string{"work/" + string(begun.ID) + ".json.new": "{", "ready/" + string(half.ID) + ".json": "{}",
		"work/air-csv.journal": "{}", "work/" + strings.Replace(begun.Name, "air-csv", "air-csv2", 1): "of another"}
	for name, text := range others {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.RemoveUnfinished("air-csv", Ready); n != 2 || err != nil {
		t.Errorf("RemoveUnfinished() = %d, %v; want 2, nil", n, err)
	}
	want := []string{"ready/" + done.Name, "ready/" + string(done.ID) + ".json", "work/air-csv.journal",
		"work/" + strings.Replace(begun.Name, "air-csv", "air-csv2", 1)}
	slices.Sort(want)
	if got := names(tree(t, dir)); !slices.Equal(got, want) {
		t.Errorf("files = %q; want %q", got, want)
	}
	if n, err := s.RemoveUnfinished("air-csv", Ready); n != 0 || err != nil {
		t.Errorf("RemoveUnfinished() again = %d, %v; want 0, nil", n, err)
	}
}

func TestSetAsideKeepsTheFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	side := sideOf(1)
	create(t, s, side.Name, "odd")
	if err := s.SetAside(side.Name); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"quarantine/" + side.Name: "odd"}, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestFullDiskLeavesNothingHalf(t *testing.T) {
	dir := t.TempDir()
	if err := faultfs.Tmpfs(dir, 64<<10); errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := faultfs.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	s := open(t, dir)
	side := sideOf(1)
	f := create(t, s, side.Name, strings.Repeat("row\n", 1000))
	if err := s.WriteAtom("latest.jpg", []byte("old")); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte("x"), 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk = %v; want ENOSPC", err)
	}
	for what, err := range map[string]error{"Complete": s.Complete(f, Ready, side), "WriteAtom": s.WriteAtom("latest.jpg", bytes.Repeat([]byte("new"), 9000))} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s() on a full disk = %v; want ENOSPC", what, err)
		}
	}
	want := []string{"ballast", "latest.jpg", "work/" + side.Name}
	if got := names(tree(t, dir)); !slices.Equal(got, want) {
		t.Errorf("files on a full disk = %v; want %v", got, want)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Complete(f, Ready, side); err != nil {
		t.Errorf("Complete() with room again = %v; want nil", err)
	}
	if got, err := s.ReadAtom("latest.jpg"); err != nil || string(got) != "old" {
		t.Errorf("latest.jpg = %q, %v; want it as before", got, err)
	}
}

func TestListIsInOrderAndOfOneWorker(t *testing.T) {
	s := open(t, t.TempDir())
	var want []string
	for n := range uint64(12) {
		side := sideOf(n)
		create(t, s, side.Name, "")
		want = append(want, side.Name)
	}
	create(t, s, strings.Replace(sideOf(1).Name, "air-csv", "air", 1), "")
	got, err := s.List(Work, "air-csv")
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("List() = %q, %v; want %q", got, err, want)
	}
	if got := s.Path(Ready, "x"); got != fmt.Sprintf("%s/ready/x", s.Dir()) {
		t.Errorf("Path() = %q; want it in %s", got, s.Dir())
	}
}
