package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection that fails when nothing moves. What the kernel still has to send moves as
// well: on a slow line it may hold what takes minutes. One goroutine may read while another writes.
type Conn struct {
	net.Conn
	link    *Link
	raw     syscall.RawConn
	silent  atomic.Bool // a read fails by itself
	written atomic.Int64
	toRead  int64 // bytes that had arrived when Read last looked
	toWrite int64 // and Write
	stalled atomic.Bool

	mu    sync.Mutex // of setting deadlines
	write time.Time  // the caller's deadline
	read  time.Time
}

// explain marks an error that means a stall. Of two goroutines the one that does not give up first
// only finds the connection closed.
func (c *Conn) explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.stalled.Store(true)
	}
	if c.stalled.Load() {
		return &StallError{c.link.stall, err}
	}
	return err
}

// StallError says that a connection is open and moves nothing.
type StallError struct {
	After time.Duration
	Err   error
}

func (e *StallError) Error() string {
	return fmt.Sprintf("nothing has moved for %s: %v", e.After, e.Err)
}

// Unwrap is the time-out.
func (e *StallError) Unwrap() error { return e.Err }

// Written is how many bytes were written to the socket.
func (c *Conn) Written() int64 { return c.written.Load() }

// Arrived is how many of the written bytes the other machine has acknowledged (SIOCOUTQ, tcp(7)); of a
// socket of this machine, how many the other program has read. It fails when the connection is broken.
func (c *Conn) Arrived() (arrived int64, err error) {
	written, queued, broken := c.written.Load(), 0, false
	ctlErr := c.raw.Control(func(fd uintptr) {
		if queued, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil {
			return
		}
		p := []unix.PollFd{{Fd: int32(fd)}}
		// A reset empties the queue too: look for it afterwards.
		if _, err = unix.Poll(p, 0); errors.Is(err, unix.EINTR) {
			err = nil
		}
		broken = p[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
	if err = errors.Join(ctlErr, err); err == nil && broken {
		err = syscall.ECONNRESET
	}
	return max(written-int64(queued), 0), err
}

// moved reports whether more has arrived than at the last look. A step that is just being written counts
// on neither side, so it takes more than one.
func (c *Conn) moved(seen *int64) bool {
	arrived, err := c.Arrived()
	if err != nil || arrived <= *seen+int64(c.link.step) {
		return false
	}
	*seen = arrived
	return true
}

// FailSilent makes the reads of a connection of Dial fail when for Stall nothing has moved. Other
// connections stay as they are.
func FailSilent(c net.Conn) {
	if own := Of(c); own != nil {
		own.silent.Store(true)
	}
}

// Of returns the connection of Dial below c, which may speak TLS; nil where there is none.
func Of(c net.Conn) *Conn {
	for {
		switch below := c.(type) {
		case *Conn:
			return below
		case interface{ NetConn() net.Conn }: // as *tls.Conn has
			c = below.NetConn()
		default:
			return nil
		}
	}
}

// Read reads what there is.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.silent.Load() {
		return c.Conn.Read(p)
	}
	for {
		if err := c.setRead(); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		switch {
		case n > 0 || err == nil:
			return n, err
		case c.passed(&c.read):
			return n, err
		case !errors.Is(err, os.ErrDeadlineExceeded) || !c.moved(&c.toRead):
			return n, c.explain(err)
		}
	}
}

// Write writes in steps, as fast as the limit lets it.
func (c *Conn) Write(p []byte) (total int, err error) {
	for len(p) > 0 {
		n, err := c.step(p[:min(len(p), c.link.step)])
		total += n
		p = p[n:]
		switch {
		case err == nil:
		case c.passed(&c.write):
			return total, err
		case !errors.Is(err, os.ErrDeadlineExceeded) || !c.moved(&c.toWrite):
			return total, c.explain(err)
		}
	}
	return total, nil
}

func (c *Conn) step(p []byte) (int, error) {
	if c.link.limit != nil {
		if err := c.link.limit.WaitN(context.Background(), len(p)); err != nil { // a step's time at most
			return 0, err
		}
	}
	if err := c.setWrite(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	c.link.sent(n)
	return n, err
}

// The caller's deadlines hold beside those of Stall: the earlier one counts.

// SetDeadline sets both of the caller's deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the caller's deadline of reads.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline sets the caller's deadline of writes. None leaves that of the write that is going on.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.write = t; t.IsZero() {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *Conn) setRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetReadDeadline(c.earlier(c.read))
}

func (c *Conn) setWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetWriteDeadline(c.earlier(c.write))
}

func (c *Conn) earlier(wanted time.Time) time.Time {
	own := time.Now().Add(c.link.stall)
	if !wanted.IsZero() && wanted.Before(own) {
		return wanted
	}
	return own
}

// passed reports whether a deadline of the caller's is over.
func (c *Conn) passed(deadline *time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !deadline.IsZero() && !time.Now().Before(*deadline)
}
