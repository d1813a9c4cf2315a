package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/perch-edge/perch/pkg/msg"
)

// zmqSink sends each record as one ZeroMQ message of two parts: its topic, and what the format wrote.
//
//	item --> PUSH ══tcp, CURVE══> PULL of the receiver
//
// A PULL socket answers nothing. Acknowledged means here that ZeroMQ has taken the record while the
// receiver was connected: when the link breaks, msg.PushQueue records and what the kernels hold may be
// lost. The last ones of a delivery whose link breaks are unknown, and come again.
type zmqSink struct {
	o        Options
	endpoint string

	link *msg.Push // nil: not connected
	busy sync.Mutex

	mu     sync.Mutex
	cancel context.CancelFunc // of the Deliver that runs
	closed bool
}

// NewZMQ makes a sink for zmq+tcp://HOST:PORT. It fails for an address that is none.
func NewZMQ(o Options) (Sink, error) {
	if o.To.Port() == "" || strings.Trim(o.To.Path, "/") != "" || o.To.RawQuery != "" {
		return nil, fmt.Errorf("%s: want zmq+tcp://HOST:PORT", o.To.Redacted())
	}
	return &zmqSink{o: o, endpoint: "tcp://" + o.To.Host}, nil
}

// Limits are those of the configuration: each record is a message of its own.
func (z *zmqSink) Limits() Limits { return Limits{Records: z.o.Records, Bytes: z.o.Bytes} }

// Deliver sends the items, as long as each is taken within Stall.
func (z *zmqSink) Deliver(ctx context.Context, items []Item) (results []Result, err error) {
	results = make([]Result, len(items))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	z.busy.Lock()
	defer z.busy.Unlock()
	z.mu.Lock()
	z.cancel = cancel
	if z.closed {
		cancel()
	}
	z.mu.Unlock()
	for i, item := range items {
		if err = z.send(ctx, item); err != nil {
			z.recall(results[:i])
			break
		}
		results[i].State = Acknowledged
	}
	if err == nil && z.link != nil {
		if err = z.link.Check(); err != nil {
			z.recall(results)
		}
	}
	if err != nil && z.link != nil {
		_ = z.link.Close() // it is over anyway
		z.link = nil
	}
	if errors.Is(err, msg.ErrHandshake) {
		err = &Problem{Err: err, Ours: true}
	}
	return results, err
}

// recall takes back what was sent last before the link broke.
func (z *zmqSink) recall(sent []Result) {
	for i := max(len(sent)-msg.PushQueue, 0); i < len(sent); i++ {
		sent[i] = Result{}
	}
}

func (z *zmqSink) send(ctx context.Context, item Item) error {
	ctx, cancel := context.WithTimeout(ctx, z.o.Stall)
	defer cancel()
	if err := z.open(ctx); err != nil {
		return err
	}
	return z.link.Send(ctx, []byte(item.Record.Topic()), item.Body)
}

// open connects where there is no link, or the last one broke while nothing was sent.
func (z *zmqSink) open(ctx context.Context) error {
	if z.link != nil {
		if z.link.Check() == nil {
			return nil
		}
		_ = z.link.Close()
		z.link = nil
	}
	var keys *msg.CurveKeys
	var err error
	if z.o.Curve != nil {
		if keys, err = z.o.Curve(); err != nil {
			return &Problem{Err: err, Ours: true}
		}
	}
	z.link, err = msg.OpenPush(ctx, z.endpoint, keys)
	return err
}

// Close ends a Deliver that runs, and waits half a second at most for records to leave.
func (z *zmqSink) Close() error {
	z.mu.Lock()
	z.closed = true
	if z.cancel != nil {
		z.cancel()
	}
	z.mu.Unlock()
	z.busy.Lock()
	defer z.busy.Unlock()
	if z.link == nil {
		return nil
	}
	defer func() { z.link = nil }()
	return z.link.Close()
}
