package shm

// Lease is a held message. Its bytes stay as they are until Release. The zero
// Lease holds nothing.
type Lease struct {
	r      *Reader
	place  int
	serial uint32
	slot   int
	gen    uint32
	n      int
	seq    uint64
	info   Info
}

// Bytes is the message, in place: read-only memory, gone after Release, where
// it panics.
func (l Lease) Bytes() []byte {
	if l.r == nil {
		return nil
	}
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if !l.valid() {
		panic("shm: bytes of a lease that was released")
	}
	off := l.slot * l.r.stride
	return l.r.dat[off : off+l.n : off+l.n]
}

// Seq is the message's sequence number within its epoch.
func (l Lease) Seq() uint64 { return l.seq }

// Info is what the writer said of the message.
func (l Lease) Info() Info { return l.info }

// Slot and generation of the message, as descriptors name them.
func (l Lease) Slot() (number int, generation uint32) { return l.slot, l.gen }

// Held says whether the lease holds a message.
func (l Lease) Held() bool {
	if l.r == nil {
		return false
	}
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.valid()
}

// Release gives the slot back. Releasing twice does nothing.
func (l Lease) Release() {
	if l.r == nil {
		return
	}
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if !l.valid() {
		return
	}
	l.r.drop(l.place)
	if l.r.closing && l.r.held == 0 {
		_ = l.r.release() // a failed munmap leaves the memory mapped, nothing worse
	}
}

func (l Lease) valid() bool {
	h := l.r.leases[l.place]
	return h.used && h.serial == l.serial
}
