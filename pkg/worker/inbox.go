package worker

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// step is how long a work loop may wait before it shows that it is alive.
const step = 500 * time.Millisecond

// After so many messages within a step an inbox gives account at once when it
// brings nothing for a lull: somebody may be waiting for it, such as a job that
// announces many files. It stays so for a while, since the last ones may have to
// be repaired.
const (
	burst = 1000
	lull  = 20 * time.Millisecond
	while = 2 * time.Second
)

// ledger keeps a copy of what an inbox counts, for the state, which another
// goroutine publishes.
type ledger struct {
	w     *Worker
	count func() tally
	last  atomic.Pointer[tally]
	at    time.Time

	since  int       // messages since the last count
	untold bool      // there are some of which no state has told
	hasty  time.Time // until then a lull gives account
}

// tally is what an inbox has counted.
type tally struct {
	accounts []msg.Account
	refused  msg.Refused
	waiting  error // why gaps cannot be repaired
}

func (l *ledger) tally() tally {
	if t := l.last.Load(); t != nil {
		return *t
	}
	return tally{}
}

// keep counts where the last count is too old for a state each second.
func (l *ledger) keep(now time.Time) {
	if now.Sub(l.at) >= step {
		l.keepNow(now)
	}
}

func (l *ledger) keepNow(now time.Time) {
	t := l.count()
	l.last.Store(&t)
	l.at = now
	if l.since >= burst {
		l.hasty = now.Add(while)
	}
	l.since = 0
}

// attend waits for the next thing that an inbox brings, shows all the while
// that the loop is alive, and keeps the ledger.
func attend[T any](ctx context.Context, l *ledger, until time.Time, next func(context.Context, time.Time) (T, bool, error)) (T, bool, error) {
	for {
		l.w.Progress()
		now := time.Now()
		l.keep(now)
		wake, hurry := now.Add(step), l.untold && (l.since >= burst || now.Before(l.hasty))
		if hurry {
			wake = now.Add(lull)
		}
		got, ok, err := next(ctx, sooner(until, wake))
		switch {
		case ok:
			l.since, l.untold = l.since+1, true
		case err != nil: // perhaps the last word
			l.keepNow(now)
		case hurry:
			l.keepNow(now)
			l.untold = false
			l.w.reportSoon()
		}
		if ok || err != nil || (!until.IsZero() && !time.Now().Before(until)) {
			return got, ok, err
		}
	}
}

// Inbox is the messages of a worker's sources, in order, gaps repaired and
// counted. It is for one goroutine.
type Inbox struct {
	ledger
	sub *msg.Subscriber
}

// Messages subscribes to the worker's sources and, where it reads files, to the
// jobs that announce those of its sources again (topology.HeardJobs). resume, which may be nil, tells
// what the worker holds of a stream from an earlier run.
func (w *Worker) Messages(resume func(msg.Topic) (msg.Cursor, bool)) (*Inbox, error) {
	return w.MessagesOf(w.reads, resume)
}

// MessagesOf is Messages for a worker that reads only some kinds of all that its program
// can read. also names workers besides its sources whose states it reads.
func (w *Worker) MessagesOf(kinds []msg.Kind, resume func(msg.Topic) (msg.Cursor, bool), also ...string) (*Inbox, error) {
	addresses, err := w.addresses()
	if err != nil {
		return nil, err
	}
	if slices.Contains(kinds, msg.KindFile) {
		for _, job := range w.top.HeardJobs(w.entry.Name) {
			addresses = append(addresses, msg.Address{Source: msg.Source(job), Seldom: true})
		}
	}
	for _, name := range also {
		addresses = append(addresses, msg.Address{Source: msg.Source(name), Kinds: []msg.Kind{msg.KindState}})
	}
	return w.subscribe(msg.Subscription{Sources: addresses, Kinds: kinds, Resume: resume})
}

// States subscribes to what other workers say of themselves.
func (w *Worker) States(of ...string) (*Inbox, error) {
	var addresses []msg.Address
	for _, name := range of {
		addresses = append(addresses, msg.Address{Source: msg.Source(name)})
	}
	return w.subscribe(msg.Subscription{Sources: addresses, Kinds: []msg.Kind{msg.KindState}})
}

func (w *Worker) subscribe(want msg.Subscription) (*Inbox, error) {
	sub, err := w.bus.Subscribe(want)
	if err != nil {
		return nil, err
	}
	in := &Inbox{sub: sub}
	w.keepLedger(&in.ledger, func() tally { return tally{sub.Accounts(), sub.Refused(), sub.Waiting()} })
	return in, nil
}

func (w *Worker) keepLedger(l *ledger, count func() tally) {
	l.w, l.count = w, count
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ledgers = append(w.ledgers, l)
}

// Next waits for the next message. It returns false when until passes without
// one; the zero time is never. When ctx is done it first hands out what had
// been published by then, and then returns ctx's error.
func (in *Inbox) Next(ctx context.Context, until time.Time) (msg.Message, bool, error) {
	return attend(ctx, &in.ledger, until, in.sub.Next)
}

// Replay visits those messages of a stream, from first to last of one epoch, that
// its publisher's history still holds, whether they have been handed out or not.
func (in *Inbox) Replay(topic msg.Topic, epoch msg.Epoch, first, last msg.Seq, visit func(msg.Message)) error {
	return in.sub.Replay(topic, epoch, first, last, visit)
}

// sooner is the earlier of two times, where zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// addresses are the worker's sources as the bus needs them.
func (w *Worker) addresses() (list []msg.Address, err error) {
	for _, ref := range w.entry.Sources {
		a := msg.Address{Source: msg.Source(ref.Name), Stream: msg.Stream(ref.Stream)}
		if ref.Endpoint != "" {
			var frames msg.Stream
			if _, a.Source, frames, err = msg.ParseEndpoint(ref.Endpoint); err == nil && frames != "" {
				err = fmt.Errorf("endpoint %s is for frames: %v are at %s.ipc", ref.Endpoint, w.reads, a.Source)
			}
			if err != nil {
				return nil, BadConfig(err)
			}
			a.Endpoint = ref.Endpoint
		}
		list = append(list, a)
	}
	if len(list) == 0 {
		return nil, BadConfig(fmt.Errorf("%s has no source: give --source ipc:///run/perch/NAME.ipc, or --topology and --name", w.entry.Name))
	}
	return list, nil
}

// FrameInbox is the frames of a worker's source. It is for one goroutine.
type FrameInbox struct {
	ledger
	frames *msg.Frames
	topic  msg.Topic
}

// Frames subscribes to the worker's one source of frames, to hold as many as
// pins at once.
func (w *Worker) Frames(pins int) (*FrameInbox, error) {
	from, err := w.frameSource()
	if err != nil {
		return nil, err
	}
	from.Pins = pins
	frames, err := w.bus.Frames(from)
	if err != nil {
		return nil, err
	}
	in := &FrameInbox{frames: frames, topic: msg.TopicOf(msg.KindFrame, from.Source, from.Stream)}
	w.keepLedger(&in.ledger, func() tally { return tally{accounts: []msg.Account{frames.Account()}} })
	return in, nil
}

// frameSource settles which stream is meant: frames have an endpoint for each.
func (w *Worker) frameSource() (msg.FrameSource, error) {
	if n := len(w.entry.Sources); n != 1 {
		return msg.FrameSource{}, w.badSource("%s reads the frames of exactly one source, got %d", w.program, n)
	}
	ref := w.entry.Sources[0]
	if ref.Endpoint != "" {
		_, source, stream, err := msg.ParseEndpoint(ref.Endpoint)
		if err == nil && stream == "" {
			err = fmt.Errorf("endpoint %s is for messages: frames are at %s.STREAM.ipc", ref.Endpoint, source)
		}
		if err != nil {
			return msg.FrameSource{}, BadConfig(err)
		}
		return msg.FrameSource{Source: source, Stream: stream, Endpoint: ref.Endpoint}, nil
	}
	stream, err := w.onlyStream(ref)
	return msg.FrameSource{Source: msg.Source(ref.Name), Stream: msg.Stream(stream)}, err
}

func (w *Worker) onlyStream(ref topology.Ref) (string, error) {
	if ref.Stream != "" {
		return ref.Stream, nil
	}
	source := w.top.Entry(ref.Name)
	switch {
	case source == nil:
		return "", w.badSource("which stream of %q? say source = \"%s.video\", or give --topology", ref.Name, ref.Name)
	case len(source.Streams) != 1:
		return "", w.badSource("%q has %d streams %v: say which, as \"%s.STREAM\"", ref.Name, len(source.Streams), source.Streams, ref.Name)
	}
	return source.Streams[0], nil
}

func (w *Worker) badSource(format string, args ...any) error {
	return topology.Problems{w.entry.Table.Problem("source", format, args...)}
}

// Newest waits for a frame newer than the last, and takes the newest. It
// returns false when until passes without one.
func (in *FrameInbox) Newest(ctx context.Context, until time.Time) (msg.Frame, bool, error) {
	return attend(ctx, &in.ledger, until, in.frames.Newest)
}

// Next waits for the next frame in order; it fails with msg.ErrEnded when the
// source has ended its stream.
func (in *FrameInbox) Next(ctx context.Context, until time.Time) (msg.Frame, bool, error) {
	return attend(ctx, &in.ledger, until, in.frames.Next)
}

// tendEvery is how soon a source that came back hears of a reader that is
// waiting for its own next moment.
const tendEvery = 250 * time.Millisecond

// Wait waits for a moment, as Worker.Wait does, and stays subscribed meanwhile.
func (in *FrameInbox) Wait(ctx context.Context, until time.Time) error {
	for {
		if err := in.frames.Rest(until); err != nil {
			return err
		}
		in.keep(time.Now())
		next := sooner(until, time.Now().Add(tendEvery))
		if err := in.w.Wait(ctx, next); err != nil || next.Equal(until) {
			return err
		}
	}
}

// Topic is the stream that is read.
func (in *FrameInbox) Topic() msg.Topic { return in.topic }

// Waiting says why there are no frames at the moment; nil when there are.
func (in *FrameInbox) Waiting() error { return in.frames.Waiting() }

// retention keeps history for the workers that the topology names as readers.
func (w *Worker) retention(messages, bytes int) msg.Retention {
	return msg.Retention{Messages: messages, MessageBytes: bytes, Expect: slices.Clone(w.top.Readers(w.entry.Name))}
}

// PublishReadings opens a stream of readings that keeps the last ones for
// readers that missed some.
func (w *Worker) PublishReadings(stream string, columns []string, history int) (*msg.ReadingStream, error) {
	return w.pub.Readings(msg.Stream(stream), columns, w.retention(history, 0))
}

// PublishFrames opens a stream of frames.
func (w *Worker) PublishFrames(stream string, g msg.Geometry, slots, slotBytes int) (*msg.FrameStream, error) {
	s, err := w.pub.Frames(msg.Stream(stream), g, slots, slotBytes)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gates = append(w.gates, s.Gate)
	return s, nil
}
