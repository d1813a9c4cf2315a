package main

import (
	"errors"
	"fmt"
	"hash"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

const (
	// maxAge ends a file by boot time, whatever the wall clock says.
	maxAge = 24 * time.Hour
	// maxBytes ends a file early: while it is hashed nothing is read, and the
	// heartbeat stands still. One reading a second makes 8 MB a day.
	maxBytes = 64 << 20
	// maxWaiting is how much is gathered before it is written, when messages
	// come faster than that.
	maxWaiting = 64 << 10
	// maxHeld is how much is kept for a disk that takes nothing, or is absent,
	// before no more is read: two days of one reading a second.
	maxHeld = 16 << 20
)

// day is an open file: the rows of one stream on one day. While they are held
// there is no file; with an id they are the rest of one that was given up.
type day struct {
	draft
	file       *os.File
	rows       rowLog         // all rows taken, those that wait included
	start, end sidecar.Moment // the first and the last of them
	size       int64          // bytes written
	sum        hash.Hash      // SHA-256 of them; nil where it is not known
	waiting    []byte         // rows not yet written
	safe       int64          // bytes known to be durable
	since      []byte         // rows written after that
	synced     time.Time      // last tried
	doubted    bool           // a sync failed: what follows safe is in doubt
	watch      watch          // what the file looked like after the last write
	damage     string         // why the file cannot be gone on with
	missing    rowLog         // rows that the file had before it was damaged, and rows does not have
	reported   bool           // the damage was
}

// draft is what the journal knows of a file that is being written.
type draft struct {
	ID      sidecar.ID     `json:"id"`
	Topic   msg.Topic      `json:"topic"`
	Columns []string       `json:"columns"`
	Format  int            `json:"format,omitempty"`
	First   sidecar.Moment `json:"first"`
	Before  *msg.Cursor    `json:"before,omitempty"` // the stream's last row before this file
	Over    string         `json:"over,omitempty"`   // why it ended
	Notes   []string       `json:"notes,omitempty"`  // what happened to it, for its sidecar
}

func (d *draft) name() string { return string(d.ID) + ".csv" }

func (d *draft) head() string { return headOf(d.Columns, d.Format) }

// last is how far the stream is: its last row on disk or waiting, or the one
// before this file.
func (d *day) last() *msg.Cursor {
	if last := d.rows.last(); last != nil {
		return last
	}
	return d.Before
}

// over says why a row belongs into the next file; "" when it does not.
func (d *day) over(columns []string, at msg.Stamp, bootID string) string {
	switch {
	case !slices.Equal(columns, d.Columns):
		return "the columns changed"
	case d.Format != newFormat:
		return "it has an earlier version's format"
	case d.size+int64(len(d.waiting)) >= maxBytes:
		return fmt.Sprintf("it has %d MiB", maxBytes>>20)
	}
	return d.overAt(at, bootID)
}

func (d *day) overAt(at msg.Stamp, bootID string) string {
	switch {
	case bootID != d.First.BootID:
		return "the box was booted"
	case at.Boot-time.Duration(d.First.BootNS) >= maxAge:
		return fmt.Sprintf("%g hours of boot time are over", maxAge.Hours())
	case date(at.Wall) != date(d.First.Time.Time):
		return "the date changed"
	}
	return ""
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02") }

func (d *day) append(r *msg.Reading) {
	before := len(d.waiting)
	d.waiting = appendRow(d.waiting, r, d.Format)
	d.rows.add(msg.Cursor{Epoch: r.Epoch, Seq: r.Seq}, sumOf(d.waiting[before:]))
	if d.end = sidecar.MomentOf(&r.Header); d.rows.len() == 1 {
		d.start = d.end
	}
}

// takeOver appends the rows that wait in another.
func (d *day) takeOver(h *day) {
	if d.rows.len() == 0 {
		d.start = h.start
	}
	d.waiting, d.end = append(d.waiting, h.waiting...), h.end
	d.rows.append(&h.rows)
}

// write hands the waiting rows to the kernel, the first ones with the head
// before them; there they outlive this process. After a failure the file ends
// at a whole row as before.
func (d *day) write() error {
	if len(d.waiting) == 0 {
		return nil
	}
	text := d.waiting
	if d.size == 0 {
		text = append([]byte(d.head()), text...)
	}
	if _, err := d.file.WriteAt(text, d.size); err != nil {
		if cut := d.file.Truncate(d.size); cut != nil {
			return fmt.Errorf("write rows: %w; and cut off the torn one: %w", err, cut)
		}
		d.watch.touched(d.file)
		return fmt.Errorf("write rows: %w", err)
	}
	d.size += int64(len(text))
	if d.sum != nil {
		d.sum.Write(text)
	}
	d.watch.wrote(d.file, text)
	d.since = append(d.since, d.waiting...)
	if d.waiting = d.waiting[:0]; cap(d.waiting) > 4*maxWaiting {
		d.waiting = nil // grown while the disk took nothing
	}
	return nil
}

// fdatasync leaves out what a plain Sync writes for the file's times alone: on
// an SD card each block counts.
func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil || !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sync "+f.Name(), err)
		}
	}
}

func (d *day) empty() bool { return d.size == 0 && len(d.waiting) == 0 }

func (d *day) unsynced() bool { return d.safe < d.size }

func (d *day) sync(now time.Time) error {
	d.synced = now
	if err := fdatasync(d.file); err != nil {
		return err
	}
	if d.safe, d.since = d.size, d.since[:0]; cap(d.since) > 4*maxWaiting {
		d.since = nil
	}
	return nil
}
