package uplink

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// forwarder is a proxy that speaks CONNECT or SOCKS 5.
type forwarder struct {
	net.Listener
	to     string // where it connects, whatever it is asked for
	answer string // what it answers CONNECT with; "" is 200
	user   string // NAME:PASSWORD that it wants

	group sync.WaitGroup
	mu    sync.Mutex
	asked []string
	conns []net.Conn
}

func newForwarder(t testing.TB, to string, serve func(*forwarder, net.Conn)) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{Listener: l, to: to}
	f.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.keep(c)
			f.group.Go(func() { defer c.Close(); serve(f, c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		f.group.Wait()
	})
	return f
}

func (f *forwarder) keep(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
}

func (f *forwarder) note(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, address)
}

func serveConnect(f *forwarder, c net.Conn) {
	in := bufio.NewReader(c)
	req, err := http.ReadRequest(in)
	if err != nil || req.Method != http.MethodConnect {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		return
	}
	f.note(req.Host)
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(f.user)); f.user != "" && req.Header.Get("Proxy-Authorization") != want {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if f.answer != "" {
		_, _ = io.WriteString(c, f.answer)
		return
	}
	f.pipe(c, in, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
}

// serveSOCKS speaks as much of RFC 1928 and RFC 1929 as the tests need.
func serveSOCKS(f *forwarder, c net.Conn) {
	in := bufio.NewReader(c)
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil {
			return make([]byte, n)
		}
		return b
	}
	read(int(read(2)[1])) // the methods
	if f.user != "" {
		_, _ = c.Write([]byte{5, 2})
		name := read(int(read(2)[1]))
		if got := string(name) + ":" + string(read(int(read(1)[0]))); got != f.user {
			_, _ = c.Write([]byte{1, 1})
			return
		}
		_, _ = c.Write([]byte{1, 0})
	} else {
		_, _ = c.Write([]byte{5, 0})
	}
	if kind := read(4)[3]; kind != 3 { // a name, which the proxy looks up
		_, _ = c.Write([]byte{5, 8, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	host := string(read(int(read(1)[0])))
	port := read(2)
	f.note(fmt.Sprintf("%s:%d", host, int(port[0])<<8|int(port[1])))
	f.pipe(c, in, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
}

func (f *forwarder) pipe(c net.Conn, in io.Reader, ready string) {
	out, err := net.Dial("tcp", f.to)
	if err != nil {
		return
	}
	f.keep(out)
	if _, err := io.WriteString(c, ready); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() })
	both.Go(func() { _, _ = io.Copy(c, out); _ = c.(*net.TCPConn).CloseWrite() })
	both.Wait()
	_ = out.Close()
}

// greeter is a server that speaks first, and then echoes.
func greeter(t testing.TB) string {
	t.Helper()
	f := newForwarder(t, "", func(_ *forwarder, c net.Conn) {
		_, _ = io.WriteString(c, "welcome\n")
		_, _ = io.Copy(c, c)
	})
	return f.Addr().String()
}

// by is a link whose proxy has that address.
func by(t testing.TB, address string) *Link {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l := New(Settings{Stall: time.Minute})
	l.proxy = func(*url.URL) (*url.URL, error) { return u, nil }
	return l
}

func TestProxies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scheme, user, login string
		serve               func(*forwarder, net.Conn)
	}{
		{"http", "", "", serveConnect}, {"http", "box:pass word", "box:pass%20word@", serveConnect},
		{"socks5", "", "", serveSOCKS}, {"socks5", "box:pass", "box:pass@", serveSOCKS},
	} {
		f := newForwarder(t, greeter(t), c.serve)
		f.user = c.user
		conn, err := by(t, c.scheme+"://"+c.login+f.Addr().String()).Dial(t.Context(), "tcp", "collect.example.org:7000")
		if err != nil {
			t.Errorf("Dial by %s %q = %v", c.scheme, c.login, err)
			continue
		}
		in := bufio.NewReader(conn)
		_, err = io.WriteString(conn, "hello\n")
		first, _ := in.ReadString('\n')
		second, _ := in.ReadString('\n')
		if err != nil || first != "welcome\n" || second != "hello\n" || f.asked[0] != "collect.example.org:7000" {
			t.Errorf("by %s: read %q and %q, %v; asked for %q; want all of it, by name", c.scheme, first, second, err, f.asked)
		}
		if own := Of(conn); own == nil {
			t.Errorf("Of(%T) = nil; want the connection, which tells what has arrived", conn)
		}
		_ = conn.Close()
	}
}

// A proxy that does not open the way is told in words, without its password.
func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		login, user, answer, words string
	}{
		"wants a password":  {"", "box:pass", "", "the proxy wants a name and a password"},
		"another password":  {"box:geheim@", "box:pass", "", "407"},
		"forbids":           {"box:geheim@", "", "HTTP/1.1 403 Forbidden\r\n\r\n", "does not allow connections to that receiver and port"},
		"does not reach it": {"", "", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n", "the proxy does not reach the receiver"},
		"is no proxy":       {"box:geheim@", "", "220 box:geheim ready\r\n\r\n", "HTTPS_PROXY"},
		"closes":            {"", "", " ", "the proxy cannot be used"},
		"talks for ever":    {"", "", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxHeader), "65536 bytes"},
	} {
		f := newForwarder(t, "", serveConnect)
		f.user, f.answer = c.user, c.answer
		_, err := by(t, "http://"+c.login+f.Addr().String()).Dial(t.Context(), "tcp", "collect.example.org:7000")
		err = Explain(err)
		if p := (*ProxyError)(nil); !errors.As(err, &p) || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: Dial() = %v; want %q, a ProxyError and no password", name, err, c.words)
		}
	}
	_, err := by(t, "http://127.0.0.1:1").Dial(t.Context(), "tcp", "collect.example.org:7000")
	if words := Explain(err).Error(); !strings.Contains(words, "the proxy cannot be used: 127.0.0.1:1 refuses the connection") {
		t.Errorf("Dial() by a proxy that is not there = %v; want its address", words)
	}
	if _, err = by(t, "ftp://127.0.0.1:1").Dial(t.Context(), "tcp", "collect.example.org:7000"); err == nil || !strings.Contains(err.Error(), `"ftp"`) {
		t.Errorf("Dial() by an ftp proxy = %v; want the scheme", err)
	}
}

// The environment names the proxy; this machine and NO_PROXY are reached without.
func TestProxyOfTheEnvironment(t *testing.T) {
	f := newForwarder(t, greeter(t), serveConnect)
	t.Setenv("HTTPS_PROXY", "http://"+f.Addr().String())
	t.Setenv("NO_PROXY", "near.example.org")
	l := New(Settings{Stall: time.Minute})
	c, err := l.Dial(t.Context(), "tcp", "far.example.org:4222")
	if err != nil || len(f.asked) != 1 {
		t.Fatalf("Dial(far) = %v, proxy asked for %q; want that it is used", err, f.asked)
	}
	_ = c.Close()
	if c, err = l.Dial(t.Context(), "tcp", greeter(t)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if p, err := l.proxy(&url.URL{Scheme: "https", Host: "near.example.org:4222"}); p != nil || err != nil {
		t.Errorf("proxy of near.example.org = %v, %v; want none", p, err)
	}
	if len(f.asked) != 1 {
		t.Errorf("proxy asked for %q; want the far one alone", f.asked)
	}
	t.Setenv("HTTPS_PROXY", "http://box:geheim@%zz")
	if _, err := New(Settings{Stall: time.Minute}).Dial(t.Context(), "tcp", "far.example.org:4222"); !errors.Is(err, errProxy) {
		t.Errorf("Dial() by a proxy that is no address = %v; want an error without the password", err)
	}
}
