package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// natsWindow is how many records may be under way: enough for 2,500 a second at a round trip
	// of 100 ms, and little enough to ask for after an outage.
	natsWindow = 256
	// natsTick is how often a delivery looks for records to publish again.
	natsTick = 250 * time.Millisecond
	// natsLook bounds the question whether there is a stream: acknowledgements wait meanwhile.
	natsLook = 500 * time.Millisecond
	// headers of a message, beside the protocol's own.
	natsBootID = "Perch-Boot-Id"
)

// Errors that a stream answers with (the server's errors.json), as far as they decide something here.
const (
	natsTooLarge       = 10054 // message size exceeds maximum allowed
	natsHeaderTooLarge = 10097
	natsOtherStream    = 10060 // expected stream does not match
	natsSealed         = 10109
	natsNoAccount      = 10039 // JetStream not enabled for account
	natsAccountFull    = 10002 // resource limits exceeded for account
	natsNoResources    = 10023
	natsNoMemory       = 10028
	natsNoStorage      = 10047
	natsStoreFailed    = 10077 // also: maximum bytes exceeded, maximum messages exceeded
)

// natsDelivery is one Deliver.
type natsDelivery struct {
	n       *natsSink
	link    *natsLink
	number  string // of the delivery, which answers name
	items   []Item
	results []Result
	flights []natsFlight
	next    int // the first item that was not published yet
	first   int // the first item that is not settled
	pending int // published, and no answer yet
	bytes   int // of these
	again   int // how many are to be published again
	moved   time.Time
	halt    error // why nothing more is published
	looked  bool  // whether there is a stream at all: it is known
	blocked map[string]error

	lookedAt time.Time
	denied   map[string]bool // of the blocked subjects, those that we may not publish to
}

// natsFlight is an item under way.
type natsFlight struct {
	subject string
	sent    time.Time // first, since it was last known not to have arrived
	tried   time.Time // last
	pending bool      // no answer yet: it may have arrived
	again   bool      // nobody took it, or the server was not ready
	settled bool      // acknowledged, refused, or its subject is blocked
	seq     uint64    // of the message in the stream, where it was acknowledged
}

func newNATSDelivery(n *natsSink, items []Item, results []Result) *natsDelivery {
	n.link.deliveries++
	d := &natsDelivery{n: n, link: n.link, number: strconv.Itoa(n.link.deliveries), items: items, results: results,
		flights: make([]natsFlight, len(items)), moved: time.Now(), blocked: map[string]error{}, denied: map[string]bool{}}
	for i := range items {
		d.flights[i].subject = natsSubject(n.o.Prefix, &items[i].Record.Header)
	}
	return d
}

// open is how many items went out without an answer: they may have arrived.
func (d *natsDelivery) open() int { return d.pending }

// run publishes until all items are settled, or nothing more can be.
func (d *natsDelivery) run(ctx context.Context) error {
	tick := time.NewTicker(max(min(natsTick, d.n.o.Stall/8), time.Millisecond))
	defer tick.Stop()
	for {
		if err := d.fill(ctx); err != nil {
			d.sweep(ctx)
			return err
		}
		if isOurs(d.halt) {
			d.sweep(ctx)
			return d.halt
		}
		if d.pending == 0 && (d.halt != nil || d.again == 0 && d.next == len(d.items)) {
			return d.verdict()
		}
		select {
		case <-ctx.Done():
			d.sweep(ctx)
			return ctx.Err()
		case <-d.link.down:
			d.sweep(ctx)
			return d.link.lost()
		case m := <-d.link.answers:
			d.answer(ctx, m)
		case subject := <-d.link.denied:
			d.deny(subject)
		case <-tick.C:
			if err := d.late(ctx); err != nil {
				return err
			}
		}
	}
}

// sweep takes the answers that have come already.
func (d *natsDelivery) sweep(ctx context.Context) {
	for {
		select {
		case m := <-d.link.answers:
			d.answer(ctx, m)
		default:
			return
		}
	}
}

// fill publishes what the window has room for.
func (d *natsDelivery) fill(ctx context.Context) error {
	for d.halt == nil && d.next < len(d.items) && d.next-d.first < natsWindow {
		i := d.next
		f, item := &d.flights[i], d.items[i]
		if d.pending > 0 && d.bytes+len(item.Body) > d.n.o.Bytes {
			return nil
		}
		if d.blocked[f.subject] != nil {
			d.next++
			d.settle(i)
			continue
		}
		arrived, err := d.n.arrived(ctx, f.subject)
		if err != nil {
			return err
		}
		d.next++
		if id := natsID(item.ID()); arrived[id] {
			delete(arrived, id)
			f.seq = d.n.mark(f.subject).low // it is not behind that
			d.decide(i, Result{State: Acknowledged})
			continue
		}
		if err := d.publish(i); err != nil {
			return err
		}
	}
	return nil
}

// natsID is an id as a header brings it back (RFC 9110 section 5.5).
func natsID(id string) string { return strings.TrimSpace(id) }

// publish sends an item, or sends it again. What is larger than the server takes is refused.
func (d *natsDelivery) publish(i int) error {
	f, item := &d.flights[i], d.items[i]
	m := nats.NewMsg(f.subject)
	m.Reply, m.Data = d.link.inbox+d.number+"-"+strconv.Itoa(i), item.Body
	m.Header.Set(jetstream.MsgIDHeader, item.ID())
	m.Header.Set(natsBootID, item.Record.BootID)
	if d.n.o.Stream != "" {
		m.Header.Set(jetstream.ExpectedStreamHeader, d.n.o.Stream)
	}
	d.n.mark(f.subject).write(m.Header)
	switch err := d.link.nc.PublishMsg(m); {
	case errors.Is(err, nats.ErrMaxPayload):
		d.decide(i, Result{Refused, fmt.Sprintf("%d bytes with headers: the server takes %d (max_payload)", m.Size(), d.link.nc.MaxPayload())})
	case err != nil:
		return d.link.lost()
	default:
		f.tried = time.Now()
		if !f.pending {
			f.sent = f.tried
		}
		d.release(i)
		f.pending = true
		if d.pending == 0 {
			d.moved = f.tried
		}
		d.pending++
		d.bytes += len(item.Body)
	}
	return nil
}

// release takes an item out of the window.
func (d *natsDelivery) release(i int) {
	f := &d.flights[i]
	if f.pending {
		d.pending--
		d.bytes -= len(d.items[i].Body)
	}
	if f.again {
		d.again--
	}
	f.pending, f.again = false, false
}

func (d *natsDelivery) decide(i int, r Result) {
	d.results[i] = r
	d.settle(i)
}

// settle moves the window. What is acknowledged before all that is open becomes a mark with the next
// delivery: after an outage nobody has to look further back.
func (d *natsDelivery) settle(i int) {
	d.release(i)
	d.flights[i].settled = true
	d.moved = time.Now()
	for ; d.first < d.next && d.flights[d.first].settled; d.first++ {
		if f := &d.flights[d.first]; f.seq > 0 {
			d.n.fresh = append(d.n.fresh, natsAcked{f.subject, f.seq})
		}
	}
}

// answer takes what came back for one item.
func (d *natsDelivery) answer(ctx context.Context, m *nats.Msg) {
	number, index, _ := strings.Cut(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], "-")
	i, err := strconv.Atoi(index)
	if err != nil || number != d.number || i < 0 || i >= d.next || d.flights[i].settled {
		return // of an item that was published twice
	}
	var ack struct {
		jetstream.PubAck
		Error *jetstream.APIError `json:"error"`
	}
	d.moved = time.Now()
	switch err := json.Unmarshal(m.Data, &ack); {
	case len(m.Data) == 0 && m.Header.Get("Status") == "503": // no responders
		d.postpone(i)
		d.look(ctx, d.flights[i].subject)
	case err != nil || ack.Error == nil && ack.Stream == "":
		d.postpone(i)
		d.halt = &Problem{Err: fmt.Errorf("publish to %s: the answer %.80q is none of JetStream's: another program answers on this subject", d.flights[i].subject, m.Data), Ours: true}
	case ack.Error != nil:
		d.failed(i, ack.Error)
	default:
		d.flights[i].seq = ack.Sequence
		d.decide(i, Result{State: Acknowledged})
	}
}

// postpone keeps an item that did not arrive for the next tick.
func (d *natsDelivery) postpone(i int) {
	d.release(i)
	d.flights[i].again = true
	d.again++
}

// look finds out, once, why nobody took a record: a stream whose leader is being elected is there again
// soon, and one that does not exist is not. While no server knows, it is asked again later.
func (d *natsDelivery) look(ctx context.Context, subject string) {
	if d.looked || time.Since(d.lookedAt) < d.n.o.Stall/4 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, natsLook)
	defer cancel()
	before := d.link.streams[subject]
	delete(d.link.streams, subject)
	_, err := d.n.streamOf(ctx, subject)
	d.lookedAt, d.looked = time.Now(), err == nil || isOurs(err)
	switch {
	case isOurs(err):
		d.halt = err
	case err != nil && before != nil:
		d.link.streams[subject] = before
	}
}

// failed takes a stream's error. It says that the message was not stored.
func (d *natsDelivery) failed(i int, e *jetstream.APIError) {
	f := &d.flights[i]
	err := fmt.Errorf("publish to %s: %w", f.subject, e)
	switch e.ErrorCode {
	case natsTooLarge, natsHeaderTooLarge:
		d.decide(i, Result{Refused, e.Description})
		return
	case natsOtherStream:
		d.halt = &Problem{Err: fmt.Errorf("%w: the subject belongs to another stream than %s: see the key stream, and the streams' subjects", err, d.n.o.Stream), Ours: true}
	case natsSealed, natsNoAccount:
		d.halt = &Problem{Err: err, Ours: true}
	case natsStoreFailed, natsAccountFull, natsNoResources, natsNoMemory, natsNoStorage:
		err = fmt.Errorf("%w: the stream takes no more: raise its limits, free space, or let it discard old messages", err)
		if strings.Contains(e.Description, "per subject") {
			d.block(f.subject, err)
			return
		}
		d.halt = err
	default:
		if e.Code < 500 && e.Code != 409 && e.Code != 429 { // else: not now
			d.halt = err
		}
	}
	d.postpone(i)
}

// deny ends the hope for a subject that the server lets us not publish to.
func (d *natsDelivery) deny(subject string) {
	d.link.mu.Lock()
	fatal := d.link.fatal
	d.link.mu.Unlock()
	if fatal != nil {
		d.halt = &Problem{Err: fmt.Errorf("subscribe to answers: %w", fatal), Ours: true}
		return
	}
	d.denied[subject] = true
	d.block(subject, &Problem{Err: fmt.Errorf("publish to %s: the server denies it: want permission to publish to %s.%s.>", subject, d.n.o.Prefix, NATSToken(d.n.o.Node)), Ours: true})
}

// block leaves a subject out of the rest of this delivery.
func (d *natsDelivery) block(subject string, why error) {
	d.blocked[subject] = why
	for i := range d.next {
		if f := &d.flights[i]; f.subject == subject && !f.settled {
			d.settle(i)
		}
	}
}

// verdict is the result when all is settled. A subject that is denied while others are taken is
// refused; where nothing is taken the permissions are wrong, and not the records.
func (d *natsDelivery) verdict() error {
	if d.halt != nil || len(d.blocked) == 0 {
		return d.halt
	}
	taken := false
	for _, r := range d.results {
		taken = taken || r.State == Acknowledged
	}
	var left error
	for i := range d.items {
		switch why := d.blocked[d.flights[i].subject]; {
		case why == nil || d.results[i].State != Unknown:
		case taken && d.denied[d.flights[i].subject]:
			d.results[i] = Result{Refused, why.Error()}
		default:
			left = why
		}
	}
	return left
}

// late publishes again what did not arrive, and, when nothing has moved for a while, all that is
// open: its leader may have died with it. The stream drops what it has already, as long as its
// de-duplication window is open.
func (d *natsDelivery) late(ctx context.Context) error {
	idle := time.Since(d.moved)
	if idle > d.n.o.Stall/4 { // where somebody else subscribes to the subject, nobody answers for a stream that is not there
		d.look(ctx, d.flights[d.first].subject)
	}
	if idle > d.n.o.Stall {
		return fmt.Errorf("publish to %s: no answer from %s for %s", d.flights[d.first].subject, d.link.nc.ConnectedAddr(), d.n.o.Stall)
	}
	if d.halt != nil {
		return nil
	}
	for i := d.first; i < d.next; i++ {
		f := &d.flights[i]
		if f.again || f.pending && idle > d.n.o.Stall/4 && time.Since(f.tried) > d.n.o.Stall/4 && d.dropsRepeats(f) {
			if err := d.publish(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropsRepeats reports whether the stream still drops a second message of that id.
func (d *natsDelivery) dropsRepeats(f *natsFlight) bool {
	stream := d.link.streams[f.subject]
	return stream != nil && time.Since(f.sent)+d.n.o.Stall < stream.CachedInfo().Config.Duplicates
}
