package sink

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync/atomic"
	"time"

	"github.com/perch-edge/perch/internal/redact"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/internal/version"
)

// bigBody is from which length on a receiver is asked before it is sent anything: a refusal then costs
// no transmission (RFC 9110 section 10.1.1).
const bigBody = 256 << 10

// mostRefused is how many single records a receiver may refuse without having taken any, before it is
// believed to refuse all.
const mostRefused = 5

// httpSink posts batches of records.
type httpSink struct {
	o      Options
	client *http.Client
	link   *http.Transport
	ctx    context.Context // done when the sink is closed
	cancel context.CancelFunc

	most  int  // bytes of a body; halved when the receiver finds one too large
	plain bool // the receiver does not take gzip
	taken bool // it took a batch compressed
}

// openHTTP makes the sink of http:// and https://.
func openHTTP(o Options) (Sink, error) {
	if o.Records == 1 {
		o.Batch = o.Batch.One()
	}
	s := &httpSink{o: o, most: o.Bytes, plain: !o.Gzip}
	s.link = uplink.Transport(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := o.Dial(ctx, network, address)
		if err == nil {
			uplink.FailSilent(conn)
		}
		return conn, err
	}, o.Stall/2)
	if o.TLS != nil {
		cfg, err := o.TLS()
		if err != nil {
			return nil, err
		}
		s.link.TLSClientConfig = cfg
	}
	s.client = &http.Client{Transport: &redact.Transport{RoundTripper: s.link},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Limits are those of the configuration: a delivery is as many requests as the receiver needs.
func (s *httpSink) Limits() Limits {
	return Limits{Records: s.o.Records, Bytes: s.o.Bytes, Keyed: true}
}

// Close ends a Deliver.
func (s *httpSink) Close() error {
	s.cancel()
	s.link.CloseIdleConnections()
	return nil
}

// Deliver posts the items. A batch that is refused is halved until the items are found that the
// receiver does not take.
func (s *httpSink) Deliver(ctx context.Context, items []Item) ([]Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	d := &posting{s, make([]Result, len(items)), 0, 0}
	for first := 0; first < len(items); {
		n := s.fit(items[first:])
		if err := d.post(ctx, items[first:first+n], d.results[first:first+n]); err != nil {
			return d.results, err
		}
		first += n
	}
	return d.results, nil
}

// fit returns how many of the items go into one body, at least one.
func (s *httpSink) fit(items []Item) int {
	most := len(items)
	if m := s.o.Batch.Most; m > 0 {
		most = min(most, m)
	}
	if s.o.Records > 0 {
		most = min(most, s.o.Records)
	}
	size := 0
	for i := range items[:most] {
		if size += len(items[i].Body) + len(s.o.Batch.Separator); i > 0 && s.most > 0 && size > s.most {
			return i
		}
	}
	return most
}

// posting is one delivery.
type posting struct {
	*httpSink
	results []Result
	took    int // requests that the receiver took
	refused int // items that it refused
}

// post sends items as one body, or as several smaller ones where the receiver refuses it.
func (d *posting) post(ctx context.Context, items []Item, results []Result) error {
	a, err := d.request(ctx, items)
	if err != nil {
		return &Problem{Err: uplink.Explain(err), Ours: errors.Is(err, errToken)}
	}
	switch verdict, problem := a.verdict(); {
	case problem != nil:
		return problem
	case verdict == Acknowledged:
		d.took++
		for i := range results {
			results[i].State = Acknowledged
		}
		return nil
	case len(items) == 1:
		return d.refuse(a, &results[0])
	case a.status == http.StatusRequestEntityTooLarge:
		d.most = max(a.size/2, 1)
	}
	half := len(items) / 2
	if err := d.post(ctx, items[:half], results[:half]); err != nil {
		return err
	}
	return d.post(ctx, items[half:], results[half:])
}

// refuse settles an item that the receiver does not take. When it takes nothing at all, the fault is
// hardly in the records.
func (d *posting) refuse(a *httpAnswer, r *Result) error {
	*r = Result{Refused, a.reason()}
	if d.refused++; d.took == 0 && d.refused >= mostRefused {
		return &Problem{Ours: true, Err: fmt.Errorf("the receiver refuses every record: it %s: are format, gzip and the address what it expects?", r.Reason)}
	}
	return nil
}

// request posts items, compressed or not. A receiver that refuses compressed bodies is asked once more
// without, and remembered when that helps.
func (d *posting) request(ctx context.Context, items []Item) (*httpAnswer, error) {
	body := make([][]byte, len(items))
	for i := range items {
		body[i] = items[i].Body
	}
	text, key := d.o.Batch.Join(body), keyOf(items)
	if d.plain {
		return d.send(ctx, text, key, false)
	}
	packed, err := compress(text)
	if err != nil {
		return nil, err
	}
	a, err := d.send(ctx, packed, key, true)
	if err != nil || d.taken {
		return a, err
	}
	verdict, problem := a.verdict()
	switch {
	case problem == nil && verdict == Acknowledged:
		d.taken = true
	case problem == nil && a.status != http.StatusRequestEntityTooLarge:
		again, err := d.send(ctx, text, key, false)
		if err != nil {
			return nil, err
		}
		if verdict, problem := again.verdict(); problem == nil && verdict == Acknowledged {
			d.plain = true
		}
		return again, nil
	}
	a.size = len(text)
	return a, nil
}

// keyOf is the same for the same items: a batch that is sent again has the key that it had.
func keyOf(items []Item) string {
	h := sha256.New()
	for i := range items {
		_, _ = io.WriteString(h, items[i].ID()+"\n") // it never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func compress(text []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// errToken is a secret that cannot be read.
var errToken = errors.New("token_file")

// authorize adds the credentials to a header: a password where there is a user, otherwise a bearer token,
// or the token alone where the format's receiver wants it so.
func authorize(req *http.Request, o *Options) error {
	if o.Token == nil {
		return nil
	}
	token, err := o.Token()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errToken, err)
	case o.Batch.BareToken:
		req.Header.Set("Authorization", token)
	case o.User != "":
		req.SetBasicAuth(o.User, token)
	default:
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return nil
}

// send makes a request, and makes it once more, under the same key, where the connection was an old one
// that the receiver had closed.
func (s *httpSink) send(ctx context.Context, body []byte, key string, packed bool) (*httpAnswer, error) {
	old := false
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { old = c.Reused }})
	a, err := s.try(traced, body, key, packed)
	if err == nil || !old || errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
		return a, err
	}
	s.link.CloseIdleConnections()
	return s.try(ctx, body, key, packed)
}

// try makes one request.
func (s *httpSink) try(ctx context.Context, body []byte, key string, packed bool) (*httpAnswer, error) {
	sent := &counted{}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.o.To.String(), nil)
	if err != nil {
		return nil, err
	}
	req.ContentLength = int64(len(body))
	req.GetBody = func() (io.ReadCloser, error) { return sent.start(body), nil }
	req.Body = sent.start(body)
	for name, value := range s.o.Batch.Header {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", s.o.Batch.MediaType)
	req.Header.Set("User-Agent", "perch/"+version.Number)
	req.Header.Set("Idempotency-Key", key)
	if packed {
		req.Header.Set("Content-Encoding", "gzip")
	}
	if len(body) >= bigBody {
		req.Header.Set("Expect", "100-continue")
	}
	if err := authorize(req, &s.o); err != nil {
		return nil, err
	}
	a, err := s.answer(req)
	if err != nil {
		return nil, err
	}
	a.size, a.early = len(body), sent.n.Load() < int64(len(body))
	return a, nil
}

// answer reads what the receiver answers, at most maxAnswer bytes. From its first byte on it may take Stall:
// a receiver that dribbles would otherwise hold the records for ever.
func (s *httpSink) answer(req *http.Request) (*httpAnswer, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	defer cancel(nil)
	late := time.AfterFunc(time.Hour, func() { cancel(os.ErrDeadlineExceeded) })
	defer late.Stop()
	late.Stop()
	a, err := s.read(req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotFirstResponseByte: func() { late.Reset(s.o.Stall) },
		Got100Continue:       func() { late.Stop() }, // the body goes out now
	})))
	if err != nil && errors.Is(context.Cause(ctx), os.ErrDeadlineExceeded) {
		return nil, fmt.Errorf("the receiver's answer is not complete after %s: %w", s.o.Stall, context.Cause(ctx))
	}
	return a, err
}

func (s *httpSink) read(req *http.Request) (*httpAnswer, error) {
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it is only read
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return &httpAnswer{status: res.StatusCode, header: res.Header, text: text}, nil
}

// counted counts what has been read of a body. net/http may start again on another connection.
type counted struct{ n atomic.Int64 }

func (c *counted) start(body []byte) io.ReadCloser {
	c.n.Store(0)
	return io.NopCloser(io.TeeReader(bytes.NewReader(body), c))
}

// Write counts.
func (c *counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
