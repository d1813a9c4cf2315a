package backlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The files of a log's folder: segments, the same once they are free to be used again,
// a segment in the making, and the state.
const (
	segmentExt = ".segment"
	spareExt   = ".spare"
	newExt     = ".new"
	stateName  = "state"
	lockName   = "lock"
)

func fileName(seq uint32, ext string) string { return fmt.Sprintf("%08x%s", seq, ext) }

// parseName is the number in a file's name.
func parseName(name, ext string) (seq uint32, ok bool) {
	number, ok := strings.CutSuffix(name, ext)
	n, err := strconv.ParseUint(number, 16, 32)
	return uint32(n), ok && err == nil && n < maxSeq && fileName(uint32(n), ext) == name
}

// maxSeq bounds the numbers of segments.
const maxSeq = 1<<32 - 1<<16

// folder is a log's folder.
type folder struct {
	root    *os.Root
	written int64 // bytes, in whole pages
}

// openFolder opens a folder of root, and makes it durably where it is absent.
func openFolder(root *os.Root, dir string, create bool) (*folder, error) {
	if create {
		if err := makeFolder(root, dir); err != nil {
			return nil, err
		}
	}
	sub, err := root.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open backlog: %w", err)
	}
	return &folder{root: sub}, nil
}

func makeFolder(root *os.Root, dir string) error {
	if _, err := root.Stat(dir); err == nil {
		return nil
	}
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make backlog folder: %w", err)
	}
	return syncFolder(root, parent(dir))
}

func parent(dir string) string {
	if at := strings.LastIndexByte(dir, '/'); at > 0 {
		return dir[:at]
	}
	return "."
}

// syncFolder makes durable which names a folder has (fsync(2)).
func syncFolder(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

func (d *folder) sync() error { return syncFolder(d.root, ".") }

// names lists the files whose names have a number and an extension, and their sizes.
func (d *folder) names(ext string) (map[uint32]int64, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list backlog: %w", err)
	}
	list := map[uint32]int64{}
	for _, e := range entries {
		seq, ok := parseName(e.Name(), ext)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("list backlog: %w", err)
		}
		list[seq] = info.Size()
	}
	return list, nil
}

// highest is the highest number that a name in the folder has, whatever it is a name of.
func (d *folder) highest() (seq uint32, err error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return 0, fmt.Errorf("list backlog: %w", err)
	}
	for _, e := range entries {
		for _, ext := range []string{segmentExt, spareExt, newExt} {
			if n, ok := parseName(e.Name(), ext); ok {
				seq = max(seq, n)
			}
		}
	}
	return seq, nil
}

// open opens a regular file of the folder. Others are refused: a FIFO would block, and a
// link leads elsewhere.
func (d *folder) open(name string, flag int) (*os.File, error) {
	if info, err := d.root.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: is %s; want a regular file: remove it", name, info.Mode().Type())
	}
	f, err := d.root.OpenFile(name, flag|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return f, nil
}

// read reads a file, maxSegment bytes of it at most. Pages that the disk cannot read
// are zeros, and counted.
func (d *folder) read(name string) (data []byte, unreadable int, err error) {
	f, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", name, err)
	}
	data = make([]byte, min(info.Size(), maxSegment))
	n, err := f.ReadAt(data, 0)
	if err == nil || errors.Is(err, io.EOF) {
		return data[:n], 0, nil
	}
	for off := int64(0); off < int64(len(data)); off += pageBytes {
		page := data[off:min(off+pageBytes, int64(len(data)))]
		if _, err := f.ReadAt(page, off); err != nil && !errors.Is(err, io.EOF) {
			clear(page)
			unreadable++
		}
	}
	return data, unreadable, nil
}

// writeAt writes, and counts the pages that the disk will write for it.
func (d *folder) writeAt(f *os.File, text []byte, off int64) error {
	n, err := f.WriteAt(text, off)
	if n > 0 {
		d.written += roundUp(off+int64(n), pageBytes) - off/pageBytes*pageBytes
	}
	return err
}

// zero makes a new file of zeros. A file that could not be filled is removed.
func (d *folder) zero(name string, size int64) (*os.File, error) {
	f, err := d.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	empty := make([]byte, min(size, 256<<10))
	for off := int64(0); off < size && err == nil; off += int64(len(empty)) {
		err = d.writeAt(f, empty[:min(int64(len(empty)), size-off)], off)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fill %s with zeros: %w", name, err), f.Close(), d.root.Remove(name))
	}
	return f, nil
}

func (d *folder) rename(from, to string) error {
	if err := d.root.Rename(from, to); err != nil {
		return fmt.Errorf("rename %s: %w", from, err)
	}
	return nil
}

// remove removes a file that may be gone.
func (d *folder) remove(name string) error {
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// fdatasync makes a file's bytes durable (fdatasync(2)).
func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sync %s: %w", f.Name(), err)
		}
		return nil
	}
}

// full reports whether an error is a lack of space.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// unreadable reports whether an error is of the disk's own: the bytes are lost, but
// others can be read.
func unreadable(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG)
}
