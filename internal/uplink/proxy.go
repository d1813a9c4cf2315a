package uplink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

var errProxy = errors.New("HTTPS_PROXY is no address: want http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")

// ofEnvironment returns which proxy an address is reached by; nil is none. A proxy that is no address is
// an error: without it, what must not go out directly would.
func ofEnvironment() func(*url.URL) (*url.URL, error) {
	c := httpproxy.FromEnvironment()
	_, err := url.Parse(c.HTTPSProxy)
	_, bareErr := url.Parse("http://" + c.HTTPSProxy) // which HOST:PORT stands for
	if err != nil && bareErr != nil {
		return func(*url.URL) (*url.URL, error) { return nil, errProxy } // the cause would repeat a password
	}
	return c.ProxyFunc()
}

// through opens a connection to address by a proxy.
func (l *Link) through(ctx context.Context, by *url.URL, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, ConnectMost)
	defer cancel()
	switch by.Scheme {
	case "socks5", "socks5h":
		return l.socks(ctx, by, address)
	case "http", "https":
		return l.connect(ctx, by, address)
	}
	return nil, fmt.Errorf("HTTPS_PROXY has the scheme %q: want http, https or socks5", by.Scheme)
}

// withPort is a proxy's address, with the port that its scheme has by default.
func withPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme])
}

// socks opens a connection by SOCKS version 5.
func (l *Link) socks(ctx context.Context, by *url.URL, address string) (net.Conn, error) {
	var auth *proxy.Auth
	if by.User != nil {
		password, _ := by.User.Password()
		auth = &proxy.Auth{User: by.User.Username(), Password: password}
	}
	way := &forward{link: l}
	dialer, err := proxy.SOCKS5("tcp", withPort(by), auth, way)
	if err != nil {
		return nil, &ProxyError{Proxy: by.Host, Err: err}
	}
	if _, err := dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", address); err != nil {
		return nil, &ProxyError{Proxy: by.Host, Err: err}
	}
	return way.conn, nil // not what the library wraps it in, which would hide its type
}

// forward opens the connection to a SOCKS proxy, and keeps it.
type forward struct {
	link *Link
	conn *Conn
}

// Dial opens the connection.
func (f *forward) Dial(network, address string) (net.Conn, error) {
	return f.DialContext(context.Background(), network, address)
}

// DialContext opens the connection.
func (f *forward) DialContext(ctx context.Context, network, address string) (_ net.Conn, err error) {
	if f.conn, err = f.link.direct(ctx, network, address); err != nil {
		return nil, err
	}
	return f.conn, nil
}

// connect opens a connection by the method CONNECT.
func (l *Link) connect(ctx context.Context, by *url.URL, address string) (_ net.Conn, err error) {
	refused := func(status int, err error) error { return &ProxyError{by.Host, status, err} }
	c, err := l.direct(ctx, "tcp", withPort(by))
	if err != nil {
		return nil, refused(0, err)
	}
	way := net.Conn(c)
	release := context.AfterFunc(ctx, func() { _ = c.Close() }) // the error is ctx's
	defer func() {
		if !release() && err == nil {
			err = refused(0, ctx.Err())
		}
		if err != nil {
			_ = c.Close() // the first error counts
		}
	}()
	if by.Scheme == "https" {
		secure := tls.Client(c, &tls.Config{ServerName: by.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, refused(0, err)
		}
		way = secure
	}
	if err := c.SetReadDeadline(time.Now().Add(ConnectMost)); err != nil {
		return nil, refused(0, err)
	}
	status, err := ask(way, by, address)
	if err != nil {
		return nil, refused(0, err)
	}
	if status < 200 || status > 299 {
		return nil, refused(status, errors.New("it does not open the way"))
	}
	return way, c.SetReadDeadline(time.Time{})
}

// ask sends the CONNECT request, and returns the status of the answer.
func ask(way io.ReadWriter, by *url.URL, address string) (int, error) {
	head := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if by.User != nil {
		password, _ := by.User.Password()
		head += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(by.User.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(way, head+"\r\n"); err != nil {
		return 0, err
	}
	answer, err := readHeader(way)
	if err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), &http.Request{Method: http.MethodConnect})
	if err != nil { // which may repeat any bytes
		return 0, errors.New("its answer is no HTTP")
	}
	_ = res.Body.Close() // there is none: only the header was read
	return res.StatusCode, nil
}

// readHeader reads up to the empty line and no further: what follows is the receiver's.
func readHeader(r io.Reader) ([]byte, error) {
	var text []byte
	for b := make([]byte, 1); len(text) < maxHeader; {
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		if text = append(text, b[0]); bytes.HasSuffix(text, []byte("\r\n\r\n")) {
			return text, nil
		}
	}
	return nil, fmt.Errorf("the header of its answer has more than %d bytes", maxHeader)
}
