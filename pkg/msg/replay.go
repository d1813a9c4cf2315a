package msg

import (
	"errors"
	"fmt"

	"github.com/perch-edge/perch/pkg/shm"
)

// Replay visits, in order, the messages of a stream from first to last of one epoch that
// the publisher's history still holds. It is for a subscriber that has lost what it wrote
// from them. Accounts do not change, since the messages were received before.
func (s *Subscriber) Replay(topic Topic, epoch Epoch, first, last Seq, visit func(Message)) error {
	ring, err := s.history(topic, epoch)
	if errors.Is(err, shm.ErrNoRing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("replay %s: %w", topic, err)
	}
	if t := s.topics[topic]; t == nil || t.ring != ring {
		defer func() { _ = ring.Close() }() // an unmap that fails leaves memory mapped, nothing worse
	}
	published := ring.Published()
	from := max(uint64(first), published-min(published, uint64(ring.Slots())))
	for seq := from; seq <= uint64(last) && seq < published; seq++ {
		if m, err := fetch(ring, topic, epoch, seq); err == nil {
			visit(m)
		}
	}
	return nil
}

// history returns the history of an epoch: the stream's open one, or another that the
// caller must close.
func (s *Subscriber) history(topic Topic, epoch Epoch) (*shm.Reader, error) {
	if t := s.topics[topic]; t != nil && t.known && t.epoch == epoch && t.ring != nil {
		return t.ring, nil
	}
	_, source, stream, err := topic.Split()
	if err != nil {
		return nil, err
	}
	return shm.OpenEpoch(s.bus.dir, ringName(source, stream), epoch, string(s.bus.cfg.Name), 1)
}
