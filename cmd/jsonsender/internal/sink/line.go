package sink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/perch-edge/perch/internal/uplink"
)

// chunk is about how much is written at once.
const chunk = 16 << 10

// line sends one record a line. Without Ack an item is delivered when the receiver's machine has
// acknowledged its bytes; what its program has not read yet is lost when that program is killed.
// Behind a proxy it is the proxy that acknowledges them.
type line struct {
	o       Options
	network string
	address string

	mu     sync.Mutex // of what Close shares with Deliver
	link   *lineLink  // nil: not open
	closed bool
}

// openLine makes the sink of tcp://HOST:PORT, tls://HOST:PORT and unix:/PATH.
func openLine(o Options) (Sink, error) {
	l := &line{o: o, network: "tcp", address: o.To.Host}
	if o.To.Scheme == "unix" {
		l.network, l.address = "unix", o.To.Path
		if l.address == "" {
			l.address = o.To.Opaque
		}
		if l.address == "" || o.To.Host != "" {
			return nil, fmt.Errorf("address %s: want unix:/PATH", o.To)
		}
		return l, nil
	}
	if o.To.Hostname() == "" || o.To.Port() == "" || o.To.Path != "" && o.To.Path != "/" {
		return nil, fmt.Errorf("address %s: want %s://HOST:PORT", o.To, o.To.Scheme)
	}
	return l, nil
}

// Limits are those of the configuration.
func (l *line) Limits() Limits { return Limits{Records: l.o.Records, Bytes: l.o.Bytes} }

// Deliver writes the items. A record that holds a line end is refused, unless the format itself is one
// of lines.
func (l *line) Deliver(ctx context.Context, items []Item) ([]Result, error) {
	if len(items) == 0 {
		return nil, ctx.Err()
	}
	a := newAcks(items, nil)
	for i := range items {
		if l.o.Batch.Separator != "\n" && (bytes.IndexByte(items[i].Body, '\n') >= 0 || bytes.IndexByte(items[i].Body, '\r') >= 0) {
			a.settle(&items[i], Result{Refused, "the record holds a line end, and a line is one record"})
		}
	}
	link, err := l.open(ctx)
	if err == nil {
		err = link.deliver(ctx, &l.o, items, a)
	}
	if err != nil && link != nil { // what comes late must not be taken for an answer to the next delivery
		l.drop(link)
	}
	return a.end(&l.o, uplink.Explain(err))
}

// open returns the connection. One that the receiver has closed meanwhile is opened again.
func (l *line) open(ctx context.Context) (*lineLink, error) {
	l.mu.Lock()
	link, closed := l.link, l.closed
	l.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	if link != nil && !link.over() {
		return link, nil
	}
	if link != nil {
		l.drop(link)
	}
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	l.link = newLineLink(conn)
	return l.link, nil
}

func (l *line) dial(ctx context.Context) (net.Conn, error) {
	conn, err := l.o.Dial(ctx, l.network, l.address)
	if err != nil || l.o.To.Scheme != "tls" {
		return conn, err
	}
	return secure(ctx, &l.o, conn)
}

// secure speaks TLS over a connection.
func secure(ctx context.Context, o *Options, conn net.Conn) (net.Conn, error) {
	cfg, err := o.TLS()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	cfg = cfg.Clone()
	cfg.ServerName = o.To.Hostname()
	ctx, cancel := context.WithTimeout(ctx, uplink.ConnectMost)
	defer cancel()
	t := tls.Client(conn, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return t, nil
}

func (l *line) drop(link *lineLink) {
	l.mu.Lock()
	if l.link == link {
		l.link = nil
	}
	l.mu.Unlock()
	link.close()
}

// Close ends a Deliver.
func (l *line) Close() error {
	l.mu.Lock()
	link := l.link
	l.link, l.closed = nil, true
	l.mu.Unlock()
	if link != nil {
		link.close()
	}
	return nil
}

// lineLink is one connection. A goroutine reads it all the time: so it is known when the receiver
// closes it, and no record is written into a connection that is no more.
type lineLink struct {
	conn  net.Conn
	own   *uplink.Conn  // below conn; nil where it is not known what has arrived
	ended chan struct{} // closed when nothing more can be read
	err   error         // why; to be read after ended

	mu   sync.Mutex
	acks *acks // of the delivery that is going on; nil: none is, or it waits for no answers
}

func newLineLink(conn net.Conn) *lineLink {
	k := &lineLink{conn: conn, own: uplink.Of(conn), ended: make(chan struct{})}
	go k.read()
	return k
}

// read passes on the answers. Half a line is none.
func (k *lineLink) read() {
	defer close(k.ended)
	in := bufio.NewReaderSize(k.conn, maxAnswer)
	for {
		text, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			k.err = err
			return
		}
		k.mu.Lock()
		a := k.acks
		k.mu.Unlock()
		if a != nil && len(bytes.TrimSpace(text)) > 0 {
			a.answer(string(text))
		}
	}
}

func (k *lineLink) expect(a *acks) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.acks = a
}

func (k *lineLink) over() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// close ends the connection and waits for its goroutine. The kernel still sends what was written.
func (k *lineLink) close() {
	_ = k.conn.Close() // what was not acknowledged is sent again
	<-k.ended
}

// why is the reason for the end of the connection.
func (k *lineLink) why() error {
	if errors.Is(k.err, io.EOF) {
		return fmt.Errorf("the receiver closed the connection: %w", k.err)
	}
	return k.err
}

func (k *lineLink) deliver(ctx context.Context, o *Options, items []Item, a *acks) error {
	release := context.AfterFunc(ctx, func() { _ = k.conn.Close() }) // ends a write
	defer release()
	if o.Ack {
		k.expect(a)
		defer k.expect(nil)
	}
	marks, err := k.write(items, a)
	if err == nil || !o.Ack { // of what was written before it broke some may have arrived
		err = errors.Join(err, k.await(ctx, o, items, a, marks))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// mark is how far the connection was written when an item had been.
type mark struct {
	item int
	at   int64
}

// write writes all items that are not refused, several at a time.
func (k *lineLink) write(items []Item, a *acks) (marks []mark, err error) {
	buffer := make([]byte, 0, 2*chunk)
	first := 0
	for i := range items {
		if a.isWaiting(&items[i]) {
			buffer = append(append(buffer, items[i].Body...), '\n')
		}
		if len(buffer) < chunk && i < len(items)-1 {
			continue
		}
		if _, err := k.conn.Write(buffer); err != nil {
			return marks, fmt.Errorf("write: %w", err)
		}
		for ; first <= i; first++ {
			marks = append(marks, mark{first, k.written()})
		}
		buffer = buffer[:0]
	}
	return marks, nil
}

func (k *lineLink) written() int64 {
	if k.own == nil {
		return 0
	}
	return k.own.Written()
}

// arrived is how many bytes have arrived; all, where that is not known.
func (k *lineLink) arrived() (int64, error) {
	if k.own == nil {
		return 0, nil
	}
	return k.own.Arrived()
}

// await waits for the answers, or until all bytes have arrived.
func (k *lineLink) await(ctx context.Context, o *Options, items []Item, a *acks, marks []mark) error {
	w := watch{stall: o.Stall, wake: a.wake, ended: k.ended, why: k.why,
		bytes: func() int64 { n, _ := k.arrived(); return n }, // an error shows by itself
		steps: func() int { _, moved := a.open(); return moved }}
	if o.Ack {
		return w.until(ctx, func() (bool, error) { n, _ := a.open(); return n == 0, nil })
	}
	w.ended = nil // a receiver that only reads may have closed its own direction
	return w.until(ctx, func() (bool, error) {
		arrived, err := k.arrived()
		if err != nil {
			return false, fmt.Errorf("wait for the receiver: %w", err)
		}
		for len(marks) > 0 && marks[0].at <= arrived {
			if item := &items[marks[0].item]; a.isWaiting(item) {
				a.settle(item, Result{State: Acknowledged})
			}
			marks = marks[1:]
		}
		return len(marks) == 0, nil
	})
}
