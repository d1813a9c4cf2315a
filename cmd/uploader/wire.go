package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/perch-edge/perch/internal/credential"
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
	trust, err := credential.TLS(cfg.CAFile, cfg.ClientCert, cfg.ClientKey)
	if err != nil {
		return nil, err
	}
	line := newLine(cfg, sent)
	return &http.Transport{DialContext: line.dial, TLSClientConfig: trust, DisableCompression: true,
		TLSHandshakeTimeout: connectMost, ExpectContinueTimeout: 2 * time.Second,
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
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &conn{Conn: c, line: l, raw: raw}, nil
}

// conn is a connection that fails when for stall_after nothing moves in either
// direction, however long the whole takes. What the kernel still has to send
// moves as well: on a slow line it may hold what takes minutes. One goroutine
// may read while another writes.
type conn struct {
	net.Conn
	line    *line
	raw     syscall.RawConn
	written atomic.Int64
	toRead  int64 // bytes that had arrived there when Read last looked
	toWrite int64 // and Write
	stalled atomic.Bool
}

// explain says what an error of the connection means. Of two goroutines the one
// that does not give up first only finds it closed.
func (c *conn) explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.stalled.Store(true)
	}
	if c.stalled.Load() {
		return fmt.Errorf("nothing has moved for %s: %w", c.line.stall, err)
	}
	return err
}

// moved says whether more has arrived there than at the last look. A step that
// is just being written counts on neither side, so it takes more than one.
func (c *conn) moved(seen *int64) bool {
	queued, err := 0, error(nil)
	if ctlErr := c.raw.Control(func(fd uintptr) { queued, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); ctlErr != nil || err != nil {
		return false
	}
	arrived := c.written.Load() - int64(queued)
	if arrived <= *seen+int64(c.line.step) {
		return false
	}
	*seen = arrived
	return true
}

// Read reads what there is.
func (c *conn) Read(p []byte) (int, error) {
	for {
		if err := c.SetReadDeadline(time.Now().Add(c.line.stall)); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		switch {
		case n > 0 || err == nil:
			return n, err
		case !errors.Is(err, os.ErrDeadlineExceeded) || !c.moved(&c.toRead):
			return n, c.explain(err)
		}
	}
}

// Write writes in steps, as fast as the limit lets it.
func (c *conn) Write(p []byte) (total int, err error) {
	for len(p) > 0 {
		n, err := c.step(p[:min(len(p), c.line.step)])
		total += n
		p = p[n:]
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || !c.moved(&c.toWrite)) {
			return total, c.explain(err)
		}
	}
	return total, nil
}

func (c *conn) step(p []byte) (int, error) {
	if c.line.limit != nil {
		if err := c.line.limit.WaitN(context.Background(), len(p)); err != nil { // a step's time at most
			return 0, err
		}
	}
	if err := c.SetWriteDeadline(time.Now().Add(c.line.stall)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	c.line.sent(n)
	return n, err
}
