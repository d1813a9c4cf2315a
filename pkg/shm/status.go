package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
)

// Status is a ring as its files show it to somebody who takes no part. It is
// for people: each number is right for a moment, together they may not be.
type Status struct {
	Name      Name
	Epoch     Epoch
	Meta      []byte
	Alive     bool // a live process writes it
	Closed    bool // its writer ended it on purpose
	PID       int  // of the writer
	Slots     int
	SlotBytes int
	Created   time.Duration // since boot
	Published uint64        // messages so far
	Dropped   uint64        // how often there was no free slot
	Newest    time.Duration // since boot, when the last message was captured
	Readers   []ReaderInfo
}

// Status reads what a ring's present epoch says of itself. Nothing is mapped,
// no reader's place is taken and no word is written. It fails with ErrNoRing
// or *FormatError.
func (d *Dir) Status(name Name) (Status, error) {
	if err := name.check(); err != nil {
		return Status{}, err
	}
	f, epoch, head, err := d.readHead(name, offSlotTable)
	if err != nil {
		return Status{}, err
	}
	defer f.Close()
	le := binary.LittleEndian
	n := le.Uint32(head[offMetaLen:])
	return Status{
		Name: name, Epoch: epoch, Meta: head[offMeta : offMeta+n],
		Alive: lockfile.IsHeld(f, lockWriter), Closed: le.Uint32(head[offClosed:]) != 0, PID: int(le.Uint32(head[offPID:])),
		Slots: int(le.Uint32(head[offSlots:])), SlotBytes: int(le.Uint64(head[offSlotBytes:])),
		Created: time.Duration(le.Uint64(head[offCreated:])), Newest: time.Duration(le.Uint64(head[offHeartbeat:])),
		Published: le.Uint64(head[offPublished:]), Dropped: le.Uint64(head[offDropped:]),
		Readers: area(head).readers(f),
	}, nil
}

// readHead reads the first bytes of the present epoch's control file, which
// stays open: its locks tell who lives.
func (d *Dir) readHead(name Name, bytes int) (*os.File, Epoch, []byte, error) {
	epoch, err := d.Current(name)
	if err != nil {
		return nil, 0, nil, err
	}
	f, err := openFile(d, fileName(name, epoch, "ctl"), os.O_RDONLY)
	if err != nil {
		return nil, 0, nil, err
	}
	head := make([]byte, bytes)
	if _, err := io.ReadFull(f, head); err != nil {
		f.Close()
		return nil, 0, nil, &FormatError{f.Name(), fmt.Sprintf("read header: %v", err)}
	}
	n, v := binary.LittleEndian.Uint32(head[offMetaLen:]), binary.LittleEndian.Uint32(head[offVersion:])
	if string(head[:8]) != magic || v != version || n > MaxMeta {
		f.Close()
		return nil, 0, nil, errors.Join(ErrNoRing, &FormatError{f.Name(), "no ring, or one that is being made"})
	}
	return f, epoch, head, nil
}
