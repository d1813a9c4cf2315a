// Package gone remembers the files that were deleted: their last sidecars, each
// with the whole history of its file, so that a person can still learn why a
// file is not there.
//
//	sidecar of a file that goes --Append--> <store_dir>/gone/00000017.jsonl --Find--> why it is gone
//
// The log is lines of JSON, one sidecar each, in numbered segments. It is
// bounded: with each new segment the oldest ones go. Append syncs once for all
// that it is given, and who deletes a file appends first; killed in between it
// may append again, and then the last line counts. A line that a power cut tore
// is cut off by the next Open and skipped by Find.
//
// Room for a segment is taken when it begins, so that the log can be written to
// on a disk that has become full, which is when files are deleted. Where even
// the next segment finds no room the oldest one makes it, as long as that helps.
//
// It fails when the disk does; after a sync that failed it goes on in a new
// segment, since the kernel forgets what it could not write (fsync(2)). One
// process writes at a time: Open fails with a *lockfile.HeldError beside another.
package gone

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
)

// Folder is where the log is, in a node's store_dir.
const Folder = "gone"

// segments is how many there are when the log is full.
const segments = 8

// MinBytes is the least that a log can be bounded to.
const MinBytes = 1 << 20

// Log is the log, open to be appended to. It is for one goroutine.
type Log struct {
	root *os.Root
	lock *lockfile.Lock
	most int64     // bytes, of all segments
	old  []segment // without the open one, the oldest first
	last int       // the highest number so far
	file *os.File  // the open segment; nil after a failure
	size int64     // of it
	vain bool      // room was given away, and it did not help
}

type segment struct {
	number int
	bytes  int64
}

func (s segment) name() string { return fmt.Sprintf("%08d.jsonl", s.number) }

var segmentRE = regexp.MustCompile(`^[0-9]{8}\.jsonl$`)

// Open opens the log in its folder, which it closes with itself, also where it
// fails. All segments together have most bytes, at least MinBytes.
func Open(root *os.Root, most int64) (*Log, error) {
	lock, err := lockfile.Acquire(root, ".lock")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log of gone files: %w", err), root.Close())
	}
	l := &Log{root: root, lock: lock, most: max(most, MinBytes)}
	if err := l.resume(); err != nil {
		return nil, errors.Join(fmt.Errorf("open log of gone files: %w", err), l.Close())
	}
	return l, nil
}

// list finds the segments, the oldest first.
func list(root *os.Root) (all []segment, err error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !segmentRE.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		number, err := strconv.Atoi(e.Name()[:8])
		if err != nil {
			return nil, err
		}
		all = append(all, segment{number, st.Size()})
	}
	return all, nil
}

// resume goes on with the last segment, at the end of its last whole line, or
// begins the first.
func (l *Log) resume() (err error) {
	if l.old, err = list(l.root); err != nil {
		return err
	}
	if len(l.old) == 0 {
		if err = l.roll(); errors.Is(err, syscall.ENOSPC) { // there may be room by the time of the first line
			return nil
		}
		return err
	}
	last := l.old[len(l.old)-1]
	l.last = last.number
	f, err := spool.OpenRegular(l.root, last.name(), os.O_RDWR)
	if err != nil {
		return err
	}
	size, err := wholeLines(f, last.bytes)
	if err == nil && size < last.bytes {
		err = f.Truncate(size)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.old = l.old[:len(l.old)-1]
	l.file, l.size = f, size
	l.reserve()
	return nil
}

// wholeLines is how many bytes of a file are lines that have their end.
func wholeLines(f *os.File, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for size > 0 {
		from := max(size-int64(len(buf)), 0)
		part := buf[:size-from]
		if _, err := f.ReadAt(part, from); err != nil {
			return 0, err
		}
		if end := bytes.LastIndexByte(part, '\n'); end >= 0 {
			return from + int64(end) + 1, nil
		}
		size = from
	}
	return 0, nil
}

func (l *Log) segmentBytes() int64 { return l.most / segments }

// reserve takes the room that the open segment still needs.
func (l *Log) reserve() {
	if l.size >= l.segmentBytes() {
		return
	}
	// Where no room can be taken ahead, lines take it one by one.
	_ = unix.Fallocate(int(l.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, l.size, l.segmentBytes()-l.size)
}

// Append writes the sidecars of files that are about to be deleted. When it
// returns nil they are durable.
func (l *Log) Append(sides ...*sidecar.Sidecar) error {
	lines, err := linesOf(sides)
	if err == nil {
		err = l.append(lines)
	}
	if errors.Is(err, syscall.ENOSPC) && !l.vain && l.shed(lines) {
		err = l.append(lines)
		l.vain = errors.Is(err, syscall.ENOSPC)
	}
	if err != nil {
		return fmt.Errorf("log gone files: %w", err)
	}
	l.vain = false
	return nil
}

func linesOf(sides []*sidecar.Sidecar) (lines [][]byte, err error) {
	for _, side := range sides {
		line, err := lineOf(side)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

func (l *Log) append(all [][]byte) error {
	var lines []byte
	for _, line := range all {
		if used := l.size + int64(len(lines)); used > 0 && used+int64(len(line)) > l.segmentBytes() {
			err := l.flush(lines)
			if err == nil {
				err = l.roll()
			}
			if err != nil {
				return err
			}
			lines = nil
		}
		lines = append(lines, line...)
	}
	return l.flush(lines)
}

func lineOf(side *sidecar.Sidecar) ([]byte, error) {
	text, err := side.Encode()
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return nil, err
	}
	line.WriteByte('\n')
	return line.Bytes(), nil
}

// flush writes whole lines and syncs them.
func (l *Log) flush(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if l.file == nil {
		if err := l.roll(); err != nil {
			return err
		}
	}
	_, err := l.file.WriteAt(lines, l.size)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil { // what is there after size is in doubt, and so is this file
		return errors.Join(err, l.file.Truncate(l.size), l.retire())
	}
	l.size += int64(len(lines))
	return nil
}

// retire leaves the open segment as it is. One that holds nothing goes.
func (l *Log) retire() error {
	if l.file == nil {
		return nil
	}
	f, s := l.file, segment{l.last, l.size}
	l.file, l.size = nil, 0
	if s.bytes == 0 && l.root.Remove(s.name()) == nil {
		return f.Close()
	}
	l.old = append(l.old, s)
	return f.Close()
}

// roll begins the next segment, and removes those that are too many.
func (l *Log) roll() error {
	if err := l.retire(); err != nil {
		return err
	}
	for l.bytes()+l.segmentBytes() > l.most && len(l.old) > 0 {
		if err := l.removeOldest(); err != nil {
			return err
		}
	}
	next := segment{number: l.last + 1}
	f, err := l.root.OpenFile(next.name(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	l.last, l.file, l.size = next.number, f, 0
	l.reserve()
	if err := l.syncFolder(); err != nil {
		return errors.Join(err, l.retire())
	}
	return nil
}

// bytes is the room of all but the open segment. Each takes up a block at least.
func (l *Log) bytes() (n int64) {
	const block = 4096
	for _, s := range l.old {
		n += max(s.bytes, block)
	}
	return n
}

func (l *Log) removeOldest() error {
	err := l.root.Remove(l.old[0].name())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.old = l.old[1:]
	return nil
}

// shed gives the room of the oldest segments to lines, and says whether they
// have enough of it.
func (l *Log) shed(lines [][]byte) bool {
	need := int64(0)
	for _, line := range lines {
		need += int64(len(line))
	}
	if need > l.bytes() {
		return false
	}
	for need > 0 && len(l.old) > 0 {
		need -= l.old[0].bytes
		if l.removeOldest() != nil {
			return false
		}
	}
	return l.syncFolder() == nil // the room is free when that is written down
}

func (l *Log) syncFolder() error {
	dir, err := l.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Close closes the log and its folder.
func (l *Log) Close() error {
	var errs []error
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	return errors.Join(append(errs, l.lock.Release(), l.root.Close())...)
}
