package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/boxtest/badline"
)

// sockets is a receiver of WebSockets.
type sockets struct {
	*httptest.Server
	group sync.WaitGroup
	mu    sync.Mutex
	each  func(c *websocket.Conn, id string) // nil: nothing
	limit int64                              // of a message
	token string                             // that is asked for
	deaf  bool                               // reads nothing
	ids   []string
	opens int
	conns []*websocket.Conn
}

func newSockets(t testing.TB, each func(*websocket.Conn, string)) *sockets {
	t.Helper()
	s := &sockets{each: each, limit: 1 << 20}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() { s.cut(); s.Close(); s.group.Wait() })
	return s
}

func (s *sockets) address() string { return strings.Replace(s.URL, "http", "ws", 1) + "/in" }

// ServeHTTP serves a connection.
func (s *sockets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	each, limit, token, deaf := s.each, s.limit, s.token, s.deaf
	s.mu.Unlock()
	if got := r.Header.Get("Authorization"); token != "" && got != "Bearer "+token {
		http.Error(w, "what is "+got+"?", http.StatusUnauthorized)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	c.SetReadLimit(limit)
	s.mu.Lock()
	s.conns, s.opens = append(s.conns, c), s.opens+1
	s.mu.Unlock()
	s.group.Add(1)
	defer s.group.Done()
	for !deaf {
		_, text, err := c.Read(context.WithoutCancel(r.Context()))
		if err != nil {
			return
		}
		var h struct{ Seq int }
		if err := json.Unmarshal(text, &h); err != nil {
			_ = c.Close(websocket.StatusInvalidFramePayloadData, "want JSON")
			return
		}
		s.mu.Lock()
		s.ids = append(s.ids, idOf(h.Seq))
		s.mu.Unlock()
		if each != nil {
			each(c, idOf(h.Seq))
		}
	}
}

// cut closes all connections without a word.
func (s *sockets) cut() {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.CloseNow()
	}
}

func (s *sockets) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ids)
}

func tell(t testing.TB, c *websocket.Conn, text string) {
	if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Error(err)
	}
}

func TestWebSocketDelivers(t *testing.T) {
	t.Parallel()
	for _, acked := range []bool{false, true} {
		r := newSockets(t, nil)
		if acked {
			r.each = func(c *websocket.Conn, id string) { tell(t, c, fmt.Sprintf(`{"id":%q}`, id)) }
		}
		r.token = "t0k3n"
		o := options(t, r.address(), forever)
		o.Ack, o.Token = acked, func() (string, error) { return "t0k3n", nil }
		s := open(t, o)
		wantAcknowledged(t, s, items(t, 300))
		wantAcknowledged(t, s, items(t, 300))
		if got := r.got(); len(got) != 600 || got[0] != idOf(0) || got[599] != idOf(299) || r.opens != 1 {
			t.Errorf("%d messages over %d connections; want 600 in order over one", len(got), r.opens)
		}
	}
}

func TestSecureWebSocket(t *testing.T) {
	t.Parallel()
	ca := boxtest.NewAuthority(t)
	r := newSockets(t, nil)
	secure := httptest.NewUnstartedServer(r)
	secure.TLS = certified(t, ca, here())
	secure.StartTLS()
	t.Cleanup(func() { r.cut(); secure.Close() })
	o := options(t, strings.Replace(secure.URL, "https", "wss", 1), forever)
	o.TLS = trust(ca)
	wantAcknowledged(t, open(t, o), items(t, 3))
	plain := options(t, strings.Replace(r.URL, "http", "wss", 1), forever)
	plain.TLS = trust(ca)
	wantUnknown(t, open(t, plain), items(t, 1), "that port does not speak TLS")
}

// A handshake that is refused is told like an answer to a POST, without the token.
func TestHandshakeIsRefused(t *testing.T) {
	t.Parallel()
	r := newSockets(t, nil)
	r.token = "new-secret"
	o := options(t, r.address(), forever)
	o.Token = func() (string, error) { return "old-secret", nil }
	err := wantUnknown(t, open(t, o), items(t, 1), "401 Unauthorized")
	wantOurs(t, err)
	if strings.Contains(err.Error(), "old-secret") {
		t.Errorf("Deliver() = %v; want no token in it", err)
	}
	for status, words := range map[int]string{200: "is the path right", 404: "look at the address", 302: "captive portal", 400: "opens no WebSocket"} {
		c := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		wantOurs(t, wantUnknown(t, open(t, options(t, strings.Replace(c.URL, "http", "ws", 1), forever)), items(t, 1), words))
		c.Close()
	}
	c := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "9")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(c.Close)
	_, err = open(t, options(t, strings.Replace(c.URL, "http", "ws", 1), forever)).Deliver(t.Context(), items(t, 1))
	if after := retryAfterOf(err); after != 9*time.Second {
		t.Errorf("Deliver() = %v, after %s; want 9s", err, after)
	}
}

// A message that the receiver closes the connection for is found, alone, and the others arrive.
func TestMessageThatIsNotTaken(t *testing.T) {
	t.Parallel()
	for _, acked := range []bool{false, true} {
		r := newSockets(t, nil)
		if acked {
			r.each = func(c *websocket.Conn, id string) { _ = c.Write(t.Context(), websocket.MessageText, []byte(id)) }
		}
		r.limit = 1000
		o := options(t, r.address(), forever)
		o.Ack = acked
		s := open(t, o)
		list := items(t, 10)
		list[6].Body = []byte(`{"x":"` + strings.Repeat("x", 1000) + `"}`)
		list[8].Body = []byte("\xff")
		var refusals []string
		for attempt := 0; len(list) > 0; attempt++ {
			results, err := s.Deliver(t.Context(), list)
			var left []Item
			for i, res := range results {
				switch res.State {
				case Unknown:
					left = append(left, list[i])
				case Refused:
					refusals = append(refusals, list[i].Record.ID()+" "+res.Reason)
				}
			}
			if list = left; attempt > 10 {
				t.Fatalf("%d records are left after %d deliveries: %v", len(list), attempt, err)
			}
		}
		slices.Sort(refusals)
		if len(refusals) != 2 || !strings.Contains(refusals[0], idOf(6)+" the receiver closes the connection: StatusMessageTooBig") || !strings.Contains(refusals[1], "no UTF-8") {
			t.Errorf("refusals %q; want the long one, and the one that is no UTF-8", refusals)
		}
	}
}

// A receiver that closes idle connections costs no record.
func TestWebSocketIsClosedBetween(t *testing.T) {
	t.Parallel()
	r := newSockets(t, nil)
	s := open(t, options(t, r.address(), forever))
	for i := range 10 {
		eventually(t, "delivery", func() bool {
			results, _ := s.Deliver(t.Context(), []Item{item(t, i)})
			return results[0].State == Acknowledged
		})
		if got := r.got(); got[len(got)-1] != idOf(i) {
			t.Fatalf("the last message is %s; want %s", got[len(got)-1], idOf(i))
		}
		r.cut()
	}
}

// An idle connection is kept open by pings; one that is no more is noticed by them.
func TestWebSocketPings(t *testing.T) {
	t.Parallel()
	r := newSockets(t, nil)
	proxy := badline.New(t, r.Listener.Addr().String())
	s := open(t, options(t, "ws://"+proxy.Listen, 300*time.Millisecond))
	wantAcknowledged(t, s, items(t, 1))
	k := s.(*webSocket).link
	proxy.Toxic(`{"name": "t", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`)
	<-k.ended // two times the 300ms later
	proxy.Cure()
	wantAcknowledged(t, s, items(t, 1))
}

// A receiver that does not read, or does not answer, acknowledges nothing.
func TestWebSocketThatIsSilent(t *testing.T) {
	t.Parallel()
	for _, acked := range []bool{false, true} {
		r := newSockets(t, nil)
		r.deaf = !acked
		o := options(t, r.address(), 300*time.Millisecond)
		o.Ack = acked
		wantUnknown(t, open(t, o), items(t, 3), "nothing has moved for 300ms")
	}
}

// Close ends a delivery that waits.
func TestWebSocketCloseEndsADelivery(t *testing.T) {
	t.Parallel()
	waiting := make(chan struct{}, 3)
	r := newSockets(t, func(*websocket.Conn, string) { waiting <- struct{}{} })
	o := options(t, r.address(), forever)
	o.Ack = true
	s := open(t, o)
	done := make(chan error, 1)
	go func() {
		_, err := s.Deliver(t.Context(), items(t, 1))
		done <- err
	}()
	<-waiting
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("Deliver() = nil after Close; want an error")
	}
	if _, err := s.Deliver(t.Context(), items(t, 1)); err == nil || !strings.Contains(err.Error(), net.ErrClosed.Error()) {
		t.Errorf("Deliver() = %v after Close; want %v", err, net.ErrClosed)
	}
}
