package boxtest

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
)

// Proxy is a proxy that speaks CONNECT or SOCKS 5.
type Proxy struct {
	net.Listener
	To     string // where it connects, whatever it is asked for
	Answer string // what it answers CONNECT with; "" is 200
	User   string // NAME:PASSWORD that it wants

	group sync.WaitGroup
	mu    sync.Mutex
	asked []string
	conns []net.Conn
}

// NewProxy makes a proxy. What serves a connection is ServeConnect or ServeSOCKS.
func NewProxy(t testing.TB, to string, serve func(*Proxy, net.Conn)) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Listener: l, To: to}
	p.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.keep(c)
			p.group.Go(func() { defer c.Close(); serve(p, c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.group.Wait()
	})
	return p
}

func (p *Proxy) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, c)
}

func (p *Proxy) note(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, address)
}

// ServeConnect speaks CONNECT (RFC 9110 section 9.3.6).
func ServeConnect(p *Proxy, c net.Conn) {
	in := bufio.NewReader(c)
	req, err := http.ReadRequest(in)
	if err != nil || req.Method != http.MethodConnect {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		return
	}
	p.note(req.Host)
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.User)); p.User != "" && req.Header.Get("Proxy-Authorization") != want {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if p.Answer != "" {
		_, _ = io.WriteString(c, p.Answer)
		return
	}
	p.pipe(c, in, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
}

// ServeSOCKS speaks as much of RFC 1928 and RFC 1929 as the tests need.
func ServeSOCKS(p *Proxy, c net.Conn) {
	in := bufio.NewReader(c)
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil {
			return make([]byte, n)
		}
		return b
	}
	read(int(read(2)[1])) // the methods
	if p.User != "" {
		_, _ = c.Write([]byte{5, 2})
		name := read(int(read(2)[1]))
		if got := string(name) + ":" + string(read(int(read(1)[0]))); got != p.User {
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
	p.note(fmt.Sprintf("%s:%d", host, int(port[0])<<8|int(port[1])))
	p.pipe(c, in, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
}

func (p *Proxy) pipe(c net.Conn, in io.Reader, ready string) {
	out, err := net.Dial("tcp", p.To)
	if err != nil {
		return
	}
	p.keep(out)
	if _, err := io.WriteString(c, ready); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() })
	both.Go(func() { _, _ = io.Copy(c, out); _ = c.(*net.TCPConn).CloseWrite() })
	both.Wait()
	_ = out.Close()
}

// Asked lists the addresses that the proxy was asked for.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}
