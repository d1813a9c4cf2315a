package faultfs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mount(t *testing.T) (f *FS, backing, at string) {
	t.Helper()
	backing, at = t.TempDir(), t.TempDir()
	f, err := Mount(backing, at)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unmount(at); err != nil {
			t.Error(err)
		}
	})
	return f, backing, at
}

func TestCallsAreNotedInOrder(t *testing.T) {
	f, backing, at := mount(t)
	if err := os.Mkdir(at+"/work", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(at+"/work/a", []byte("one\n"), 0o600), os.Rename(at+"/work/a", at+"/b"), os.Remove(at+"/b")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/work", ""} {
		dir, err := os.Open(at + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
			t.Errorf("sync of folder %q = %v; want none", name, err)
		}
	}
	want := []string{"mkdir work", "create work/a", "write work/a", "rename work/a b", "unlink b", "sync work", "sync ."}
	if diff := cmp.Diff(want, f.Calls()); diff != "" {
		t.Errorf("Calls() (-want +got):\n%s", diff)
	}
	if got := f.Calls(); len(got) != 0 {
		t.Errorf("Calls() again = %v; want none", got)
	}
	if _, err := os.Stat(backing + "/work"); err != nil {
		t.Error(err)
	}
}

// A failed sync is what fsync(2) warns of: the next one succeeds and the data
// are gone.
func TestFailedSyncLosesWhatWasNotSafe(t *testing.T) {
	f, backing, at := mount(t)
	file, err := os.Create(at + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	write := func(text string) {
		t.Helper()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write("safe")
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	f.FailSyncs(1, "", false)
	write("lost")
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync() = %v; want EIO", err)
	}
	if err := file.Sync(); err != nil || f.Failing() != 0 {
		t.Errorf("Sync() = %v with %d failures to come; want nil, 0", err, f.Failing())
	}
	got, err := os.ReadFile(backing + "/a")
	if want := []byte("safe\x00\x00\x00\x00"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("backing file = %q, %v; want %q", got, err, want)
	}
}

func TestBreakStopsBeforeACall(t *testing.T) {
	f, backing, at := mount(t)
	var did atomic.Bool
	f.Break(3, func() { did.Store(true) })
	if err := os.WriteFile(at+"/a", []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if did.Load() || f.Broken() {
		t.Error("it broke before the third call")
	}
	if err := os.Rename(at+"/a", at+"/b"); !errors.Is(err, syscall.EIO) || !did.Load() || !f.Broken() {
		t.Errorf("Rename() as the third call = %v; want EIO", err)
	}
	if err := os.Remove(at + "/a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("Remove() after that = %v; want EIO", err)
	}
	f.Break(0, nil)
	if err := os.Rename(at+"/a", at+"/b"); err != nil {
		t.Errorf("Rename() after Break(0) = %v; want nil", err)
	}
	if got, err := os.ReadFile(backing + "/b"); err != nil || string(got) != "one\n" {
		t.Errorf("backing file = %q, %v; want what was written", got, err)
	}
}

func TestFailFailsOneCall(t *testing.T) {
	f, _, at := mount(t)
	f.Fail(2, syscall.ENOSPC, true)
	if err := os.WriteFile(at+"/a", []byte("one\n"), 0o600); !errors.Is(err, syscall.ENOSPC) || !f.Broken() {
		t.Errorf("WriteFile() with its second call failing = %v; want ENOSPC", err)
	}
	if err := os.WriteFile(at+"/b", []byte("one\n"), 0o600); err != nil {
		t.Errorf("WriteFile() after that = %v; want nil", err)
	}
	f.Fail(1, syscall.EROFS, false)
	for range 2 {
		if err := os.Remove(at + "/b"); !errors.Is(err, syscall.EROFS) {
			t.Errorf("Remove() = %v; want EROFS, each time", err)
		}
	}
	f.Fail(0, 0, false)
	want := []string{"create a", "write failed a", "create b", "write b", "unlink failed b", "unlink failed b"}
	if diff := cmp.Diff(want, f.Calls()); diff != "" {
		t.Errorf("Calls() (-want +got):\n%s", diff)
	}
}

func TestFailSyncFailsOneSync(t *testing.T) {
	f, backing, at := mount(t)
	file, err := os.Create(at + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f.FailSync(2, false)
	for n, want := range []error{nil, syscall.EIO, nil} {
		if _, err := file.WriteString("text"); err != nil {
			t.Fatal(err)
		}
		if err := file.Sync(); !errors.Is(err, want) || f.Broken() != (n > 0) {
			t.Errorf("Sync() no. %d = %v, broken: %v; want %v", n+1, err, f.Broken(), want)
		}
	}
	got, err := os.ReadFile(backing + "/a")
	if want := []byte("text\x00\x00\x00\x00text"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("backing file = %q, %v; want %q", got, err, want)
	}
}

// What cannot be written to any more can still be read.
func TestReadOnly(t *testing.T) {
	f, _, at := mount(t)
	if err := os.WriteFile(at+"/a", []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Fail(1, syscall.EROFS, false)
	if file, err := os.OpenFile(at+"/a", os.O_RDWR, 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("OpenFile() = %v, %v; want EROFS", file, err)
	}
	if got, err := os.ReadFile(at + "/a"); err != nil || string(got) != "one\n" {
		t.Errorf("ReadFile() = %q, %v; want what was written", got, err)
	}
}

func TestTmpfsIsSoonFull(t *testing.T) {
	at := t.TempDir()
	if err := Tmpfs(at, 64<<10); errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := Unmount(at); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(at+"/a", make([]byte, 128<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteFile() = %v; want ENOSPC", err)
	}
}

func TestWatchSeesACallBeforeItIsMade(t *testing.T) {
	f, backing, at := mount(t)
	f.Watch(func(call string) {
		if text, err := os.ReadFile(backing + "/b"); call == "truncate b" && (err != nil || string(text) != "text") {
			t.Errorf("before the call the file is %q, %v; want it whole", text, err)
		}
		if call == "truncate b" {
			f.Fail(1, syscall.ENOSPC, true)
		}
	})
	for _, name := range []string{"/a", "/b"} {
		if err := os.WriteFile(at+name, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(at+"/a", 1); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(at+"/b", 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a call that the watcher makes fail = %v; want ENOSPC", err)
	}
	f.Watch(nil)
	if err := os.Truncate(at+"/b", 1); err != nil {
		t.Errorf("the next call = %v; want nil", err)
	}
}

// A program that holds the mount's end would keep it, and all who wait for it,
// when the test that serves it is killed.
func TestProgramsDoNotInheritTheMount(t *testing.T) {
	at := t.TempDir()
	if _, err := Mount(t.TempDir(), at); errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := Unmount(at); err != nil {
			t.Error(err)
		}
	}()
	out, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
	if err != nil || strings.Contains(string(out), "/dev/fuse") {
		t.Errorf("a program has open: %v\n%s\nwant no /dev/fuse", err, out)
	}
}
