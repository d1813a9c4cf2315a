package msg

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/names"
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

// newEpoch orders the runs within a boot by their start, in milliseconds, and
// tells runs of different boots apart by chance: 40 and 24 bits.
func newEpoch() Epoch {
	return Epoch(uint64(clock.Boot()/time.Millisecond)<<24 | uint64(rand.Uint32N(1<<24)))
}

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
	b.open = append(b.open, p.close)
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
		if o.ring != nil && !p.closing {
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

// ringMeta is what a ring says of itself: it makes the ring readable without
// any message.
type ringMeta struct {
	Kind   Kind   `json:"kind"`
	Topic  Topic  `json:"topic"`
	Node   string `json:"node"`
	BootID string `json:"boot_id"`
	*Geometry
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
	// Expect names the subscribers that must have every message. Should one
	// be away when the publisher ends, the history stays for it.
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

func (m ringMeta) encode() []byte {
	text, err := json.Marshal(m)
	if err != nil {
		panic("msg: marshal ring meta: " + err.Error()) // strings and numbers only
	}
	return text
}

// newOutlet opens a stream; its ring, if any, is made by the caller's options.
func (p *Publisher) newOutlet(kind Kind, stream Stream, end *endpoint, ring func(ringMeta) *shm.Options) (*outlet, error) {
	if err := stream.Check(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, twice := p.streams[stream]; twice {
		return nil, fmt.Errorf("publish %s: stream %q exists already", kind, stream)
	}
	cfg := p.bus.cfg
	o := &outlet{pub: p, end: end, kind: kind, stream: stream, topic: TopicOf(kind, cfg.Name, stream),
		prefix:  headerPrefix(kind, cfg.Node, cfg.Name, stream, p.epoch, cfg.Clock.BootID()),
		started: clock.Boot()}
	if ring != nil {
		opts := ring(ringMeta{Kind: kind, Topic: o.topic, Node: cfg.Node, BootID: cfg.Clock.BootID()})
		w, err := shm.Create(p.bus.dir, ringName(cfg.Name, stream), p.epoch, *opts)
		if err != nil {
			return nil, fmt.Errorf("publish %s: %w", o.topic, err)
		}
		o.ring = w
	}
	p.streams[stream] = o
	return o, nil
}

func (p *Publisher) lossless(kind Kind, stream Stream, keep Retention) (*outlet, error) {
	o, err := p.newOutlet(kind, stream, p.main, func(m ringMeta) *shm.Options { r := keep.ring(m); return &r })
	if err == nil {
		o.expect = keep.Expect
	}
	return o, err
}

// post publishes a body that carries its own header.
func (o *outlet) post(stamp Stamp, body interface{ header() *Header }) (Seq, error) {
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

// close ends the ring. Where an expected subscriber is away, the files stay
// for it, until the publisher's next start or the supervisor's sweep.
func (o *outlet) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ring == nil {
		return nil
	}
	reading := o.ring.Readers()
	for _, name := range o.expect {
		if !slices.ContainsFunc(reading, func(r shm.ReaderInfo) bool { return r.Name == name }) {
			return o.ring.Retire()
		}
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
	if len(columns) == 0 {
		return nil, fmt.Errorf("publish readings %s: no columns", stream)
	}
	for i, c := range columns {
		if names.Stream(c) != nil || slices.Contains(columns[:i], c) {
			return nil, fmt.Errorf("publish readings %s: column %q: want distinct names of a-z, 0-9 and _, the unit last", stream, c)
		}
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
	return &FileStream{o}, err
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
	return &DetectionStream{o}, err
}

// Publish sends what was seen; its header is filled in.
func (s *DetectionStream) Publish(stamp Stamp, d Detection) (Seq, error) {
	return s.out.post(stamp, &d)
}

// StateStream publishes a worker's state. It has no history: the next one
// says more than a lost one.
type StateStream struct{ out *outlet }

// States opens the stream of a worker's state.
func (p *Publisher) States(stream Stream) (*StateStream, error) {
	o, err := p.newOutlet(KindState, stream, p.main, nil)
	return &StateStream{o}, err
}

// Publish sends the state; its header is filled in.
func (s *StateStream) Publish(stamp Stamp, state State) error {
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
	address, err := Endpoint(p.bus.cfg.RunDir, p.bus.cfg.Name, stream)
	if err != nil {
		return nil, err
	}
	end, err := p.bus.bind(address, 1)
	if err != nil {
		return nil, err
	}
	o, err := p.newOutlet(KindFrame, stream, end, func(m ringMeta) *shm.Options {
		m.Geometry = &g
		return &shm.Options{Slots: slots, SlotBytes: slotBytes, Meta: m.encode()}
	})
	if err != nil {
		return nil, err
	}
	geometry, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("publish %s: geometry: %w", o.topic, err)
	}
	tail := fmt.Appendf(nil, `,"ring":%q,%s`, o.ring.Name(), geometry[1:])
	return &FrameStream{out: o, tail: tail[:len(tail)-1]}, nil
}

// Gate waits for subscribers of this stream, as Publisher.Gate does.
func (s *FrameStream) Gate(names []string, atMost time.Duration, done <-chan struct{}) (missing []string) {
	return s.out.end.gate(names, atMost, done)
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
