package sink

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
)

// lines is a receiver of lines. What it does with each is up to the test.
type lines struct {
	net.Listener
	each func(c net.Conn, id string) // nil: nothing

	group sync.WaitGroup
	mu    sync.Mutex
	ids   []string
	conns []net.Conn
}

func newLines(t testing.TB, network, address string, secure *tls.Config, each func(net.Conn, string)) *lines {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	r := &lines{Listener: l, each: each}
	r.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, c)
			r.mu.Unlock()
			r.group.Go(func() { r.serve(t, c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); r.cut(); r.group.Wait() })
	return r
}

func (r *lines) serve(t testing.TB, c net.Conn) {
	in := bufio.NewReader(c)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil { // half a line is none
			return
		}
		var h struct {
			Node, Source, Stream, Epoch string
			Seq                         int
		}
		if err := json.Unmarshal(text, &h); err != nil {
			t.Errorf("line %q: %v", text, err)
		}
		id := fmt.Sprintf("%s/%s/%s/%s/%d", h.Node, h.Source, h.Stream, h.Epoch, h.Seq)
		r.mu.Lock()
		r.ids = append(r.ids, id)
		r.mu.Unlock()
		if r.each != nil {
			r.each(c, id)
		}
	}
}

// cut closes all connections.
func (r *lines) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func (r *lines) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

// wait waits for that many lines.
func (r *lines) wait(t testing.TB, n int) []string {
	t.Helper()
	eventually(t, fmt.Sprintf("%d lines", n), func() bool { return len(r.got()) >= n })
	return r.got()
}

// eventually waits for something that is sure to come.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > forever {
			t.Fatalf("no %s after %s", what, forever)
		}
	}
}

func write(t testing.TB, c net.Conn, text string) {
	if _, err := c.Write([]byte(text)); err != nil {
		t.Error(err)
	}
}

// answerID answers with the id alone.
func answerID(t testing.TB) func(net.Conn, string) {
	return func(c net.Conn, id string) { write(t, c, id+"\n") }
}

func TestLinesArriveInOrder(t *testing.T) {
	t.Parallel()
	ca := boxtest.NewAuthority(t)
	for _, c := range []struct{ scheme, network, address string }{
		{"tcp", "tcp", "127.0.0.1:0"}, {"tcp", "tcp", "[::1]:0"}, {"tls", "tcp", "127.0.0.1:0"}, {"tls", "tcp", "[::1]:0"},
		{"unix", "unix", filepath.Join(t.TempDir(), "socket")},
	} {
		for _, acked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %s ack %v", c.scheme, c.address, acked), func(t *testing.T) {
				t.Parallel()
				var secure *tls.Config
				if c.scheme == "tls" {
					secure = certified(t, ca, here())
				}
				address := c.address
				if c.network == "unix" {
					address = fmt.Sprintf("%s-%v", address, acked)
				}
				var each func(net.Conn, string)
				if acked {
					each = answerID(t)
				}
				r := newLines(t, c.network, address, secure, each)
				to := c.scheme + "://" + r.Addr().String()
				if c.network == "unix" {
					to = "unix:" + address
				}
				o := options(t, to, forever)
				o.Ack, o.TLS = acked, trust(ca)
				s := open(t, o)
				wantAcknowledged(t, s, items(t, 1000))
				for i, id := range r.wait(t, 1000) {
					if id != idOf(i) {
						t.Fatalf("line %d is %s; want %s", i, id, idOf(i))
					}
				}
			})
		}
	}
}

// Answers in any order, as text or JSON, some twice, count once each.
func TestLineAnswers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var held []string
	r := newLines(t, "tcp", "127.0.0.1:0", nil, func(c net.Conn, id string) {
		mu.Lock()
		defer mu.Unlock()
		if held = append(held, id); len(held) < 4 {
			return
		}
		write(t, c, fmt.Sprintf("{\"id\":%q}\r\n\n%s\nwho is this?\n%s\n", held[3], held[2], held[2]))
		write(t, c, fmt.Sprintf("{\"id\":%q,\"error\":\"no such\\nsensor\"}\n{\"id\":%q,\"error\":null}\n", held[0], held[1]))
	})
	o := options(t, "tcp://"+r.Addr().String(), forever)
	n := &counts{}
	o.Ack, o.Count = true, n.add
	s := open(t, o)
	results, err := s.Deliver(t.Context(), items(t, 4))
	if err != nil || results[0] != (Result{Refused, `"no such sensor"`}) || results[1].State != Acknowledged || results[2].State != Acknowledged || results[3].State != Acknowledged {
		t.Errorf("Deliver() = %v, %v; want the first refused and the others acknowledged", results, err)
	}
	if got := n.get("unknown_acks"); got != 2 {
		t.Errorf("unknown_acks = %d; want 2, one of them a second answer", got)
	}
}

// Half of an answer is none.
func TestHalfAnAnswer(t *testing.T) {
	t.Parallel()
	r := newLines(t, "tcp", "127.0.0.1:0", nil, func(c net.Conn, id string) {
		write(t, c, id) // without the end of the line: it might go on
		_ = c.Close()
	})
	o := options(t, "tcp://"+r.Addr().String(), forever)
	o.Ack = true
	s := open(t, o)
	wantUnknown(t, s, items(t, 1), "closed the connection")
	r.each = answerID(t)
	wantAcknowledged(t, s, items(t, 1))
}

// A receiver that never answers, or only nonsense, acknowledges nothing, and the next delivery does not
// take its late answers for its own.
func TestReceiverThatNeverAnswers(t *testing.T) {
	t.Parallel()
	r := newLines(t, "tcp", "127.0.0.1:0", nil, func(c net.Conn, _ string) { write(t, c, "ok\n") })
	o := options(t, "tcp://"+r.Addr().String(), 300*time.Millisecond)
	n := &counts{}
	o.Ack, o.Count = true, n.add
	s := open(t, o)
	err := wantUnknown(t, s, items(t, 3), "nothing has moved for 300ms")
	if !strings.Contains(err.Error(), `3 answers that are no id of a record under way, the last "ok"`) || n.get("unknown_acks") != 3 {
		t.Errorf("Deliver() = %v, %d counted; want the three answers in it", err, n.get("unknown_acks"))
	}
}

// A receiver that closes an idle connection costs no record: the next goes into a new one.
func TestIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	for _, acked := range []bool{false, true} {
		r := newLines(t, "tcp", "127.0.0.1:0", nil, nil)
		if acked {
			r.each = answerID(t)
		}
		o := options(t, "tcp://"+r.Addr().String(), forever)
		o.Ack = acked
		s := open(t, o)
		for i := range 20 {
			for range 100 { // the FIN may be on its way still: then the delivery fails, and nothing is lost
				results, err := s.Deliver(t.Context(), []Item{item(t, i)})
				if err == nil {
					break
				}
				if results[0].State == Acknowledged {
					t.Fatalf("Deliver() = %v, %v; want no acknowledgement with an error", results, err)
				}
			}
			if got := r.wait(t, i+1); got[len(got)-1] != idOf(i) {
				t.Fatalf("the last line is %s; want %s", got[len(got)-1], idOf(i))
			}
			r.cut()
		}
	}
}

// What lies in the buffer of a receiver that dies with it is not acknowledged.
func TestReceiverThatDiesUnread(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, options(t, "tcp://"+l.Addr().String(), forever))
	big := items(t, 1)
	big[0].Body = []byte(`"` + strings.Repeat("x", 32<<20) + `"`) // more than fits into both buffers
	done := make(chan error, 1)
	go func() {
		_, err := s.Deliver(t.Context(), big)
		done <- err
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := <-done; err == nil {
		t.Errorf("Deliver() = nil; want an error")
	}
}

// Close and the context end a delivery that waits.
func TestDeliveryIsEnded(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"close", "context"} {
		waiting := make(chan struct{}, 1)
		r := newLines(t, "tcp", "127.0.0.1:0", nil, func(net.Conn, string) { waiting <- struct{}{} })
		o := options(t, "tcp://"+r.Addr().String(), forever)
		o.Ack = true
		s := open(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := s.Deliver(ctx, items(t, 1))
			done <- err
		}()
		<-waiting
		want := context.Canceled
		if how == "context" {
			cancel()
		} else {
			want = net.ErrClosed
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-done; !errors.Is(err, want) {
			t.Errorf("Deliver() = %v after %s; want %v", err, how, want)
		}
	}
}

func TestLineEndsInARecord(t *testing.T) {
	t.Parallel()
	r := newLines(t, "tcp", "127.0.0.1:0", nil, nil)
	s := open(t, options(t, "tcp://"+r.Addr().String(), forever))
	list := items(t, 3)
	list[1].Body = []byte("{\n}")
	results, err := s.Deliver(t.Context(), list)
	if u, a, f := states(results); err != nil || u != 0 || a != 2 || f != 1 || results[1].State != Refused {
		t.Errorf("Deliver() = %v, %v; want the second refused", results, err)
	}
	r.wait(t, 2)
	o := options(t, "tcp://"+r.Addr().String(), forever)
	o.Batch.Separator = "\n"
	list[1].Body = []byte("{}\n{}") // two lines of line protocol, say
	wantAcknowledged(t, open(t, o), list)
	r.wait(t, 6)
}

func TestLineAddresses(t *testing.T) {
	for to, good := range map[string]bool{"tcp://host": false, "tcp://:80": false, "tcp://host:80": true, "tls://[::1]:80": true, "tcp://host:80/x": false,
		"unix:/run/x": true, "unix:": false, "unix:///run/x": true, "unix://host/x": false} {
		if _, err := New(options(t, to, forever)); (err == nil) != good {
			t.Errorf("New(%q) = %v; want good: %v", to, err, good)
		}
	}
}
