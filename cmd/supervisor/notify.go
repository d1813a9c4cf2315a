package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const notifyName = "notify.sock"

// notifier hears what the processes say of themselves: datagrams of lines
// KEY=value, as sd_notify(3) sends them. The kernel tells who sent one
// (SO_PASSCRED, unix(7)), and only the workers themselves are listened to, not
// what they started.
type notifier struct {
	path string
	done chan struct{}
	fail func(what string, err error) // reports an error; the notifier goes on

	mu    sync.Mutex
	known map[int]*process

	reading sync.Mutex // one reads at a time, and takes in what it has read before the next
	conn    *net.UnixConn
	file    fileID
	closed  bool
}

func listenForNotes(runDir string, fail func(string, error)) (*notifier, error) {
	n := &notifier{path: filepath.Join(runDir, notifyName), done: make(chan struct{}), fail: fail, known: map[int]*process{}}
	if err := n.open(); err != nil {
		return nil, err
	}
	go n.listen()
	return n, nil
}

// open binds the socket, or a new one after somebody removed the file.
func (n *notifier) open() error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: n.path})
	if err != nil {
		return fmt.Errorf("listen for readiness: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, set)
	}
	file, statErr := idOf(n.path)
	if err = errors.Join(err, statErr); err != nil {
		return errors.Join(fmt.Errorf("listen for readiness: %w", err), conn.Close())
	}
	n.reading.Lock()
	before := n.conn
	n.conn, n.file = conn, file
	n.reading.Unlock()
	if before != nil {
		_ = before.Close() // nobody can send to it any more
	}
	return nil
}

// reopen binds a new socket if the file is no longer this one's.
func (n *notifier) reopen() (again bool, err error) {
	if now, err := idOf(n.path); err == nil && now == n.file {
		return false, nil
	}
	if err := os.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("listen for readiness: %w", err)
	}
	return true, n.open()
}

// close ends listening. The file is removed where it is still the notifier's.
func (n *notifier) close() error {
	n.reading.Lock()
	conn, file := n.conn, n.file
	n.closed = true
	n.reading.Unlock()
	err := conn.Close()
	<-n.done
	if now, statErr := idOf(n.path); statErr == nil && now == file {
		err = errors.Join(err, os.Remove(n.path))
	}
	return err
}

// listen takes in what comes until close, whatever fails meanwhile: without it
// each worker would seem to hang.
func (n *notifier) listen() {
	defer close(n.done)
	retry := retrier{what: "listen for readiness", report: n.fail}
	for {
		n.reading.Lock()
		conn, closed := n.conn, n.closed
		n.reading.Unlock()
		if closed {
			return
		}
		if err := n.listenAt(conn); !errors.Is(err, net.ErrClosed) {
			retry.after(err)
		}
	}
}

func (n *notifier) listenAt(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for more := true; more && failed == nil; {
			more, failed = n.drain(int(fd))
		}
		return failed != nil
	})
	return errors.Join(err, failed)
}

// mostDatagrams is more than the kernel queues for a socket (net.unix.max_dgram_qlen), so
// a process that sends without end cannot hold up the others.
const mostDatagrams = 2000

// drain reads what is queued on the socket, and reports whether there may be more.
func (n *notifier) drain(fd int) (more bool, err error) {
	n.reading.Lock()
	defer n.reading.Unlock()
	text, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for range mostDatagrams {
		size, controlSize, _, _, err := unix.Recvmsg(fd, text, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, os.NewSyscallError("recvmsg", err)
		}
		n.take(senderOf(control[:controlSize]), string(text[:size]))
	}
	return true, nil
}

func senderOf(control []byte) (pid int) {
	list, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for i := range list {
		if cred, err := syscall.ParseUnixCredentials(&list[i]); err == nil {
			return int(cred.Pid)
		}
	}
	return 0
}

func (n *notifier) take(pid int, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.known[pid]; p != nil {
		p.take(text)
	}
}

// forget ends listening to a process, after all that it had said is heard.
func (n *notifier) forget(p *process) {
	n.catchUp()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, p.pid)
}

// catchUp reads everything that was sent before it. It never waits.
func (n *notifier) catchUp() {
	n.reading.Lock()
	conn := n.conn
	n.reading.Unlock()
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = n.drain(int(fd)) }) // listen meets the same error, and reports it
}

// said is what a process has said of itself.
type said struct {
	ready  bool
	beat   time.Time // its last sign of life
	status string
	did    string // its status before it was done
}

type hearing struct {
	mu   sync.Mutex
	last said
}

func (h *hearing) now() said {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// take reads the lines of one datagram.
func (p *process) take(text string) {
	h := &p.heard
	h.mu.Lock()
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch {
		case key == "READY" && value == "1":
			h.last.ready, h.last.beat = true, time.Now()
		case key == "WATCHDOG" && value == "1":
			h.last.beat = time.Now()
		case key == "STATUS":
			if value == "done" {
				h.last.did = h.last.status
			}
			h.last.status = value
		}
	}
	h.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
