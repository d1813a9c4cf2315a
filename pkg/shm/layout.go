package shm

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	magic   = "perchrng"
	version = 1

	// MaxReaders is how many readers a ring can have at once.
	MaxReaders = 31
	// MaxMeta is how many bytes of meta a ring can carry.
	MaxMeta = offReaders - offMeta
	// MaxSlots bounds the slots of a ring.
	MaxSlots = 1 << 20

	offVersion   = 8
	offRecords   = 12
	offEpoch     = 16
	offSlots     = 24
	offMaxReader = 28
	offSlotBytes = 32
	offStride    = 40
	offCreated   = 48
	offPID       = 56
	offLatest    = 64
	offPublished = 128
	offDropped   = 136
	offHeartbeat = 144
	offClosed    = 152
	offMetaLen   = 192
	offMeta      = 196
	offReaders   = 2048
	offSlotTable = 4096
	recordBytes  = 64

	recWord    = 0
	recSeq     = 8
	recBoot    = 16
	recWall    = 24
	recLen     = 32
	recFlags   = 36
	recUser    = 40
	readerPID  = 0
	readerPins = 4
	readerBoot = 8
	readerSeq  = 16
	readerName = 24

	flagSynced = 1

	writing  = uint64(1) << 31
	pinBits  = writing - 1
	noSeq    = ^uint64(0)
	fileUnit = 64 << 10 // file sizes are multiples: whole pages up to 64 KiB pages
	maxFile  = math.MaxInt - fileUnit

	lockWriter   = 0
	lockReader   = 1 // plus the reader's number
	lockRegister = 32
)

// area is a mapped file. All shared words go through its atomics.
type area []byte

func (a area) u64(off int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&a[off])) }
func (a area) i64(off int) *atomic.Int64  { return (*atomic.Int64)(unsafe.Pointer(&a[off])) }
func (a area) u32(off int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&a[off])) }

func (a area) word(slot int) *atomic.Uint64 { return a.u64(offSlotTable + slot*recordBytes + recWord) }
func (a area) seq(slot int) *atomic.Uint64  { return a.u64(offSlotTable + slot*recordBytes + recSeq) }

// record is the rest of a slot's record: valid only for who owns the slot.
func (a area) record(slot int) []byte {
	off := offSlotTable + slot*recordBytes
	return a[off : off+recordBytes : off+recordBytes]
}

func (a area) reader(r int) area {
	off := offReaders + r*recordBytes
	return a[off : off+recordBytes : off+recordBytes]
}

func mapFile(f *os.File, size int, prot int) (area, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, size, prot, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %s (%d bytes): %w", f.Name(), size, err)
	}
	return mem, nil
}

func (a area) unmap() error {
	if a == nil {
		return nil
	}
	return unix.Munmap(a)
}

// Info is what a slot's record says of its message.
type Info struct {
	Boot   int64 // captured, CLOCK_BOOTTIME ns
	Wall   int64 // captured, Unix time ns
	Synced bool  // the wall clock was disciplined
	User   [2]uint64
}

func putInfo(rec []byte, n int, i Info) {
	le := binary.LittleEndian
	le.PutUint64(rec[recBoot:], uint64(i.Boot))
	le.PutUint64(rec[recWall:], uint64(i.Wall))
	le.PutUint32(rec[recLen:], uint32(n))
	var flags uint32
	if i.Synced {
		flags = flagSynced
	}
	le.PutUint32(rec[recFlags:], flags)
	le.PutUint64(rec[recUser:], i.User[0])
	le.PutUint64(rec[recUser+8:], i.User[1])
}

func getInfo(rec []byte) (n int, i Info) {
	le := binary.LittleEndian
	return int(le.Uint32(rec[recLen:])), Info{
		Boot:   int64(le.Uint64(rec[recBoot:])),
		Wall:   int64(le.Uint64(rec[recWall:])),
		Synced: le.Uint32(rec[recFlags:])&flagSynced != 0,
		User:   [2]uint64{le.Uint64(rec[recUser:]), le.Uint64(rec[recUser+8:])},
	}
}

// strideFor is the distance between slots: whole pages for frames, so that
// they can be handed to the kernel by the page, cache lines for messages.
func strideFor(slotBytes int) int {
	unit := 64
	if slotBytes >= 4096 {
		unit = 4096
	}
	return (slotBytes + unit - 1) / unit * unit
}

func roundFile(n int) int { return (n + fileUnit - 1) / fileUnit * fileUnit }

// Footprint is how many bytes of shared memory a ring takes.
func Footprint(slots, slotBytes int) int {
	return roundFile(offSlotTable+slots*recordBytes) + roundFile(slots*strideFor(slotBytes))
}
