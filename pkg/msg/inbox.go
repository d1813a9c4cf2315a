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
//
// The deadline is a timerfd(2), watched beside the socket by an epoll(7) of the
// inbox's own. A timer of the runtime's would be moved with each message, and
// wake two threads each time one of the moved ones would have been due.
type inbox struct {
	soc   *zmq4.Socket
	timer int      // timerfd, or -1
	wake  *os.File // epoll of the timer and the socket's ZMQ_FD
	conn  syscall.RawConn

	done   <-chan struct{} // of the context that ends waits
	forget func() bool     // stops it from doing so
}

// newInbox makes a socket that its owner closes.
func newInbox(ctx *zmq4.Context, hwm int) (*inbox, error) {
	soc, err := ctx.NewSocket(zmq4.SUB)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	in := &inbox{soc: soc, timer: -1}
	if err := in.open(hwm); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe: %w", err), in.close())
	}
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
	if in.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("make timer: %w", err)
	}
	return in.watch(fd, in.timer)
}

// watch lets Go's poller wait for several files at once. They are
// edge-triggered, as ZMQ_FD is by itself (zmq_getsockopt(3)).
func (in *inbox) watch(files ...int) error {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	if err := unix.SetNonblock(poll, true); err != nil { // Go's poller takes no other
		return errors.Join(fmt.Errorf("make epoll: %w", err), unix.Close(poll))
	}
	in.wake = os.NewFile(uintptr(poll), "zmq")
	for _, fd := range files {
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return fmt.Errorf("watch socket: %w", err)
		}
	}
	in.conn, err = in.wake.SyscallConn()
	return err
}

func (in *inbox) close() error {
	var errs []error
	if in.forget != nil {
		in.forget()
	}
	if in.wake != nil {
		errs = append(errs, in.wake.Close())
	}
	if in.timer >= 0 {
		errs = append(errs, unix.Close(in.timer))
	}
	return errors.Join(append(errs, in.soc.Close())...)
}

// poll takes a message that has arrived; nil when there is none.
func (in *inbox) poll() ([][]byte, error) {
	first, err := in.soc.RecvBytes(zmq4.DONTWAIT)
	if errors.Is(err, zmq4.Errno(syscall.EAGAIN)) {
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

// discard throws away all that has arrived, and says whether there was anything.
func (in *inbox) discard() (bool, error) {
	for n := range 8 * queue { // a peer that sends without end must not hold the reader
		_, err := in.soc.RecvBytes(zmq4.DONTWAIT)
		if errors.Is(err, zmq4.Errno(syscall.EAGAIN)) {
			return n > 0, nil
		}
		if err != nil {
			return false, fmt.Errorf("receive: %w", err)
		}
	}
	return true, nil
}

// wait returns a message; or nil at the deadline, when ctx is done, and now and
// then for no reason.
func (in *inbox) wait(ctx context.Context, until time.Time) (parts [][]byte, err error) {
	err = in.sleep(ctx, until, func() (bool, error) {
		parts, err = in.poll()
		return parts != nil, err
	})
	if parts == nil && err == nil {
		parts, err = in.poll()
	}
	return parts, err
}

// sleep returns when something may have come, at the deadline (the zero time is
// never), or when ctx is done. It asks first whether something is there: this
// must empty the socket, which tells of what came once only.
func (in *inbox) sleep(ctx context.Context, until time.Time, there func() (bool, error)) error {
	if err := in.heed(ctx); err != nil {
		return err
	}
	var askErr error
	asleep := false
	err := in.conn.Read(func(uintptr) bool {
		if asleep {
			return true
		}
		// From here on the poller takes note of each event.
		asleep = true
		if askErr = in.alarm(until); askErr != nil {
			return true
		}
		var now bool
		now, askErr = there()
		return now || askErr != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
		if ctx.Err() == nil {
			in.done = nil // a word of the last context, come late
		}
	}
	return errors.Join(err, askErr)
}

// heed lets the end of ctx end a wait. What a worker waits with is the same
// context again and again.
func (in *inbox) heed(ctx context.Context) error {
	if in.forget != nil && in.done == ctx.Done() {
		return nil
	}
	if in.forget != nil {
		in.forget()
	}
	if err := in.wake.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	in.done = ctx.Done()
	in.forget = context.AfterFunc(ctx, func() { _ = in.wake.SetReadDeadline(time.Unix(1, 0)) })
	return nil
}

func (in *inbox) alarm(until time.Time) error {
	var at unix.ItimerSpec
	if !until.IsZero() {
		at.Value = unix.NsecToTimespec(max(int64(time.Until(until)), 1)) // 0 would be never
	}
	if err := unix.TimerfdSettime(in.timer, 0, &at, nil); err != nil {
		return fmt.Errorf("receive: set timer: %w", err)
	}
	return nil
}
