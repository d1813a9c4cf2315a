package shm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// smallFolder is a ring folder on a tmpfs of that many bytes and inodes.
func smallFolder(t *testing.T, size, inodes int64) *Dir {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	path := t.TempDir()
	options := fmt.Sprintf("size=%d,nr_inodes=%d,mode=0700,huge=never", size, inodes)
	err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	if errors.Is(err, unix.EINVAL) { // a kernel without huge pages for tmpfs does not know the option
		err = unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, strings.TrimSuffix(options, ",huge=never"))
	}
	if err != nil {
		t.Skipf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return openDir(t, path)
}

func free(t *testing.T, dir *Dir) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir.Path(), &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // int32 on 32-bit machines
}

func wantFull(t *testing.T, dir *Dir, o Options, need, free, total int64) {
	t.Helper()
	w, err := Create(dir, ring, 1, o)
	if err == nil {
		w.Close()
		t.Fatalf("Create() of a ring of %d bytes with %d free succeeded; want a FullError", need, free)
	}
	var full *FullError
	if !errors.As(err, &full) {
		t.Fatalf("Create() on a full tmpfs = %v; want a FullError", err)
	}
	want := FullError{Ring: ring, Dir: dir.Path(), Slots: o.Slots, SlotBytes: o.SlotBytes, NeedBytes: need, FreeBytes: free, TotalBytes: total}
	if *full != want {
		t.Errorf("Create() on a full tmpfs = %+v; want %+v", *full, want)
	}
	for _, n := range []int64{need, free, total} {
		if !strings.Contains(err.Error(), fmt.Sprint(n)) {
			t.Errorf("error %q does not say %d", err, n)
		}
	}
}

func TestFullTmpfsIsRefusedWithNumbers(t *testing.T) {
	o := Options{Slots: 4, SlotBytes: 100_000}
	page := int64(os.Getpagesize())
	// 4,352 bytes of control and 4 slots of 102,400, in units of 64 KiB; a page
	// for the lock and one for the current epoch.
	need := int64(65536+458752) + 2*page
	for _, size := range []int64{need - page, need / 2, 2 * page} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir := smallFolder(t, size, 100)
			wantFull(t, dir, o, need, size, size)
			wantFiles(t, dir, "after a refusal")
			if got := free(t, dir); got != size {
				t.Errorf("free bytes after a refusal = %d; want %d", got, size)
			}
		})
	}
	t.Run("nothing free", func(t *testing.T) {
		dir := smallFolder(t, 16*page, 100)
		if err := dir.root.WriteFile("other", make([]byte, 16*page), 0o600); err != nil {
			t.Fatal(err)
		}
		wantFull(t, dir, o, need, 0, 16*page)
		wantFiles(t, dir, "after a refusal", "other")
	})
}

// With exactly the bytes it asks for, a ring has real memory behind every
// byte: filling the rest of the tmpfs afterwards takes nothing from it.
func TestRingThatFitsNeverFaults(t *testing.T) {
	o := Options{Slots: 4, SlotBytes: 100_000}
	page := int64(os.Getpagesize())
	size := int64(Footprint(o.Slots, o.SlotBytes)) + 2*page
	dir := smallFolder(t, size, 100)
	w := create(t, dir, 1, o)
	if got := free(t, dir); got != 0 {
		t.Fatalf("free bytes beside a ring that just fits = %d; want 0", got)
	}
	r := open(t, dir, "reader", 2)
	publish(t, w, 20) // a SIGBUS would end this process
	drain(t, r, 16, 20)
	for i := range w.dat {
		w.dat[i] = 1
	}
}

func TestNoInodeIsNotToldAsNoBytes(t *testing.T) {
	dir := smallFolder(t, 16<<20, 3) // the folder itself and two files
	_, err := Create(dir, ring, 1, Options{Slots: 3, SlotBytes: 64})
	var full *FullError
	if err == nil || errors.As(err, &full) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Create() without inodes = %v; want ENOSPC and no FullError, since there are bytes", err)
	}
	wantFiles(t, dir, "after a refusal")
}
