package worker

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// notifier sends sd_notify(3) datagrams to the service manager and never waits for it: a
// manager that is stopped or stuck must not stop its workers. The kernel queues about ten
// datagrams for a reader (net.unix.max_dgram_qlen). If the queue is full, a heartbeat is
// dropped and counted, and anything else is kept and sent later.
type notifier struct {
	fd int // -1 if there is no service manager
	to *unix.SockaddrUnix

	mu      sync.Mutex
	unsent  map[string]string // by key, as READY
	dropped atomic.Uint64     // heartbeats
}

// newNotifier sends to the socket of that path; a path that begins with @ is in
// the abstract namespace (unix(7)). Without a path it sends nothing.
func newNotifier(path string) (*notifier, error) {
	n := &notifier{fd: -1, unsent: map[string]string{}}
	if path == "" {
		return n, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return n, fmt.Errorf("open notification socket: %w", err)
	}
	n.fd, n.to = fd, &unix.SockaddrUnix{Name: path}
	return n, nil
}

func (n *notifier) close() {
	if n.fd >= 0 {
		_ = unix.Close(n.fd) // nothing was written that could fail
	}
}

// beat sends what is pending, and then a heartbeat.
func (n *notifier) beat() {
	if n.retry() != nil || n.send("WATCHDOG=1") != nil {
		n.dropped.Add(1)
	}
}

// tell sends KEY=value. If that fails, a later retry sends it, unless the key has a newer
// value by then.
func (n *notifier) tell(state string) error {
	key, _, _ := strings.Cut(state, "=")
	n.mu.Lock()
	n.unsent[key] = state
	n.mu.Unlock()
	return n.retry()
}

// retry sends what is pending, and fails if that is not all sent.
func (n *notifier) retry() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, key := range []string{"STATUS", "READY"} { // whoever is ready has a status
		state, waits := n.unsent[key]
		if !waits {
			continue
		}
		if err := n.send(state); err != nil {
			return err
		}
		delete(n.unsent, key)
	}
	return nil
}

// finish waits until everything is sent, but no longer than patience.
func (n *notifier) finish(patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // poll(2) does not tell of another's queue
		err := n.retry()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// send fails when the socket is full, and when it is not there: a supervisor
// makes its own anew when somebody has removed it.
func (n *notifier) send(state string) error {
	if n.fd < 0 {
		return nil
	}
	err := unix.Sendto(n.fd, []byte(state), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, n.to)
	if errors.Is(err, unix.EMSGSIZE) {
		err = nil // no later try would be better
	}
	if err != nil {
		return os.NewSyscallError("sendto", err)
	}
	return nil
}
