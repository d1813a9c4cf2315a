package shm

import (
	"errors"
	"fmt"
)

var (
	// ErrNoRing says that the ring does not exist (yet, or any more).
	ErrNoRing = errors.New("no such ring")
	// ErrNoSlot says that every slot is pinned: the message is dropped, and counted.
	ErrNoSlot = errors.New("no free slot")
	// ErrNotYet says that a sequence number has not been published.
	ErrNotYet = errors.New("not published yet")
	// ErrGone says that a sequence number has been overwritten.
	ErrGone = errors.New("overwritten")
	// ErrTooManyLeases says that a reader holds as many leases as it declared.
	ErrTooManyLeases = errors.New("all declared leases are held")
	// ErrClosed says that the reader or writer was closed.
	ErrClosed = errors.New("ring is closed")
)

// FullError says that the folder has no room for a ring.
type FullError struct {
	Ring       Name
	Dir        string
	Slots      int
	SlotBytes  int
	NeedBytes  int64
	FreeBytes  int64
	TotalBytes int64
}

func (e *FullError) Error() string {
	return fmt.Sprintf("ring %s needs %d bytes (%d slots of %d) and %s has %d free of %d: use fewer slots or smaller frames, free space there, or enlarge it (mount -o remount,size=...)",
		e.Ring, e.NeedBytes, e.Slots, e.SlotBytes, e.Dir, e.FreeBytes, e.TotalBytes)
}

// AdmissionError says that a reader would leave the writer without a slot.
type AdmissionError struct {
	Ring  Name
	Want  int // pins this reader asked for
	Held  int // pins that other readers may hold
	Slots int
}

func (e *AdmissionError) Error() string {
	return fmt.Sprintf("ring %s has %d slots, its readers may hold %d and the writer needs 2: no room for %d more; give the stream at least slots = %d",
		e.Ring, e.Slots, e.Held, e.Want, e.Held+e.Want+2)
}

// FormatError says that a file is not a ring this version can read.
type FormatError struct {
	File string
	Why  string
}

func (e *FormatError) Error() string { return fmt.Sprintf("%s is no ring to read: %s", e.File, e.Why) }
