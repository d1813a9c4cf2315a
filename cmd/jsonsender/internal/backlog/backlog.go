// Package backlog keeps the records that wait for a receiver in a log on disk,
// first in, first out, through power cuts, full disks and flipped bits.
//
//	Append, Sync --> segments of blocks --> Peek --> receiver --> Ack --> segment used again
//
// A record is safe once Sync has returned. It stays until it is acknowledged, until
// the log must shrink to its bound, or until the disk damages it; each loss is
// counted and listed by Losses. Open fails for errors of the disk only, never for
// what a file holds.
//
// # The folder
//
// Segments (<number>.segment, 1 MiB) are written with zeros before they are used, and
// then overwritten in place: an fdatasync writes 4 KiB then, where one of a growing file
// writes 16. One that is read to its end becomes a spare (<number>.spare), which saves the
// next one its zeros. Segments hold blocks, each with its own checksum, its segment's
// number and the positions that it covers, so a damaged one costs only itself and
// what is missing can be counted. Where two segments cover a position, the higher number
// counts: a segment that is written anew, after a failed sync or to thin it, needs
// no other commit than its name.
//
// The state file holds which positions are acknowledged and what was lost, in two
// slots that are written in turn. With both damaged all that the segments hold is sent
// again (Status.Rewound).
//
// # Order of loss
//
// At MaxBytes, or on a full disk, the oldest segments are rewritten with every second
// reading of each stream: all of them to half the resolution before any goes to a quarter,
// and so on to 1/1024. Then readings are dropped, the oldest first, and only then events.
package backlog

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
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
	Key      string    // the stream, of 256 bytes at most: readings are thinned evenly within each
	Time     time.Time // of the data, kept to the millisecond; for Oldest and Losses
	Payload  []byte
}

// Config bounds a log.
type Config struct {
	MaxBytes     int64 // of all files together; 0 is 256 MiB, the least is eight segments and 256 KiB
	SegmentBytes int   // of one file, from 64 KiB to 64 MiB; 0 is 1 MiB
}

const (
	minSegment = 64 << 10
	maxSegment = 64 << 20
	maxKey     = 256
)

// sized is the configuration with its defaults.
func (c Config) sized() (Config, error) {
	if c.MaxBytes == 0 {
		c.MaxBytes = 256 << 20
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = int(max(minSegment, min(1<<20, (c.MaxBytes-2*slotBytes)/8/pageBytes*pageBytes)))
	}
	c.SegmentBytes = int(roundUp(int64(c.SegmentBytes), pageBytes))
	if c.SegmentBytes < minSegment || c.SegmentBytes > maxSegment {
		return c, fmt.Errorf("segments of %d bytes: want %d to %d", c.SegmentBytes, minSegment, maxSegment)
	}
	if least := 8*int64(c.SegmentBytes) + 2*slotBytes; c.MaxBytes < least {
		return c, fmt.Errorf("backlog of %d bytes: want at least %d, which is eight segments and the state", c.MaxBytes, least)
	}
	return c, nil
}

// Log is an open log. Its methods are safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	cfg  Config
	dir  *folder
	lock *lockfile.Lock // nil for who only looks
	file *stateFile
	code *coder

	state    state
	before   []Loss     // the state's losses when it was opened
	segments []*segment // by position; the last one is appended to
	spares   map[uint32]int64
	seq      uint32 // the highest number of a segment or spare
	waiting  uint64 // records that are not acknowledged
	torn     bool   // names have changed since the folder's last sync

	out     *os.File // the last segment's file; nil when the next append begins another one
	pending []frame  // blocks since the last sync; with out nil they are in no segment
	in      *os.File // the segment that Peek reads
	inSeq   uint32
	ordinal map[string]uint64

	unwritten bool     // the state has changed since it was written
	window    []Entry  // the oldest records that are not acknowledged, as far as they were read
	high      Position // the window reaches up to here
	synced    time.Time
}

// Open opens, or creates, the log in a folder of root. It holds the folder's lock
// until Close; another process that has it is a *lockfile.HeldError.
func Open(root *os.Root, dir string, cfg Config) (*Log, error) {
	cfg, err := cfg.sized()
	if err != nil {
		return nil, fmt.Errorf("open backlog %s: %w", dir, err)
	}
	d, err := openFolder(root, dir, true)
	if err != nil {
		return nil, err
	}
	lock, err := lockfile.Acquire(d.root, lockName)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open backlog %s: %w", dir, err), d.root.Close())
	}
	l := newLog(d, cfg)
	l.lock = lock
	if err := l.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open backlog %s: %w", dir, err), lock.Release(), d.root.Close())
	}
	return l, nil
}

func newLog(d *folder, cfg Config) *Log {
	return &Log{cfg: cfg, dir: d, code: newCoder(), ordinal: map[string]uint64{}, spares: map[uint32]int64{}}
}

// Append writes records behind the last, as one block of which all survive or none, and
// returns the position of the first. They are durable after Sync. It takes 4096 records
// of half a segment's bytes together at most. With an error none is in the log, and
// they can be appended again.
func (l *Log) Append(entries ...Entry) (first Position, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first, err = l.append(entries); err != nil {
		return 0, fmt.Errorf("append: %w", err)
	}
	return first, nil
}

// Sync makes durable what was appended and acknowledged. After an error what was
// appended is still kept for the next Sync.
func (l *Log) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.sync(); err != nil {
		return fmt.Errorf("sync backlog: %w", err)
	}
	return nil
}

// Peek returns the oldest records behind a position that are not acknowledged, n
// records and maxBytes of payload at most, but one at least where one waits.
func (l *Log) Peek(after Position, n, maxBytes int) ([]Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, err := l.peek(after, n, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("read backlog: %w", err)
	}
	return list, nil
}

// Since visits the records behind a position in their order, also those that are acknowledged as long
// as their segment is there.
func (l *Log) Since(after Position, visit func(Entry)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.since(after, visit); err != nil {
		return fmt.Errorf("read backlog: %w", err)
	}
	return nil
}

// Ack takes records out of the log, in any order; what is no longer there is no error.
// It is written at once and durable within a second of acknowledging, at the next Sync, and
// in any case before the records' bytes are overwritten. It refuses what leaves too
// many ranges (600) of records behind: acknowledge the older ones first.
func (l *Log) Ack(positions ...Position) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.acknowledge(positions, false); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// Skip gives records up: they leave the log as acknowledged ones do, and count as lost.
func (l *Log) Skip(positions ...Position) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.acknowledge(positions, true); err != nil {
		return fmt.Errorf("skip: %w", err)
	}
	return nil
}

// Next is the position that the next record will have.
func (l *Log) Next() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Next
}

// Len is how many records are not acknowledged.
func (l *Log) Len() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

// Bytes is the size of the log's files.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size()
}

// Oldest is the time of the oldest record that waits; zero when none does.
func (l *Log) Oldest() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.oldest()
}

// Written is how many bytes the log has written since it was opened, in whole pages.
// The file system adds its journal, and writes the state once a second at most.
func (l *Log) Written() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dir.written
}

// Close syncs what was appended and acknowledged, and gives the folder up.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.sync()
	if err != nil {
		err = fmt.Errorf("close backlog: %w", err)
	}
	return errors.Join(err, l.giveUp())
}

// giveUp closes the files.
func (l *Log) giveUp() error {
	err := l.file.close()
	if l.out != nil {
		err = errors.Join(err, l.out.Close())
	}
	l.closeIn()
	return errors.Join(err, l.lock.Release(), l.dir.root.Close())
}
