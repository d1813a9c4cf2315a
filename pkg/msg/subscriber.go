package msg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/shm"
)

// Address is a source to read: by name in the bus's own run folder, or by a
// full endpoint elsewhere.
type Address struct {
	Source   Source
	Stream   Stream // only this one; empty is all
	Endpoint string // empty is Source's in the bus's run folder
	Kinds    []Kind // only these; empty is the subscription's
	// Seldom says that the publisher is away most of the time, so that it is
	// not looked for as often as others are.
	Seldom bool
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
	// Resume tells what the subscriber holds of a stream from before its own
	// start, so that it goes on exactly there. The zero cursor is for one that
	// does not know yet: it gets all that the histories hold. It may be nil.
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
	ready  []Message // received, repaired or drained
	taken  int       // how many of ready have been handed out
	looked time.Time
	ended  bool
	other  map[shm.Name]bool // rings of the sources that hold something else
	born   Epoch             // runs from here on began after this subscriber
	bad    Refused
}

// Refused counts messages that were not accepted.
type Refused struct {
	Malformed uint64 `json:"malformed"`
	Version   uint64 `json:"unknown_version"`
	Duplicate uint64 `json:"duplicate"`
}

const (
	// lookEvery is how often a subscriber compares itself with its sources' rings.
	lookEvery = 500 * time.Millisecond
	// lookAnyway is when it does so although messages keep coming: another
	// source's last ones must not wait for a lull.
	lookAnyway = 4 * lookEvery
	// maxStreams bounds how many streams a subscriber follows.
	maxStreams = 256
)

// Subscribe connects to the sources. Sources may start later.
func (b *Bus) Subscribe(want Subscription) (*Subscriber, error) {
	if slices.Contains(want.Kinds, KindFrame) || slices.ContainsFunc(want.Sources, func(a Address) bool { return slices.Contains(a.Kinds, KindFrame) }) {
		return nil, errors.New("subscribe: frames are read by Bus.Frames; Listen hears their descriptors")
	}
	in, err := newInbox(b.ctx, queue)
	if err != nil {
		return nil, err
	}
	s := &Subscriber{bus: b, want: want, in: in, topics: map[Topic]*track{}, other: map[shm.Name]bool{}, born: firstEpoch()}
	if err := s.connect(); err != nil {
		return nil, errors.Join(err, in.close())
	}
	b.closeLater(s.close)
	return s, nil
}

// connect subscribes before it connects, and says who it is last: a publisher
// that has heard the name has heard the rest. Two connections to one endpoint
// would bring each message twice.
func (s *Subscriber) connect() error {
	var often, seldom []string
	for _, a := range s.want.Sources {
		endpoint, err := s.bus.locate(a.Source, "", a.Endpoint)
		if err == nil && a.Stream != "" {
			err = a.Stream.Check()
		}
		for _, k := range a.kinds(s.want.Kinds) {
			// A prefix: what it lets through too much is dropped on arrival.
			err = errors.Join(err, k.check(), s.in.soc.SetSubscribe(string(TopicOf(k, a.Source, a.Stream))))
		}
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", a.Source, err)
		}
		if a.Seldom {
			seldom = append(seldom, endpoint)
		} else {
			often = append(often, endpoint)
		}
	}
	seldom = slices.DeleteFunc(seldom, func(e string) bool { return slices.Contains(often, e) })
	if err := errors.Join(s.connectAll(often, reconnect), s.connectAll(seldom, reconnectSeldom)); err != nil {
		return err
	}
	if err := s.in.soc.SetSubscribe(helloPrefix + string(s.bus.cfg.Name)); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

// connectAll connects to each endpoint once, to be looked for again that often
// while it is not there.
func (s *Subscriber) connectAll(endpoints []string, again time.Duration) error {
	if err := s.in.soc.SetReconnectIvl(again); err != nil { // holds for connections from now on
		return fmt.Errorf("subscribe: %w", err)
	}
	slices.Sort(endpoints)
	for _, endpoint := range slices.Compact(endpoints) {
		if err := s.in.soc.Connect(endpoint); err != nil {
			return fmt.Errorf("subscribe at %s: %w", endpoint, err)
		}
	}
	return nil
}

func (s *Subscriber) close() error {
	errs := []error{s.in.close()}
	for _, t := range s.order {
		errs = append(errs, t.close())
	}
	return errors.Join(errs...)
}

func (s *Subscriber) wants(kind Kind, source Source, stream Stream) bool {
	return slices.ContainsFunc(s.want.Sources, func(a Address) bool {
		return a.Source == source && (a.Stream == "" || a.Stream == stream) && slices.Contains(a.kinds(s.want.Kinds), kind)
	})
}

// kinds are those that are read from the source, of a subscription to these.
func (a Address) kinds(all []Kind) []Kind {
	if len(a.Kinds) > 0 {
		return a.Kinds
	}
	return all
}

// Next returns the next message. When until passes without one it returns
// false, so that the caller can do what time demands. When ctx is done it
// first hands out all that had been published by then, and returns ctx's error
// after that.
func (s *Subscriber) Next(ctx context.Context, until time.Time) (Message, bool, error) {
	for {
		if m, ok := s.pop(); ok {
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
		}
		// With nothing on the socket the rings can be compared with what came.
		if since := time.Since(s.looked); since >= lookAnyway || parts == nil && since >= lookEvery {
			s.look(false)
		}
		if parts != nil || len(s.ready) > 0 {
			continue
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

func (s *Subscriber) pop() (Message, bool) {
	if s.taken == len(s.ready) {
		s.ready, s.taken = s.ready[:0], 0
		return Message{}, false
	}
	m := s.ready[s.taken]
	s.ready[s.taken] = Message{}
	s.taken++
	return m, true
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
	for _, t := range s.order {
		s.flush(t)
	}
	s.look(true)
}

// arrived takes a message from the socket and leaves in ready what it completes. A
// message with a malformed body is refused too: its number counts as lost once it is
// passed, unless the history has a good copy.
func (s *Subscriber) arrived(parts [][]byte) {
	m, err := Decode(parts)
	if err == nil && !s.wants(m.Kind, m.Source, m.Stream) {
		return // another stream whose name begins alike
	}
	if err == nil {
		err = m.check()
	}
	if err != nil {
		s.refuse(err)
		return
	}
	if m.Kind == KindState {
		s.ready = append(s.ready, m)
		return
	}
	t := s.track(m.Topic())
	if t == nil {
		s.bad.Malformed++
		return
	}
	if err := s.admit(t, &m); err != nil {
		s.refuse(err)
		return
	}
	if s.follows(t, &m) {
		s.take(t, m)
	}
}

// errDuplicate says that a message has been taken before, or is of a run that
// has been read to its end.
var errDuplicate = errors.New("duplicate")

func (s *Subscriber) refuse(err error) {
	switch {
	case errors.Is(err, ErrVersion):
		s.bad.Version++
	case errors.Is(err, errDuplicate):
		s.bad.Duplicate++
	default:
		s.bad.Malformed++
	}
}

// take hands out a message, and before it those that are missing.
func (s *Subscriber) take(t *track, m Message) {
	if t.next == 0 && t.bare && t.resume == nil && !t.all && t.epoch < s.born {
		t.count.Skipped, t.next = uint64(m.Seq), uint64(m.Seq) // what was before this subscriber came
	}
	s.repair(t, uint64(m.Seq))
	t.count.Received++
	t.next++
	s.ready = append(s.ready, m)
}

// admit enters the run that a message belongs to. It fails if there can be no such run or
// number: one wrong message must not end the stream for this reader.
func (s *Subscriber) admit(t *track, m *Message) error {
	if t.known && m.Epoch == t.epoch {
		s.attach(t)
	} else if err := s.admitRun(t, m); err != nil {
		return err
	}
	switch {
	case uint64(m.Seq) < t.next:
		return errDuplicate
	case t.over, t.ring != nil && uint64(m.Seq) >= t.ring.Published():
		return fmt.Errorf("%w: %s is ahead of its own history, which is written first", ErrMalformed, m.ID())
	case t.ring == nil && s.ownBoot(m) && time.Duration(m.Seq) > s.sinceStart(m.Epoch)/time.Microsecond:
		return fmt.Errorf("%w: %s: more messages than microseconds since its run began", ErrMalformed, m.ID())
	}
	return nil
}

// admitRun decides whether to enter a run that is not the present one. A live run wins: its
// writer holds the lock of its history, which exists before the first message is sent.
// Without a live history, the epoch alone decides.
func (s *Subscriber) admitRun(t *track, m *Message) error {
	if live, ok := s.live(t); ok {
		switch {
		case m.Epoch == live:
			s.enter(t, m.Epoch)
			return nil
		case t.known && m.Epoch < t.epoch && m.Epoch < live:
			return errDuplicate // a straggler of a run that has been drained
		case m.Epoch > live || !s.hasHistory(t, m.Epoch):
			return fmt.Errorf("%w: %s: the run %s is live, and there was no such run before it", ErrMalformed, m.ID(), live)
		}
		s.enter(t, m.Epoch)
		return nil
	}
	if s.ownBoot(m) && s.sinceStart(m.Epoch) < 0 {
		return fmt.Errorf("%w: %s: its epoch is later than now", ErrMalformed, m.ID())
	}
	if !t.known || m.Epoch > t.epoch {
		s.enter(t, m.Epoch)
		return nil
	}
	if i := t.left(m.Epoch); i >= 0 && t.runs[i].bare && t.bare {
		s.flush(t)
		t.start(m.Epoch, 0) // the greater epoch did not end it, so it goes on
		return nil
	}
	return errDuplicate
}

// live is the epoch of the stream's history while a process writes it.
func (s *Subscriber) live(t *track) (Epoch, bool) {
	if !s.bus.dir.HasWriter(t.name) {
		return 0, false
	}
	epoch, err := s.bus.dir.Current(t.name)
	return epoch, err == nil
}

func (s *Subscriber) hasHistory(t *track, epoch Epoch) bool {
	epochs, err := s.bus.dir.Epochs(t.name)
	return err != nil || slices.Contains(epochs, epoch)
}

// ownBoot says whether the message's epoch can be compared with this boot's clock.
func (s *Subscriber) ownBoot(m *Message) bool { return m.BootID == s.bus.cfg.Clock.BootID() }

// sinceStart is how long ago a run of this boot began; it is negative if the run's epoch is
// in the future.
func (s *Subscriber) sinceStart(epoch Epoch) time.Duration {
	const slack = time.Second
	return clock.Boot() + slack - time.Duration(epoch>>14)*time.Microsecond
}

// follows reports whether to take a message now. If no history can confirm a wide gap, the
// next message must confirm it; until then the message after the gap is held.
func (s *Subscriber) follows(t *track, m *Message) bool {
	if before := t.held; before != nil {
		t.held = nil
		switch {
		case t.ring != nil && uint64(before.Seq) < t.ring.Published(): // it comes from there
		case m.Seq > before.Seq && s.wide(t, m):
			s.take(t, *before)
		default:
			s.bad.Malformed++ // the stream goes on without it
		}
	}
	if s.wide(t, m) {
		t.held = m
		return false
	}
	return true
}

func (s *Subscriber) wide(t *track, m *Message) bool {
	return t.ring == nil && uint64(m.Seq)-t.next > maxJump
}

// flush takes the message that is held: no later one can contradict it any more.
func (s *Subscriber) flush(t *track) {
	m := t.held
	t.held = nil
	if m != nil && t.ring == nil { // else it comes from the history
		s.take(t, *m)
	}
}

// track is the track of a topic. It is nil where a peer invents more streams
// than a subscriber can follow.
func (s *Subscriber) track(topic Topic) *track {
	t := s.topics[topic]
	if t == nil {
		_, source, stream, err := topic.Split()
		if err != nil || len(s.order) == maxStreams {
			return nil
		}
		t = &track{topic: topic, name: ringName(source, stream)}
		if s.want.Resume != nil {
			switch c, ok := s.want.Resume(topic); {
			case ok && c == Cursor{}:
				t.all = true
			case ok:
				t.resume = &c
			}
		}
		s.topics[topic] = t
		s.order = append(s.order, t)
	}
	return t
}

// enter moves a track to another epoch: what the earlier ones still hold comes
// first. The epoch is a greater one, or one that is live: of two boots, or after
// a message of a run that never was, the number does not say which came later.
func (s *Subscriber) enter(t *track, epoch Epoch) {
	if t.known && epoch == t.epoch {
		s.attach(t)
		return
	}
	switch {
	case t.known:
		s.flush(t)
		t.tried = time.Time{} // the last occasion
		s.attach(t)
		s.finish(t)
		after := t.epoch
		if after > epoch {
			after = 0
		}
		s.between(t, after, epoch)
	case t.resume != nil:
		if after := s.goOn(t); epoch != t.epoch {
			s.finish(t)
			s.between(t, after, epoch)
		}
	case t.all:
		s.between(t, 0, epoch)
	default:
		s.between(t, s.born, epoch)
	}
	if t.known && t.epoch == epoch {
		return
	}
	t.start(epoch, 0)
	s.attach(t)
	s.skip(t)
}

// skip leaves out what was overwritten before this subscriber came: it was
// never its own.
func (s *Subscriber) skip(t *track) {
	if t.resume != nil || t.epoch >= s.born || t.ring == nil {
		return
	}
	gone := t.oldest()
	for gone < t.ring.Published() && !t.holds(gone) {
		gone++
	}
	t.count.Skipped, t.next = gone, gone
}

// goOn takes a track up where the resume cursor says. It returns the epoch
// after which everything is new.
func (s *Subscriber) goOn(t *track) (after Epoch) {
	t.start(t.resume.Epoch, uint64(t.resume.Seq)+1)
	t.count.Skipped = t.next
	s.attach(t)
	if errors.Is(t.why, shm.ErrNoRing) {
		// Removed, and with it all that were older; or of an earlier boot, and
		// then its number says nothing about those that are here.
		return 0
	}
	return t.resume.Epoch
}

// attach opens the history of the track's epoch, where there is one. A ring
// that is out of reach is not asked for with each message: to be refused as a
// reader takes 50 ms.
func (s *Subscriber) attach(t *track) {
	if t.ring != nil || t.over || time.Since(t.tried) < lookEvery {
		return
	}
	if t.ring, t.why = shm.OpenEpoch(s.bus.dir, t.name, t.epoch, string(s.bus.cfg.Name), 1); t.why != nil {
		t.ring, t.tried = nil, time.Now()
	}
	t.bare = t.bare && errors.Is(t.why, shm.ErrNoRing)
}

// between drains epochs that came and went unseen.
func (s *Subscriber) between(t *track, after, before Epoch) {
	epochs, err := s.bus.dir.Epochs(t.name)
	if err != nil {
		return
	}
	for _, e := range epochs {
		if e > after && e < before && t.left(e) < 0 {
			t.start(e, 0)
			s.attach(t)
			s.skip(t)
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

// repair hands out the messages from t.next up to before, from the history;
// what is not there is lost.
func (s *Subscriber) repair(t *track, before uint64) {
	if t.ring != nil && t.next < before {
		t.lose(min(t.oldest(), before))
		for end := min(before, t.ring.Published()); t.next < end; t.next++ {
			m, err := t.fetch(t.next)
			if err != nil {
				t.count.Lost++
				if errors.Is(err, ErrMalformed) || errors.Is(err, ErrVersion) {
					s.refuse(err)
				}
				continue
			}
			t.count.Repaired++
			s.ready = append(s.ready, m)
		}
	}
	t.lose(before)
}

// look compares every stream with its ring: it finds streams that have said
// nothing yet, the last messages of killed publishers, and messages that never
// came. Unless all is asked for, it takes only what was published before the
// last look, since later messages may still be on their way.
func (s *Subscriber) look(all bool) {
	s.looked = time.Now()
	s.discover()
	for _, t := range s.order {
		s.compare(t, all)
	}
}

func (s *Subscriber) compare(t *track, all bool) {
	fresh := !t.known // its whole history is taken at once
	if fresh || t.ring == nil || t.ring.Ended() {
		current, err := s.bus.dir.Current(t.name)
		if err == nil && (fresh || current >= t.epoch || s.bus.dir.HasWriter(t.name)) {
			s.enter(t, current)
		}
	}
	if t.ring == nil {
		return
	}
	upTo, published := t.seen, t.ring.Published()
	if all || fresh || t.ring.Ended() {
		upTo = t.ring.Published()
	}
	t.seen = published
	s.repair(t, upTo)
	if t.ring.Ended() && t.next >= t.ring.Published() { // nothing more to come: its memory is for others
		t.over = true
		_ = t.close() // an unmap that fails leaves memory mapped, nothing worse
	}
}

// discover begins a track for each wanted stream that has a history.
func (s *Subscriber) discover() {
	rings, err := s.bus.dir.Rings()
	if err != nil {
		return // the bus alone must do, until the next look
	}
	for _, name := range rings {
		if topic, ok := s.topicOf(name); ok {
			s.track(topic)
		}
	}
}

// topicOf finds the wanted topic behind a ring that has no track yet, by what
// the ring says of itself.
func (s *Subscriber) topicOf(name shm.Name) (Topic, bool) {
	if s.other[name] || slices.ContainsFunc(s.order, func(t *track) bool { return t.name == name }) ||
		!slices.ContainsFunc(s.want.Sources, func(a Address) bool { return ownsRing(a.Source, name) }) {
		return "", false
	}
	meta, err := readMeta(s.bus.dir, name)
	if err != nil {
		return "", false // perhaps being made: the next look will see
	}
	kind, source, stream, _ := meta.Topic.Split() // decodeMeta has checked it
	if !kind.lossless() || !s.wants(kind, source, stream) {
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

// Waiting says which histories are out of reach, and why: as long as they are,
// what is missed is lost. It is nil when all can be read, also where a publisher
// keeps none.
func (s *Subscriber) Waiting() error {
	var errs []error
	for _, t := range s.order {
		if t.ring == nil && t.why != nil && !errors.Is(t.why, shm.ErrNoRing) {
			errs = append(errs, fmt.Errorf("history of %s: %w", t.topic, t.why))
		}
	}
	return errors.Join(errs...)
}

// Refused tells what was not accepted.
func (s *Subscriber) Refused() Refused { return s.bad }
