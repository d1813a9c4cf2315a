package msg

import (
	"fmt"
	"slices"
	"time"

	"github.com/perch-edge/perch/pkg/shm"
)

// track follows one stream through its epochs.
type track struct {
	topic  Topic
	name   shm.Name // of its history
	known  bool     // epoch is set
	epoch  Epoch
	next   uint64
	ring   *shm.Reader // nil where the history is out of reach
	tried  time.Time   // when it was last out of reach
	why    error       // and why
	over   bool        // the epoch has ended, and all of its history is taken
	seen   uint64      // what the ring had published at the last look
	count  Account
	past   Account // sums over earlier epochs
	bare   bool    // the epoch has had no history so far
	runs   []run   // the epochs before, the last few
	held   *Message
	resume *Cursor
	all    bool // in place of resume: whatever the histories hold
}

// run is how far a track got in an epoch that it has left.
type run struct {
	epoch Epoch
	next  uint64
	count Account
	bare  bool
}

const (
	// maxRuns is how many epochs a track remembers.
	maxRuns = 4
	// maxJump is the widest gap that is accepted at once if no history can confirm it. A
	// message after a wider one is held until the next one comes: a single wrong number
	// must not silence the stream.
	maxJump = 100
)

func (t *track) close() error {
	if t.ring == nil {
		return nil
	}
	ring := t.ring
	t.ring = nil
	return ring.Close()
}

// start begins an epoch at a number, or goes on with one where it was left.
func (t *track) start(epoch Epoch, next uint64) {
	if t.known {
		t.past = t.past.plus(t.count)
		t.runs = append(t.runs, run{t.epoch, t.next, t.count, t.bare})
		t.runs = t.runs[max(0, len(t.runs)-maxRuns):]
	}
	t.known, t.epoch, t.next, t.seen = true, epoch, next, 0
	t.count, t.bare, t.held = Account{Topic: t.topic, Epoch: epoch}, true, nil
	if i := t.left(epoch); i >= 0 {
		before := t.runs[i]
		t.runs = slices.Delete(t.runs, i, i+1)
		t.next, t.count, t.bare = before.next, before.count, before.bare
		t.past = t.past.minus(t.count)
	}
	t.tried, t.why, t.over = time.Time{}, nil, false
	_ = t.close() // an unmap that fails leaves memory mapped, nothing worse
}

// left finds an epoch among those that were left; -1 is none of them.
func (t *track) left(epoch Epoch) int {
	return slices.IndexFunc(t.runs, func(r run) bool { return r.epoch == epoch })
}

func (t *track) holds(seq uint64) bool {
	lease, err := t.ring.At(seq)
	lease.Release()
	return err == nil
}

// oldest is a number that every message in the ring has reached, but for one
// that a stalled reader holds.
func (t *track) oldest() uint64 {
	published := t.ring.Published()
	return published - min(published, uint64(t.ring.Slots()))
}

// lose counts the messages up to before as lost. However far a gap, it takes no time.
func (t *track) lose(before uint64) {
	if before > t.next {
		t.count.Lost += before - t.next
		t.next = before
	}
}

// fetch copies one message out of the history.
func (t *track) fetch(seq uint64) (Message, error) { return fetch(t.ring, t.topic, t.epoch, seq) }

func fetch(ring *shm.Reader, topic Topic, epoch Epoch, seq uint64) (Message, error) {
	lease, err := ring.At(seq)
	if err != nil {
		return Message{}, err
	}
	defer lease.Release()
	text, header := slices.Clone(lease.Bytes()), lease.Info().User[0]
	if header > uint64(len(text)) {
		return Message{}, fmt.Errorf("%w: kept header of %d in %d bytes", ErrMalformed, header, len(text))
	}
	m, err := Decode([][]byte{[]byte(topic), text[:header]})
	if err == nil && (m.Epoch != epoch || uint64(m.Seq) != seq) {
		return Message{}, fmt.Errorf("%w: %s in the history of %s as number %d", ErrMalformed, m.ID(), epoch, seq)
	}
	if err == nil {
		err = m.check()
	}
	return m, err
}
