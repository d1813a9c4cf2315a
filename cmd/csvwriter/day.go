package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

const (
	// maxAge ends a file by boot time, whatever the wall clock says.
	maxAge = 24 * time.Hour
	// maxBytes ends a file early that would take long to hash and to send. One
	// reading a second makes 8 MB a day.
	maxBytes = 256 << 20
	// maxWaiting is how much is gathered before it is written, when messages
	// come faster than that.
	maxWaiting = 64 << 10
)

// common are the columns that every file begins with.
func common() []string { return []string{"time", "seq", "epoch", "boot_ns", "synced"} }

// day is an open file: the rows of one stream on one day.
type day struct {
	draft
	file    *os.File
	last    *msg.Cursor // the last row taken, on disk or waiting
	size    int64       // bytes written
	waiting []byte      // rows not yet written
	safe    int64       // bytes known to be durable
	since   []byte      // rows written after that
	synced  time.Time
}

// draft is what the journal knows of a file that is being written.
type draft struct {
	ID      sidecar.ID     `json:"id"`
	Topic   msg.Topic      `json:"topic"`
	Columns []string       `json:"columns"`
	First   sidecar.Moment `json:"first"`
	Before  *msg.Cursor    `json:"before,omitempty"` // the stream's last row before this file
}

func (d *draft) name() string { return string(d.ID) + ".csv" }

func (d *draft) head() string {
	return strings.Join(append(common(), d.Columns...), ",") + "\n"
}

// over says whether a reading belongs into the next file.
func (d *day) over(r *msg.Reading) bool {
	return !slices.Equal(r.Columns, d.Columns) || d.size >= maxBytes || d.overAt(r.Stamp(), r.BootID)
}

func (d *day) overAt(at msg.Stamp, bootID string) bool {
	return bootID != d.First.BootID ||
		at.Boot-time.Duration(d.First.BootNS) >= maxAge ||
		date(at.Wall) != date(d.First.Time.Time)
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02") }

func (d *day) append(r *msg.Reading) {
	b := d.waiting
	b = append(b, r.Time.String()...)
	b = strconv.AppendUint(append(b, ','), uint64(r.Seq), 10)
	b = append(append(b, ','), r.Epoch.String()...)
	b = strconv.AppendInt(append(b, ','), r.BootNS, 10)
	b = strconv.AppendBool(append(b, ','), r.Synced)
	for _, v := range r.Values {
		if b = append(b, ','); !math.IsNaN(v) {
			b = strconv.AppendFloat(b, v, 'f', -1, 64)
		}
	}
	d.waiting = append(b, '\n')
	d.last = &msg.Cursor{Epoch: r.Epoch, Seq: r.Seq}
}

// write hands the waiting rows to the kernel, from where they outlive this
// process. After a failure the file ends at a whole row as before.
func (d *day) write() error {
	if len(d.waiting) == 0 {
		return nil
	}
	if _, err := d.file.WriteAt(d.waiting, d.size); err != nil {
		if cut := d.file.Truncate(d.size); cut != nil {
			return fmt.Errorf("write rows: %w; and cut off the torn one: %w", err, cut)
		}
		return fmt.Errorf("write rows: %w", err)
	}
	d.size += int64(len(d.waiting))
	d.since = append(d.since, d.waiting...)
	d.waiting = d.waiting[:0]
	return nil
}

func (d *day) unsynced() bool { return d.safe < d.size }

func (d *day) sync(now time.Time) error {
	d.synced = now
	if err := unix.Fdatasync(int(d.file.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", d.file.Name(), err)
	}
	d.safe, d.since = d.size, d.since[:0]
	return nil
}
