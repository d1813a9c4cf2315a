package uplink

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
)

// greeter is a server that speaks first, and then echoes.
func greeter(t testing.TB) string {
	t.Helper()
	f := boxtest.NewProxy(t, "", func(_ *boxtest.Proxy, c net.Conn) {
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
		serve               func(*boxtest.Proxy, net.Conn)
	}{
		{"http", "", "", boxtest.ServeConnect}, {"http", "box:pass word", "box:pass%20word@", boxtest.ServeConnect},
		{"socks5", "", "", boxtest.ServeSOCKS}, {"socks5", "box:pass", "box:pass@", boxtest.ServeSOCKS},
	} {
		f := boxtest.NewProxy(t, greeter(t), c.serve)
		f.User = c.user
		conn, err := by(t, c.scheme+"://"+c.login+f.Addr().String()).Dial(t.Context(), "tcp", "collect.example.org:7000")
		if err != nil {
			t.Errorf("Dial by %s %q = %v", c.scheme, c.login, err)
			continue
		}
		in := bufio.NewReader(conn)
		_, err = io.WriteString(conn, "hello\n")
		first, _ := in.ReadString('\n')
		second, _ := in.ReadString('\n')
		if err != nil || first != "welcome\n" || second != "hello\n" || f.Asked()[0] != "collect.example.org:7000" {
			t.Errorf("by %s: read %q and %q, %v; asked for %q; want all of it, by name", c.scheme, first, second, err, f.Asked())
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
		f := boxtest.NewProxy(t, "", boxtest.ServeConnect)
		f.User, f.Answer = c.user, c.answer
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
	f := boxtest.NewProxy(t, greeter(t), boxtest.ServeConnect)
	t.Setenv("HTTPS_PROXY", "http://"+f.Addr().String())
	t.Setenv("NO_PROXY", "near.example.org")
	l := New(Settings{Stall: time.Minute})
	c, err := l.Dial(t.Context(), "tcp", "far.example.org:4222")
	if err != nil || len(f.Asked()) != 1 {
		t.Fatalf("Dial(far) = %v, proxy asked for %q; want that it is used", err, f.Asked())
	}
	_ = c.Close()
	if c, err = l.Dial(t.Context(), "tcp", greeter(t)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if p, err := l.proxy(&url.URL{Scheme: "https", Host: "near.example.org:4222"}); p != nil || err != nil {
		t.Errorf("proxy of near.example.org = %v, %v; want none", p, err)
	}
	if len(f.Asked()) != 1 {
		t.Errorf("proxy asked for %q; want the far one alone", f.Asked())
	}
	t.Setenv("HTTPS_PROXY", "http://box:geheim@%zz")
	if _, err := New(Settings{Stall: time.Minute}).Dial(t.Context(), "tcp", "far.example.org:4222"); !errors.Is(err, errProxy) {
		t.Errorf("Dial() by a proxy that is no address = %v; want an error without the password", err)
	}
}
