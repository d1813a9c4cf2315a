package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/worker"
)

const (
	controlName = "supervisor.sock"
	maxRequest  = 4 << 10 // bytes
	maxReply    = 4 << 20
	maxCallers  = 32 // at once
)

// request is what is asked on the control socket, one JSON object a line. Each
// gets one reply, in order.
type request struct {
	Verb     string  `json:"verb"`
	Name     string  `json:"name,omitempty"`      // of start, stop, restart
	TimeoutS float64 `json:"timeout_s,omitempty"` // of wait
	Discard  bool    `json:"discard,omitempty"`   // of down: keep no histories
}

func verbs() []string { return []string{"status", "wait", "start", "stop", "restart", "down"} }

// reply is the answer.
type reply struct {
	OK     bool    `json:"ok"`
	Error  string  `json:"error,omitempty"`
	Box    *Box    `json:"box,omitempty"`    // of status and wait
	Ending *Ending `json:"ending,omitempty"` // of down
}

// control is the socket on which a supervisor is asked.
type control struct {
	path string

	mu       sync.Mutex
	listener *net.UnixListener
	file     fileID
	closed   bool
	conns    map[net.Conn]bool
}

func listenForRequests(runDir string) (*control, error) {
	c := &control{path: filepath.Join(runDir, controlName), conns: map[net.Conn]bool{}}
	return c, c.open()
}

// open binds the socket, or a new one after somebody removed the file.
func (c *control) open() error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: c.path})
	if err != nil {
		return fmt.Errorf("listen for requests: %w", err)
	}
	listener.SetUnlinkOnClose(false) // the name may be another's by then
	err = os.Chmod(c.path, 0o600)
	file, statErr := idOf(c.path)
	if err = errors.Join(err, statErr); err != nil {
		return errors.Join(fmt.Errorf("listen for requests: %w", err), listener.Close())
	}
	c.mu.Lock()
	before := c.listener
	c.listener, c.file = listener, file
	c.mu.Unlock()
	if before != nil {
		_ = before.Close() // nobody can connect to it any more
	}
	return nil
}

// reopen binds a new socket if the file is no longer this one's.
func (c *control) reopen() (again bool, err error) {
	if now, err := idOf(c.path); err == nil && now == c.file {
		return false, nil
	}
	if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("listen for requests: %w", err)
	}
	return true, c.open()
}

// close takes no more callers; those who are there are still answered.
func (c *control) close() error {
	c.mu.Lock()
	listener, file := c.listener, c.file
	c.closed = true
	c.mu.Unlock()
	err := listener.Close()
	if now, statErr := idOf(c.path); statErr == nil && now == file {
		err = errors.Join(err, os.Remove(c.path))
	}
	return err
}

func (c *control) present() (listener *net.UnixListener, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listener, c.closed
}

// hangUp ends waiting for requests.
func (c *control) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// serve takes callers until close, whatever fails meanwhile, and answers them until
// ctx is done.
func (c *control) serve(ctx context.Context, report func(string, error), answer func(context.Context, request) reply) {
	var callers sync.WaitGroup
	defer callers.Wait()
	context.AfterFunc(ctx, c.hangUp)
	retry := retrier{what: "accept requests", report: report}
	for {
		listener, closed := c.present()
		if closed {
			return
		}
		conn, err := listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				retry.after(err)
			}
			continue
		}
		if !c.enter(ctx, conn) {
			conn.Close()
			continue
		}
		callers.Go(func() {
			defer c.leave(conn)
			c.talk(ctx, conn, answer)
		})
	}
}

func (c *control) enter(ctx context.Context, conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.conns) >= maxCallers || ctx.Err() != nil {
		return false
	}
	c.conns[conn] = true
	return true
}

func (c *control) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	conn.Close()
}

func (c *control) talk(ctx context.Context, conn net.Conn, answer func(context.Context, request) reply) {
	lines := bufio.NewReaderSize(conn, maxRequest)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return // the caller has gone, or sends what is no line
		}
		var r request
		out := reply{}
		if err := json.Unmarshal(line, &r); err != nil {
			out.Error = fmt.Sprintf("request %.80q: want one JSON object a line, as {\"verb\":\"status\"}", line)
		} else {
			out = answer(ctx, r)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if json.NewEncoder(conn).Encode(out) != nil {
			return
		}
	}
}

// answer carries out one request.
func (f *fleet) answer(ctx context.Context, r request) reply {
	switch r.Verb {
	case "status":
		return reply{OK: true, Box: f.box()}
	case "wait":
		f.awaitReady(ctx, time.Duration(r.TimeoutS*float64(time.Second)))
		return reply{OK: true, Box: f.box()}
	case "down":
		f.log.Info("asked to stop")
		if r.Discard {
			f.discard.Store(true)
		}
		f.stop()
		<-f.over
		return reply{OK: true, Ending: f.ending}
	case "start", "stop", "restart":
		if err := f.order(ctx, r); err != nil {
			return reply{Error: err.Error()}
		}
		return reply{OK: true}
	default:
		return reply{Error: fmt.Sprintf("unknown verb %.40q%s", r.Verb, nearest.Hint(r.Verb, verbs()))}
	}
}

func (f *fleet) order(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, c := range f.all() {
		if c.entry.Name == r.Name {
			f.log.Info("asked to "+r.Verb, "name", r.Name)
			return c.do(ctx, r.Verb)
		}
	}
	return fmt.Errorf("there is no %.40q in this fleet%s", r.Name, nearest.Hint(r.Name, f.plan.top.Names()))
}

// awaitReady waits until all are ready, or for the time given.
func (f *fleet) awaitReady(ctx context.Context, atMost time.Duration) {
	deadline := time.NewTimer(atMost)
	defer deadline.Stop()
	look := time.NewTicker(time.Second) // silence comes without a change
	defer look.Stop()
	for {
		changed := f.next()
		if f.box().Ready {
			return
		}
		select {
		case <-changed:
		case <-look.C:
		case <-deadline.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// ask sends one request to the supervisor of a run folder. It fails with a
// *notRunningError when there is none.
func (p *place) ask(ctx context.Context, r request, patience time.Duration) (reply, error) {
	conn, err := net.Dial("unix", filepath.Join(p.RunDir, controlName))
	if err != nil {
		return reply{}, worker.Unavailable(&notRunningError{*p, err})
	}
	defer conn.Close()
	if err := suspended(p.RunDir); err != nil {
		return reply{}, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return reply{}, fmt.Errorf("ask the supervisor: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return reply{}, fmt.Errorf("ask the supervisor: %w", err)
	}
	var out reply
	if err := json.NewDecoder(io.LimitReader(conn, maxReply)).Decode(&out); err != nil {
		if ctx.Err() != nil { // and not its error, which would be a success
			err = errors.New("told to stop waiting")
		}
		return reply{}, fmt.Errorf("ask the supervisor in %s to %s: no answer: %w", p.RunDir, r.Verb, err)
	}
	if !out.OK {
		return out, fmt.Errorf("%s: %s", r.Verb, out.Error)
	}
	return out, nil
}
