package msg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
	"golang.org/x/sys/unix"
)

// inbox is a SUB socket that waits in Go's poller: no thread is locked, and a
// context or a deadline ends the wait.
type inbox struct {
	soc  *zmq4.Socket
	wake *os.File // a duplicate of ZMQ_FD, for waiting only
	conn syscall.RawConn
}

func (b *Bus) newInbox(hwm int) (*inbox, error) {
	soc, err := b.ctx.NewSocket(zmq4.SUB)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	in := &inbox{soc: soc}
	if err := in.open(hwm); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe: %w", err), soc.Close())
	}
	b.open = append(b.open, in.close)
	return in, nil
}

func (in *inbox) open(hwm int) error {
	for _, err := range []error{in.soc.SetRcvhwm(hwm), in.soc.SetLinger(0), in.soc.SetReconnectIvl(reconnect),
		in.soc.SetMaxmsgsize(maxPayload)} {
		if err != nil {
			return err
		}
	}
	fd, err := in.soc.GetFd()
	if err != nil {
		return err
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicate ZMQ_FD: %w", err)
	}
	in.wake = os.NewFile(uintptr(dup), "zmq")
	in.conn, err = in.wake.SyscallConn()
	return err
}

func (in *inbox) close() error { return errors.Join(in.wake.Close(), in.soc.Close()) }

// poll takes a message that has arrived; nil when there is none.
func (in *inbox) poll() ([][]byte, error) {
	first, err := in.soc.RecvBytes(zmq4.DONTWAIT)
	if err == zmq4.Errno(syscall.EAGAIN) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	parts := [][]byte{first}
	for {
		more, err := in.soc.GetRcvmore()
		if err != nil || !more {
			return parts, err
		}
		part, err := in.soc.RecvBytes(zmq4.DONTWAIT) // all parts arrive together
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if len(parts) < 4 { // a fifth part makes it no less malformed
			parts = append(parts, part)
		}
	}
}

// wait returns a message, or nil at the deadline, or when ctx is done.
func (in *inbox) wait(ctx context.Context, until time.Time) (parts [][]byte, err error) {
	if parts, err = in.poll(); parts != nil || err != nil {
		return parts, err
	}
	stop := context.AfterFunc(ctx, func() { _ = in.wake.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := in.wake.SetReadDeadline(until); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if ctx.Err() != nil { // after setting ours, so that the past deadline is not overwritten unseen
		return nil, nil
	}
	var recvErr error
	err = in.conn.Read(func(uintptr) bool {
		// ZMQ_FD is edge-triggered (zmq_getsockopt(3)): it may be silent while
		// messages are there, until the socket's events were asked for.
		for range 2 {
			if parts, recvErr = in.poll(); parts != nil || recvErr != nil {
				return true
			}
			if _, recvErr = in.soc.GetEvents(); recvErr != nil {
				return true
			}
		}
		return false
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return parts, errors.Join(err, recvErr)
}
