package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/spool"
)

const (
	// checkEvery is how often an open file is compared with what was written to it.
	checkEvery = 500 * time.Millisecond
	// tailBytes is how much of its end is read each time.
	tailBytes = 4 << 10
	// verifyShare bounds the cost of comparing whole files: after a comparison that took
	// one second, there is none for this many seconds.
	verifyShare = 20
)

// watch remembers what a file looks like when nobody but csvwriter writes to it.
type watch struct {
	changed  unix.Timespec // its ctime after our last write; zero: not known
	tail     []byte        // its last bytes
	verifyAt time.Time     // not before then is all of it compared
}

// wrote records what was appended to the file.
func (w *watch) wrote(f *os.File, text []byte) {
	w.tail = append(w.tail, text[max(0, len(text)-tailBytes):]...)
	if more := len(w.tail) - tailBytes; more > 0 {
		w.tail = w.tail[:copy(w.tail, w.tail[more:])]
	}
	w.touched(f)
}

// touched records the file's ctime after a change of our own.
func (w *watch) touched(f *os.File) {
	w.changed = unix.Timespec{}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil {
		w.changed = st.Ctim
	}
}

// resized reports whether somebody removed the file or changed its length: a row written
// after that would leave a hole before it. This is checked before each write.
func (d *day) resized() bool {
	var st unix.Stat_t
	return unix.Fstat(int(d.file.Fd()), &st) == nil && (st.Nlink == 0 || st.Size != d.size)
}

// inspect returns why a file must not be appended to any more: somebody removed,
// renamed, replaced or changed it. The text is empty if the file is as written.
//
// Any write changes a file's ctime, which no program can set, so the whole file is read
// only if its ctime is not the one after our last write. A change within the same tick of
// the kernel's clock can go unnoticed; therefore the last bytes are read again each time,
// and the hash of the whole file is compared when it is complete.
func (b *book) inspect(d *day) (damage string, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.file.Fd()), &st); err != nil {
		return "", fmt.Errorf("look at %s: %w", d.name(), err)
	}
	named, err := b.spool.Stat(spool.Work, d.name())
	switch {
	case errors.Is(err, fs.ErrNotExist) && st.Nlink == 0:
		return "it was removed", nil
	case errors.Is(err, fs.ErrNotExist):
		return "it was renamed or moved away", nil
	case err != nil:
		return "", fmt.Errorf("look at %s: %w", d.name(), err)
	}
	opened, err := d.file.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("look at %s: %w", d.name(), err)
	case !os.SameFile(named, opened):
		return fmt.Sprintf("something else has taken its name (%s)", named.Mode()), nil
	case st.Nlink > 1:
		return fmt.Sprintf("it has %d names (hard links): whoever writes to one of them writes to all", st.Nlink), nil
	case st.Size < d.size:
		return fmt.Sprintf("it was truncated from %d bytes to %d", d.size, st.Size), nil
	case st.Size > d.size:
		return fmt.Sprintf("another program wrote %d bytes to its end", st.Size-d.size), nil
	}
	return b.compare(d, &st)
}

// compare compares a file's contents with what was written.
func (b *book) compare(d *day, st *unix.Stat_t) (damage string, err error) {
	now := time.Now()
	touched := st.Ctim != d.watch.changed
	if n := int64(len(d.watch.tail)); n > 0 {
		got := make([]byte, n)
		if _, err := d.file.ReadAt(got, d.size-n); err != nil || !bytes.Equal(got, d.watch.tail) {
			return "its contents were changed", nil
		}
	}
	if !touched || d.sum == nil || now.Before(d.watch.verifyAt) {
		return "", nil
	}
	if st.Mode&0o600 != 0o600 {
		b.w.Log.Warn("somebody changed the permissions of an open file: restored", "file", d.name(), "mode", fmt.Sprintf("%#o", st.Mode&0o7777))
		if err := d.file.Chmod(0o644); err != nil {
			return "", fmt.Errorf("restore its permissions: %w", err)
		}
	}
	same, err := d.verify(b.w.Progress)
	if err != nil {
		return "", err
	}
	if !same {
		return "its contents were changed", nil
	}
	d.watch.changed = st.Ctim
	if st.Mode&0o600 != 0o600 {
		d.watch.touched(d.file)
	}
	d.watch.verifyAt = time.Now().Add(verifyShare * time.Since(now))
	return "", nil
}

// verify reads the whole file and reports whether it is what was written.
func (d *day) verify(alive func()) (same bool, err error) {
	sum := sha256.New()
	err = eachLine(d.file, d.size, alive, func(_ int64, line []byte) { sum.Write(line) })
	return bytes.Equal(sum.Sum(nil), d.sum.Sum(nil)), err
}
