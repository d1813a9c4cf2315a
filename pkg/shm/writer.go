package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/lockfile"
)

// Options settle a ring at its creation.
type Options struct {
	Slots     int    // at least 3: one to fill, the latest, one to hold
	SlotBytes int    // capacity of a slot
	Meta      []byte // a JSON object that says what the slots hold, MaxMeta bytes at most
	KeepDead  int    // how many rings of earlier epochs stay, for readers to drain
}

func (o Options) check() error {
	switch {
	case o.Slots < 3 || o.Slots > MaxSlots:
		return fmt.Errorf("slots = %d: want 3 to %d", o.Slots, MaxSlots)
	case o.SlotBytes < 1 || o.SlotBytes > 1<<30:
		return fmt.Errorf("slot size = %d bytes: want 1 to %d", o.SlotBytes, 1<<30)
	case o.Slots > maxFile/strideFor(o.SlotBytes):
		return fmt.Errorf("%d slots of %d bytes: more than this machine can address", o.Slots, o.SlotBytes)
	case len(o.Meta) > MaxMeta:
		return fmt.Errorf("meta = %d bytes: want %d at most", len(o.Meta), MaxMeta)
	case o.KeepDead < 0:
		return fmt.Errorf("dead rings to keep = %d: want none or more", o.KeepDead)
	}
	return nil
}

// Writer is the one writer of a ring. It is not safe for concurrent use.
type Writer struct {
	dir       *Dir
	name      Name
	epoch     Epoch
	opts      Options
	stride    int
	lock      *lockfile.Lock
	file      *os.File // .ctl: holds the writer's lock, takes dead readers' locks
	ctl, dat  area
	gens      []uint32 // private: a peer that scribbles over ctl cannot confuse them
	next      int
	latest    int
	seq       uint64
	dropped   uint64
	claimed   int // slot being filled, or -1
	reclaimed time.Duration
	closed    bool
}

// Create makes a new ring of that name and epoch, and removes what earlier
// writers left but for Options.KeepDead rings. It fails with a *FullError when
// the folder has no room, and with a *lockfile.HeldError when the ring has a
// live writer.
func Create(dir *Dir, name Name, epoch Epoch, o Options) (*Writer, error) {
	if err := errors.Join(name.check(), o.check()); err != nil {
		return nil, fmt.Errorf("create ring: %w", err)
	}
	w := &Writer{dir: dir, name: name, epoch: epoch, opts: o, stride: strideFor(o.SlotBytes),
		gens: make([]uint32, o.Slots), latest: -1, claimed: -1}
	lock, err := lockfile.Acquire(dir.root, string(name)+".lock")
	if err != nil {
		return nil, w.orFull(fmt.Errorf("create ring %s: %w", name, err))
	}
	w.lock = lock
	if err := w.create(); err != nil {
		w.release()
		return nil, w.orFull(errors.Join(err, lock.Release()))
	}
	return w, nil
}

func (w *Writer) create() error {
	epochs, err := w.dir.Epochs(w.name)
	if err != nil {
		return err
	}
	if slices.Contains(epochs, w.epoch) {
		return fmt.Errorf("create ring %s: epoch %s exists already: want a new one each time", w.name, w.epoch)
	}
	if err := w.dropOlder(w.opts.KeepDead); err != nil {
		return err
	}
	if err := w.makeFiles(); err != nil {
		return errors.Join(err, w.dir.remove(w.name, w.epoch))
	}
	return nil
}

func (w *Writer) makeFiles() (err error) {
	if w.file, w.ctl, err = w.allocate("ctl", roundFile(offSlotTable+w.opts.Slots*recordBytes)); err != nil {
		return err
	}
	data, dat, err := w.allocate("dat", roundFile(w.opts.Slots*w.stride))
	if err != nil {
		return err
	}
	w.dat = dat
	data.Close() // the mapping keeps it
	// Locked before it is a ring: who finds it never takes its writer for dead.
	if err := lockfile.Try(w.file, lockWriter); err != nil {
		return err
	}
	w.writeHeader()
	return w.makeCurrent()
}

// allocate makes a file with real memory behind every page: fallocate fails
// cleanly where a later write to a hole would be a SIGBUS.
func (w *Writer) allocate(ext string, size int) (*os.File, area, error) {
	f, err := w.dir.root.OpenFile(fileName(w.name, w.epoch, ext), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("create ring %s: %w", w.name, err)
	}
	err = unix.EINTR
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
	}
	if errors.Is(err, unix.ENOMEM) { // tmpfs has room left, the machine has none
		err = fmt.Errorf("%w (%w)", unix.ENOSPC, err)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("allocate %d bytes for ring %s: %w", size, w.name, err)
	}
	mem, err := mapFile(f, size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, mem, nil
}

// orFull puts numbers to an error for want of room, once what was made is
// removed again. The lock and the current epoch take a block each.
func (w *Writer) orFull(err error) error {
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	at, openErr := w.dir.root.Open(".")
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	defer at.Close()
	var st unix.Statfs_t
	if statErr := unix.Fstatfs(int(at.Fd()), &st); statErr != nil {
		return errors.Join(err, fmt.Errorf("statfs %s: %w", w.dir.Path(), statErr))
	}
	block := int64(st.Bsize) //nolint:unconvert // int32 on 32-bit machines
	full := &FullError{Ring: w.name, Dir: w.dir.Path(), Slots: w.opts.Slots, SlotBytes: w.opts.SlotBytes,
		NeedBytes: int64(Footprint(w.opts.Slots, w.opts.SlotBytes)) + 2*block,
		FreeBytes: int64(st.Bavail) * block, TotalBytes: int64(st.Blocks) * block}
	if full.NeedBytes <= full.FreeBytes {
		return fmt.Errorf("%w: needs %d bytes and %s has %d free, and %d of %d inodes: want more inodes or more memory",
			err, full.NeedBytes, full.Dir, full.FreeBytes, st.Ffree, st.Files)
	}
	return full
}

func (w *Writer) writeHeader() {
	le := binary.LittleEndian
	le.PutUint32(w.ctl[offVersion:], version)
	le.PutUint32(w.ctl[offRecords:], offSlotTable)
	le.PutUint64(w.ctl[offEpoch:], uint64(w.epoch))
	le.PutUint32(w.ctl[offSlots:], uint32(w.opts.Slots))
	le.PutUint32(w.ctl[offMaxReader:], MaxReaders)
	le.PutUint64(w.ctl[offSlotBytes:], uint64(w.opts.SlotBytes))
	le.PutUint64(w.ctl[offStride:], uint64(w.stride))
	le.PutUint64(w.ctl[offCreated:], uint64(clock.Boot()))
	le.PutUint32(w.ctl[offPID:], uint32(os.Getpid()))
	le.PutUint32(w.ctl[offMetaLen:], uint32(len(w.opts.Meta)))
	copy(w.ctl[offMeta:], w.opts.Meta)
	for i := range w.opts.Slots {
		w.ctl.seq(i).Store(noSeq)
	}
	w.ctl.u64(0).Store(le.Uint64([]byte(magic))) // last: with it the file is a ring
}

func (w *Writer) makeCurrent() error {
	tmp, cur := string(w.name)+".cur.new", string(w.name)+".cur"
	err := w.dir.root.WriteFile(tmp, []byte(w.epoch.String()+"\n"), 0o600)
	if err == nil {
		err = w.dir.root.Rename(tmp, cur)
	}
	if err != nil {
		return fmt.Errorf("write current epoch: %w", errors.Join(err, ignoreAbsent(w.dir.root.Remove(tmp))))
	}
	return nil
}

// DropOlder removes the rings of earlier epochs that Create kept. After Close
// it fails with ErrClosed: another writer may own the name.
func (w *Writer) DropOlder() error {
	if w.closed {
		return ErrClosed
	}
	return w.dropOlder(0)
}

func (w *Writer) dropOlder(keep int) error {
	epochs, err := w.dir.Epochs(w.name)
	if err != nil {
		return err
	}
	var old []Epoch
	for _, e := range epochs {
		if e != w.epoch {
			old = append(old, e)
		}
	}
	var errs []error
	for _, e := range old[:max(0, len(old)-keep)] {
		errs = append(errs, w.dir.remove(w.name, e))
	}
	return errors.Join(errs...)
}

// Slot is a claimed slot: fill Bytes, then Publish or Abandon, once.
type Slot struct {
	w   *Writer
	i   int
	gen uint32
}

// Claim takes the oldest slot that no reader holds, to be filled. It never
// waits. With every slot pinned it counts a drop and fails with ErrNoSlot;
// admission of readers keeps that from happening.
func (w *Writer) Claim() (Slot, error) {
	if w.closed {
		return Slot{}, ErrClosed
	}
	if w.claimed >= 0 {
		return Slot{}, fmt.Errorf("claim a slot of %s: slot %d is claimed and neither published nor abandoned", w.name, w.claimed)
	}
	// One look can miss the free slot, when a reader pins ahead of it and lets
	// go behind it; a hundred looks take microseconds and do not.
	for look := range 100 {
		if i := w.take(); i >= 0 {
			return Slot{w, i, w.gens[i]}, nil
		}
		if look == 0 {
			w.Reclaim()
		}
	}
	w.dropped++
	w.ctl.u64(offDropped).Store(w.dropped)
	return Slot{}, ErrNoSlot
}

// take looks once at every slot. It returns -1 where none was free when seen.
func (w *Writer) take() int {
	i := w.next
	for range w.opts.Slots {
		word := w.ctl.word(i)
		v := word.Load()
		if i != w.latest && v&pinBits == 0 && word.CompareAndSwap(v, uint64(w.gens[i]+1)<<32|writing) {
			w.gens[i]++
			w.next, w.claimed = i+1, i
			if w.next == w.opts.Slots {
				w.next = 0
			}
			return i
		}
		if i++; i == w.opts.Slots {
			i = 0
		}
	}
	return -1
}

// Bytes is the slot's memory. It must not be used after Publish or Abandon,
// where Bytes panics.
func (s Slot) Bytes() []byte {
	s.must("fill")
	off := s.i * s.w.stride
	return s.w.dat[off : off+s.w.opts.SlotBytes : off+s.w.opts.SlotBytes]
}

// Number and Generation name the slot in descriptors.
func (s Slot) Number() int { return s.i }

// Generation counts how often the slot has been claimed.
func (s Slot) Generation() uint32 { return s.gen }

// Publish makes the first n bytes of the slot the latest message and returns
// its sequence number. It panics on a slot that was published or abandoned
// before, and on n outside of the slot: both are errors of the program.
func (s Slot) Publish(n int, info Info) (seq uint64) {
	w := s.w
	s.must("publish")
	if n < 0 || n > w.opts.SlotBytes {
		panic(fmt.Sprintf("shm: publish %d bytes in a slot of %d", n, w.opts.SlotBytes))
	}
	seq = w.seq
	putInfo(w.ctl.record(s.i), n, info)
	w.ctl.seq(s.i).Store(seq)
	w.ctl.word(s.i).Store(uint64(s.gen) << 32)
	w.seq++
	// Published first: whoever sees latest, or is woken by it, finds all up to
	// there by number, also when the writer is killed in between.
	w.ctl.u64(offPublished).Store(w.seq)
	w.ctl.u64(offLatest).Store(uint64(s.gen)<<32 | uint64(s.i))
	binary.LittleEndian.PutUint64(w.ctl[offHeartbeat:], uint64(info.Boot)) // for people: no barrier
	w.latest, w.claimed = s.i, -1
	if since := time.Duration(info.Boot) - w.reclaimed; since >= time.Second || since < 0 {
		w.reclaimed = time.Duration(info.Boot)
		w.Reclaim()
	}
	return seq
}

// Abandon gives the slot back unpublished.
func (s Slot) Abandon() {
	s.must("abandon")
	s.w.ctl.seq(s.i).Store(noSeq)
	s.w.ctl.word(s.i).Store(uint64(s.gen) << 32)
	s.w.claimed = -1
}

func (s Slot) must(verb string) {
	if s.w == nil || s.w.claimed != s.i || s.w.gens[s.i] != s.gen {
		panic("shm: " + verb + " a slot that is not claimed")
	}
}

// Reclaim clears the pins of readers that died and returns how many. Claim
// and Publish call it in time: when no slot is free, and once a second by the
// times of the messages.
func (w *Writer) Reclaim() int {
	if w.closed {
		return 0
	}
	var pinned uint64
	for i := range w.opts.Slots {
		pinned |= w.ctl.word(i).Load() & pinBits
	}
	cleared := 0
	for r := range MaxReaders {
		if pinned>>r&1 == 0 || lockfile.Try(w.file, int64(lockReader+r)) != nil {
			continue
		}
		cleared += w.ctl.clear(r, w.opts.Slots)
		// Closing the file would give the lock up too; an error here can only
		// mean that the file is closed.
		_ = lockfile.Unlock(w.file, int64(lockReader+r))
	}
	return cleared
}

// clear removes reader r's bit wherever it stands.
func (a area) clear(r, slots int) (cleared int) {
	bit := uint64(1) << r
	for i := range slots {
		if a.word(i).Load()&bit != 0 {
			a.word(i).And(^bit)
			cleared++
		}
	}
	return cleared
}

// Epoch is the ring's epoch.
func (w *Writer) Epoch() Epoch { return w.epoch }

// Name is the ring's name.
func (w *Writer) Name() Name { return w.name }

// Published is the next sequence number.
func (w *Writer) Published() uint64 { return w.seq }

// Dropped is how often Claim found no slot.
func (w *Writer) Dropped() uint64 { return w.dropped }

// Readers lists the live readers.
func (w *Writer) Readers() []ReaderInfo {
	if w.closed {
		return nil
	}
	return w.ctl.readers(w.file)
}

// Close ends the ring and removes it. Readers that have it mapped can finish.
func (w *Writer) Close() error { return w.end(true) }

// Retire ends the ring and leaves its files for readers that come later.
func (w *Writer) Retire() error { return w.end(false) }

func (w *Writer) end(unlink bool) error {
	if w.closed {
		return nil
	}
	w.closed, w.claimed = true, -1
	w.ctl.u32(offClosed).Store(1)
	var errs []error
	if unlink {
		errs = append(errs, w.dropOlder(0), w.dir.remove(w.name, w.epoch),
			ignoreAbsent(w.dir.root.Remove(string(w.name)+".cur")))
	}
	w.release()
	return errors.Join(append(errs, w.lock.Release())...)
}

func (w *Writer) release() {
	w.closed = true
	_, _ = w.ctl.unmap(), w.dat.unmap() // a failed munmap leaves the memory mapped, nothing worse
	w.ctl, w.dat = nil, nil
	if w.file != nil {
		w.file.Close()
	}
}
