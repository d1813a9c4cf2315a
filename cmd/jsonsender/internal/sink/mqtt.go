package sink

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	v5 "github.com/eclipse/paho.golang/packets"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/pkg/msg"
)

const (
	// keepAlive is how long a link may be idle before it is tried.
	keepAlive = 30 * time.Second
	// attend is how often an idle link is looked after.
	attend = time.Second
	// farewell bounds how long Close waits for the broker.
	farewell = 2 * time.Second
	// suspicions is how often in a row the connection must end with one and the same record under way
	// until that record is refused.
	suspicions = 3
	// cutWithin is how soon after connecting the end of a connection is odd.
	cutWithin = time.Minute
)

// MQTT publishes each record to the topic <prefix>/<node>/<source>/<stream>, with QoS 1: a PUBACK
// is its acknowledgement. It speaks MQTT 5, and 3.1.1 where the broker speaks only that. States are
// retained. The retained topic <prefix>/<node>/status is "online" while it is connected, and
// "offline" after: by the last will where the connection broke.
//
// A session ends with its connection: what was not acknowledged is sent again as a new message, so
// that the broker may deliver a record twice. With MQTT 5 the user property "id" tells them apart.
type MQTT struct {
	o       Options
	address string
	status  format.Publication // that it is online

	keepAlive, attend time.Duration

	hello hello
	speak wire
	// suspects are the ids of the records that were under way when the last connection ended, perhaps
	// because of one of them: each goes alone. guilty is the one that was alone then, ends how often in
	// a row.
	suspects map[string]bool
	guilty   string
	ends     int
	cut      int // how often in a row the broker closed a new connection without a reason

	mu     sync.Mutex // guards link and closed
	link   *link
	closed bool
	cancel context.CancelFunc // of a connect that is under way
}

// NewMQTT makes the sink of mqtt://HOST:PORT and mqtts://HOST:PORT, whose ports are 1883 and 8883
// where none is given. It connects when it is first needed.
func NewMQTT(o Options) (*MQTT, error) {
	port := map[string]string{"mqtt": "1883", "mqtts": "8883"}[o.To.Scheme]
	switch {
	case port == "":
		return nil, fmt.Errorf("%s: want mqtt:// or mqtts://", o.To.Redacted())
	case o.To.Hostname() == "" || strings.Trim(o.To.Path, "/") != "" || o.To.RawQuery != "" || o.To.Fragment != "":
		return nil, fmt.Errorf("%s: want %s://HOST or %[2]s://HOST:PORT; topics begin with topic_prefix", o.To.Redacted(), o.To.Scheme)
	}
	if err := CheckMQTTPrefix(o.Prefix); err != nil {
		return nil, fmt.Errorf("topic_prefix %q: %w", o.Prefix, err)
	}
	if p := o.To.Port(); p != "" {
		port = p
	}
	topic := format.StatusTopic(o.Prefix, o.Node)
	return &MQTT{
		o: o, address: net.JoinHostPort(o.To.Hostname(), port), keepAlive: keepAlive, attend: attend, speak: mqtt5{},
		status: format.Publication{Topic: topic, Body: []byte(format.Online), Retain: true},
		hello: hello{
			id: clientID(o.Node, o.Worker), user: o.User, willQoS: 1,
			will: format.Publication{Topic: topic, Body: []byte(format.Offline), Retain: true},
		},
	}, nil
}

// CheckMQTTPrefix checks the first words of topics. What begins with $ is the broker's own.
func CheckMQTTPrefix(prefix string) error {
	if prefix == "" || strings.ContainsAny(prefix, "+#\x00") || strings.HasPrefix(prefix, "$") || strings.Trim(prefix, "/") != prefix {
		return errors.New("want a topic without + and #, that neither begins nor ends with / and does not begin with $")
	}
	return nil
}

// clientID names this client, and no other: perch-<node>-<worker>. A name with other characters
// than letters, digits and -, which brokers need not take, is a digest of both names; so is one that
// is too long.
func clientID(node, worker string) string {
	id := "perch-" + node + "-" + worker
	odd := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
	}
	if len(id) > 64 || strings.ContainsFunc(id, odd) {
		return shortID(node, worker)
	}
	return id
}

// shortID has the 23 letters and digits at most that every broker takes (MQTT 5 section 3.1.3.1).
func shortID(node, worker string) string {
	sum := sha256.Sum256([]byte(node + "\x00" + worker))
	return fmt.Sprintf("perch%x", sum[:9])
}

// Limits are the batch's.
func (m *MQTT) Limits() Limits { return Limits{Records: m.o.Records, Bytes: m.o.Bytes} }

// Deliver publishes the items. Those that were under way when the connection ended are unknown.
func (m *MQTT) Deliver(ctx context.Context, items []Item) ([]Result, error) {
	results := make([]Result, len(items))
	l, err := m.connected(ctx)
	if err != nil {
		return results, err
	}
	d := delivery{MQTT: m, link: l, items: items, results: results, acks: make(chan ack, len(items)), underWay: map[int]bool{}}
	return results, d.run(ctx)
}

// connected is the link that there is, or a new one.
func (m *MQTT) connected(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	l, closed := m.link, m.closed
	m.cancel = cancel
	m.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if l != nil {
		select {
		case <-l.broken:
		default:
			return l, nil
		}
		// A box whose name another has too would otherwise connect again and again without a word.
		if err := m.lost(l); isOurs(err) || m.cut >= suspicions {
			return nil, err
		}
	}
	l, err := m.connect(ctx)
	if err != nil {
		m.speak = mqtt5{} // the broker may have been replaced by then
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		l.fail(errClosed)
		return nil, errClosed
	}
	m.link = l
	m.attendTo(l)
	return l, nil
}

// lost forgets a link that broke, and returns why it did.
func (m *MQTT) lost(l *link) error {
	l.workers.Wait()
	m.mu.Lock()
	m.link = nil
	m.mu.Unlock()
	cause := l.cause
	var r *refusal
	if errors.As(cause, &r) && r.code == v5.DisconnectSessionTakenOver {
		cause = fmt.Errorf("%w: each box needs a name of its own in [node], and no other program may be %q", cause, m.hello.id)
	}
	if !hungUp(cause) || time.Since(l.since) > cutWithin {
		m.cut = 0
	} else if m.cut++; m.cut >= suspicions { // as brokers do that give no reason when a client id is taken over
		cause = fmt.Errorf("%w, %d times in a row soon after it connected: does another box have its name? The client id is %q", cause, m.cut, m.hello.id)
	}
	return problem("publish to "+m.o.To.Redacted(), cause)
}

// connect makes a connection, with less where the broker cannot do all: an older version, a shorter
// client id, a will that is not retained or has QoS 0.
func (m *MQTT) connect(ctx context.Context) (*link, error) {
	doing := "connect to " + m.o.To.Redacted()
	for {
		l, err := m.try(ctx)
		var r *refusal
		switch refused := errors.As(err, &r); {
		case err == nil && l.noQoS1:
			l.fail(errClosed)
			return nil, &Problem{Err: fmt.Errorf("%s: the broker takes messages of QoS 0 only, and acknowledges none: want one that takes QoS 1", doing), Ours: true}
		case err == nil:
			return l, nil
		case m.speak.version() == 5 && (refused && r.code == v5.ConnackUnsupportedProtocolVersion || errors.Is(err, errHungUp)):
			m.speak = mqtt4{}
		case refused && r.code == v5.ConnackInvalidClientID && m.hello.id != shortID(m.o.Node, m.o.Worker):
			m.hello.id = shortID(m.o.Node, m.o.Worker)
		case refused && r.code == v5.ConnackRetainNotSupported && m.hello.will.Retain:
			m.hello.will.Retain = false
		case refused && r.code == v5.ConnackQoSNotSupported && m.hello.willQoS > 0:
			m.hello.willQoS = 0
		default:
			return nil, problem(doing, uplink.Explain(err))
		}
	}
}

// errHungUp is returned where a broker closed the connection in place of a CONNACK, as some of MQTT
// 3.1.1 do.
var errHungUp = errors.New("the broker closed the connection before it answered")

// try connects, once, and sends the CONNECT packet.
func (m *MQTT) try(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.Stall)
	defer cancel()
	secret, err := m.secret()
	if err != nil {
		return nil, err
	}
	conn, err := m.o.Dial(ctx, "tcp", m.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // it ends what is under way
	l, err := m.greet(ctx, conn, secret)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close() // the error says more
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return nil, err
	}
	return l, nil
}

func (m *MQTT) secret() (string, error) {
	if m.o.Token == nil {
		return "", nil
	}
	secret, err := m.o.Token()
	if err != nil {
		return "", &Problem{Err: err, Ours: true}
	}
	return secret, nil
}

// greet sends the CONNECT and reads the CONNACK.
func (m *MQTT) greet(ctx context.Context, conn net.Conn, secret string) (*link, error) {
	if m.o.To.Scheme == "mqtts" {
		cfg, err := m.o.TLS()
		if err != nil {
			return nil, err
		}
		cfg = cfg.Clone()
		cfg.ServerName = m.o.To.Hostname()
		secure := tls.Client(conn, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	h := m.hello
	h.password, h.secret, h.keepAlive = secret, m.o.Token != nil, uint16(m.keepAlive/time.Second)
	if _, err := conn.Write(m.speak.hello(&h)); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	packet, err := readPacket(in)
	if hungUp(err) {
		return nil, fmt.Errorf("%w: %w", errHungUp, err)
	}
	if err != nil {
		return nil, err
	}
	w, err := m.speak.welcome(packet)
	if err == nil && w.code != 0 {
		err = &refusal{w.code, w.reason}
	}
	if err != nil {
		return nil, err
	}
	return m.newLink(conn, in, w), nil
}

func (m *MQTT) newLink(conn net.Conn, in *bufio.Reader, w welcome) *link {
	now := time.Now()
	l := &link{
		wire: m.speak, welcome: w, conn: conn, in: in, stall: m.o.Stall, log: m.o.Log,
		slots: make(chan struct{}, w.receiveMaximum), waiting: map[uint16]waiter{}, warned: map[string]bool{},
		broken: make(chan struct{}), lastSent: now, lastRead: now, since: now,
	}
	l.out = bufio.NewWriterSize(l, writeChunk)
	return l
}

// attendTo starts what a link needs beside deliveries. Its own status is watched too: where a
// connection is replaced by its successor, the broker may publish its will after that has come
// online.
func (m *MQTT) attendTo(l *link) {
	again := make(chan struct{}, 1)
	l.arrived = func(topic string, body []byte) {
		if topic == m.status.Topic {
			if string(body) == format.Offline {
				select {
				case again <- struct{}{}:
				default: // it is about to be published
				}
			}
		} else if m.o.Companion != nil {
			m.o.Companion.Received(topic, body, time.Now())
		}
	}
	topics := []string{m.status.Topic}
	if m.o.Companion != nil {
		topics = append(topics, m.o.Companion.Watch()...)
	}
	l.workers.Go(l.read)
	l.workers.Go(func() {
		l.send(l.subscribe(maxUnderWay+1, topics), false) // an id that no message has by then
		l.announce(&m.status)
		if m.o.Companion != nil {
			m.o.Companion.Connected(time.Now())
		}
		m.lookAfter(l, again)
	})
}

// lookAfter keeps a link alive and publishes what is due, until the link breaks.
func (m *MQTT) lookAfter(l *link, again <-chan struct{}) {
	after := m.keepAlive
	if l.welcome.keepAlive != 0 {
		after = time.Duration(l.welcome.keepAlive) * time.Second
	}
	tick := time.NewTicker(m.attend)
	defer tick.Stop()
	for {
		select {
		case <-l.broken:
			return
		case <-again:
			l.announce(&m.status)
		case <-tick.C:
			l.ping(time.Now(), after/2) // brokers count 1.5 times the keep-alive time
			if m.o.Companion == nil {
				continue
			}
			for _, p := range m.o.Companion.Due(time.Now()) {
				l.announce(&p)
			}
		}
	}
}

// Close publishes that the box is offline, and disconnects.
func (m *MQTT) Close() error {
	m.mu.Lock()
	l, cancel := m.link, m.cancel
	m.closed = true
	m.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	if l != nil {
		l.close(&m.hello.will, min(farewell, m.o.Stall))
	}
	return nil
}

// publication is a record as a message.
func (m *MQTT) publication(i *Item) format.Publication {
	r := i.Record
	return format.Publication{Topic: format.RecordTopic(m.o.Prefix, r.Node, r.Source, r.Stream), Body: i.Body, Retain: r.Kind == msg.KindState}
}
