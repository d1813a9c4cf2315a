package worker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/pkg/topology"
)

// newLog writes text to a terminal, and JSON to anything else.
// Lines that a pipe has no room for are counted in dropped.
func newLog(stderr io.Writer, entry *topology.Entry, dropped *atomic.Uint64) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.Level(entry.LogLevel)}
	if terminal(stderr) != nil {
		return slog.New(slog.NewTextHandler(stderr, opts)).With("worker", entry.Name)
	}
	out := withoutWaiting(stderr, dropped)
	log := slog.New(slog.NewJSONHandler(out, opts)).With("worker", entry.Name)
	if p, ok := out.(*pipe); ok {
		p.note = func(to io.Writer, lines uint64) {
			slog.New(slog.NewJSONHandler(to, opts)).With("worker", entry.Name).Warn("log lines were dropped because nobody read them", "lines", lines)
		}
	}
	return log
}

// pipe is a pipe or stream socket that is written without waiting for its reader: a
// stopped supervisor must not stop its workers at their next log line. If it is full, the
// line is dropped and counted.
type pipe struct {
	put     func([]byte) (int, error)
	note    func(to io.Writer, lines uint64) // says how many were dropped
	dropped *atomic.Uint64

	mu   sync.Mutex
	rest []byte // of a line that was written in part
	told uint64 // dropped lines that have been reported to the reader
}

// withoutWaiting is w itself where that is no pipe or socket. The pipe is opened
// once more, since O_NONBLOCK on the one that was inherited would hold for all
// processes that share it.
func withoutWaiting(w io.Writer, dropped *atomic.Uint64) io.Writer {
	file, ok := w.(*os.File)
	if !ok {
		return w
	}
	fd := int(file.Fd())
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return w
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		own, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return w
		}
		return &pipe{dropped: dropped, put: func(b []byte) (int, error) { return unix.Write(own, b) }}
	case unix.S_IFSOCK:
		return &pipe{dropped: dropped, put: func(b []byte) (int, error) {
			return unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}}
	}
	return w
}

// Write takes one whole line, as slog's handlers write them.
func (p *pipe) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.flush(); err != nil {
		return p.drop(line, err)
	}
	if n := p.dropped.Load(); n > p.told && p.note != nil {
		told := &noted{}
		p.note(told, n-p.told)
		if err := p.begin(told.line); err != nil {
			return p.drop(line, err)
		}
		p.told = n
	}
	if err := p.begin(line); err != nil {
		return p.drop(line, err)
	}
	return len(line), nil
}

// begin writes as much of a line as there is room for, and keeps the rest.
func (p *pipe) begin(line []byte) error {
	if err := p.flush(); err != nil {
		return err
	}
	n, err := p.put(line)
	if n > 0 && n < len(line) {
		p.rest = append(p.rest[:0], line[n:]...)
		err = nil
	}
	return err
}

// flush writes the rest of a line, and fails if that does not write all of it.
func (p *pipe) flush() error {
	for len(p.rest) > 0 {
		n, err := p.put(p.rest)
		if err != nil {
			return err
		}
		p.rest = p.rest[n:]
	}
	return nil
}

func (p *pipe) drop(line []byte, err error) (int, error) {
	p.dropped.Add(1)
	if errors.Is(err, unix.EAGAIN) {
		err = nil
	}
	return len(line), err
}

// noted catches one line.
type noted struct{ line []byte }

func (n *noted) Write(line []byte) (int, error) {
	n.line = append(n.line, line...)
	return len(line), nil
}
