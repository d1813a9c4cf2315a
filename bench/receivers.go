package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// receiver takes records on this machine, for one run.
type receiver interface {
	// address is what a sender has as its receiver.
	address() string
	// settings are what a jsonsender needs besides, as KEY=VALUE.
	settings() []string
	close() error
}

// tally is what has arrived at a receiver.
type tally struct {
	want int
	done chan struct{} // closed when all have arrived

	mu          sync.Mutex
	n           int
	first, last time.Time
}

func newTally(want int) *tally { return &tally{want: want, done: make(chan struct{})} }

// add counts records that arrived together.
func (t *tally) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n == 0 || t.n >= t.want {
		return
	}
	now := time.Now()
	if t.n == 0 {
		t.first = now
	}
	if t.n += n; t.n >= t.want {
		t.last = now
		close(t.done)
	}
}

// wait returns how long it took from the first arrival to the last.
func (t *tally) wait(ctx context.Context, most time.Duration) (time.Duration, error) {
	late := time.NewTimer(most)
	defer late.Stop()
	var err error
	select {
	case <-t.done:
		return t.last.Sub(t.first), nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = fmt.Errorf("not in %s", most)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return 0, fmt.Errorf("wait for records: %d of %d arrived: %w", t.n, t.want, err)
}

// arrived is as much of a record as a receiver needs for its id.
type arrived struct {
	Node   string `json:"node"`
	Source string `json:"source"`
	Stream string `json:"stream"`
	Epoch  string `json:"epoch"`
	Seq    uint64 `json:"seq"`
}

// idOf reads a record, as a receiver does that answers with its id.
func idOf(text []byte) (string, error) {
	var a arrived
	if err := json.Unmarshal(text, &a); err != nil {
		return "", fmt.Errorf("record %.80q: %w", text, err)
	}
	return fmt.Sprintf("%s/%s/%s/%s/%d", a.Node, a.Source, a.Stream, a.Epoch, a.Seq), nil
}

// lineReceiver answers each line with its record's id.
type lineReceiver struct {
	to       string
	listener net.Listener
	serving  sync.WaitGroup
}

// openLines makes the receiver of tcp or unix.
func openLines(network, dir string, t *tally) (receiver, error) {
	at, to := "127.0.0.1:0", "tcp://"
	if network == "unix" {
		at, to = filepath.Join(dir, "lines.sock"), "unix:"
	}
	l, err := net.Listen(network, at)
	if err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	r := &lineReceiver{to: to + l.Addr().String(), listener: l}
	r.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			r.serving.Go(func() { answerLines(conn, t) })
		}
	})
	return r, nil
}

// answerLines serves a connection until its sender closes it. Answers go together while more lines
// have come already.
func answerLines(conn net.Conn, t *tally) {
	defer conn.Close()
	in, out := bufio.NewReaderSize(conn, 64<<10), bufio.NewWriterSize(conn, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		id, err := idOf(line)
		if err != nil {
			say("receiver: %v", err) // which then does not arrive
			return
		}
		t.add(1)
		if _, err := out.WriteString(id + "\n"); err != nil {
			return
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

func (r *lineReceiver) address() string    { return r.to }
func (r *lineReceiver) settings() []string { return []string{"ack=true"} }

func (r *lineReceiver) close() error {
	err := r.listener.Close()
	r.serving.Wait()
	return err
}

// webReceiver takes WebSockets, and POSTs of lists of records.
type webReceiver struct {
	*http.Server
	scheme, at string
}

func openWeb(scheme string, t *tally) (receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	r := &webReceiver{scheme: scheme, at: l.Addr().String()}
	take := takePost
	if scheme == "ws" {
		take = takeSocket
	}
	r.Server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { take(w, q, t) }), ReadHeaderTimeout: time.Minute}
	go func() {
		if err := r.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			say("receiver: %v", err)
		}
	}()
	return r, nil
}

func takePost(w http.ResponseWriter, q *http.Request, t *tally) {
	body, err := io.ReadAll(q.Body)
	var list []arrived
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t.add(len(list))
	w.WriteHeader(http.StatusNoContent)
}

// takeSocket answers each message with its record's id.
func takeSocket(w http.ResponseWriter, q *http.Request, t *tally) {
	conn, err := websocket.Accept(w, q, nil)
	if err != nil {
		return // answered
	}
	defer conn.CloseNow()
	for {
		_, text, err := conn.Read(q.Context())
		if err != nil {
			return
		}
		id, err := idOf(text)
		if err != nil {
			say("receiver: %v", err)
			return
		}
		t.add(1)
		if conn.Write(q.Context(), websocket.MessageText, []byte(id)) != nil {
			return
		}
	}
}

func (r *webReceiver) address() string { return r.scheme + "://" + r.at + "/in" }

func (r *webReceiver) settings() []string {
	if r.scheme == "ws" {
		return []string{"ack=true"}
	}
	return []string{"batch_age=10ms"} // the last batch is not full
}

func (r *webReceiver) close() error { return r.Close() }

// openReceiver opens the receiver of a scheme.
func openReceiver(ctx context.Context, scheme, dir string, t *tally) (receiver, error) {
	switch scheme {
	case "tcp", "unix":
		return openLines(scheme, dir, t)
	case "ws", "http":
		return openWeb(scheme, t)
	case "mqtt":
		return openMosquitto(ctx, dir, t)
	case "nats":
		return openNATS(ctx, dir, t)
	}
	return nil, errors.New("open receiver: nobody serves " + strings.ToUpper(scheme))
}
