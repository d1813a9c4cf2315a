package gone

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/sidecar"
)

func idOf(n int) sidecar.ID {
	return sidecar.ID(fmt.Sprintf("porch-clips_20260517T094057Z_000283baec0033c3-%06d", n))
}

// sideOf is a gone file's sidecar.
func sideOf(n int, reason string) *sidecar.Sidecar {
	id := idOf(n)
	side := &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ".mp4", Media: "video/mp4", SHA256: strings.Repeat("0", 64)}
	side.Add(sidecar.Event{State: "born", Reason: "4 s were over"})
	side.Add(sidecar.Event{State: "gone", Reason: reason})
	return side
}

func open(t *testing.T, dir string, most int64) *Log {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(root, most)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendTo(t *testing.T, l *Log, sides ...*sidecar.Sidecar) {
	t.Helper()
	if err := l.Append(sides...); err != nil {
		t.Fatal(err)
	}
}

func closeLog(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantReason wants a file to be found, gone for that reason; "" is not at all.
func wantReason(t *testing.T, dir string, n int, want string) {
	t.Helper()
	side, err := Find(dir, idOf(n))
	switch {
	case want == "" && !errors.Is(err, fs.ErrNotExist):
		t.Errorf("Find(%d) = %v, %v; want fs.ErrNotExist", n, side, err)
	case want == "":
	case err != nil:
		t.Errorf("Find(%d) = %v; want its sidecar", n, err)
	case side.History[len(side.History)-1].Reason != want || side.State() != "gone":
		t.Errorf("Find(%d) is gone for %q; want %q", n, side.History[len(side.History)-1].Reason, want)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	wantReason(t, filepath.Join(dir, "absent"), 1, "")
	l := open(t, dir, MinBytes)
	wantReason(t, dir, 1, "")
	appendTo(t, l, sideOf(1, "dropped"), sideOf(2, "sent"))
	appendTo(t, l, sideOf(1, "dropped, said again after a kill"))
	wantReason(t, dir, 1, "dropped, said again after a kill")
	wantReason(t, dir, 2, "sent")
	closeLog(t, l)
	l = open(t, dir, MinBytes)
	appendTo(t, l, sideOf(3, "after a restart"))
	closeLog(t, l)
	for n, want := range map[int]string{1: "dropped, said again after a kill", 2: "sent", 3: "after a restart", 4: ""} {
		wantReason(t, dir, n, want)
	}
	if _, err := Find(dir, "../../etc/passwd"); err == nil {
		t.Error("Find(../../etc/passwd) = nil; want an error")
	}
}

// The oldest are forgotten, the newest never, and the log stays within its bound.
func TestBound(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, MinBytes)
	const files = 2000
	for n := 0; n < files; n += 25 {
		var batch []*sidecar.Sidecar
		for i := range 25 {
			batch = append(batch, sideOf(n+i, strings.Repeat("x", 1000)))
		}
		appendTo(t, l, batch...)
	}
	closeLog(t, l)
	all, err := filepath.Glob(dir + "/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, p := range all {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > MinBytes || total < MinBytes/2 {
		t.Errorf("%d segments have %d bytes; want at most %d, and no less than half of that", len(all), total, MinBytes)
	}
	wantReason(t, dir, 0, "")
	wantReason(t, dir, files-1, strings.Repeat("x", 1000))
	wantReason(t, dir, files-300, strings.Repeat("x", 1000))
}

// A power cut tears the last line anywhere; all before it stays, and what comes
// after it is whole.
func TestTornLine(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, MinBytes)
	appendTo(t, l, sideOf(1, "whole"))
	closeLog(t, l)
	path := filepath.Join(dir, segment{number: 1}.name())
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for torn := 0; torn < len(whole); torn += 7 {
		if err := os.WriteFile(path, append(whole[:len(whole):len(whole)], strings.Replace(string(whole), "-000001", "-000002", 2)[:torn]...), 0o600); err != nil {
			t.Fatal(err)
		}
		wantReason(t, dir, 2, "")
		l := open(t, dir, MinBytes)
		appendTo(t, l, sideOf(3, "after it"))
		closeLog(t, l)
		wantReason(t, dir, 1, "whole")
		wantReason(t, dir, 2, "")
		wantReason(t, dir, 3, "after it")
		if t.Failed() {
			t.Fatalf("torn after %d bytes", torn)
		}
	}
}

// Zeros, as a power cut leaves them, foreign names, and lines without an end are
// no reason not to find what is there.
func TestFindSkipsWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, MinBytes)
	appendTo(t, l, sideOf(1, "first"))
	closeLog(t, l)
	path := filepath.Join(dir, segment{number: 1}.name())
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := strings.Repeat("\x00", 4096) + "\n" + `{"id":"` + string(idOf(1)) + `"}` + "\n" + strings.Repeat("y", sidecar.MaxBytes+100) + "\n"
	if _, err := f.WriteString(junk); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Mkdir(filepath.Join(dir, "00000009.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "00000008.jsonl")); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, 4*MinBytes)
	appendTo(t, l, sideOf(2, "second"))
	closeLog(t, l)
	wantReason(t, dir, 1, "first")
	wantReason(t, dir, 2, "second")
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, MinBytes)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	held := (*lockfile.HeldError)(nil)
	if _, err := Open(root, MinBytes); !errors.As(err, &held) {
		t.Errorf("Open() beside another = %v; want a HeldError", err)
	}
	closeLog(t, l)
	closeLog(t, open(t, dir, MinBytes))
}

// What was asked for and not synced is appended again, to a new segment.
func TestFailedSync(t *testing.T) {
	dir, backing := t.TempDir(), t.TempDir()
	faults, err := faultfs.Mount(backing, dir)
	if errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer faultfs.Unmount(dir)
	l := open(t, dir, MinBytes)
	appendTo(t, l, sideOf(1, "before"))
	faults.FailSyncs(1, ".jsonl", false)
	if err := l.Append(sideOf(2, "during")); err == nil {
		t.Error("Append() with a sync that fails = nil; want an error")
	}
	appendTo(t, l, sideOf(2, "again"))
	closeLog(t, l)
	wantReason(t, dir, 1, "before")
	wantReason(t, dir, 2, "again")
	var segments []string
	entries, err := os.ReadDir(backing)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		segments = append(segments, e.Name())
	}
	if diff := cmp.Diff([]string{"00000001.jsonl", "00000002.jsonl"}, segments); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
}

// On a full disk the log still takes lines: in the room it has, and then in that
// of its oldest segment.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := faultfs.Tmpfs(dir, 1<<20); errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer faultfs.Unmount(dir)
	l := open(t, dir, MinBytes)
	appendTo(t, l, sideOf(0, "the first"))
	choke(t, dir)
	const files = 500 // four segments of them
	for n := 1; n <= files; n++ {
		appendTo(t, l, sideOf(n, strings.Repeat("x", 1000)))
	}
	closeLog(t, l)
	wantReason(t, dir, 0, "")
	wantReason(t, dir, files, strings.Repeat("x", 1000))
}

// faulty is a log's folder on a disk that can fail.
func faulty(t *testing.T) (faults *faultfs.FS, dir string) {
	t.Helper()
	dir = t.TempDir()
	faults, err := faultfs.Mount(t.TempDir(), dir)
	if errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := faultfs.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return faults, dir
}

func segmentsIn(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(dir + "/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A sick disk is not filled with segments that hold nothing.
func TestFailuresLeaveNoEmptySegments(t *testing.T) {
	faults, dir := faulty(t)
	l := open(t, dir, MinBytes)
	appendTo(t, l, sideOf(1, "before"))
	faults.FailSyncs(20, ".jsonl", false)
	for range 20 {
		if err := l.Append(sideOf(2, "during")); err == nil {
			t.Fatal("Append() with a sync that fails = nil; want an error")
		}
	}
	if all := segmentsIn(t, dir); len(all) > 2 {
		t.Errorf("there are %d segments after 20 failures; want two at most", len(all))
	}
	appendTo(t, l, sideOf(2, "again"))
	closeLog(t, l)
	wantReason(t, dir, 1, "before")
	wantReason(t, dir, 2, "again")
}

// History is given away for room only where that helps: on a disk that stays full
// whatever is removed, as its segments are still being read, one goes, and no more.
func TestShedsNoMoreThanHelps(t *testing.T) {
	dir := t.TempDir()
	if err := faultfs.Tmpfs(dir, 2<<20); errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer faultfs.Unmount(dir)
	l := open(t, dir, MinBytes)
	for n := range 400 {
		appendTo(t, l, sideOf(n, strings.Repeat("x", 1000)))
	}
	before := segmentsIn(t, dir)
	for _, name := range before {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	choke(t, dir)
	failures := 0
	for n := 400; failures < 5; n++ {
		if err := l.Append(sideOf(n, strings.Repeat("x", 1000))); errors.Is(err, syscall.ENOSPC) {
			failures++
		} else if err != nil || n > 1000 {
			t.Fatalf("Append(%d) on a full disk = %v; want ENOSPC", n, err)
		}
	}
	left := 0
	for _, name := range before {
		if _, err := os.Lstat(name); err == nil {
			left++
		}
	}
	if len(before) < 4 || left != len(before)-1 {
		t.Errorf("of %d segments %d are left; want at least 4 before, and all but one after", len(before), left)
	}
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	appendTo(t, l, sideOf(2000, "with room again"))
	closeLog(t, l)
	wantReason(t, dir, 2000, "with room again")
}

// choke writes to a file until the disk has no room left.
func choke(t *testing.T, dir string) {
	t.Helper()
	fill, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	fill.Close()
}
