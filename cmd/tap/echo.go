package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// until says when a verb that listens has heard enough.
type until struct {
	Count   uint64        `placeholder:"N" help:"Stop after N messages."`
	Once    bool          `help:"Stop after one message."`
	For     time.Duration `placeholder:"DURATION" help:"Stop after that time, such as 10s."`
	Timeout time.Duration `default:"10s" help:"Give up, with exit code 75, when there is no message for so long; 0s is never. Once messages came, only --count and --once still give up."`
}

// Validate is called by kong.
func (u *until) Validate() error {
	if u.For < 0 || u.Timeout < 0 {
		return errors.New("--for and --timeout: want 0s or more")
	}
	if u.Once && u.Count > 1 {
		return fmt.Errorf("--once and --count %d: want one of them", u.Count)
	}
	return nil
}

// messages is how many to hear; 0 is without end.
func (u *until) messages() uint64 {
	if u.Once {
		return 1
	}
	return u.Count
}

// listen hears messages in a goroutine of its own, while use, which may be
// held up by whoever reads the output, runs until done tells how the listening
// ended. It returns when both have ended.
func (u *until) listen(ctx context.Context, e *ear, each func(*msg.Message, time.Duration) bool, use func(done <-chan error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if u.For > 0 {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, u.For)
		defer end()
	}
	done, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		err := e.hear(ctx, each)
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			err = nil // told to stop, or --for is over
		}
		done <- err
	}()
	err := use(done)
	cancel()
	<-ended
	return err
}

// echo prints messages.
type echo struct {
	where
	until
}

// line is what echo prints of a message. The payload is counted only.
type line struct {
	Topic        msg.Topic       `json:"topic"`
	Header       json.RawMessage `json:"header"`
	PayloadBytes int             `json:"payload_bytes"`
}

// backlog is how many messages may wait to be printed.
const backlog = 1024

// queue is between the bus, which must not wait, and whoever reads the output.
type queue struct {
	lines  chan line
	enough uint64 // 0 is never
	taken  uint64
	left   atomic.Uint64 // left out, for want of room
}

// put adds a message if there is room, and says whether more are wanted.
func (q *queue) put(m *msg.Message, _ time.Duration) bool {
	select {
	case q.lines <- line{m.Topic(), m.Raw(), len(m.Payload)}:
		q.taken++
	default:
		q.left.Add(1)
	}
	return q.enough == 0 || q.taken < q.enough
}

// Run prints messages until it has enough of them.
func (c *echo) Run(ctx context.Context, to worker.Streams) error {
	sel, err := c.selection()
	if err != nil {
		return err
	}
	q := &queue{lines: make(chan line, backlog), enough: c.messages()}
	e, err := newEar(sel, c.Timeout, q.enough > 0)
	if err != nil {
		return err
	}
	err = c.listen(ctx, e, q.put, func(done <-chan error) error { return printLines(to.Out, q.lines, done) })
	if n := q.left.Load(); n > 0 {
		fmt.Fprintf(to.Err, "tap: left out %d messages: its output was read too slowly\n", n)
	}
	return errors.Join(err, e.close(to.Err))
}

// printLines prints until the listening is done and nothing is left to print.
func printLines(out io.Writer, lines <-chan line, done <-chan error) error {
	buf := bufio.NewWriter(out)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	for {
		select {
		case l := <-lines:
			if err := enc.Encode(l); err != nil {
				return fmt.Errorf("print %s: %w", l.Topic, err)
			}
			if len(lines) > 0 {
				continue // flushed with those that wait
			}
			if err := buf.Flush(); err != nil {
				return fmt.Errorf("print messages: %w", err)
			}
		case err := <-done:
			for len(lines) > 0 && err == nil {
				err = enc.Encode(<-lines)
			}
			return errors.Join(err, buf.Flush())
		}
	}
}
