package msg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pebbe/zmq4"
)

// Listener hears what publishers send from now on, descriptors of frames
// included, and takes no part: it says no name, registers in no ring, repairs
// nothing, and no publisher counts it or waits for it. It needs no folder of
// its own. It is not safe for concurrent use.
//
// A listener that is slow costs a publisher the messages that wait for it, the
// endpoint's high-water mark at most. Who cannot be sure to be quick takes the
// messages off the socket and throws them away himself.
type Listener struct {
	ctx *zmq4.Context
	in  *inbox
	bad Refused
}

// Listen makes a listener for all topics that begin with one of the prefixes.
// It hears nothing before the first Connect.
func Listen(prefixes ...string) (*Listener, error) {
	ctx, err := zmq4.NewContext()
	if err != nil {
		return nil, fmt.Errorf("open ZeroMQ: %w", err)
	}
	l := &Listener{ctx: ctx}
	if l.in, err = newInbox(ctx, queue); err != nil {
		return nil, errors.Join(err, ctx.Term())
	}
	for _, prefix := range prefixes {
		if err := l.in.soc.SetSubscribe(prefix); err != nil {
			return nil, errors.Join(fmt.Errorf("listen for %q: %w", prefix, err), l.Close())
		}
	}
	return l, nil
}

// Connect adds an endpoint, once: connected twice, it brings each message
// twice. From then on its publisher may go and come back.
func (l *Listener) Connect(endpoint string) error {
	_, _, _, err := ParseEndpoint(endpoint)
	if err == nil {
		err = l.in.soc.Connect(endpoint)
	}
	if err != nil {
		return fmt.Errorf("listen at %s: %w", endpoint, err)
	}
	return nil
}

// Next waits for the next message. It returns false when until passes without
// one; the zero time is never. When ctx is done it returns ctx's error.
func (l *Listener) Next(ctx context.Context, until time.Time) (Message, bool, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Message{}, false, err
		}
		parts, err := l.in.wait(ctx, until)
		if err != nil {
			return Message{}, false, err
		}
		if parts == nil {
			if ctx.Err() == nil && !until.IsZero() && !time.Now().Before(until) {
				return Message{}, false, nil
			}
			continue
		}
		m, err := Decode(parts)
		switch {
		case err == nil:
			return m, true, nil
		case errors.Is(err, ErrVersion):
			l.bad.Version++
		default:
			l.bad.Malformed++
		}
	}
}

// Refused tells what was not accepted.
func (l *Listener) Refused() Refused { return l.bad }

// Close ends the listening.
func (l *Listener) Close() error { return errors.Join(l.in.close(), l.ctx.Term()) }
