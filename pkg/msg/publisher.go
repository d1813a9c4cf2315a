package msg

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/shm"
)

const (
	// DefaultHistory is how many messages a lossless stream keeps for
	// subscribers that missed some.
	DefaultHistory = 1024
	// DefaultMessageBytes is the largest message of a lossless stream.
	DefaultMessageBytes = 2 << 10
	// oldEpochs is how many histories of killed runs stay to be drained,
	// and oldEpochsFor how long.
	oldEpochs    = 2
	oldEpochsFor = 5 * time.Minute
)

// Publisher is a worker's voice on the bus: one endpoint for its messages and
// one for each stream of frames. It is safe for concurrent use.
type Publisher struct {
	bus   *Bus
	epoch Epoch
	main  *endpoint

	mu      sync.Mutex
	streams map[Stream]*outlet
	closing bool
}

// newEpoch orders the runs within a boot by their start, in microseconds, and
// tells runs of different boots apart by chance: 50 and 14 bits.
func newEpoch() Epoch { return firstEpoch() | Epoch(rand.Uint32N(1<<14)) }

// firstEpoch is the least that a run which starts now can have.
func firstEpoch() Epoch { return Epoch(clock.Boot()/time.Microsecond) << 14 }

// Publisher binds the worker's endpoint. It fails when another process has it.
func (b *Bus) Publisher() (*Publisher, error) {
	address, err := Endpoint(b.cfg.RunDir, b.cfg.Name, "")
	if err != nil {
		return nil, err
	}
	main, err := b.bind(address, queue)
	if err != nil {
		return nil, err
	}
	p := &Publisher{bus: b, epoch: newEpoch(), main: main, streams: map[Stream]*outlet{}}
	b.closeLater(p.close)
	return p, nil
}

// Epoch is this run's epoch.
func (p *Publisher) Epoch() Epoch { return p.epoch }

// Subscribers lists who has named itself on any of the publisher's endpoints.
func (p *Publisher) Subscribers() []string {
	p.mu.Lock()
	endpoints := []*endpoint{p.main}
	for _, o := range p.streams {
		if o.end != p.main {
			endpoints = append(endpoints, o.end)
		}
	}
	p.mu.Unlock()
	var names []string
	for _, e := range endpoints {
		names = append(names, e.subscribers()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Gate waits until those subscribers are there, or for the time given, or
// until done, and returns who is missing. A sensor calls it before its first
// message.
func (p *Publisher) Gate(names []string, atMost time.Duration, done <-chan struct{}) (missing []string) {
	return p.main.gate(names, atMost, done)
}

// Counts tells how many messages each stream has had and how many were
// dropped for want of a slot.
func (p *Publisher) Counts() (published, dropped map[Topic]uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	published, dropped = map[Topic]uint64{}, map[Topic]uint64{}
	for _, o := range p.streams {
		o.mu.Lock()
		published[o.topic] = o.seq
		if o.ring != nil {
			dropped[o.topic] = o.ring.Dropped()
		}
		o.mu.Unlock()
	}
	return published, dropped
}

func (p *Publisher) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	var errs []error
	for _, o := range p.streams {
		errs = append(errs, o.close())
	}
	return errors.Join(errs...)
}

// outlet is one stream of a publisher.
type outlet struct {
	pub    *Publisher
	end    *endpoint
	kind   Kind
	stream Stream
	topic  Topic
	prefix []byte

	mu      sync.Mutex
	seq     uint64
	buf     []byte
	ring    *shm.Writer // nil for state
	started time.Duration
	aged    bool
	expect  []string // who will drain the history of this run
}

// Retention is how much of a lossless stream its publisher keeps.
type Retention struct {
	Messages     int // 0 is DefaultHistory
	MessageBytes int // largest message; 0 is DefaultMessageBytes
	// Expect names the subscribers that must have every message. Where there are
	// some, the history stays when the publisher ends: one may be away, and one
	// that has read all may yet fail to save it.
	Expect []string
}

func (r Retention) ring(meta ringMeta) shm.Options {
	o := shm.Options{Slots: r.Messages, SlotBytes: r.MessageBytes, KeepDead: oldEpochs}
	if o.Slots == 0 {
		o.Slots = DefaultHistory
	}
	if o.SlotBytes == 0 {
		o.SlotBytes = DefaultMessageBytes
	}
	o.Meta = meta.encode()
	return o
}

// newOutlet opens a stream; its ring, if any, is made by the caller's options.
// Frames have an endpoint of their own, bound last: what fails leaves nothing.
func (p *Publisher) newOutlet(kind Kind, stream Stream, ring func(ringMeta) shm.Options) (*outlet, error) {
	if err := stream.Check(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, twice := p.streams[stream]; twice || p.closing {
		return nil, fmt.Errorf("publish %s: stream %q exists already, or the bus is closed", kind, stream)
	}
	cfg := p.bus.cfg
	o := &outlet{pub: p, end: p.main, kind: kind, stream: stream, topic: TopicOf(kind, cfg.Name, stream),
		prefix:  headerPrefix(kind, cfg.Node, cfg.Name, stream, p.epoch, cfg.Clock.BootID()),
		started: clock.Boot()}
	if ring != nil {
		opts := ring(ringMeta{Kind: kind, Topic: o.topic, Node: cfg.Node, BootID: cfg.Clock.BootID()})
		w, err := shm.Create(p.bus.dir, ringName(cfg.Name, stream), p.epoch, opts)
		if err != nil {
			return nil, fmt.Errorf("publish %s: %w", o.topic, err)
		}
		o.ring = w
	}
	if kind == KindFrame {
		if err := o.bindOwn(); err != nil {
			return nil, errors.Join(err, o.ring.Close())
		}
	}
	p.streams[stream] = o
	return o, nil
}

func (o *outlet) bindOwn() error {
	address, err := Endpoint(o.pub.bus.cfg.RunDir, o.pub.bus.cfg.Name, o.stream)
	if err != nil {
		return err
	}
	o.end, err = o.pub.bus.bind(address, 1)
	return err
}

func (p *Publisher) lossless(kind Kind, stream Stream, keep Retention) (*outlet, error) {
	o, err := p.newOutlet(kind, stream, keep.ring)
	if err == nil {
		o.expect = keep.Expect
	}
	return o, err
}

// post publishes a body that carries its own header.
func (o *outlet) post(stamp Stamp, body checked) (Seq, error) {
	if err := errors.Join(body.check(), checkStamp(stamp)); err != nil {
		return 0, fmt.Errorf("publish %s: %w", o.topic, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	cfg := o.pub.bus.cfg
	*body.header() = Header{Version: Version, Kind: o.kind, Node: cfg.Node, Source: cfg.Name, Stream: o.stream,
		Epoch: o.pub.epoch, BootID: cfg.Clock.BootID(), Seq: Seq(o.seq), Time: Time{stamp.Wall}, BootNS: int64(stamp.Boot), Synced: stamp.Synced}
	text, err := json.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("publish %s: %w", o.topic, err)
	}
	return o.emit(stamp, text)
}

// emit keeps the message first and sends it then: what was seen on the bus can
// always be repaired. o.mu is held.
func (o *outlet) emit(stamp Stamp, header []byte) (Seq, error) {
	if len(header) > maxHeader {
		return 0, fmt.Errorf("publish %s: header of %d bytes: want at most %d", o.topic, len(header), maxHeader)
	}
	if o.ring != nil {
		slot, err := o.ring.Claim()
		if err != nil {
			return 0, fmt.Errorf("publish %s: %w", o.topic, err)
		}
		if room := len(slot.Bytes()); len(header) > room {
			slot.Abandon()
			return 0, fmt.Errorf("publish %s: message of %d bytes: its history keeps %d at most", o.topic, len(header), room)
		}
		copy(slot.Bytes(), header)
		slot.Publish(len(header), shm.Info{Boot: int64(stamp.Boot), Wall: stamp.Wall.UnixNano(), Synced: stamp.Synced,
			User: [2]uint64{uint64(len(header))}})
		o.dropAged(stamp.Boot)
	}
	seq := Seq(o.seq)
	o.seq++
	return seq, o.end.send([]byte(o.topic), header)
}

// dropAged removes the histories of killed runs once nobody can still need them.
func (o *outlet) dropAged(now time.Duration) {
	if !o.aged && now-o.started > oldEpochsFor {
		o.aged = true
		_ = o.ring.DropOlder() // what stays is removed by the next start
	}
}

// close ends the ring. Where subscribers must have every message, the files stay
// for them, until the publisher's next start or the supervisor's sweep.
func (o *outlet) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ring == nil {
		return nil
	}
	if len(o.expect) > 0 {
		return o.ring.Retire()
	}
	return o.ring.Close()
}

// ReadingStream publishes rows of values.
type ReadingStream struct {
	out     *outlet
	columns []string
	tail    []byte
}

// Readings opens a stream of readings with these columns.
func (p *Publisher) Readings(stream Stream, columns []string, keep Retention) (*ReadingStream, error) {
	if err := checkColumns(columns); err != nil {
		return nil, fmt.Errorf("publish readings %s: %w", stream, err)
	}
	o, err := p.lossless(KindReading, stream, keep)
	if err != nil {
		return nil, err
	}
	names, err := json.Marshal(columns)
	if err != nil {
		return nil, fmt.Errorf("publish readings %s: %w", stream, err)
	}
	tail := append([]byte(`,"columns":`), names...)
	return &ReadingStream{out: o, columns: slices.Clone(columns), tail: append(tail, `,"values":`...)}, nil
}

// Publish sends one row. bad says, by column, why a value is NaN; it may be nil.
func (s *ReadingStream) Publish(stamp Stamp, values []float64, bad map[string]string) (Seq, error) {
	if len(values) != len(s.columns) {
		return 0, fmt.Errorf("publish %s: %d values for %d columns", s.out.topic, len(values), len(s.columns))
	}
	if err := errors.Join(checkBad(bad, s.columns), checkStamp(stamp)); err != nil {
		return 0, fmt.Errorf("publish %s: %w", s.out.topic, err)
	}
	o := s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	b := appendStamp(append(o.buf[:0], o.prefix...), o.seq, stamp)
	b = appendValues(append(b, s.tail...), values)
	if len(bad) > 0 {
		text, err := json.Marshal(bad)
		if err != nil {
			return 0, fmt.Errorf("publish %s: %w", o.topic, err)
		}
		b = append(append(b, `,"bad":`...), text...)
	}
	o.buf = append(b, '}')
	return o.emit(stamp, o.buf)
}

// FileStream publishes what became of files.
type FileStream struct{ out *outlet }

// Files opens a stream of file events.
func (p *Publisher) Files(stream Stream, keep Retention) (*FileStream, error) {
	o, err := p.lossless(KindFile, stream, keep)
	if err != nil {
		return nil, err
	}
	return &FileStream{o}, nil
}

// Publish says that the file with that id reached a state.
func (s *FileStream) Publish(stamp Stamp, id, state string, sidecar json.RawMessage) (Seq, error) {
	return s.out.post(stamp, &File{ID: id, State: state, Sidecar: sidecar})
}

// DetectionStream publishes what a detector saw.
type DetectionStream struct{ out *outlet }

// Detections opens a stream of detections.
func (p *Publisher) Detections(stream Stream, keep Retention) (*DetectionStream, error) {
	o, err := p.lossless(KindDetection, stream, keep)
	if err != nil {
		return nil, err
	}
	return &DetectionStream{o}, nil
}

// Publish sends what was seen; its header is filled in.
func (s *DetectionStream) Publish(stamp Stamp, d Detection) (Seq, error) {
	d.Objects = append([]Object{}, d.Objects...) // [] and not null in JSON
	return s.out.post(stamp, &d)
}

// StateStream publishes a worker's state. It has no history: the next one
// says more than a lost one.
type StateStream struct{ out *outlet }

// States opens the stream of a worker's state.
func (p *Publisher) States(stream Stream) (*StateStream, error) {
	o, err := p.newOutlet(KindState, stream, nil)
	if err != nil {
		return nil, err
	}
	return &StateStream{o}, nil
}

// Publish sends the state; its header is filled in. A gauge that is not finite
// is left out.
func (s *StateStream) Publish(stamp Stamp, state State) error {
	if state.Counters == nil {
		state.Counters = map[string]uint64{}
	}
	state.Gauges = maps.Clone(state.Gauges)
	maps.DeleteFunc(state.Gauges, func(_ string, v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
	_, err := s.out.post(stamp, &state)
	return err
}

// FrameStream publishes frames: pixels into a slot, a descriptor on the bus.
type FrameStream struct {
	out  *outlet
	tail []byte
}

// Frames opens a stream of frames with slots of the size given, on an endpoint
// of its own with a high-water mark of 1.
func (p *Publisher) Frames(stream Stream, g Geometry, slots, slotBytes int) (*FrameStream, error) {
	if err := g.check(min(slotBytes, maxFrame)); err != nil {
		return nil, fmt.Errorf("publish frames %s: %w", stream, err)
	}
	g.Planes = append([]pixel.Plane{}, g.Planes...) // [] and not null in JSON
	geometry, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("publish frames %s: geometry: %w", stream, err)
	}
	o, err := p.newOutlet(KindFrame, stream, func(m ringMeta) shm.Options {
		m.Geometry = &g
		return shm.Options{Slots: slots, SlotBytes: slotBytes, Meta: m.encode()}
	})
	if err != nil {
		return nil, err
	}
	tail := fmt.Appendf(nil, `,"ring":%q,%s`, o.ring.Name(), geometry[1:])
	return &FrameStream{out: o, tail: tail[:len(tail)-1]}, nil
}

// Gate waits for subscribers of this stream, as Publisher.Gate does.
func (s *FrameStream) Gate(names []string, atMost time.Duration, done <-chan struct{}) (missing []string) {
	return s.out.end.gate(names, atMost, done)
}

// Readers lists who has the stream's ring open. They read what is in it also
// after the stream has ended; who has only subscribed by then finds it gone.
func (s *FrameStream) Readers() []string {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	var names []string
	for _, r := range s.out.ring.Readers() {
		names = append(names, r.Name)
	}
	return names
}

// Claim takes a slot to be filled: see shm.Writer.Claim.
func (s *FrameStream) Claim() (FrameSlot, error) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	slot, err := s.out.ring.Claim()
	if err != nil {
		return FrameSlot{}, fmt.Errorf("publish %s: %w", s.out.topic, err)
	}
	return FrameSlot{s, slot}, nil
}

// FrameSlot is a claimed slot: fill Bytes, then Publish or Abandon, once.
type FrameSlot struct {
	stream *FrameStream
	slot   shm.Slot
}

// Bytes is the slot's memory.
func (f FrameSlot) Bytes() []byte { return f.slot.Bytes() }

// Abandon gives the slot back.
func (f FrameSlot) Abandon() {
	f.stream.out.mu.Lock()
	defer f.stream.out.mu.Unlock()
	f.slot.Abandon()
}

// Publish makes the first n bytes the stream's newest frame, captured at stamp.
func (f FrameSlot) Publish(n int, stamp Stamp) (Seq, error) {
	o := f.stream.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := checkStamp(stamp); err != nil {
		f.slot.Abandon()
		return 0, fmt.Errorf("publish %s: %w", o.topic, err)
	}
	number, generation := f.slot.Number(), f.slot.Generation()
	seq := f.slot.Publish(n, shm.Info{Boot: int64(stamp.Boot), Wall: stamp.Wall.UnixNano(), Synced: stamp.Synced})
	o.seq = seq + 1
	b := appendStamp(append(o.buf[:0], o.prefix...), seq, stamp)
	b = append(b, f.stream.tail...)
	b = strconv.AppendInt(append(b, `,"slot":`...), int64(number), 10)
	b = strconv.AppendUint(append(b, `,"generation":`...), uint64(generation), 10)
	b = strconv.AppendInt(append(b, `,"size":`...), int64(n), 10)
	o.buf = append(b, '}')
	return Seq(seq), o.end.send([]byte(o.topic), o.buf)
}
