package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/lockfile"
)

// Reader reads one epoch of a ring. It is safe for concurrent use; the
// goroutines of one process share its pins.
type Reader struct {
	name      Name
	epoch     Epoch
	slots     int
	slotBytes int
	stride    int
	created   time.Duration
	meta      []byte
	number    int
	bit       uint64
	file      *os.File
	ctl, dat  area

	mu      sync.Mutex
	leases  []hold
	held    int
	hint    int // the slot where the message looked for next is likely to be
	closing bool

	unpinned bool // a test's control: looks without pinning, and finds torn messages
}

// hold is one lease's place. Its serial grows with each use, so that a lease
// that was released is recognised.
type hold struct {
	slot   int
	serial uint32
	used   bool
}

// ReaderInfo is a reader as its record shows it, for people.
type ReaderInfo struct {
	Name    string
	PID     int
	Pins    int    // how many it may hold
	LastSeq uint64 // what it pinned last
}

// OpenReader opens the ring's current epoch for a reader called who, which may
// hold pins leases at once. It fails with ErrNoRing, *AdmissionError or
// *FormatError.
func OpenReader(dir *Dir, name Name, who string, pins int) (*Reader, error) {
	for {
		epoch, err := dir.Current(name)
		if err != nil {
			return nil, err
		}
		r, err := OpenEpoch(dir, name, epoch, who, pins)
		if again, _ := dir.Current(name); errors.Is(err, ErrNoRing) && again != epoch {
			continue // a new writer came between
		}
		return r, err
	}
}

// OpenEpoch opens one epoch of a ring, also one whose writer is gone.
func OpenEpoch(dir *Dir, name Name, epoch Epoch, who string, pins int) (*Reader, error) {
	if err := name.check(); err != nil {
		return nil, err
	}
	if pins < 1 {
		return nil, fmt.Errorf("open ring %s: a reader needs at least one pin, got %d", name, pins)
	}
	r := &Reader{name: name, epoch: epoch}
	err := r.open(dir)
	if err == nil {
		err = r.register(who, pins)
	}
	if err != nil {
		return nil, errors.Join(err, r.release())
	}
	return r, nil
}

func (r *Reader) open(dir *Dir) error {
	var err error
	if r.file, err = openFile(dir, fileName(r.name, r.epoch, "ctl"), os.O_RDWR); err != nil {
		return err
	}
	size, err := fileSize(r.file)
	if err != nil {
		return err
	}
	if most := roundFile(offSlotTable + MaxSlots*recordBytes); size < offSlotTable || size > most {
		return &FormatError{r.file.Name(), fmt.Sprintf("%d bytes, want %d to %d", size, offSlotTable, most)}
	}
	if r.ctl, err = mapFile(r.file, size, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return err
	}
	if err := r.readHeader(size); err != nil {
		return err
	}
	data, err := openFile(dir, fileName(r.name, r.epoch, "dat"), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer data.Close()
	want := roundFile(r.slots * r.stride)
	if size, err = fileSize(data); err != nil {
		return err
	}
	if size != want {
		return &FormatError{data.Name(), fmt.Sprintf("%d bytes, want %d", size, want)}
	}
	r.dat, err = mapFile(data, size, unix.PROT_READ)
	return err
}

// openFile opens a regular file and nothing else: no link is followed and no
// FIFO waited for.
func openFile(dir *Dir, name string, flag int) (*os.File, error) {
	for {
		seen, err := dir.root.Lstat(name)
		if err == nil && !seen.Mode().IsRegular() {
			return nil, &FormatError{dir.Path() + "/" + name, "not a regular file"}
		}
		var f *os.File
		if err == nil {
			f, err = dir.root.OpenFile(name, flag|unix.O_NONBLOCK, 0)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("ring file %s: %w", name, ErrNoRing)
		}
		if err != nil {
			return nil, fmt.Errorf("open ring: %w", err)
		}
		if opened, err := f.Stat(); err == nil && os.SameFile(seen, opened) {
			return f, nil
		}
		f.Close() // replaced between the two: look again
	}
}

func fileSize(f *os.File) (int, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("open ring: %w", err)
	}
	return int(st.Size()), nil
}

// readHeader takes the geometry once, checked against the file's own size, so
// that nothing in shared memory can lead a reader out of its mapping.
func (r *Reader) readHeader(size int) error {
	le, bad := binary.LittleEndian, func(format string, args ...any) error {
		return &FormatError{r.file.Name(), fmt.Sprintf(format, args...)}
	}
	if r.ctl.u64(0).Load() != le.Uint64([]byte(magic)) {
		return bad("magic %q, want %q", r.ctl[:8], magic)
	}
	if v := le.Uint32(r.ctl[offVersion:]); v != version {
		return bad("version %d, want %d", v, version)
	}
	if off := le.Uint32(r.ctl[offRecords:]); off != offSlotTable {
		return bad("slot records at %d, want %d", off, offSlotTable)
	}
	if e := Epoch(le.Uint64(r.ctl[offEpoch:])); e != r.epoch {
		return bad("epoch %s inside, %s in the name", e, r.epoch)
	}
	slots, bytes, stride := le.Uint32(r.ctl[offSlots:]), le.Uint64(r.ctl[offSlotBytes:]), le.Uint64(r.ctl[offStride:])
	if slots < 3 || slots > MaxSlots || bytes < 1 || bytes > 1<<30 ||
		stride != uint64(strideFor(int(bytes))) || uint64(slots) > maxFile/stride {
		return bad("%d slots of %d bytes, %d apart", slots, bytes, stride)
	}
	if want := roundFile(offSlotTable + int(slots)*recordBytes); size != want {
		return bad("%d bytes, want %d for %d slots", size, want, slots)
	}
	n := le.Uint32(r.ctl[offMetaLen:])
	if n > MaxMeta {
		return bad("%d bytes of meta, want %d at most", n, MaxMeta)
	}
	r.slots, r.slotBytes, r.stride = int(slots), int(bytes), int(stride)
	r.created = time.Duration(le.Uint64(r.ctl[offCreated:]))
	r.meta = append([]byte(nil), r.ctl[offMeta:offMeta+int(n)]...)
	return nil
}

// register takes a reader number. A refusal is final only after a while: for
// microseconds the writer holds the lock of a dead reader whose pins it
// reclaims, and that reader looks alive.
func (r *Reader) register(who string, pins int) error {
	start := time.Now()
	for {
		err := r.tryRegister(who, pins)
		if err == nil {
			return nil
		}
		patience := 50 * time.Millisecond
		if errors.Is(err, lockfile.ErrHeld) {
			patience = 2 * time.Second // another reader registers: microseconds, if it is not stopped
		}
		if time.Since(start) > patience {
			return err
		}
		time.Sleep(200 * time.Microsecond) //nolint:forbidigo // a lock of another process: nothing tells when it is free
	}
}

func (r *Reader) tryRegister(who string, pins int) error {
	if err := lockfile.Try(r.file, lockRegister); err != nil {
		return fmt.Errorf("register as a reader of %s while another does: %w", r.name, err)
	}
	defer func() { _ = lockfile.Unlock(r.file, lockRegister) }()
	held := 0
	for _, other := range r.ctl.readers(r.file) {
		held += other.Pins
	}
	if pins > r.slots-2-held {
		return &AdmissionError{Ring: r.name, Want: pins, Held: held, Slots: r.slots}
	}
	for n := range MaxReaders {
		if lockfile.Try(r.file, int64(lockReader+n)) != nil {
			continue
		}
		r.number, r.bit, r.leases = n, 1<<n, make([]hold, pins)
		r.ctl.clear(n, r.slots)
		r.writeRecord(who, pins)
		return nil
	}
	return fmt.Errorf("register as a reader of %s: all %d places are taken", r.name, MaxReaders)
}

func (r *Reader) writeRecord(who string, pins int) {
	rec := r.ctl.reader(r.number)
	rec.u32(readerPins).Store(uint32(pins))
	rec.u32(readerPID).Store(uint32(os.Getpid()))
	rec.i64(readerBoot).Store(int64(clock.Boot()))
	rec.u64(readerSeq).Store(noSeq)
	clear(rec[readerName:])
	copy(rec[readerName:], who)
}

// readers lists the records whose lock another open file holds.
func (a area) readers(file *os.File) []ReaderInfo {
	var live []ReaderInfo
	for n := range MaxReaders {
		if !lockfile.IsHeld(file, int64(lockReader+n)) {
			continue
		}
		rec := a.reader(n)
		live = append(live, ReaderInfo{
			Name:    strings.TrimRight(string(rec[readerName:]), "\x00"),
			PID:     int(rec.u32(readerPID).Load()),
			Pins:    int(rec.u32(readerPins).Load()),
			LastSeq: rec.u64(readerSeq).Load(),
		})
	}
	return live
}

// Name is the ring's name.
func (r *Reader) Name() Name { return r.name }

// Epoch is the epoch that this reader reads.
func (r *Reader) Epoch() Epoch { return r.epoch }

// Meta is the JSON object that the writer gave.
func (r *Reader) Meta() []byte { return r.meta }

// Slots is how many slots the ring has.
func (r *Reader) Slots() int { return r.slots }

// Created is the boot time of the ring's creation.
func (r *Reader) Created() time.Duration { return r.created }

// Published is the next sequence number: how many messages there were.
func (r *Reader) Published() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctl == nil {
		return 0
	}
	return r.ctl.u64(offPublished).Load()
}

// Ended says whether nothing will follow: the writer closed the ring, or died.
// Read Published after Ended said so, not before.
func (r *Reader) Ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ctl == nil || r.ctl.u32(offClosed).Load() != 0 || !lockfile.IsHeld(r.file, lockWriter)
}

// Closed says whether the writer ended the ring on purpose.
func (r *Reader) Closed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ctl != nil && r.ctl.u32(offClosed).Load() != 0
}

// Latest leases the newest message. It fails with ErrNotYet before the first.
func (r *Reader) Latest() (l Lease, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return l, ErrClosed
	}
	for {
		next := r.ctl.u64(offPublished).Load()
		if next == 0 {
			return l, ErrNotYet
		}
		// Where latest points, if the writer was not killed just before it set it.
		if slot := uint32(r.ctl.u64(offLatest).Load()); slot < uint32(r.slots) {
			r.hint = int(slot)
		}
		err = r.at(next-1, &l)
		if err != nil && errors.Is(err, ErrGone) && r.ctl.u64(offPublished).Load() != next {
			continue // overwritten between the two: there is a newer one
		}
		return l, err
	}
}

// At leases the message with that sequence number. It fails with ErrNotYet
// where it is to come and with ErrGone where it has been overwritten.
func (r *Reader) At(seq uint64) (l Lease, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return l, ErrClosed
	}
	err = r.at(seq, &l)
	return l, err
}

// at looks for the message from the hint on, and leases it into l; r.mu is held.
func (r *Reader) at(seq uint64, l *Lease) error {
	if seq >= r.ctl.u64(offPublished).Load() {
		return ErrNotYet
	}
	i := r.hint
	for range r.slots {
		if r.ctl.seq(i).Load() == seq {
			word := r.ctl.word(i).Load()
			if err := r.lease(i, uint32(word>>32), l); err != nil {
				return err
			}
			if l.seq != seq {
				r.drop(l.place) // rewritten between the look and the pin
				*l = Lease{}
				return ErrGone
			}
			if r.hint = i + 1; r.hint == r.slots {
				r.hint = 0
			}
			return nil
		}
		if i++; i == r.slots {
			i = 0
		}
	}
	return ErrGone
}

// lease pins a slot; r.mu is held.
func (r *Reader) lease(slot int, gen uint32, l *Lease) error {
	place := -1
	for p := range r.leases {
		if !r.leases[p].used {
			place = p
			break
		}
	}
	if place < 0 {
		return ErrTooManyLeases
	}
	if !r.pin(slot, gen) {
		return ErrGone
	}
	n, info := getInfo(r.ctl.record(slot))
	seq := r.ctl.seq(slot).Load()
	h := &r.leases[place]
	h.slot, h.used = slot, true
	h.serial++
	r.held++
	if n < 0 || n > r.slotBytes || seq == noSeq {
		r.drop(place)
		return ErrGone // an abandoned slot, or a record somebody spoiled
	}
	binary.LittleEndian.PutUint64(r.ctl.reader(r.number)[readerSeq:], seq) // for people: no barrier
	*l = Lease{r: r, place: place, serial: h.serial, seq: seq, slot: slot, gen: gen, n: n, info: info}
	return nil
}

func (r *Reader) pin(slot int, gen uint32) bool {
	word := r.ctl.word(slot)
	for {
		v := word.Load()
		if uint32(v>>32) != gen || v&writing != 0 {
			return false
		}
		if v&r.bit != 0 || r.unpinned || word.CompareAndSwap(v, v|r.bit) {
			return true
		}
	}
}

// drop ends the lease in that place; r.mu is held.
func (r *Reader) drop(place int) {
	slot := r.leases[place].slot
	r.leases[place].used = false
	r.held--
	for p := range r.leases {
		if r.leases[p].used && r.leases[p].slot == slot {
			return // another goroutine still holds it
		}
	}
	r.ctl.word(slot).And(^r.bit)
}

// Close gives up the reader's place. Leases that are still held stay valid;
// the memory is unmapped with the last of them.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return nil
	}
	r.closing = true
	if r.held == 0 {
		return r.release()
	}
	return nil
}

func (r *Reader) release() error {
	err := errors.Join(r.ctl.unmap(), r.dat.unmap())
	r.ctl, r.dat = nil, nil
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
		r.file = nil
	}
	return err
}
