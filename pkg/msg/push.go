package msg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// PushQueue is how many messages may wait in a Push for the network. They are lost with the link.
const PushQueue = 16

const (
	// pushBuffer bounds what the kernel holds of them, in bytes; it takes twice that (tcp(7), SO_SNDBUF).
	pushBuffer = 8 << 10
	// pushOpen bounds connecting, and after that the handshake.
	pushOpen = 10 * time.Second
	// pushBeat is how often a peer is asked whether it is there, pushDead how long it may be silent.
	pushBeat, pushDead = 5 * time.Second, 15 * time.Second
	// pushLook is how often a Send that waits looks whether it is to end.
	pushLook = 250 * time.Millisecond
)

// ErrHandshake is returned where a peer was reached and no link came of it: it has another key, or none.
var ErrHandshake = errors.New("the peer ended the handshake: its CURVE public key is not the one given, or it does not accept ours, or it uses no CURVE")

// CurveKeys are those of a link that is encrypted and on which each side knows the other
// (ZeroMQ RFC 26). Keys are Z85 of 40 characters (RFC 32).
type CurveKeys struct {
	Secret string // our own
	Peer   string // the peer's public key
}

// NewCurveSecret makes a secret key.
func NewCurveSecret() (secret string, err error) {
	_, secret, err = zmq4.NewCurveKeypair()
	return secret, err
}

// CurvePublic is the public key that belongs to a secret one.
func CurvePublic(secret string) (string, error) {
	if err := checkZ85(secret); err != nil {
		return "", fmt.Errorf("CURVE secret key: %w", err)
	}
	return zmq4.AuthCurvePublic(secret)
}

// CheckCurvePublic checks the form of a public key.
func CheckCurvePublic(key string) error {
	if err := checkZ85(key); err != nil {
		return fmt.Errorf("CURVE public key %.60q: %w", key, err)
	}
	return nil
}

// checkZ85 checks a key. Its error does not repeat it.
func checkZ85(key string) error {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
	if len(key) != 40 || strings.Trim(key, digits) != "" {
		return fmt.Errorf("%d characters: want 40 of Z85", len(key))
	}
	return nil
}

// Push is a connected PUSH socket to a program outside the box, which binds a PULL socket. It is
// one link: when that breaks, or never comes to be, Send fails from then on. It takes messages only
// while the peer is connected and the handshake is done. A link that breaks loses PushQueue of those
// that it has taken, at most, and what the kernels of both machines hold; ours holds 16 KB. It is
// not safe for concurrent use.
type Push struct {
	to     string
	ctx    *zmq4.Context
	soc    *zmq4.Socket
	events *zmq4.Socket // of the link: a PAIR socket, zmq_socket_monitor(3)
	err    error        // why the link is over
}

// OpenPush begins to connect to tcp://HOST:PORT. Without keys HOST must be this machine.
func OpenPush(ctx context.Context, endpoint string, keys *CurveKeys) (*Push, error) {
	address, err := resolvePush(ctx, endpoint, keys)
	if err != nil {
		return nil, fmt.Errorf("push to %s: %w", endpoint, err)
	}
	p := &Push{to: endpoint}
	if p.ctx, err = zmq4.NewContext(); err != nil {
		return nil, fmt.Errorf("open ZeroMQ: %w", err)
	}
	if err := p.connect(address, keys); err != nil {
		return nil, errors.Join(fmt.Errorf("push to %s: %w", endpoint, err), p.Close())
	}
	return p, nil
}

// resolvePush looks the host up: ZeroMQ would do so in its only I/O thread, and report nothing.
func resolvePush(ctx context.Context, endpoint string, keys *CurveKeys) (string, error) {
	address, ok := strings.CutPrefix(endpoint, "tcp://")
	host, port, err := net.SplitHostPort(address)
	if !ok || err != nil || host == "" {
		return "", errors.New("want tcp://HOST:PORT")
	}
	hosts, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", err
	}
	addr, err := netip.ParseAddr(hosts[0])
	if err == nil && keys == nil && !addr.IsLoopback() {
		err = fmt.Errorf("%s is another machine: want CURVE keys, since anybody could read the messages, or pose as the receiver", host)
	}
	return "tcp://" + net.JoinHostPort(hosts[0], port), err
}

func (p *Push) connect(address string, keys *CurveKeys) (err error) {
	if p.soc, err = p.ctx.NewSocket(zmq4.PUSH); err != nil {
		return err
	}
	if err := p.set(keys); err != nil {
		return err
	}
	const watch = "inproc://events"
	if err := p.soc.Monitor(watch, zmq4.EVENT_ALL); err != nil {
		return err
	}
	if p.events, err = p.ctx.NewSocket(zmq4.PAIR); err != nil {
		return err
	}
	return errors.Join(p.events.SetLinger(0), p.events.Connect(watch), p.soc.SetIpv6(strings.Contains(address, "[")), p.soc.Connect(address))
}

func (p *Push) set(keys *CurveKeys) error {
	s := p.soc
	err := errors.Join(
		s.SetImmediate(true),    // no queue before there is a peer
		s.SetReconnectIvl(-1),   // a new link is a new socket: so it is known what went into which
		s.SetSndhwm(PushQueue),  //
		s.SetSndbuf(pushBuffer), // else the kernel takes megabytes for a peer that is dead
		s.SetLinger(linger), s.SetConnectTimeout(pushOpen), s.SetHandshakeIvl(pushOpen),
		s.SetHeartbeatIvl(pushBeat), s.SetHeartbeatTimeout(pushDead), s.SetHeartbeatTtl(pushDead))
	if err != nil || keys == nil {
		return err
	}
	public, err := CurvePublic(keys.Secret)
	if err == nil {
		err = CheckCurvePublic(keys.Peer)
	}
	if err != nil {
		return err
	}
	return errors.Join(s.SetCurveServerkey(keys.Peer), s.SetCurvePublickey(public), s.SetCurveSecretkey(keys.Secret))
}

// Send hands one message to ZeroMQ, all its parts or none. It waits for the peer, and while
// PushQueue messages wait already, until ctx is done. It fails when the link is over.
func (p *Push) Send(ctx context.Context, parts ...[]byte) error {
	for {
		if err := p.Check(); err != nil {
			return err
		}
		_, err := p.soc.SendMessageDontwait(parts)
		if err == nil {
			return nil
		}
		if !errors.Is(err, zmq4.Errno(syscall.EAGAIN)) {
			return fmt.Errorf("push to %s: %w", p.to, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("push to %s: %w", p.to, err)
		}
		if err := p.wait(); err != nil {
			return err
		}
	}
}

// wait returns when a message may go out, when there is news of the link, or after a while.
func (p *Push) wait() error {
	poller := zmq4.NewPoller()
	poller.Add(p.soc, zmq4.POLLOUT)
	poller.Add(p.events, zmq4.POLLIN)
	if _, err := poller.Poll(pushLook); err != nil {
		return fmt.Errorf("push to %s: %w", p.to, err)
	}
	return nil
}

// Check fails when the link is over: then messages that were sent last may be lost.
func (p *Push) Check() error {
	for p.err == nil {
		event, _, value, err := p.events.RecvEvent(zmq4.DONTWAIT)
		if errors.Is(err, zmq4.Errno(syscall.EAGAIN)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("push to %s: %w", p.to, err)
		}
		if err := linkEvent(event, value); err != nil {
			p.err = fmt.Errorf("push to %s: %w", p.to, err)
		}
	}
	return p.err
}

// linkEvent is the end that an event is of a link; nil where it is none.
func linkEvent(e zmq4.Event, value int) error {
	switch e {
	case zmq4.EVENT_CLOSED, zmq4.EVENT_CONNECT_RETRIED:
		return errors.New("cannot connect: nobody listens there, or no answer comes")
	case zmq4.EVENT_HANDSHAKE_FAILED_AUTH:
		return fmt.Errorf("%w (status %d)", ErrHandshake, value)
	case zmq4.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq4.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
		return ErrHandshake
	case zmq4.EVENT_DISCONNECTED:
		return errors.New("the link broke")
	}
	return nil
}

// Close waits half a second at most for messages to leave.
func (p *Push) Close() error {
	var errs []error
	if p.events != nil {
		errs = append(errs, p.events.Close())
	}
	if p.soc != nil {
		errs = append(errs, p.soc.Close())
	}
	return errors.Join(append(errs, p.ctx.Term())...)
}
