// Package uplink opens the box's connections to its receivers, and puts into words why one failed.
//
//	Link.Dial --> [HTTP or SOCKS proxy of the environment] --> Conn --> a receiver
//	             slow lines are waited for, stalled ones fail, a rate limit is kept
//	error --> Explain --> what is wrong, and what a person can do about it
//	answer --> Judge, Advice, RetryAfter, OneLine
//
// A connection may take ConnectMost to open. A write fails when for Stall no bytes have left the
// kernel's buffer, however long the whole takes. A read waits as long as the protocol lets it; after
// FailSilent it fails as well when for Stall nothing has moved in either direction.
//
// Proxies are those of HTTPS_PROXY and NO_PROXY, as golang.org/x/net/http/httpproxy reads them:
// http://, https:// and socks5:// addresses. All connections to other machines go through them, by
// CONNECT (RFC 9110 section 9.3.6) or SOCKS (RFC 1928), plain ones as well as TLS; the proxy then
// looks up the receiver's name. Connections to this machine never do.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

const (
	// ConnectMost is how long a connection may take to open, and a TLS handshake as well.
	ConnectMost = 15 * time.Second
	// largestStep is how much is written at a time: each step must fit into Stall, and the limit is
	// kept between them.
	largestStep = 16 << 10
	// maxHeader bounds the header of a receiver's or proxy's answer.
	maxHeader = 64 << 10
)

// Settings are those of a Link.
type Settings struct {
	Stall time.Duration // time without progress after which a connection fails
	Limit int64         // bytes a second, of all connections together; 0 is no limit
	Sent  func(int)     // counts bytes as they are written; nil counts none
}

// Link opens connections, which share its limit. Its methods may be called at the same time.
type Link struct {
	stall time.Duration
	limit *rate.Limiter // nil is none
	step  int
	sent  func(int)
	proxy func(*url.URL) (*url.URL, error)
}

// New returns a link with the proxies that the environment names at this time.
func New(s Settings) *Link {
	l := &Link{stall: s.Stall, step: largestStep, sent: s.Sent, proxy: ofEnvironment()}
	if l.sent == nil {
		l.sent = func(int) {}
	}
	if s.Limit > 0 {
		l.step = max(min(int(s.Limit)/10, largestStep), 100)
		l.limit = rate.NewLimiter(rate.Limit(s.Limit), l.step)
	}
	return l
}

// Dial opens a connection to address, HOST:PORT or the path of a socket: network is tcp, tcp4, tcp6
// or unix. The connection is a *Conn, below TLS where the proxy itself is spoken to by TLS. An error
// of the proxy is a *ProxyError.
func (l *Link) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "unix" {
		return l.direct(ctx, network, address)
	}
	proxy, err := l.proxy(&url.URL{Scheme: "https", Host: address})
	switch {
	case err != nil:
		return nil, err
	case proxy == nil:
		return l.direct(ctx, network, address)
	}
	return l.through(ctx, proxy, address)
}

// DialStrict is Dial for protocols in which the receiver always has an answer to give: the connection
// fails as well when it is silent (FailSilent).
func (l *Link) DialStrict(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := l.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	FailSilent(c)
	return c, nil
}

func (l *Link) direct(ctx context.Context, network, address string) (*Conn, error) {
	c, err := (&net.Dialer{Timeout: ConnectMost}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &Conn{Conn: c, link: l, raw: raw}, nil
}

// Transport speaks HTTP/1.1 over connections of dial: one exchange a connection at a time, so that a
// connection that makes no progress is an exchange that makes none. idle is how long a connection may
// wait for its next use. Redirects are for the callers, who follow none.
func Transport(dial func(ctx context.Context, network, address string) (net.Conn, error), idle time.Duration) *http.Transport {
	return &http.Transport{DialContext: dial, DisableCompression: true, TLSHandshakeTimeout: ConnectMost,
		ExpectContinueTimeout: 2 * time.Second, MaxResponseHeaderBytes: maxHeader, IdleConnTimeout: idle}
}

// IsLocal reports whether a host, a name or an IP address, is this machine: where a connection needs
// no TLS.
func IsLocal(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// ProxyError is a proxy that does not open the way.
type ProxyError struct {
	Proxy  string // its host and port
	Status int    // of its answer; 0: it did not answer as a proxy does
	Err    error
}

func (e *ProxyError) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("proxy %s answers %d %s", e.Proxy, e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("proxy %s: %v", e.Proxy, e.Err)
}

// Unwrap is the cause.
func (e *ProxyError) Unwrap() error { return e.Err }
