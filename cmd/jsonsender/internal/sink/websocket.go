package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/perch-edge/perch/internal/redact"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/internal/version"
)

// webSocket sends one record a text message (RFC 6455). Without Ack an item is delivered when the
// receiver has answered a ping that was sent after it: its library has then read the message.
type webSocket struct {
	o       Options
	careful int // so many of the next items go one by one: one of them made the receiver close

	mu     sync.Mutex // of what Close shares with Deliver
	link   *wsLink    // nil: not open
	closed bool
}

// openWebSocket makes the sink of ws:// and wss://.
func openWebSocket(o Options) (Sink, error) {
	if o.To.Hostname() == "" {
		return nil, fmt.Errorf("address %s: want %s://HOST/PATH", o.To, o.To.Scheme)
	}
	return &webSocket{o: o}, nil
}

// Limits are those of the configuration.
func (w *webSocket) Limits() Limits { return Limits{Records: w.o.Records, Bytes: w.o.Bytes} }

// Deliver sends the items. A record that is no UTF-8 is refused, and one for which the receiver closes
// the connection when it comes alone.
func (w *webSocket) Deliver(ctx context.Context, items []Item) ([]Result, error) {
	if len(items) == 0 {
		return nil, ctx.Err()
	}
	link, secrets, err := w.open(ctx)
	a := newAcks(items, secrets)
	if err == nil {
		err = w.deliver(ctx, link, items, a)
	}
	if err != nil && link != nil {
		w.drop(link)
	}
	results, end := a.end(&w.o, uplink.Explain(err))
	if err != nil && secrets.In(end.Error()) {
		end = errors.New(redact.Hidden)
	}
	return results, end
}

// deliver sends all items at once, or one by one while it is not known which of them the receiver
// does not take.
func (w *webSocket) deliver(ctx context.Context, link *wsLink, items []Item, a *acks) error {
	for first := 0; first < len(items); {
		n := len(items) - first
		if w.careful > 0 {
			n = 1
		}
		err := link.deliver(ctx, &w.o, items[first:first+n], a)
		if code := websocket.CloseStatus(err); refusesMessage(code) {
			if w.careful = n; n == 1 {
				w.careful = 0
				a.settle(&items[first], Result{Refused, fmt.Sprintf("the receiver closes the connection: %s", code)})
			}
		}
		if err != nil {
			return err
		}
		w.careful = max(w.careful-n, 0)
		first += n
	}
	return nil
}

// refusesMessage reports whether a close code is about what a message holds (RFC 6455 section 7.4.1).
func refusesMessage(code websocket.StatusCode) bool {
	switch code {
	case websocket.StatusUnsupportedData, websocket.StatusInvalidFramePayloadData, websocket.StatusPolicyViolation, websocket.StatusMessageTooBig:
		return true
	}
	return false
}

// open returns the connection, and the secrets that it was opened with.
func (w *webSocket) open(ctx context.Context) (*wsLink, redact.Secrets, error) {
	w.mu.Lock()
	link, closed := w.link, w.closed
	w.mu.Unlock()
	if closed {
		return nil, nil, net.ErrClosed
	}
	if link != nil && !link.over() {
		return link, link.secrets, nil
	}
	if link != nil {
		w.drop(link)
	}
	link, secrets, err := w.dial(ctx)
	if err != nil {
		return nil, secrets, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		link.closeNow()
		return nil, secrets, net.ErrClosed
	}
	w.link = link
	return link, secrets, nil
}

// dial opens the connection. A refusal is judged as that of a POST.
func (w *webSocket) dial(ctx context.Context) (*wsLink, redact.Secrets, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(2*uplink.ConnectMost+w.o.Stall, func() { cancel(os.ErrDeadlineExceeded) })
	defer late.Stop()
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { late.Reset(w.o.Stall) }})
	header := &http.Request{Header: http.Header{"User-Agent": {"perch/" + version.Number}}}
	if err := authorize(header, &w.o); err != nil {
		return nil, nil, &Problem{Err: err, Ours: true}
	}
	secrets := redact.Authorization(header)
	var below net.Conn // the last, which is the one that the handshake succeeded on
	transport := uplink.Transport(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := w.o.Dial(ctx, network, address)
		below = conn
		return conn, err
	}, 0)
	if w.o.TLS != nil {
		cfg, err := w.o.TLS()
		if err != nil {
			return nil, nil, err
		}
		transport.TLSClientConfig = cfg
	}
	conn, res, err := websocket.Dial(traced, w.o.To.String(), &websocket.DialOptions{HTTPHeader: header.Header,
		HTTPClient: &http.Client{Transport: &redact.Transport{RoundTripper: transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}})
	if err != nil {
		transport.CloseIdleConnections()
		if errors.Is(context.Cause(ctx), os.ErrDeadlineExceeded) {
			err = fmt.Errorf("the receiver does not answer the request for a WebSocket within %s: %w", w.o.Stall, err)
		}
		return nil, secrets, refusedHandshake(res, err)
	}
	conn.SetReadLimit(maxAnswer)
	return newWSLink(conn, uplink.Of(below), secrets, w.o.Stall), secrets, nil
}

// refusedHandshake is the problem of an answer that is no WebSocket.
func refusedHandshake(res *http.Response, err error) error {
	if res == nil || res.StatusCode == http.StatusSwitchingProtocols {
		return err
	}
	text, readErr := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if readErr != nil {
		text = nil // the status says enough
	}
	a := &httpAnswer{status: res.StatusCode, header: res.Header, text: text}
	if a.status < 300 {
		return &Problem{Ours: true, Err: fmt.Errorf("%s where a WebSocket was asked for: is the path right?", a.what())}
	}
	if state, problem := a.verdict(); state == Unknown && problem != nil {
		return problem
	}
	return &Problem{Ours: true, Err: fmt.Errorf("the receiver opens no WebSocket: it %s", a.reason())}
}

func (w *webSocket) drop(link *wsLink) {
	w.mu.Lock()
	if w.link == link {
		w.link = nil
	}
	w.mu.Unlock()
	link.closeNow()
}

// Close ends a Deliver; where none is going on, it closes the connection with a close frame.
func (w *webSocket) Close() error {
	w.mu.Lock()
	link := w.link
	w.link, w.closed = nil, true
	w.mu.Unlock()
	if link != nil {
		link.close()
	}
	return nil
}

// wsLink is one connection. One goroutine reads it, another pings when nothing is sent.
type wsLink struct {
	conn    *websocket.Conn
	own     *uplink.Conn // below conn; nil where it is not known what has arrived
	secrets redact.Secrets
	cancel  context.CancelFunc
	pings   sync.WaitGroup
	ended   chan struct{} // closed when nothing more can be read
	err     error         // why; to be read after ended

	busy sync.Mutex // while a delivery or a ping goes on

	mu   sync.Mutex
	acks *acks
}

func newWSLink(conn *websocket.Conn, own *uplink.Conn, secrets redact.Secrets, stall time.Duration) *wsLink {
	ctx, cancel := context.WithCancel(context.Background())
	k := &wsLink{conn: conn, own: own, secrets: secrets, cancel: cancel, ended: make(chan struct{})}
	go k.read(ctx)
	k.pings.Go(func() { k.ping(ctx, stall) })
	return k
}

func (k *wsLink) read(ctx context.Context) {
	defer close(k.ended)
	for {
		_, text, err := k.conn.Read(ctx)
		if err != nil {
			k.err = err
			return
		}
		k.mu.Lock()
		a := k.acks
		k.mu.Unlock()
		if a != nil {
			a.answer(string(text))
		}
	}
}

// ping keeps an idle connection open, and finds one that is no more.
func (k *wsLink) ping(ctx context.Context, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.ended:
			return
		case <-time.After(every):
		}
		if !k.busy.TryLock() { // a delivery notices by itself
			continue
		}
		limited, cancel := context.WithTimeout(ctx, every)
		err := k.conn.Ping(limited)
		cancel()
		k.busy.Unlock()
		if err != nil {
			_ = k.conn.CloseNow() // the next delivery opens another
			return
		}
	}
}

func (k *wsLink) over() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// close sends a close frame and waits for the receiver's, for a second at most.
func (k *wsLink) close() {
	if !k.busy.TryLock() {
		k.closeNow()
		return
	}
	k.busy.Unlock()
	late := time.AfterFunc(time.Second, k.cancel) // ends the read, and with it the connection
	defer late.Stop()
	_ = k.conn.Close(websocket.StatusNormalClosure, "") // all that counts was acknowledged
	k.closeNow()
}

// closeNow ends the connection and its goroutines.
func (k *wsLink) closeNow() {
	k.cancel()
	_ = k.conn.CloseNow() // what was not acknowledged is sent again
	<-k.ended
	k.pings.Wait()
}

func (k *wsLink) expect(a *acks) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.acks = a
}

func (k *wsLink) deliver(ctx context.Context, o *Options, items []Item, a *acks) error {
	k.busy.Lock()
	defer k.busy.Unlock()
	if o.Ack {
		k.expect(a)
		defer k.expect(nil)
	}
	for i := range items {
		if !utf8.Valid(items[i].Body) {
			a.settle(&items[i], Result{Refused, "the record is no UTF-8, which WebSocket wants of a text"})
			continue
		}
		if err := k.conn.Write(ctx, websocket.MessageText, items[i].Body); err != nil {
			return k.because(fmt.Errorf("write: %w", err))
		}
	}
	return k.await(ctx, o, items, a)
}

// await waits for the answers, or for that to a ping.
func (k *wsLink) await(ctx context.Context, o *Options, items []Item, a *acks) error {
	w := watch{stall: o.Stall, wake: a.wake, ended: k.ended, why: func() error { return k.because(k.err) },
		bytes: k.arrived, steps: func() int { _, moved := a.open(); return moved }}
	if o.Ack {
		first := 0 // without an answer
		return w.until(ctx, func() (bool, error) {
			for first < len(items) && !a.isWaiting(&items[first]) {
				first++
			}
			return first == len(items), nil
		})
	}
	limited, cancel := context.WithCancel(ctx)
	pong := make(chan error, 1)
	go func() { pong <- k.conn.Ping(limited) }()
	var answered, over bool
	err := w.until(ctx, func() (bool, error) {
		select {
		case err := <-pong:
			answered, over = err == nil, true
			return true, k.because(err)
		default:
			return false, nil
		}
	})
	cancel()
	if !over {
		<-pong
	}
	for i := range items {
		if answered && a.isWaiting(&items[i]) {
			a.settle(&items[i], Result{State: Acknowledged})
		}
	}
	return err
}

func (k *wsLink) arrived() int64 {
	if k.own == nil {
		return 0
	}
	n, _ := k.own.Arrived() // an error shows by itself
	return n
}

// because adds why the receiver closed the connection, where it did: whoever writes only finds it closed.
func (k *wsLink) because(err error) error {
	if err == nil || websocket.CloseStatus(err) != -1 {
		return err
	}
	select {
	case <-k.ended:
	case <-time.After(time.Second): // the reason is under way, or there is none
		return err
	}
	if websocket.CloseStatus(k.err) != -1 {
		return fmt.Errorf("the receiver closed the connection: %w", k.err)
	}
	return err
}
