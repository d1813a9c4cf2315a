package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

const (
	// connectMost is how long a connection may take to come about.
	connectMost = 15 * time.Second
	// maxAnswerHeader bounds what a receiver may say before its text.
	maxAnswerHeader = 64 << 10
	// largestStep is how much is written at a time: each step must fit into
	// stall_after, and the limit is kept between them.
	largestStep = 16 << 10
)

// newTransport speaks HTTP/1.1, one upload a connection, so that a connection
// that makes no progress is an upload that makes none. Certificates are always
// verified. Redirects are for the callers, who follow none.
func newTransport(cfg *Config, sent func(int)) (*http.Transport, error) {
	roots, err := readRoots(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	trust := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if cfg.ClientCert != "" { // read at each handshake: certificates are renewed
		trust.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return readClientCert(cfg.ClientCert, cfg.ClientKey)
		}
	}
	line := newLine(cfg, sent)
	return &http.Transport{DialContext: line.dial, TLSClientConfig: trust, DisableCompression: true,
		TLSHandshakeTimeout: connectMost, ResponseHeaderTimeout: cfg.StallAfter.D(), ExpectContinueTimeout: 2 * time.Second,
		MaxResponseHeaderBytes: maxAnswerHeader, MaxIdleConnsPerHost: cfg.Parallel, IdleConnTimeout: cfg.StallAfter.D() / 2}, nil
}

// line is the way out of the box, whose limit all connections share.
type line struct {
	stall time.Duration
	limit *rate.Limiter // nil is none
	step  int
	sent  func(int)
}

func newLine(cfg *Config, sent func(int)) *line {
	l := &line{stall: cfg.StallAfter.D(), step: largestStep, sent: sent}
	if cfg.Limit > 0 {
		l.step = max(min(int(cfg.Limit)/10, largestStep), 100)
		l.limit = rate.NewLimiter(rate.Limit(cfg.Limit), l.step)
	}
	return l
}

func (l *line) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: connectMost}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &conn{c, l}, nil
}

// conn is a connection that fails when for stall_after nothing moves in either
// direction, however long the whole takes.
type conn struct {
	net.Conn
	line *line
}

func (c *conn) progress() error { return c.SetDeadline(time.Now().Add(c.line.stall)) }

// Read reads what there is.
func (c *conn) Read(p []byte) (int, error) {
	if err := c.progress(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write writes in steps, as fast as the limit lets it.
func (c *conn) Write(p []byte) (total int, err error) {
	for len(p) > 0 && err == nil {
		step := p[:min(len(p), c.line.step)]
		if c.line.limit != nil {
			if err := c.line.limit.WaitN(context.Background(), len(step)); err != nil { // a step's time at most
				return total, err
			}
		}
		if err = c.progress(); err != nil {
			break
		}
		var n int
		n, err = c.Conn.Write(step)
		c.line.sent(n)
		total += n
		p = p[n:]
	}
	return total, err
}
