package sink

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/boxtest/badline"
)

// kinds are receivers of each kind, that acknowledge, behind a line that can be made bad.
func kinds(t *testing.T) map[string]struct {
	at  string // HOST:PORT
	to  string // a format of the address
	got func() []string
} {
	l := newLines(t, "tcp", "127.0.0.1:0", nil, func(c net.Conn, id string) { _, _ = io.WriteString(c, id+"\n") }) // the line may be cut
	bare := newLines(t, "tcp", "127.0.0.1:0", nil, nil)
	w := newSockets(t, func(c *websocket.Conn, id string) { _ = c.Write(t.Context(), websocket.MessageText, []byte(id)) })
	h := newCollector(t, nil)
	type kind = struct {
		at  string
		to  string
		got func() []string
	}
	return map[string]kind{
		"lines with answers": {l.Addr().String(), "tcp://%s", l.got},
		"lines":              {bare.Addr().String(), "tcp://%s", bare.got},
		"WebSocket":          {w.Listener.Addr().String(), "ws://%s/", w.got},
		"HTTP": {h.Listener.Addr().String(), "http://%s/", func() (ids []string) {
			for _, p := range h.got() {
				for _, seq := range p.seqs {
					ids = append(ids, idOf(seq))
				}
			}
			return ids
		}},
	}
}

// Whatever a line does, what is acknowledged has arrived, no delivery hangs, and all arrives when the
// line is well again.
func TestBadLines(t *testing.T) {
	t.Parallel()
	for kind := range kinds(t) {
		for name, text := range map[string]string{
			"cut on the way":  fmt.Sprintf(`{"name": "t", "type": "limit_data", "stream": "upstream", "attributes": {"bytes": %d}}`, 600+rand.IntN(20000)),
			"cut on the back": fmt.Sprintf(`{"name": "t", "type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, rand.IntN(100)),
			"a black hole":    `{"name": "t", "type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
			"no answer":       `{"name": "t", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`,
			"a reset":         `{"name": "t", "type": "reset_peer", "stream": "upstream", "attributes": {"timeout": 5}}`,
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				k := kinds(t)[kind]
				proxy := badline.New(t, k.at)
				proxy.Toxic(text)
				o := options(t, fmt.Sprintf(k.to, proxy.Listen), 400*time.Millisecond)
				o.Ack = strings.Contains(kind, "answers") || kind == "WebSocket"
				s := open(t, o)
				list := items(t, 100)
				first, err := s.Deliver(t.Context(), list)
				_, delivered, _ := states(first)
				if delivered < len(list) && err == nil {
					t.Errorf("Deliver() = %d of %d acknowledged, nil; want an error", delivered, len(list))
				}
				if kind != "lines" { // whose bytes the line itself acknowledges, and then loses
					wantAll(t, k.got(), list, first)
				}
				proxy.Cure()
				eventually(t, "delivery over a good line", func() bool {
					results, err := s.Deliver(t.Context(), list)
					if kind != "lines" {
						wantAll(t, k.got(), list, results)
					}
					_, n, _ := states(results)
					return err == nil && n == len(list) && len(missing(k.got(), list, results)) == 0
				})
			})
		}
	}
}

// missing are the items that are acknowledged and have not arrived.
func missing(got []string, list []Item, results []Result) (ids []string) {
	for i, r := range results {
		if id := list[i].Record.ID(); r.State == Acknowledged && !slices.Contains(got, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func wantAll(t *testing.T, got []string, list []Item, results []Result) {
	t.Helper()
	if lost := missing(got, list, results); len(lost) > 0 {
		t.Errorf("%d records are acknowledged and have not arrived: %q", len(lost), lost)
	}
}

// A line that is slow and far is no line that stalls: 64 kbit/s, 600 ms.
func TestSlowLines(t *testing.T) {
	t.Parallel()
	for kind, k := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			proxy := badline.New(t, k.at)
			proxy.Toxic(`{"name": "slow", "type": "bandwidth", "stream": "upstream", "attributes": {"rate": 8}}`)
			proxy.Toxic(`{"name": "far", "type": "latency", "stream": "downstream", "attributes": {"latency": 600}}`)
			o := options(t, fmt.Sprintf(k.to, proxy.Listen), 10*time.Second)
			o.Ack = strings.Contains(kind, "answers")
			wantAcknowledged(t, open(t, o), items(t, 50)) // 15 kB: two seconds
		})
	}
}

// A connection that is reset after the receiver has read the batch, and before its answer: the batch
// comes again under the same key.
func TestResetBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	c := newCollector(t, func(w http.ResponseWriter, _ post) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	})
	s := open(t, options(t, c.URL, forever))
	wantUnknown(t, s, items(t, 5), "the connection broke")
	c.become(nil)
	wantAcknowledged(t, s, items(t, 5))
	posts := c.got()
	if n := len(posts); n < 2 || posts[0].header.Get("Idempotency-Key") != posts[n-1].header.Get("Idempotency-Key") {
		t.Errorf("%d requests; want the batch twice under one key", n)
	}
}

// Receivers that take a connection and then nothing, a byte at a time, or never answer.
func TestReceiversThatHang(t *testing.T) {
	t.Parallel()
	for name, each := range map[string]func(net.Conn, <-chan struct{}){
		"reads nothing": func(_ net.Conn, over <-chan struct{}) { <-over },
		"reads all, answers nothing": func(c net.Conn, _ <-chan struct{}) {
			_, _ = io.Copy(io.Discard, c) // until it is closed
		},
		"reads slowly": func(c net.Conn, over <-chan struct{}) {
			for {
				if _, err := c.Read(make([]byte, 1)); err != nil {
					return
				}
				select {
				case <-over:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		},
	} {
		for _, scheme := range []string{"tcp", "ws", "http"} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				t.Parallel()
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				over := make(chan struct{})
				var group sync.WaitGroup
				t.Cleanup(func() { close(over); _ = l.Close(); group.Wait() })
				group.Go(func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
						group.Go(func() { each(c, over) })
						group.Go(func() { <-over; _ = c.Close() })
					}
				})
				o := options(t, scheme+"://"+l.Addr().String(), 500*time.Millisecond)
				o.Ack = true
				list := items(t, 1)
				list[0].Body = []byte(`"` + strings.Repeat("x", 8<<20) + `"`)
				wantUnknown(t, open(t, o), list, "")
			})
		}
	}
}

// What a sender writes, socat receives as lines.
func TestSocat(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("socat"); err != nil {
		t.Skip("socat is not installed: ", err)
	}
	for _, kind := range []string{"tcp", "unix"} {
		dir := t.TempDir()
		listen, to := "UNIX-LISTEN:"+dir+"/in", "unix:"+dir+"/in"
		if kind == "tcp" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			_ = l.Close() // for socat to take
			_, port, _ := net.SplitHostPort(l.Addr().String())
			listen, to = "TCP-LISTEN:"+port+",bind=127.0.0.1,reuseaddr", "tcp://127.0.0.1:"+port
		}
		socat := exec.Command("socat", "-u", listen, "OPEN:"+dir+"/out,creat,append")
		if err := socat.Start(); err != nil {
			t.Fatal(err)
		}
		s := open(t, options(t, to, forever))
		list := items(t, 100)
		eventually(t, "delivery", func() bool {
			results, _ := s.Deliver(t.Context(), list)
			_, n, _ := states(results)
			return n == len(list)
		})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := socat.Wait(); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(dir + "/out")
		if n := strings.Count(string(text), "\n"); err != nil || n != len(list) {
			t.Errorf("socat has %d lines, %v; want %d", n, err, len(list))
		}
	}
}

// An answer that never ends, in its header or in its text, does not hold a delivery for ever.
func TestAnswerThatDribbles(t *testing.T) {
	t.Parallel()
	for _, begin := range []string{"HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"} {
		proxy := boxtest.NewProxy(t, "", func(_ *boxtest.Proxy, c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return
			}
			_, err := io.WriteString(c, begin)
			for ; err == nil; time.Sleep(20 * time.Millisecond) {
				_, err = io.WriteString(c, "x")
			}
		})
		wantUnknown(t, open(t, options(t, "http://"+proxy.Addr().String(), 300*time.Millisecond)), items(t, 1), "the receiver's answer is not complete after 300ms")
	}
}
