package sink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/perch-edge/perch/internal/uplink"
)

// natsSink publishes each record to a JetStream stream, under its id.
//
//	item --> what has arrived? --known--> Acknowledged
//	              └──not known──> <prefix>.<node>.<source>.<stream> --> the stream's leader --PubAck--> Acknowledged
//
// A stream drops a second message of an id within its de-duplication window, minutes, while an
// outage is hours. So each connection begins with the question which of the records have arrived
// (natsarrived.go), and a delivery that leaves that open ends its connection.
type natsSink struct {
	o       Options
	servers []string
	local   bool // all servers are on this machine: TLS only where they ask for it

	link   *natsLink            // nil: not connected
	known  map[string]ids       // what has arrived and was not asked for yet, by subject
	marks  map[string]*natsMark // by subject
	fresh  []natsAcked          // by the last delivery, and no marks yet
	warned bool                 // that what has arrived cannot be read

	mu     sync.Mutex
	cancel context.CancelFunc // of the Deliver that runs
	closed bool
}

// natsPing is how often an idle connection is probed; it is dead after three that nobody answered.
const natsPing = 20 * time.Second

// NewNATS makes a sink for nats://. Records are published by one connection to one of the servers.
// It fails for an address or a prefix that is none.
func NewNATS(o Options) (Sink, error) {
	servers, local, err := natsServers(o.To)
	if err != nil {
		return nil, err
	}
	if err := CheckNATSPrefix(o.Prefix); err != nil {
		return nil, fmt.Errorf("topic_prefix %q: %w", o.Prefix, err)
	}
	return &natsSink{o: o, servers: servers, local: local, known: map[string]ids{}, marks: map[string]*natsMark{}}, nil
}

// Limits are those of the configuration: each record is a message of its own. Records may come in any
// order, since what has arrived is known by ids and not concluded from the last one.
func (n *natsSink) Limits() Limits {
	return Limits{Records: min(n.o.Records, natsList/2), Bytes: n.o.Bytes} // which can be listed after a kill
}

// Deliver publishes the items.
func (n *natsSink) Deliver(ctx context.Context, items []Item) ([]Result, error) {
	results := make([]Result, len(items))
	n.noted()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.Lock()
	n.cancel = cancel
	if n.closed {
		cancel()
	}
	n.mu.Unlock()
	if err := n.connect(ctx); err != nil {
		return results, err
	}
	d := newNATSDelivery(n, items, results)
	err := d.run(ctx)
	if d.open() > 0 {
		n.disconnect()
	}
	return results, err
}

// Close ends the connection, and a Deliver that runs.
func (n *natsSink) Close() error {
	n.mu.Lock()
	n.closed = true
	if n.cancel != nil {
		n.cancel()
	}
	link := n.link
	n.mu.Unlock()
	if link != nil {
		link.close()
	}
	return nil
}

func (n *natsSink) disconnect() {
	n.mu.Lock()
	link := n.link
	n.link = nil
	n.mu.Unlock()
	link.close()
}

// natsLink is one connection. It never reconnects by itself: what the client library had
// buffered would then go out without the question what has arrived.
type natsLink struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	inbox   string                      // where answers to publishes come
	answers chan *nats.Msg              // to publishes
	down    chan struct{}               // closed with the connection
	denied  chan string                 // subjects that we may not publish to
	asked   map[string]bool             // subjects of which we know what has arrived
	streams map[string]jetstream.Stream // by subject

	deliveries int

	mu     sync.Mutex
	socket net.Conn
	api    context.CancelFunc // ends the request that runs
	barred bool               // the server denied it
	fatal  error              // what else the server denies
}

// ids are ids of messages.
type ids map[string]bool

// connect makes a connection where there is none.
func (n *natsSink) connect(ctx context.Context) error {
	if n.link != nil {
		select {
		case <-n.link.down:
			n.disconnect()
		default:
			return nil
		}
	}
	link := &natsLink{down: make(chan struct{}), denied: make(chan string, 64), asked: map[string]bool{}, streams: map[string]jetstream.Stream{},
		answers: make(chan *nats.Msg, 4*natsWindow)}
	stop := context.AfterFunc(ctx, link.hangUp)
	defer stop()
	err := link.open(ctx, n)
	if err != nil {
		link.close()
		return natsConnectProblem(err)
	}
	n.mu.Lock()
	n.link = link
	n.mu.Unlock()
	return ctx.Err()
}

// open connects to one of the servers, in random order, and subscribes to the answers.
func (l *natsLink) open(ctx context.Context, n *natsSink) error {
	opts, err := n.login()
	if err != nil {
		return err
	}
	opts = append(opts, nats.SetCustomDialer(natsDial(func(network, address string) (net.Conn, error) { return l.dial(ctx, n.o, network, address) })),
		nats.ClosedHandler(func(*nats.Conn) { l.ended() }), nats.ErrorHandler(l.trouble))
	l.nc, err = nats.Connect(strings.Join(n.servers, ","), opts...)
	if err != nil {
		return err
	}
	if l.js, err = jetstream.New(l.nc); err != nil {
		return err
	}
	l.inbox = l.nc.NewInbox() + "."
	_, err = l.nc.ChanSubscribe(l.inbox+"*", l.answers)
	return err
}

// natsDial is a function as nats.go's dialler.
type natsDial func(network, address string) (net.Conn, error)

// Dial calls it.
func (d natsDial) Dial(network, address string) (net.Conn, error) { return d(network, address) }

func (l *natsLink) dial(ctx context.Context, o Options, network, address string) (net.Conn, error) {
	dial := o.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	socket, err := dial(ctx, network, address)
	l.mu.Lock()
	l.socket = socket
	l.mu.Unlock()
	return socket, err
}

// login is how the box presents itself.
func (n *natsSink) login() ([]nats.Option, error) {
	stall := n.o.Stall
	opts := []nats.Option{
		nats.Name("perch " + n.o.Node + " " + n.o.Worker), nats.CustomInboxPrefix("_INBOX." + NATSToken(n.o.Node)),
		nats.NoReconnect(), nats.IgnoreDiscoveredServers(), nats.SkipHostLookup(),
		nats.Timeout(max(stall/time.Duration(len(n.servers)), time.Second)), nats.FlusherTimeout(stall),
		nats.PingInterval(natsPing), nats.MaxPingsOutstanding(2),
	}
	if n.o.TLS != nil {
		cfg, err := n.o.TLS()
		if err != nil {
			return nil, err
		}
		opts = append(opts, func(o *nats.Options) error {
			o.TLSConfig, o.Secure = cfg, !n.local // without Secure, a server that wants TLS has it all the same
			return nil
		})
	} else if !n.local {
		opts = append(opts, nats.Secure())
	}
	if n.o.Token == nil {
		return opts, nil
	}
	secret, err := n.o.Token()
	if err != nil {
		return nil, err
	}
	who, err := natsIdentity(n.o.User, secret)
	return append(opts, who), err
}

// natsIdentity finds out what a secret is: a password where there is a user, credentials as nsc
// writes them, the seed of an nkey, or else a token.
func natsIdentity(user, secret string) (nats.Option, error) {
	text := strings.TrimSpace(secret)
	switch {
	case user != "":
		return nats.UserInfo(user, text), nil
	case strings.Contains(text, "-----BEGIN NATS USER JWT-----"):
		if _, err := nkeys.ParseDecoratedUserNKey([]byte(text)); err != nil {
			return nil, &Problem{Err: errors.New("read NATS credentials: the JWT is not followed by the seed of a user: want the whole file that nsc generate creds wrote"), Ours: true}
		}
		return nats.UserCredentialBytes([]byte(text)), nil
	case strings.HasPrefix(text, "SU"):
		if pair, err := nkeys.FromSeed([]byte(text)); err == nil {
			public, err := pair.PublicKey()
			return nats.Nkey(public, pair.Sign), err
		}
	}
	return nats.Token(text), nil
}

// natsConnectProblem marks what only a person can put right.
func natsConnectProblem(err error) error {
	err = uplink.Explain(err)
	for _, ours := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrSecureConnWanted, nats.ErrNkeysNotSupported} {
		if errors.Is(err, ours) {
			return &Problem{Err: fmt.Errorf("connect to NATS: %w", err), Ours: true}
		}
	}
	return fmt.Errorf("connect to NATS: %w", err)
}

// trouble takes what the server reports between messages. A denied subject is the only part that
// has no answer of its own.
func (l *natsLink) trouble(_ *nats.Conn, _ *nats.Subscription, err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	_, quoted, _ := strings.Cut(err.Error(), `"`)
	subject, _, _ := strings.Cut(quoted, `"`)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case strings.HasPrefix(subject, "$JS."):
		if l.api != nil {
			l.barred = true
			l.api()
		}
	case strings.Contains(strings.ToLower(err.Error()), "for subscription to"):
		l.fatal = err
		fallthrough
	default:
		select {
		case l.denied <- subject:
		default: // each publish of the subject is denied again
		}
	}
}

// ended is called once, when the connection is closed, by whichever side.
func (l *natsLink) ended() {
	close(l.down)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.api != nil {
		l.api()
	}
}

// lost says why the connection is gone.
func (l *natsLink) lost() error {
	err := l.nc.LastError()
	if err == nil {
		err = nats.ErrConnectionClosed
	}
	return natsConnectProblem(err)
}

// hangUp closes the socket, so that nothing waits for a peer that does not read. What is in its
// buffer is thrown away: it would arrive after we have asked what has arrived.
func (l *natsLink) hangUp() {
	l.mu.Lock()
	socket := l.socket
	l.mu.Unlock()
	if socket != nil {
		inner := socket
		if c, ok := socket.(*uplink.Conn); ok {
			inner = c.Conn
		}
		if tcp, ok := inner.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = socket.Close()
	}
}

func (l *natsLink) close() {
	l.hangUp()
	if l.nc != nil {
		l.nc.Close()
	}
}
