package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// list shows what is on the bus.
type list struct {
	where
	For time.Duration `default:"2s" placeholder:"DURATION" help:"How long to listen for states and rates; 0s shows only what lies in the folders."`
}

// Validate is called by kong.
func (c *list) Validate() error {
	if c.For < 0 {
		return errors.New("--for: want 0s or more")
	}
	return nil
}

// Run looks at the folders, listens, looks again, and prints both.
func (c *list) Run(ctx context.Context, to worker.Streams) error {
	sel, err := c.selection()
	if err != nil {
		return err
	}
	before, err := streams(sel)
	if err != nil {
		return err
	}
	b, err := survey(ctx, to, sel, c.For)
	if err != nil {
		return err
	}
	after, err := streams(sel)
	if err != nil {
		return err
	}
	s := scene{Streams: b.merge(before, after)}
	if s.Publishers, err = publishers(sel, b.states); err != nil {
		return err
	}
	if len(s.Publishers)+len(s.Streams) == 0 {
		return worker.Temporary(errors.New("nothing is on the bus: " + (&ear{sel: sel}).where()))
	}
	if c.Output == "json" {
		return s.printJSON(to.Out)
	}
	return s.print(to.Out)
}

// scene is what list found.
type scene struct {
	Publishers []publisher
	Streams    []stream
}

// publisher is an endpoint, and for messages what its worker says of itself.
type publisher struct {
	Type        string     `json:"type"` // "publisher"
	Source      msg.Source `json:"source"`
	Endpoint    string     `json:"endpoint"`
	Frames      msg.Stream `json:"frames,omitempty"` // the stream, of an endpoint of frames
	Live        bool       `json:"live"`             // a process holds the endpoint's lock
	PID         int        `json:"pid"`
	Program     string     `json:"program,omitempty"`
	Ready       bool       `json:"ready"`
	Status      string     `json:"status,omitempty"`
	Trouble     string     `json:"trouble,omitempty"`
	Subscribers []string   `json:"subscribers,omitempty"` // who reads it, as far as they said
}

// stream is one series of messages, found by its ring or by being heard.
type stream struct {
	Type      string     `json:"type"` // "stream"
	Topic     msg.Topic  `json:"topic"`
	Kind      msg.Kind   `json:"kind"`
	Source    msg.Source `json:"source"`
	Stream    msg.Stream `json:"stream"`
	Epoch     msg.Epoch  `json:"epoch"`
	Messages  uint64     `json:"messages"` // of this epoch
	Hz        *float64   `json:"hz"`       // null when it was not seen to move
	Live      bool       `json:"live"`     // a process writes its ring, or it was heard
	Dropped   uint64     `json:"dropped"`  // for want of a slot
	Slots     int        `json:"slots,omitempty"`
	SlotBytes int        `json:"slot_bytes,omitempty"`
	NominalHz float64    `json:"nominal_hz,omitempty"`
	Format    string     `json:"format,omitempty"`
	Width     int        `json:"width,omitempty"`
	Height    int        `json:"height,omitempty"`
	Colour    string     `json:"colour,omitempty"` // as a sensor's key "colour" has it
	Readers   []reader   `json:"readers"`
}

// reader is a process in a ring's table.
type reader struct {
	Name    string  `json:"name"`
	PID     int     `json:"pid"`
	Pins    int     `json:"pins"`     // slots that it may hold
	LastSeq *uint64 `json:"last_seq"` // what it held last; null when nothing
}

// heard is what a short listening brought.
type heard struct {
	board
	states map[msg.Source]msg.State
}

func survey(ctx context.Context, to worker.Streams, sel selection, length time.Duration) (*heard, error) {
	system, err := clock.System()
	if err != nil {
		return nil, err
	}
	h := &heard{board: board{bootID: system.BootID(), meters: map[msg.Topic]*meter{}}, states: map[msg.Source]msg.State{}}
	if length == 0 {
		return h, nil
	}
	wide := sel
	wide.topic = "" // states are wanted whatever is to be shown
	e, err := newEar(wide, 0, false)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithTimeout(ctx, length)
	defer end()
	err = e.hear(ctx, func(m *msg.Message, at time.Duration) bool {
		if m.Kind == msg.KindState {
			if s, err := m.State(); err == nil && len(h.states) < maxTopics {
				h.states[m.Source] = s
			}
		}
		if sel.wants(m.Kind, m.Source, m.Stream) {
			h.add(m, at)
		}
		return true
	})
	if code := worker.ExitCode(err); code == worker.ExitTemporary || errors.Is(err, context.DeadlineExceeded) {
		err = nil // silence is an answer too
	}
	return h, errors.Join(err, e.close(to.Err))
}

// streams lists the rings that are wanted; a folder that is not there has none.
func streams(sel selection) (wanted []msg.StreamInfo, err error) {
	if sel.shmDir == "" {
		return nil, nil
	}
	all, err := msg.Streams(sel.shmDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, s := range all {
		if kind, source, name, err := s.Topic.Split(); err == nil && sel.wants(kind, source, name) {
			wanted = append(wanted, s)
		}
	}
	return wanted, err
}

// publishers lists the endpoints that are wanted.
func publishers(sel selection, states map[msg.Source]msg.State) (list []publisher, err error) {
	for _, dir := range sel.runDirs() {
		found, err := endpoints(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range found {
			if !sel.at(e) {
				continue
			}
			p := publisher{Type: "publisher", Source: e.Source, Endpoint: e.Endpoint, Frames: e.Frames, Live: e.Live, PID: e.PID}
			if s, ok := states[e.Source]; ok && e.Frames == "" {
				p.Program, p.Ready, p.Status, p.Trouble, p.Subscribers = s.Program, s.Ready, s.Status, s.Trouble, s.Subscribers
			}
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b publisher) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Frames, b.Frames))
	})
	return list, nil
}

// merge puts together what the rings show, before and after the listening, and
// what was heard.
func (h *heard) merge(before, after []msg.StreamInfo) []stream {
	found := map[msg.Topic]stream{}
	for topic, m := range h.meters {
		s := newStream(topic)
		s.Epoch, s.Messages, s.Live, s.Hz = m.last.epoch, uint64(m.last.seq)+1, true, known64(m.all.rate())
		found[topic] = s
	}
	for _, now := range after {
		s := found[now.Topic]
		if s.Topic == "" {
			s = newStream(now.Topic)
		}
		if rate := ringRate(before, now); !math.IsNaN(rate) {
			s.Hz = &rate
		}
		s.fromRing(now)
		found[now.Topic] = s
	}
	list := slices.Collect(maps.Values(found))
	slices.SortFunc(list, func(a, b stream) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Stream, b.Stream))
	})
	return list
}

func newStream(topic msg.Topic) stream {
	s := stream{Type: "stream", Topic: topic, Readers: []reader{}}
	s.Kind, s.Source, s.Stream, _ = topic.Split() // accepted when it was received
	return s
}

func (s *stream) fromRing(now msg.StreamInfo) {
	r := now.Ring
	s.Epoch, s.Messages, s.Live, s.Dropped, s.Slots, s.SlotBytes = r.Epoch, r.Published, r.Alive && !r.Closed, r.Dropped, r.Slots, r.SlotBytes
	if g := now.Geometry; g != nil {
		s.NominalHz, s.Format, s.Width, s.Height = g.Hz, g.Format, g.Width, g.Height
		s.Colour = g.Colour().String()
	}
	for _, one := range r.Readers {
		shown := reader{Name: one.Name, PID: one.PID, Pins: one.Pins}
		if one.LastSeq < r.Published { // all ones before the first
			shown.LastSeq = &one.LastSeq
		}
		s.Readers = append(s.Readers, shown)
	}
}

// ringRate is what a ring counted between the two looks, by its own stamps;
// NaN when it did not move, or is another run's.
func ringRate(before []msg.StreamInfo, now msg.StreamInfo) float64 {
	for _, b := range before {
		span := now.Ring.Newest - b.Ring.Newest
		if b.Topic == now.Topic && b.Ring.Epoch == now.Ring.Epoch && b.Ring.Published > 0 && now.Ring.Published > b.Ring.Published && span > 0 {
			return float64(now.Ring.Published-b.Ring.Published) / span.Seconds()
		}
	}
	return math.NaN()
}

func known64(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// rate shows a rate to people.
func (s *stream) rate() string {
	if s.Hz == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f Hz", *s.Hz)
}
