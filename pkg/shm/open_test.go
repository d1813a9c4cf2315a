package shm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRightsAreTheOwnersAlone(t *testing.T) {
	defer unix.Umask(unix.Umask(0)) // the least careful one
	path := folder(t).Path() + "/made/here"
	dir := openDir(t, path)
	w := create(t, dir, 1, Options{Slots: 3, SlotBytes: 64})
	publish(t, w, 1)
	modes := map[string]os.FileMode{".": 0o700}
	for _, f := range files(t, dir) {
		modes[f] = 0o600
	}
	if len(modes) != 5 {
		t.Errorf("files = %v; want ctl, dat, cur, lock", modes)
	}
	for name, want := range modes {
		if st, err := os.Stat(path + "/" + name); err != nil || st.Mode().Perm() != want {
			t.Errorf("mode of %s = %v, %v; want %v", name, st.Mode().Perm(), err, want)
		}
	}
}

func TestOpenDirRefusesAFolderOthersMayEnter(t *testing.T) {
	for _, mode := range []os.FileMode{0o755, 0o750, 0o701, 0o777, 0o720} {
		path := t.TempDir()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		dir, err := OpenDir(path)
		if err == nil {
			dir.Close()
			t.Errorf("OpenDir() of a folder of mode %o succeeded; want an error", mode)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%#o", uint32(mode))) || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenDir() = %q; want it to name %#o and %s", err, uint32(mode), path)
		}
	}
}

func TestOpenDirRefusesAnotherUsersFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a folder to another user needs root")
	}
	path := t.TempDir()
	if err := errors.Join(os.Chmod(path, 0o700), os.Chown(path, 12345, -1)); err != nil {
		t.Fatal(err)
	}
	dir, err := OpenDir(path)
	if err == nil {
		dir.Close()
		t.Fatal("OpenDir() of another user's folder succeeded; want an error")
	}
	if !strings.Contains(err.Error(), "user 12345") {
		t.Errorf("OpenDir() = %q; want it to name user 12345", err)
	}
}

const (
	ctlName = "porch.video.0000000000000001.ctl"
	datName = "porch.video.0000000000000001.dat"
)

// spoiled is a ring's folder, its writer gone, with the file spoiled.
func spoiled(t *testing.T, spoil func(dir string) error) *Dir {
	t.Helper()
	dir := folder(t)
	w := create(t, dir, 1, Options{Slots: 4, SlotBytes: 1000, Meta: []byte(`{}`)})
	publish(t, w, 5)
	if err := errors.Join(w.Retire(), spoil(dir.Path()+"/")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFilesThatAreNoRingAreRefused(t *testing.T) {
	const cur = "porch.video.cur"
	swap := func(name string, put func(path string) error) func(string) error {
		return func(dir string) error {
			return errors.Join(os.Rename(dir+name, dir+"aside"), put(dir+name))
		}
	}
	link := func(path string) error { return os.Symlink("aside", path) }
	fifo := func(path string) error { return unix.Mkfifo(path, 0o600) }
	folder := func(path string) error { return os.Mkdir(path, 0o700) }
	size := func(name string, n int64) func(string) error {
		return func(dir string) error { return os.Truncate(dir+name, n) }
	}
	u32 := func(off int64, v uint32) func(string) error {
		return func(dir string) error { return poke(dir+ctlName, off, binary.LittleEndian.AppendUint32(nil, v)) }
	}
	u64 := func(off int64, v uint64) func(string) error {
		return func(dir string) error { return poke(dir+ctlName, off, binary.LittleEndian.AppendUint64(nil, v)) }
	}
	for name, spoil := range map[string]func(dir string) error{
		"ctl a symlink": swap(ctlName, link), "ctl a FIFO": swap(ctlName, fifo), "ctl a folder": swap(ctlName, folder),
		"dat a symlink": swap(datName, link), "dat a FIFO": swap(datName, fifo), "dat a folder": swap(datName, folder),
		"cur a symlink": swap(cur, link), "cur a FIFO": swap(cur, fifo),
		"cur no epoch": func(dir string) error { return os.WriteFile(dir+cur, []byte("new\n"), 0o600) },
		"cur endless":  size(cur, 1<<40),
		"ctl empty":    size(ctlName, 0), "ctl cut in the header": size(ctlName, 4095), "ctl cut in the records": size(ctlName, 4096),
		"ctl grown": size(ctlName, 2<<16), "ctl endless": size(ctlName, 1<<40),
		"dat empty": size(datName, 0), "dat cut": size(datName, 65535), "dat grown": size(datName, 2<<16),
		"magic": u32(0, 0), "version": u32(8, 2), "records elsewhere": u32(12, 64), "another epoch": u64(16, 2),
		"no slots": u32(24, 0), "two slots": u32(24, 2), "too many slots": u32(24, 1<<31), "more slots than records": u32(24, 961),
		"slots of nothing": u64(32, 0), "slots too large": u64(32, 1<<40), "negative slots": u64(32, 1<<63),
		"no stride": u64(40, 0), "stride below the slot": u64(40, 64), "stride that overflows": u64(40, math.MaxUint64),
		"meta beyond its place": u32(192, 1853), "meta endless": u32(192, math.MaxUint32),
	} {
		t.Run(name, func(t *testing.T) {
			dir := spoiled(t, spoil)
			r, err := OpenReader(dir, ring, "reader", 1)
			var format *FormatError
			if !errors.As(err, &format) {
				t.Errorf("OpenReader() = %v; want a FormatError", err)
			}
			if err == nil {
				r.Close()
				return
			}
			if !strings.Contains(err.Error(), dir.Path()+"/porch.video.") {
				t.Errorf("error %q does not name the file", err)
			}
			if n, m := openFiles(t, dir), mapped(t, dir); n != 0 || m != 0 {
				t.Errorf("files open, mapped after a refusal = %d, %d; want 0, 0", n, m)
			}
		})
	}
}

func poke(path string, off int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, off)
	return errors.Join(err, f.Close())
}

// openFiles counts this process's descriptors of ring files in the folder.
func openFiles(t *testing.T, dir *Dir) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && strings.HasPrefix(to, dir.Path()+"/") {
			n++
		}
	}
	return n
}

// mapped counts this process's mappings of ring files in the folder.
func mapped(t *testing.T, dir *Dir) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(maps, []byte(dir.Path()+"/"))
}

func TestNothingStaysOpen(t *testing.T) {
	dir := folder(t)
	for epoch := range Epoch(6) {
		w, err := Create(dir, ring, epoch+1, Options{Slots: 4, SlotBytes: 64, KeepDead: 2})
		if err != nil {
			t.Fatal(err)
		}
		publish(t, w, 3)
		r, err := OpenReader(dir, ring, "reader", 2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenReader(dir, ring, "one too many", 1); err == nil {
			t.Fatal("a reader beyond the slots was admitted")
		}
		if n, m := openFiles(t, dir), mapped(t, dir); n != 3 || m != 4 {
			t.Fatalf("files open, mapped by a writer and a reader = %d, %d; want 3 (lock, ctl, ctl), 4 (ctl, dat of each)", n, m)
		}
		l, err := r.Latest()
		lease(t, l, err).Release()
		if err := errors.Join(r.Close(), w.Retire()); err != nil {
			t.Fatal(err)
		}
	}
	if n, m := openFiles(t, dir), mapped(t, dir); n != 0 || m != 0 {
		t.Errorf("files open, mapped after all was closed = %d, %d; want 0, 0", n, m)
	}
}

// The layout is a promise to clients in other languages: the numbers here
// stand in doc.go and are not derived from the code.
func TestControlFileLayout(t *testing.T) {
	dir := folder(t)
	w := create(t, dir, 0xabc, Options{Slots: 5, SlotBytes: 5000, Meta: []byte(`{"a":1}`)})
	r := open(t, dir, "a reader", 3)
	publish(t, w, 6) // slots 0 to 4, then 0 again
	s, err := w.Claim()
	if err != nil {
		t.Fatal(err)
	}
	s.Publish(42, Info{Boot: 11, Wall: -12, Synced: true, User: [2]uint64{13, 14}})
	l, err := r.Latest()
	defer lease(t, l, err).Release()
	read := func(ext string) []byte {
		b, err := os.ReadFile(dir.Path() + "/porch.video.0000000000000abc." + ext)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ctl, dat := read("ctl"), read("dat")
	u32 := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(ctl[off:])) }
	u64 := func(off int) uint64 { return binary.LittleEndian.Uint64(ctl[off:]) }
	got := map[string]uint64{
		"size": uint64(len(ctl)), "version": u32(8), "records": u32(12), "epoch": u64(16), "slots": u32(24), "readers": u32(28),
		"slot bytes": u64(32), "stride": u64(40), "writer pid": u32(56), "latest": u64(64), "published": u64(128), "dropped": u64(136),
		"heartbeat": u64(144), "closed": u32(152), "meta length": u32(192),
		"reader pid": u32(2048), "reader pins": u32(2052), "reader last": u64(2064), "no reader": u64(2048 + 64),
		"word of slot 1": u64(4096 + 64), "sequence": u64(4096 + 72), "captured boot": u64(4096 + 80), "captured wall": u64(4096 + 88),
		"length": u32(4096 + 96), "flags": u32(4096 + 100), "user 0": u64(4096 + 104), "user 1": u64(4096 + 112),
		"word of slot 0": u64(4096), "dat size": uint64(len(dat)), "slot 4 in dat": binary.LittleEndian.Uint64(dat[4*8192:]),
	}
	pid := uint64(os.Getpid())
	want := map[string]uint64{
		"size": 65536, "version": 1, "records": 4096, "epoch": 0xabc, "slots": 5, "readers": 31,
		"slot bytes": 5000, "stride": 8192, "writer pid": pid, "latest": 2<<32 | 1, "published": 7, "dropped": 0,
		"heartbeat": 11, "closed": 0, "meta length": 7,
		"reader pid": pid, "reader pins": 3, "reader last": 6, "no reader": 0,
		"word of slot 1": 2<<32 | 1, "sequence": 6, "captured boot": 11, "captured wall": math.MaxUint64 - 11,
		"length": 42, "flags": 1, "user 0": 13, "user 1": 14,
		"word of slot 0": 2 << 32, "dat size": 65536, "slot 4 in dat": word(4, 0),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("control file (-want +got):\n%s", d)
	}
	if string(ctl[:8]) != "perchrng" || string(ctl[196:203]) != `{"a":1}` || string(bytes.TrimRight(ctl[2072:2112], "\x00")) != "a reader" {
		t.Errorf("magic %q, meta %q, name %q; want perchrng, {\"a\":1}, a reader", ctl[:8], ctl[196:203], ctl[2072:2112])
	}
	if cur, err := os.ReadFile(dir.Path() + "/porch.video.cur"); err != nil || string(cur) != "0000000000000abc\n" {
		t.Errorf("cur = %q, %v; want the epoch's 16 digits and a newline", cur, err)
	}
}

// FuzzOpen spoils the control file anywhere. Whatever stands there, a reader
// opens it or refuses it, and what it hands out lies inside of its mapping.
func FuzzOpen(f *testing.F) {
	dir := folder(f)
	w, err := Create(dir, ring, 1, Options{Slots: 4, SlotBytes: 100, Meta: []byte(`{"kind":"frame"}`)})
	if err != nil {
		f.Fatal(err)
	}
	publish(f, w, 6)
	if err := w.Retire(); err != nil {
		f.Fatal(err)
	}
	path := dir.Path() + "/" + ctlName
	sound, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for _, off := range []uint16{0, 8, 12, 16, 24, 28, 32, 40, 64, 128, 192, 2048, 2052, 4096, 4104, 4128, 4132, 4160, 4352} {
		f.Add(off, []byte{0xff}, int64(0))
		f.Add(off, bytes.Repeat([]byte{0xff}, 8), int64(1))
		f.Add(off, make([]byte, 8), int64(-1))
	}
	f.Fuzz(func(t *testing.T, off uint16, b []byte, grow int64) {
		spoiled := bytes.Clone(sound)
		copy(spoiled[off:], b)
		spoiled = spoiled[:max(0, min(int64(len(spoiled)), int64(len(spoiled))+grow))]
		if err := os.WriteFile(path, spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = dir.Meta(ring) // whatever they say, they do not panic
		_, _ = dir.Status(ring)
		r, err := OpenReader(dir, ring, "fuzz", 1)
		var format *FormatError
		if err != nil {
			if !errors.As(err, &format) {
				t.Errorf("OpenReader() = %v; want a FormatError", err)
			}
			return
		}
		defer r.Close()
		seqs := []uint64{0, 1, 5, 6, r.Published() - 1, noSeq}
		for i := range r.slots {
			seqs = append(seqs, r.ctl.seq(i).Load())
		}
		for i, seq := range seqs {
			l, err := r.At(seq)
			if i == 0 {
				l.Release()
				l, err = r.Latest()
			}
			if err != nil {
				continue
			}
			if n := len(l.Bytes()); n > r.slotBytes {
				t.Errorf("a message of %d bytes in slots of %d", n, r.slotBytes)
			}
			_ = whole(l.Bytes(), seq) // looks at every byte
			l.Release()
		}
	})
}
