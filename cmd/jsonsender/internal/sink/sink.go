// Package sink sends records to receivers, each by its own protocol.
//
//	items --> Deliver --> tcp, tls, unix | ws, wss | http, https | mqtt, mqtts | nats | zmq+tcp
//	      <-- a result an item: acknowledged, refused, or not known
//
// A sink opens its link when it is first needed and opens it again after it broke. It never
// decides what a failure means for the data: what was not acknowledged stays with the caller.
package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/pkg/msg"
)

// Item is a record as it goes out.
type Item struct {
	Record *record.Record
	Body   []byte // as the format wrote it

	id string // of the record, once a sink has asked for it
}

// ID is the record's, which is put together once.
func (i *Item) ID() string {
	if i.id == "" {
		i.id = i.Record.ID()
	}
	return i.id
}

// Result is what became of an item.
type Result struct {
	State  State
	Reason string // of a refusal: what the receiver answered
}

// State is how far an item has come.
type State int

// An item is unknown until the receiver has acknowledged or refused it.
const (
	Unknown      State = iota // it may or may not have arrived: send it again
	Acknowledged              // the receiver has it
	Refused                   // the receiver will not take this item, whatever the others
)

// Sink is a receiver. Its methods are called by one goroutine, but for Close, which may be called
// during Deliver and ends it.
type Sink interface {
	// Deliver sends the items, in their order, and returns a result for each. The error says why
	// items are unknown: the link is down, or the receiver refuses all of them. It may be a *Problem.
	// Before the next Deliver the caller has kept the results where a kill does not reach them.
	// It returns when all items are decided, when nothing moves for Options.Stall, or when ctx is done.
	Deliver(ctx context.Context, items []Item) ([]Result, error)
	// Limits are what one Deliver takes at most.
	Limits() Limits
	Close() error
}

// Limits bound one Deliver.
type Limits struct {
	Records int
	Bytes   int // of all bodies together; one larger item goes alone
	// Keyed says that the receiver knows a Deliver by a key, which follows from its items: what may
	// have arrived must be delivered again with the same items.
	Keyed bool
}

// Problem is an error that says more than that the link is down.
type Problem struct {
	Err        error
	RetryAfter time.Duration // the receiver asked for this pause; 0: it did not
	// Ours says that the receiver works and does not want us: a token that expired, a wrong address.
	// A person has to act, and trying often does not help.
	Ours bool
}

func (p *Problem) Error() string { return p.Err.Error() }

// Unwrap is the cause.
func (p *Problem) Unwrap() error { return p.Err }

// isOurs reports whether a person has to act.
func isOurs(err error) bool {
	var p *Problem
	return errors.As(err, &p) && p.Ours
}

// Options are what all sinks are made from.
type Options struct {
	To     *url.URL
	Node   string
	Worker string // the worker's name, which is part of client ids
	Batch  format.Batch
	Ack    bool // lines and WebSocket: the receiver answers each line's id
	Gzip   bool

	Prefix    string           // mqtt and nats: the first word, or words, of topics and subjects
	Stream    string           // nats: the stream that must take the records; "" is whichever the server chooses by subject
	Companion format.Companion // mqtt: what the format publishes beside records; nil is nothing

	User  string
	Token func() (string, error) // the secret, read for each use; nil where there is none
	TLS   func() (*tls.Config, error)
	// Dial opens connections: with time-outs, and through a proxy where the environment names one. Its
	// network may be tcp or unix. nil is that of package uplink. A *uplink.Conn tells what has arrived.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Curve are the keys of zmq+tcp, read for each link; nil where there are none.
	Curve func() (*msg.CurveKeys, error)
	Stall time.Duration // time without progress after which a delivery has failed

	Records int // a batch's most
	Bytes   int
	Log     *slog.Logger
	// Count adds to one of the worker's counters: unknown_acks. nil counts nothing.
	Count func(counter string, n uint64)
}

func (o *Options) count(counter string, n uint64) {
	if o.Count != nil && n > 0 {
		o.Count(counter, n)
	}
}

// New makes the sink for the address in o. It opens no connection yet.
func New(o Options) (Sink, error) {
	if o.Dial == nil {
		o.Dial = uplink.New(uplink.Settings{Stall: o.Stall}).Dial
	}
	switch o.To.Scheme {
	case "tcp", "tls", "unix":
		return openLine(o)
	case "ws", "wss":
		return openWebSocket(o)
	case "http", "https":
		return openHTTP(o)
	case "mqtt", "mqtts":
		return NewMQTT(o)
	case "nats":
		return NewNATS(o)
	case "zmq+tcp":
		return NewZMQ(o)
	}
	return nil, ErrScheme
}

// ErrScheme is returned for an address whose scheme no sink serves.
var ErrScheme = errors.New("want tcp://, tls://, unix:, ws://, wss://, http://, https://, mqtt://, mqtts://, nats:// or zmq+tcp://")
