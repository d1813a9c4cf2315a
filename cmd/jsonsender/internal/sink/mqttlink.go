package sink

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	v5 "github.com/eclipse/paho.golang/packets"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/internal/uplink"
)

const (
	// maxRemaining is the longest packet there is (MQTT 5 section 2.1.4).
	maxRemaining = 268_435_455
	// maxUnderWay bounds what waits for an acknowledgement where the broker would take more.
	maxUnderWay = 500
	// writeChunk is how much is written within one stall time, so that a slow line is no stalled one.
	writeChunk = 16 << 10
)

var (
	errStalled = errors.New("the broker acknowledges nothing")
	errSilent  = errors.New("the broker does not answer a ping")
	errClosed  = errors.New("the sink is closed")
)

// ack is what a broker answered to one message.
type ack struct {
	index  int // of the item
	code   byte
	reason string
}

// waiter is who waits for an acknowledgement; without a channel nobody does.
type waiter struct {
	acks  chan<- ack // has room for all that its reader waits for
	index int
	topic string
}

// link is one connection to a broker, from after its CONNACK until it breaks.
type link struct {
	wire
	welcome
	conn  net.Conn
	in    *bufio.Reader
	stall time.Duration
	since time.Time
	log   *slog.Logger

	// slots holds a token for each message under way, receiveMaximum at most. A token is put in before
	// a message is sent, and is taken out by its acknowledgement.
	slots   chan struct{}
	arrived func(topic string, body []byte)
	warned  map[string]bool // topics of announcements that could not be sent; of the one who announces

	writing sync.Mutex // guards out; fail ends a write that blocks
	out     *bufio.Writer

	mu       sync.Mutex // guards what is below
	lastID   uint16
	waiting  map[uint16]waiter
	lastSent time.Time
	lastRead time.Time
	pinged   time.Time // when a ping was sent that was not answered yet
	seen     int64     // bytes that had arrived when the ping was last looked after
	leaving  bool      // nothing is announced any more
	cause    error     // set once, before broken is closed

	broken  chan struct{}
	workers sync.WaitGroup
}

// fail ends the link; the first cause counts.
func (l *link) fail(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return
	}
	l.cause = cause
	close(l.broken)
	_ = l.conn.Close() // the cause says more
}

// Write writes to the connection: chunk by chunk, each within the stall time.
func (l *link) Write(text []byte) (n int, err error) {
	for n < len(text) && err == nil {
		var wrote int
		if err = l.conn.SetWriteDeadline(time.Now().Add(l.stall)); err == nil {
			wrote, err = l.conn.Write(text[n:min(len(text), n+writeChunk)])
			n += wrote
		}
	}
	return n, err
}

// send writes a packet, and with flush all that is buffered. Its failure ends the link.
func (l *link) send(packet []byte, flush bool) {
	l.writing.Lock()
	_, err := l.out.Write(packet)
	if flush && err == nil {
		err = l.out.Flush()
	}
	l.writing.Unlock()
	l.mu.Lock()
	l.lastSent = time.Now()
	l.mu.Unlock()
	if err != nil {
		l.fail(fmt.Errorf("write to the broker: %w", err))
	}
}

// errTooLarge is of a message that the broker's Maximum Packet Size has no room for.
var errTooLarge = errors.New("packet too large")

// publish sends a message with QoS 1. The caller has put a token into slots; where it fails,
// nothing was sent and the token is out again.
func (l *link) publish(p *format.Publication, recordID string, w waiter, flush bool) error {
	one := *p
	one.Retain = p.Retain && !l.noRetain
	w.topic = p.Topic
	id, err := l.await(w)
	if err != nil {
		<-l.slots
		return err
	}
	packet := l.wire.publish(&one, 1, id, recordID)
	if len(packet) > l.packetMaximum {
		l.settled(id)
		<-l.slots
		return fmt.Errorf("%w: %d bytes, and the broker takes %d", errTooLarge, len(packet), l.packetMaximum)
	}
	l.send(packet, flush)
	return nil
}

// await registers who waits for an acknowledgement, and returns the id of the message.
func (l *link) await(w waiter) (uint16, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaving && w.acks == nil {
		return 0, errClosed
	}
	for l.lastID++; l.lastID == 0 || l.waiting[l.lastID].topic != ""; l.lastID++ { // slots are far fewer than ids
	}
	l.waiting[l.lastID] = w
	return l.lastID, nil
}

// settled removes who waits for an acknowledgement.
func (l *link) settled(id uint16) (waiter, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, found := l.waiting[id]
	delete(l.waiting, id)
	return w, found
}

// announce sends what is no record, and waits for a place among what is under way. What the broker
// does not take is logged: no record depends on it.
func (l *link) announce(p *format.Publication) {
	select {
	case l.slots <- struct{}{}:
	case <-l.broken:
		return
	}
	err := l.publish(p, "", waiter{}, true)
	if err != nil && !errors.Is(err, errClosed) && !l.warned[p.Topic] { // pictures come every few seconds
		l.warned[p.Topic] = true
		l.log.Warn("announcement was not sent", "topic", p.Topic, "err", err)
	}
}

// read gives each packet to whom it is for, until the link breaks.
func (l *link) read() {
	for {
		packet, err := readPacket(l.in)
		var m message
		if err == nil {
			m, err = l.wire.read(packet)
		}
		if err != nil {
			l.fail(fmt.Errorf("read from the broker: %w", err))
			return
		}
		if m.kind == v5.DISCONNECT {
			l.fail(&refusal{m.code, m.reason})
			return
		}
		l.take(&m)
	}
}

func (l *link) take(m *message) {
	l.mu.Lock()
	l.lastRead, l.pinged = time.Now(), time.Time{}
	l.mu.Unlock()
	switch m.kind {
	case v5.PUBACK:
		w, found := l.settled(m.id)
		if !found {
			return
		}
		<-l.slots
		if w.acks != nil {
			w.acks <- ack{w.index, m.code, m.reason}
		} else if m.code >= 0x80 {
			l.log.Warn("announcement was refused", "topic", w.topic, "err", &refusal{m.code, m.reason})
		}
	case v5.SUBACK:
		if m.code >= 0x80 {
			l.log.Warn("the broker refuses a subscription: restarts of what reads there go unnoticed", "err", &refusal{m.code, m.reason})
		}
	case v5.PUBLISH:
		l.arrived(m.topic, m.body)
	}
}

// ping tries a link where nothing was sent or read for that time, and ends it when nothing comes
// back.
func (l *link) ping(now time.Time, after time.Duration) {
	l.mu.Lock()
	silent := !l.pinged.IsZero() && now.Sub(l.pinged) >= l.stall
	if silent && l.moved(&l.seen) { // the ping is behind what a slow line still has to send
		l.pinged, silent = now, false
	}
	idle := l.pinged.IsZero() && (now.Sub(l.lastSent) >= after || now.Sub(l.lastRead) >= after)
	if idle {
		l.pinged = now
	}
	l.mu.Unlock()
	if silent {
		l.fail(errSilent)
	}
	if idle && after > 0 {
		l.send([]byte{v5.PINGREQ << 4, 0}, true) // the same in both versions
	}
}

// moved reports whether much more of what was written has arrived than at the last look.
func (l *link) moved(seen *int64) bool {
	own := uplink.Of(l.conn)
	if own == nil {
		return false
	}
	arrived, err := own.Arrived()
	if err != nil || arrived < *seen+leastProgress {
		return false
	}
	*seen = arrived
	return true
}

// close says goodbye and ends the link: the broker then does not publish the will. The last message
// waits for its acknowledgement, since a connection that is closed with something unread may lose
// what was written last.
func (l *link) close(last *format.Publication, within time.Duration) {
	l.mu.Lock()
	l.leaving = true
	l.mu.Unlock()
	impatient := time.AfterFunc(2*within, func() { l.fail(errClosed) }) // a write that blocks ends too
	defer impatient.Stop()
	l.sendLast(last, within)
	l.send(l.goodbye(), true)
	l.fail(errClosed)
	l.workers.Wait()
}

func (l *link) sendLast(last *format.Publication, within time.Duration) {
	timer, acks := time.NewTimer(within), make(chan ack, 1)
	defer timer.Stop()
	select {
	case l.slots <- struct{}{}:
		if l.publish(last, "", waiter{acks: acks}, true) != nil {
			return
		}
		select {
		case <-acks:
		case <-l.broken:
		case <-timer.C:
		}
	case <-l.broken:
	case <-timer.C: // a broker that acknowledges nothing; QoS 0 needs no place
		one := *last
		one.Retain = last.Retain && !l.noRetain
		l.send(l.wire.publish(&one, 0, 0, ""), true)
	}
}
