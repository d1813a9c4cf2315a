package msg

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/perch-edge/perch/internal/lockfile"
)

// helloPrefix begins the subscriptions by which subscribers say who they are:
// "hello/<subscriber>". Nothing is ever published under it.
const helloPrefix = "hello/"

const (
	maxHello = 256  // names that an endpoint remembers
	maxNotes = 4096 // subscriptions it takes in at a time
	// maxNote is the longest subscription that is accepted, in bytes: a topic is
	// shorter. ZeroMQ disconnects who sends more.
	maxNote = 1 << 10
)

// locate settles the endpoint of a source: the one given, which must be the
// source's, or the one in the bus's own run folder.
func (b *Bus) locate(source Source, frames Stream, given string) (string, error) {
	if given == "" {
		return Endpoint(b.cfg.RunDir, source, frames)
	}
	_, name, stream, err := ParseEndpoint(given)
	if err == nil && (name != source || frames != "" && stream != frames) {
		err = fmt.Errorf("endpoint %q: it is not of %s %s", given, source, frames)
	}
	return given, err
}

// endpoint is a bound XPUB socket, the one owner of its address.
type endpoint struct {
	mu    sync.Mutex
	soc   *zmq4.Socket
	path  string
	hello map[string]int // subscribers that named themselves, with how often
}

// bind takes the lock of the address first: ZeroMQ would let a second process
// bind a live ipc endpoint, and silently steal it.
func (b *Bus) bind(address string, hwm int) (*endpoint, error) {
	path := strings.TrimPrefix(address, "ipc://")
	b.mu.Lock()
	defer b.mu.Unlock()
	lock, err := lockfile.Acquire(b.run, filepath.Base(path)+".lock")
	if err != nil {
		return nil, fmt.Errorf("publish on %s: another worker of that name is running: %w", address, err)
	}
	soc, err := b.ctx.NewSocket(zmq4.XPUB)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("publish on %s: %w", address, err), lock.Release())
	}
	e := &endpoint{soc: soc, path: path, hello: map[string]int{}}
	for _, err := range []error{soc.SetSndhwm(hwm), soc.SetLinger(linger), soc.SetXpubVerboser(1), soc.SetMaxmsgsize(maxNote), soc.Bind(address)} {
		if err != nil {
			return nil, errors.Join(fmt.Errorf("publish on %s: %w", address, err), soc.Close(), lock.Release())
		}
	}
	file := filepath.Base(path)
	info, err := b.run.Lstat(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("publish on %s: %w", address, err), soc.Close(), lock.Release())
	}
	b.open = append(b.open, e.close)
	b.bound = append(b.bound, &bound{e, file, info, lock})
	return e, nil
}

// rebind makes the socket's file anew. Connections that stand go on.
func (e *endpoint) rebind() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.soc.Bind("ipc://" + e.path)
}

// send publishes; it never waits. A subscriber whose queue is full misses the
// message and repairs it from the history. ZeroMQ queues every subscription and
// unsubscription until it is received; send receives them, so that the queue of a
// publisher that nobody asks for its subscribers does not grow.
func (e *endpoint) send(parts ...[]byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.takeNotes()
	for i, part := range parts {
		flag := zmq4.DONTWAIT
		if i < len(parts)-1 {
			flag |= zmq4.SNDMORE
		}
		if _, err := e.soc.SendBytes(part, flag); err != nil {
			return fmt.Errorf("publish on %s: %w", e.path, err)
		}
	}
	return nil
}

// subscribers takes in the subscriptions that came, and lists who is there.
func (e *endpoint) subscribers() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.takeNotes()
	names := make([]string, 0, len(e.hello))
	for name := range e.hello {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// takeNotes takes in the subscriptions that came. e.mu is held.
func (e *endpoint) takeNotes() {
	for range maxNotes { // a peer that sends without end must not hold the publisher
		note, err := e.soc.RecvBytes(zmq4.DONTWAIT)
		if err != nil {
			return
		}
		e.heard(note)
	}
}

// heard takes one subscription (1 and the prefix) or its end (0 and the prefix).
func (e *endpoint) heard(note []byte) {
	if len(note) == 0 {
		return
	}
	name, ok := strings.CutPrefix(string(note[1:]), helloPrefix)
	if !ok || Source(name).Check() != nil {
		return
	}
	switch n := e.hello[name]; {
	case note[0] == 1 && (n > 0 || len(e.hello) < maxHello):
		e.hello[name]++
	case note[0] == 0 && n > 1:
		e.hello[name]--
	case note[0] == 0:
		delete(e.hello, name)
	}
}

// gate waits until all of those names have subscribed, or for the time given,
// and returns who is missing.
func (e *endpoint) gate(names []string, atMost time.Duration, done <-chan struct{}) (missing []string) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(atMost)
	for {
		there := e.subscribers()
		missing = nil
		for _, name := range names {
			if !slices.Contains(there, name) {
				missing = append(missing, name)
			}
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return missing
		case <-done:
			return missing
		}
	}
}

func (e *endpoint) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.soc.Close()
}
