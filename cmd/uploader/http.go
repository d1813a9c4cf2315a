package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/perch-edge/perch/internal/credential"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/internal/version"
)

// bigBody is from which length on a receiver is asked before it is sent
// anything: a refusal of a video then costs no transmission (RFC 9110, 10.1.1).
const bigBody = 256 << 10

// client speaks HTTP with the receiver.
type client struct {
	http  *http.Client
	token string        // the file with the token; "" is none
	stall time.Duration // that an answer's text may take
}

func newClient(cfg *Config, transport http.RoundTripper) *client {
	return &client{token: cfg.TokenFile, stall: cfg.StallAfter.D(), http: &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// request makes a request that carries the token.
func (c *client) request(ctx context.Context, method, address string, b *body, header http.Header) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", "perch-uploader/"+version.Number)
	if c.token != "" {
		token, err := credential.Token(c.token)
		if err != nil {
			return nil, &failure{verdict: uplink.Denied, err: fmt.Errorf("token_file: %w", err)}
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if b != nil && b.want > 0 {
		req.Body, req.ContentLength = io.NopCloser(b), b.want
		if b.want >= bigBody {
			req.Header.Set("Expect", "100-continue")
		}
	}
	return req, nil
}

// do sends a request and reads the answer. A success that came before the whole
// body was sent is none.
func (c *client) do(ctx context.Context, method, address string, b *body, header http.Header) (*answer, error) {
	req, err := c.request(ctx, method, address, b, header)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	shut := func() { _ = res.Body.Close() } // it is only read
	defer shut()
	late := time.AfterFunc(c.stall, shut) // it may dribble for ever
	defer late.Stop()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxText))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	a := &answer{res.StatusCode, res.Header, text}
	if a.ok() && b != nil && !b.whole() {
		return nil, fmt.Errorf("the receiver answered %d after %d of %d bytes", a.status, b.read.Load(), b.want)
	}
	if a.ok() {
		return a, nil
	}
	return a, a.failure()
}

// web is a receiver that takes files by PUT or POST.
type web struct {
	*client
	to     Target
	method Method
	proof  Proof
}

// send sends the file, and then its sidecar: where there is a sidecar, the file
// is there, whole.
func (w *web) send(ctx context.Context, p *parcel) (word, error) {
	said, err := w.put(ctx, &p.file)
	if err != nil {
		return word{}, err
	}
	if _, err := w.put(ctx, &p.note); err != nil {
		return word{}, fmt.Errorf("sidecar: %w", err)
	}
	return said, nil
}

func (w *web) put(ctx context.Context, o *object) (word, error) {
	header := http.Header{"Content-Type": {o.mediaType()}, "Idempotency-Key": {o.key},
		"Content-Digest": {"sha-256=:" + o.base64Sum() + ":"}, "Want-Repr-Digest": {"sha-256=10"}}
	address := w.to.of(o.name)
	if w.method == Post {
		address = w.to.url.String()
		header.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", o.name))
	} else if o.once {
		header.Set("If-None-Match", "*")
	}
	a, err := w.do(ctx, string(w.method), address, o.body(0, o.bytes), header)
	if a != nil && w.method == Put && (a.status == http.StatusPreconditionFailed || a.status == http.StatusConflict) {
		proof, err := o.alreadyThere(ctx, w.proof, err, w.witness(o, a))
		return word{a.status, a.tag(), proof}, err
	}
	if err != nil {
		return word{}, err
	}
	proof, err := o.prove(ctx, w.proof, shown{-1, a.digest(o.sum)}, w.witness(o, a))
	return word{a.status, a.tag(), proof}, err
}

// witness asks at the object's own address. What was posted has the one that
// the answer gives it, if that is the receiver's.
func (w *web) witness(o *object, a *answer) witness {
	address := w.to.of(o.name)
	if w.method == Post {
		address = ""
		if at, err := w.to.url.Parse(a.header.Get("Location")); err == nil && a.header.Get("Location") != "" && w.to.isSameServer(at) {
			address = at.String()
		}
	}
	return w.client.witness(address, o)
}

// witness asks by HEAD and GET.
func (c *client) witness(address string, o *object) witness {
	return witness{
		head: func(ctx context.Context) (shown, error) {
			if address == "" {
				return shown{}, fmt.Errorf("the receiver gave %s no address", o.name)
			}
			return c.head(ctx, address, o)
		},
		get: func(ctx context.Context) (io.ReadCloser, error) { return c.get(ctx, address) },
	}
}

func (c *client) head(ctx context.Context, address string, o *object) (shown, error) {
	req, err := c.request(ctx, http.MethodHead, address, nil, http.Header{"Want-Repr-Digest": {"sha-256=10"}})
	if err != nil {
		return shown{}, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return shown{}, err
	}
	defer func() { _ = res.Body.Close() }() // it has none
	if res.StatusCode != http.StatusOK {
		return shown{}, notShown(res.StatusCode)
	}
	a := answer{res.StatusCode, res.Header, nil}
	return shown{res.ContentLength, a.digest(o.sum)}, nil
}

func (c *client) get(ctx context.Context, address string) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, address, nil, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(notShown(res.StatusCode), res.Body.Close())
	}
	return res.Body, nil
}

func notShown(status int) error {
	return fmt.Errorf("asked to show it, the receiver answers %d %s", status, http.StatusText(status))
}
