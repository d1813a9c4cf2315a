package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A stream cannot be asked whether it has a message of some id. It can be asked for the last message
// of a subject, which proves nothing about the ones before it: a stream whose leader dies may have
// taken the third of five messages and not the first. So each message carries a mark: the
// sequence number in the stream up to which all earlier records of its subject were acknowledged
// when it was sent. What lies between mark and last message is listed, without bodies.
//
//	stream:   … mark │ id  id  (lost)  id  last │
//	                 └──── listed: arrived ─────┘
//
// Where the stream has dropped its messages, or may not be read, nothing is known, and
// everything is published.

const (
	// natsMarkHeader is the header with the mark of a message.
	natsMarkHeader = "Perch-Mark"
	// natsMarkEvery is how many acknowledgements lie between marks. The one before the last is
	// sent: so the ids of that many records at least can be found that were acknowledged, but whose
	// acknowledgement the box forgot in a power cut.
	natsMarkEvery = 64
	// natsList bounds what is listed.
	natsList = 1024
	// natsAsk bounds one request, beside a tenth of Stall. A server that has just lost its leader
	// answers no sooner for waiting longer.
	natsAsk = 5 * time.Second
)

// natsMark is how far a subject's records are acknowledged, in sequence numbers of the stream.
type natsMark struct {
	known bool   // whether the stream was asked, or was found empty
	low   uint64 // everything of ours up to here is acknowledged
	cur   uint64 // low when the present run of acknowledgements began
	prev  uint64 // cur of the run before: what messages carry
	count int
}

func (n *natsSink) mark(subject string) *natsMark {
	m := n.marks[subject]
	if m == nil {
		m = &natsMark{}
		n.marks[subject] = m
	}
	return m
}

func (m *natsMark) acknowledged(seq uint64) {
	m.low = max(m.low, seq)
	if m.count++; m.count >= natsMarkEvery {
		m.prev, m.cur, m.count = m.cur, m.low, 0
	}
}

// natsAcked is a message that a delivery found acknowledged.
type natsAcked struct {
	subject string
	seq     uint64
}

// noted moves the marks past what the last delivery found acknowledged. The caller has kept that by
// now: killed before, it would send it again, and the marks must not lie behind it.
func (n *natsSink) noted() {
	for _, a := range n.fresh {
		n.mark(a.subject).acknowledged(a.seq)
	}
	n.fresh = n.fresh[:0]
}

func (m *natsMark) write(h nats.Header) {
	if m.known {
		h.Set(natsMarkHeader, strconv.FormatUint(m.prev, 10))
	}
}

// begin takes the stream's answer about the subject: its last message, the mark before it, and the
// sequence numbers between.
func (m *natsMark) begin(prev, last uint64, listed []uint64) {
	if len(listed) > natsList/2 {
		prev = listed[len(listed)-natsList/2-1]
	}
	*m = natsMark{known: true, low: last, cur: last, prev: prev}
}

// errUnreadable is why a stream's messages cannot be read: that is no reason not to publish.
type errUnreadable struct{ err error }

func (e errUnreadable) Error() string { return e.err.Error() }

// arrived are the ids that the stream has of a subject, as far back as matters. It asks once a
// connection, and again for as long as Stall while the servers are not ready.
func (n *natsSink) arrived(ctx context.Context, subject string) (ids, error) {
	if n.link.asked[subject] {
		return n.known[subject], nil
	}
	found, err := n.ask(ctx, subject)
	var unreadable errUnreadable
	if errors.As(err, &unreadable) {
		n.warn(unreadable)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	n.link.asked[subject] = true
	// What an earlier connection found stays: the record may come later, from the backlog.
	if known := n.known[subject]; known == nil || len(known) > 2*natsList {
		n.known[subject] = ids{}
	}
	maps.Copy(n.known[subject], found)
	return n.known[subject], nil
}

func (n *natsSink) warn(why error) {
	if n.warned || n.o.Log == nil {
		return
	}
	n.warned = true
	n.o.Log.Warn("cannot ask the stream what has arrived: records that it took just before a long outage will be there twice, under one id", "error", why)
}

func (n *natsSink) ask(ctx context.Context, subject string) (known ids, err error) {
	stream, err := n.streamOf(ctx, subject)
	if err == nil {
		err = n.persist(ctx, func(ctx context.Context) error {
			known, err = n.read(ctx, stream, subject)
			return err
		})
	}
	return known, err
}

// read asks for the last message of a subject, and where there is doubt for those before it.
func (n *natsSink) read(ctx context.Context, stream jetstream.Stream, subject string) (ids, error) {
	m := n.mark(subject)
	last, err := stream.GetLastMsgForSubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		m.known = true // nothing is there: zero, or what was acknowledged before it was dropped
		return ids{}, nil
	case err != nil:
		return nil, err
	}
	known := ids{natsID(last.Header.Get(jetstream.MsgIDHeader)): true}
	from, err := strconv.ParseUint(last.Header.Get(natsMarkHeader), 10, 64)
	switch {
	case m.known:
		from = max(from, m.low) // this process knows it better
	case err != nil: // not a message of ours
		from = last.Sequence
	}
	var listed []uint64
	if from < last.Sequence {
		if listed, err = n.list(ctx, stream, subject, from+1, known); err != nil {
			return nil, err
		}
	}
	m.begin(min(from, last.Sequence), last.Sequence, listed)
	return known, nil
}

// list adds the ids of a subject's messages from a sequence number on, and returns their
// sequence numbers. It reads headers only, by a consumer whose filter is the subject, so that a
// box needs no permission to read what others sent.
func (n *natsSink) list(ctx context.Context, stream jetstream.Stream, subject string, from uint64, known ids) (seqs []uint64, err error) {
	name := "perch-" + NATSToken(n.o.Node) + "-" + NATSToken(n.o.Worker)
	cfg := jetstream.ConsumerConfig{Name: name, FilterSubject: subject, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
		AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true, MemoryStorage: true, Replicas: 1, InactiveThreshold: 6 * natsAsk}
	consumer, err := stream.CreateConsumer(ctx, cfg)
	isUsed := err == nil && consumer.CachedInfo().Delivered.Consumer > 0 // of a run that was killed, and began at the same place
	if isUsed || errors.Is(err, jetstream.ErrConsumerExists) {
		if err = stream.DeleteConsumer(ctx, name); err == nil {
			consumer, err = stream.CreateConsumer(ctx, cfg)
		}
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.DeleteConsumer(ctx, name) }() // else the server does so when it is idle
	want := consumer.CachedInfo().NumPending
	if want == 0 || want > natsList {
		return nil, nil
	}
	batch, err := consumer.Fetch(int(want), jetstream.FetchContext(ctx))
	if err != nil {
		return nil, err
	}
	for m := range batch.Messages() {
		known[natsID(m.Headers().Get(jetstream.MsgIDHeader))] = true
		if meta, err := m.Metadata(); err == nil {
			seqs = append(seqs, meta.Sequence.Stream)
		}
	}
	if err := batch.Error(); err != nil {
		return nil, err
	}
	if uint64(len(seqs)) < want {
		return nil, fmt.Errorf("list messages of %s: %d of %d: %w", subject, len(seqs), want, context.DeadlineExceeded)
	}
	return seqs, nil
}

// streamOf finds the stream that takes a subject. There must be one: NATS throws away what nobody
// subscribes to.
func (n *natsSink) streamOf(ctx context.Context, subject string) (stream jetstream.Stream, err error) {
	if stream = n.link.streams[subject]; stream != nil {
		return stream, nil
	}
	name := n.o.Stream
	err = n.persist(ctx, func(ctx context.Context) (err error) {
		if n.o.Stream == "" {
			name, err = n.link.js.StreamNameBySubject(ctx, subject)
		}
		if err == nil {
			stream, err = n.link.js.Stream(ctx, name)
		}
		return err
	})
	switch {
	case err == nil && stream.CachedInfo().Config.NoAck:
		err = &Problem{Err: fmt.Errorf("publish to %s: the stream %s has no_ack: true and acknowledges nothing: make it no_ack: false", subject, name), Ours: true}
	case err == nil:
		n.link.streams[subject] = stream
	case errors.Is(err, jetstream.ErrStreamNotFound):
		of := "with the subjects " + n.o.Prefix + ".>"
		if n.o.Stream != "" {
			of = "of the name " + n.o.Stream
		}
		err = &Problem{Err: fmt.Errorf("publish to %s: there is no JetStream stream %s: make one, such as by nats stream add --subjects '%s.>' (docs/FLEET.md)", subject, of, n.o.Prefix), Ours: true}
	}
	return stream, err
}

// persist repeats a request for as long as Stall while servers elect a leader, and sorts out why
// it failed.
func (n *natsSink) persist(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, n.o.Stall, fmt.Errorf("ask JetStream: no answer for %s", n.o.Stall))
	defer cancel()
	for {
		err := n.link.request(ctx, min(natsAsk, max(n.o.Stall/10, time.Second)), do)
		var unreadable errUnreadable
		var api jetstream.JetStreamError
		switch {
		case err == nil, errors.As(err, &unreadable), errors.Is(err, jetstream.ErrStreamNotFound):
			return err
		case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
			(errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders)) && !n.link.enabled():
			return &Problem{Err: fmt.Errorf("ask JetStream: the server has none (%w): want jetstream in its configuration, and in that of the account", err), Ours: true}
		case errors.As(err, &api) && api.APIError() != nil && api.APIError().Code < 500 && api.APIError().Code != 429:
			return errUnreadable{err}
		}
		select {
		case <-n.link.down:
			return n.link.lost()
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(natsTick):
		}
	}
}

func (l *natsLink) enabled() bool {
	is, _ := l.nc.ConnectedServerJetStream()
	return is
}

// request makes one request, which ends at once where the server denies it.
func (l *natsLink) request(ctx context.Context, atMost time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	l.mu.Lock()
	l.api, l.barred = cancel, false
	l.mu.Unlock()
	err := do(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.api = nil
	if err != nil && l.barred {
		return errUnreadable{fmt.Errorf("the server denies it: want permission to publish to $JS.API (docs/FLEET.md): %w", err)}
	}
	return err
}
