package msg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/perch-edge/perch/pkg/shm"
)

// Address is a source to read: by name in the bus's own run folder, or by a
// full endpoint elsewhere.
type Address struct {
	Source   Source
	Stream   Stream // only this one; empty is all
	Endpoint string // empty is Source's in the bus's run folder
}

// Cursor is the last message of a stream that a subscriber already has.
type Cursor struct {
	Epoch Epoch
	Seq   Seq
}

// Subscription says what a subscriber wants.
type Subscription struct {
	Sources []Address
	Kinds   []Kind
	// Live asks for what is sent from now on only, without repair: for those
	// who look on and must not take part.
	Live bool
	// Resume tells what the subscriber holds of a stream from before its own
	// start, so that it goes on exactly there. It may be nil.
	Resume func(Topic) (Cursor, bool)
}

// Subscriber reads the lossless kinds, and states, of its sources: each stream
// in order, without gaps as long as the publisher's history reaches back, and
// nothing twice. It is not safe for concurrent use.
type Subscriber struct {
	bus    *Bus
	want   Subscription
	in     *inbox
	topics map[Topic]*track
	order  []*track
	ready  []Message // repaired or drained, to be handed out first
	looked time.Time
	ended  bool
	other  map[shm.Name]bool // rings of the sources that hold something else
	bad    Refused
}

// Refused counts messages that were not accepted.
type Refused struct {
	Malformed uint64 `json:"malformed"`
	Version   uint64 `json:"unknown_version"`
	Duplicate uint64 `json:"duplicate"`
}

// lookEvery is how often a subscriber compares itself with its sources' rings.
const lookEvery = 500 * time.Millisecond

// Subscribe connects to the sources. Sources may start later.
func (b *Bus) Subscribe(want Subscription) (*Subscriber, error) {
	in, err := b.newInbox(queue)
	if err != nil {
		return nil, err
	}
	s := &Subscriber{bus: b, want: want, in: in, topics: map[Topic]*track{}, other: map[shm.Name]bool{}}
	b.open = append(b.open, s.close)
	for _, a := range want.Sources {
		if err := s.connect(a); err != nil {
			return nil, fmt.Errorf("subscribe to %s: %w", a.Source, err)
		}
	}
	if err := in.soc.SetSubscribe(helloPrefix + string(b.cfg.Name)); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return s, nil
}

func (s *Subscriber) connect(a Address) error {
	if err := a.Source.Check(); err != nil {
		return err
	}
	for _, k := range s.want.Kinds {
		// A prefix: what it lets through too much is dropped on arrival.
		if err := s.in.soc.SetSubscribe(string(TopicOf(k, a.Source, a.Stream))); err != nil {
			return err
		}
	}
	endpoint := a.Endpoint
	if endpoint == "" {
		var err error
		if endpoint, err = Endpoint(s.bus.cfg.RunDir, a.Source, ""); err != nil {
			return err
		}
	}
	return s.in.soc.Connect(endpoint)
}

func (s *Subscriber) close() error {
	var errs []error
	for _, t := range s.order {
		errs = append(errs, t.close())
	}
	return errors.Join(errs...)
}

func (s *Subscriber) wants(kind Kind, source Source, stream Stream) bool {
	if !slices.Contains(s.want.Kinds, kind) {
		return false
	}
	return slices.ContainsFunc(s.want.Sources, func(a Address) bool {
		return a.Source == source && (a.Stream == "" || a.Stream == stream)
	})
}

// Next returns the next message. When until passes without one it returns
// false, so that the caller can do what time demands. When ctx is done it
// first hands out all that had been published by then, and returns ctx's error
// after that.
func (s *Subscriber) Next(ctx context.Context, until time.Time) (Message, bool, error) {
	for {
		if len(s.ready) > 0 {
			m := s.ready[0]
			s.ready[0] = Message{}
			s.ready = s.ready[1:]
			return m, true, nil
		}
		if ctx.Err() != nil {
			if s.rest(); len(s.ready) > 0 {
				continue
			}
			return Message{}, false, ctx.Err()
		}
		parts, err := s.in.poll()
		if err != nil {
			return Message{}, false, err
		}
		if parts != nil {
			s.arrived(parts)
			continue
		}
		// Nothing waits on the socket: now the rings can be compared with what came.
		if time.Since(s.looked) >= lookEvery {
			if s.look(false); len(s.ready) > 0 {
				continue
			}
		}
		wake := s.looked.Add(lookEvery)
		if !until.IsZero() && until.Before(wake) {
			wake = until
		}
		parts, err = s.in.wait(ctx, wake)
		if err != nil {
			return Message{}, false, err
		}
		if parts != nil {
			s.arrived(parts)
			continue
		}
		if ctx.Err() == nil && !until.IsZero() && !time.Now().Before(until) {
			return Message{}, false, nil
		}
	}
}

// rest takes, once, what had been published when the end was asked for: what
// waits on the socket, and then what only the rings have.
func (s *Subscriber) rest() {
	if s.ended {
		return
	}
	s.ended = true
	for range 2 * queue {
		parts, err := s.in.poll()
		if parts == nil || err != nil {
			break
		}
		s.arrived(parts)
	}
	s.look(true)
}

// arrived takes a message from the socket and leaves in ready what it completes.
func (s *Subscriber) arrived(parts [][]byte) {
	m, err := Decode(parts)
	if errors.Is(err, ErrVersion) {
		s.bad.Version++
		return
	}
	if err != nil {
		s.bad.Malformed++
		return
	}
	if !s.wants(m.Kind, m.Source, m.Stream) {
		return // another stream whose name begins alike
	}
	if m.Kind == KindState {
		s.ready = append(s.ready, m)
		return
	}
	t := s.track(m.Topic())
	if t.ring == nil || t.epoch != m.Epoch {
		s.enter(t, m.Epoch, m.Seq)
	}
	if m.Epoch != t.epoch || uint64(m.Seq) < t.next {
		s.bad.Duplicate++
		return
	}
	s.repair(t, uint64(m.Seq))
	t.count.Received++
	t.next++
	s.ready = append(s.ready, m)
}

// track follows one stream through its epochs.
type track struct {
	topic  Topic
	known  bool // epoch is set
	epoch  Epoch
	next   uint64
	ring   *shm.Reader // nil where the history is out of reach
	seen   uint64      // what the ring had published at the last look
	count  Account
	past   Account // sums over earlier epochs
	resume *Cursor
}

func (t *track) close() error {
	if t.ring == nil {
		return nil
	}
	ring := t.ring
	t.ring = nil
	return ring.Close()
}

func (s *Subscriber) track(topic Topic) *track {
	t := s.topics[topic]
	if t == nil {
		t = &track{topic: topic}
		if s.want.Resume != nil {
			if c, ok := s.want.Resume(topic); ok {
				t.resume = &c
			}
		}
		s.topics[topic] = t
		s.order = append(s.order, t)
	}
	return t
}

// enter moves a track to a later epoch: what the earlier ones still hold comes
// first. seq is the message that showed the epoch.
func (s *Subscriber) enter(t *track, epoch Epoch, seq Seq) {
	if t.known && epoch == t.epoch {
		s.attach(t)
		return
	}
	if t.known && epoch < t.epoch {
		return // a straggler of a run that has been drained
	}
	switch {
	case s.want.Live:
		t.start(epoch, uint64(seq))
		t.count.Skipped = uint64(seq)
		return
	case t.known:
		s.finish(t)
		s.between(t, t.epoch, epoch)
	case t.resume != nil && t.resume.Epoch == epoch:
		t.start(epoch, uint64(t.resume.Seq)+1)
		t.count.Skipped = t.next
		s.attach(t)
		return
	case t.resume != nil:
		t.start(t.resume.Epoch, uint64(t.resume.Seq)+1)
		t.count.Skipped = t.next
		s.attach(t)
		s.finish(t)
		after := t.resume.Epoch
		if t.ring == nil {
			after = 0 // of an earlier boot: its number says nothing about this one's
		}
		s.between(t, after, epoch)
	}
	first := !t.known
	t.start(epoch, 0)
	s.attach(t)
	if first && t.ring != nil {
		// What was overwritten before this subscriber came was never its own.
		for t.next < t.ring.Published() && !t.holds(t.next) {
			t.next++
			t.count.Skipped++
		}
	}
}

func (t *track) start(epoch Epoch, next uint64) {
	t.past = t.past.plus(t.count)
	t.known, t.epoch, t.next, t.seen = true, epoch, next, 0
	t.count = Account{Topic: t.topic, Epoch: epoch}
	_ = t.close() // an unmap that fails leaves memory mapped, nothing worse
}

// attach opens the history of the track's epoch, where there is one.
func (s *Subscriber) attach(t *track) {
	if t.ring != nil || s.want.Live {
		return
	}
	if ring, err := shm.OpenEpoch(s.bus.dir, t.ringName(), t.epoch, string(s.bus.cfg.Name), 1); err == nil {
		t.ring = ring
	}
}

// between drains epochs that came and went unseen.
func (s *Subscriber) between(t *track, after, before Epoch) {
	epochs, err := s.bus.dir.Epochs(t.ringName())
	if err != nil {
		return
	}
	for _, e := range epochs {
		if e > after && e < before {
			t.start(e, 0)
			s.attach(t)
			s.finish(t)
		}
	}
}

// finish takes the rest of an epoch from its history.
func (s *Subscriber) finish(t *track) {
	if t.ring != nil {
		s.repair(t, t.ring.Published())
	}
}

func (t *track) holds(seq uint64) bool {
	lease, err := t.ring.At(seq)
	lease.Release()
	return err == nil
}

// repair hands out the messages from t.next up to before, from the history;
// what is not there is lost.
func (s *Subscriber) repair(t *track, before uint64) {
	if s.want.Live {
		t.count.Lost += before - min(t.next, before)
		t.next = max(t.next, before)
		return
	}
	for ; t.next < before; t.next++ {
		m, err := t.fetch(t.next)
		if err != nil {
			t.count.Lost++
			continue
		}
		t.count.Repaired++
		s.ready = append(s.ready, m)
	}
}

// fetch copies one message out of the history.
func (t *track) fetch(seq uint64) (Message, error) {
	if t.ring == nil {
		return Message{}, shm.ErrNoRing
	}
	lease, err := t.ring.At(seq)
	if err != nil {
		return Message{}, err
	}
	defer lease.Release()
	return decodeKept(t.topic, lease)
}

func decodeKept(topic Topic, lease shm.Lease) (Message, error) {
	text := slices.Clone(lease.Bytes())
	header := lease.Info().User[0]
	if header > uint64(len(text)) {
		return Message{}, fmt.Errorf("%w: kept header of %d in %d bytes", ErrMalformed, header, len(text))
	}
	return Decode([][]byte{[]byte(topic), text[:header]})
}

// look compares every stream with its ring: it finds streams that have said
// nothing yet, the last messages of killed publishers, and messages that never
// came. Unless all is asked for, it takes only what was published before the
// last look, since later messages may still be on their way.
func (s *Subscriber) look(all bool) {
	s.looked = time.Now()
	if s.want.Live {
		return
	}
	for _, topic := range s.discover() {
		t := s.track(topic)
		current, err := s.bus.dir.Current(t.ringName())
		if err == nil && (!t.known || t.epoch != current) {
			// A stream's first look takes its whole history at once.
			fresh := !t.known && len(s.ready) == 0
			s.enter(t, current, 0)
			if t.ring != nil && fresh {
				t.seen = t.ring.Published()
			}
		}
		s.attach(t)
		if t.ring == nil {
			continue
		}
		published := t.ring.Published()
		upTo := t.seen
		if all || t.ring.Ended() {
			upTo = t.ring.Published()
		}
		t.seen = published
		s.repair(t, upTo)
	}
}

func (t *track) ringName() shm.Name {
	_, source, stream, err := t.topic.Split()
	if err != nil {
		return ""
	}
	return ringName(source, stream)
}

// discover lists the wanted lossless streams that have a ring.
func (s *Subscriber) discover() []Topic {
	rings, err := s.bus.dir.Rings()
	if err != nil {
		return nil
	}
	var topics []Topic
	for _, name := range rings {
		if t, ok := s.topicOf(name); ok {
			topics = append(topics, t)
		}
	}
	return topics
}

// topicOf finds the wanted topic behind a ring: known tracks first, then by
// what the ring says of itself.
func (s *Subscriber) topicOf(name shm.Name) (Topic, bool) {
	for _, t := range s.order {
		if t.ringName() == name {
			return t.topic, true
		}
	}
	if s.other[name] || !slices.ContainsFunc(s.want.Sources, func(a Address) bool { return ownsRing(a.Source, name) }) {
		return "", false
	}
	meta, err := readMeta(s.bus.dir, name)
	if err != nil {
		return "", false // perhaps being made: the next look will see
	}
	kind, source, stream, err := meta.Topic.Split()
	if err != nil || ringName(source, stream) != name || !kind.lossless() || !s.wants(kind, source, stream) {
		s.other[name] = true
		return "", false
	}
	return meta.Topic, true
}

// Accounts lists what became of each stream's messages, in its present epoch.
func (s *Subscriber) Accounts() []Account {
	var accounts []Account
	for _, t := range s.order {
		if t.known {
			a := t.count
			a.Sent = t.next
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// Totals sums the accounts over all epochs that this subscriber has seen.
func (s *Subscriber) Totals() (sum Account) {
	for _, t := range s.order {
		sum = sum.plus(t.past.plus(t.count))
	}
	return sum
}

// Refused tells what was not accepted.
func (s *Subscriber) Refused() Refused { return s.bad }
