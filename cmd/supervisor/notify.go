package main

import (
	"errors"
	"fmt"
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
	conn *net.UnixConn
	done chan struct{}

	mu    sync.Mutex
	known map[int]*process
	marks map[string]chan struct{} // of catchUp
	made  int
}

func listenForNotes(runDir string) (*notifier, error) {
	n := &notifier{path: filepath.Join(runDir, notifyName), done: make(chan struct{}),
		known: map[int]*process{}, marks: map[string]chan struct{}{}}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: n.path})
	if err != nil {
		return nil, fmt.Errorf("listen for readiness: %w", err)
	}
	n.conn = conn
	raw, err := conn.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, set)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for readiness: %w", err), conn.Close())
	}
	go n.listen()
	return n, nil
}

func (n *notifier) close() error {
	err := n.conn.Close()
	<-n.done
	return errors.Join(err, os.Remove(n.path))
}

func (n *notifier) listen() {
	defer close(n.done)
	text, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		size, controlSize, _, _, err := n.conn.ReadMsgUnix(text, control)
		if err != nil {
			return // closed
		}
		n.take(senderOf(control[:controlSize]), string(text[:size]))
	}
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
	if reached := n.marks[text]; reached != nil && pid == os.Getpid() {
		close(reached)
		delete(n.marks, text)
	}
}

// forget ends listening to a process, after all that it had said is heard.
func (n *notifier) forget(p *process) {
	n.catchUp()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, p.pid)
}

// catchUp returns when everything sent before it has been taken in: datagrams
// on one socket keep their order.
func (n *notifier) catchUp() {
	n.mu.Lock()
	n.made++
	text, reached := fmt.Sprintf("X_MARK=%d", n.made), make(chan struct{})
	n.marks[text] = reached
	n.mu.Unlock()
	if _, err := n.conn.WriteToUnix([]byte(text), &net.UnixAddr{Net: "unixgram", Name: n.path}); err != nil {
		return
	}
	select {
	case <-reached:
	case <-n.done:
	}
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
