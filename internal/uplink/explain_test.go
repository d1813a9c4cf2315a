package uplink

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/clock"
)

func at(wall string, synced bool) func() clock.Stamp {
	t, err := time.Parse(time.DateOnly, wall)
	if err != nil {
		panic(err)
	}
	return func() clock.Stamp { return clock.Stamp{Wall: t, Synced: synced} }
}

// What a real TLS server with such a certificate is told to be, by a box with such a clock.
func TestCertificatesInWords(t *testing.T) {
	t.Parallel()
	ca, stranger := boxtest.NewAuthority(t), boxtest.NewAuthority(t)
	year := func(n int) time.Time { return time.Date(n, 1, 2, 0, 0, 0, 0, time.UTC) } // the certificate's last day
	for name, c := range map[string]struct {
		by    *boxtest.Authority
		cert  x509.Certificate
		now   func() clock.Stamp
		words string
	}{
		"another host":              {ca, x509.Certificate{DNSNames: []string{"other.example.org"}}, now, "the certificate is not for 127.0.0.1: is the address right, or does a captive portal"},
		"unknown authority":         {stranger, x509.Certificate{IPAddresses: boxtest.Loopback()}, now, "give its certificate as ca_file"},
		"a box without a clock":     {ca, x509.Certificate{IPAddresses: boxtest.Loopback(), NotAfter: year(2026)}, at("1970-01-01", false), "the box's clock says 1970-01-01T00:00:00Z: the certificate is valid from 2026-01-01 on, and trusted once the clock is set"},
		"a certificate of tomorrow": {ca, x509.Certificate{IPAddresses: boxtest.Loopback(), NotAfter: year(2100)}, at("2099-06-01", true), "the receiver's certificate is valid from 2100-01-01 on"},
		"expired":                   {ca, x509.Certificate{IPAddresses: boxtest.Loopback(), NotAfter: year(2026)}, at("2099-06-01", true), "the receiver's certificate expired on 2026-01-02: it has to be renewed"},
		"expired, perhaps":          {ca, x509.Certificate{IPAddresses: boxtest.Loopback(), NotAfter: year(2026)}, at("2099-06-01", false), "which says 2099-06-01T00:00:00Z, was not set by a time server"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			der, key := c.by.Sign(t, &c.cert)
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			t.Cleanup(server.Close)
			roots := x509.NewCertPool()
			roots.AddCert(ca.Cert)
			conn, err := New(Settings{Stall: time.Minute}).Dial(t.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			cfg := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", Time: func() time.Time { return c.now().Wall }}
			err = tls.Client(conn, cfg).HandshakeContext(t.Context())
			got := explain(err, c.now)
			if err == nil || !strings.Contains(got.Error(), c.words) || !errors.Is(got, err) {
				t.Errorf("explain(%v) = %v; want %q", err, got, c.words)
			}
		})
	}
}

// What real sockets and servers make of a wrong address.
func TestConnectionsInWords(t *testing.T) {
	t.Parallel()
	link := New(Settings{Stall: time.Minute})
	dial := func(network, address string) error {
		c, err := link.Dial(t.Context(), network, address)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	post := func(address string) error {
		transport := Transport(link.DialStrict, time.Minute)
		defer transport.CloseIdleConnections()
		res, err := (&http.Client{Transport: transport}).Post(address, "", nil)
		if err == nil {
			_ = res.Body.Close()
		}
		return err
	}
	alert := serveOnce(t, "\x15\x03\x03\x00\x02\x02\x28")       // handshake failure
	port := serveOnce(t, "\x15\x03\x03\x00\x02\x02\x46")        // what a TLS port answers plain HTTP
	certificate := serveOnce(t, "\x15\x03\x03\x00\x02\x02\x74") // certificate required
	shut := serveOnce(t, "")
	for name, c := range map[string]struct {
		err   error
		words string
	}{
		"refused":         {dial("tcp", "127.0.0.1:1"), "127.0.0.1:1 refuses the connection: does the receiver run, is the port right?"},
		"no socket":       {dial("unix", t.TempDir()+"/none"), "there is no socket"},
		"TLS to plain":    {post(strings.Replace(plain.URL, "http", "https", 1)), "that port does not speak TLS"},
		"plain to TLS":    {post("http://" + port), "that port speaks TLS"},
		"alert":           {post("https://" + alert), "ends the TLS handshake"},
		"closed":          {post("http://" + shut), "closed the connection"},
		"no such name":    {&net.DNSError{Name: "collect.example.org", IsNotFound: true}, "host collect.example.org not found: is the link up, is the name right?"},
		"no name server":  {&net.DNSError{Name: "collect.example.org", IsTimeout: true}, "no name server answers for collect.example.org"},
		"no IPv6":         {&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}, Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, "[2001:db8::1]:1 is IPv6, and this box has no way there"},
		"no route":        {&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, "is the link up?"},
		"no answer":       {&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, Err: os.ErrDeadlineExceeded}, "192.0.2.1:1 does not answer"},
		"our certificate": {post("https://" + certificate), "look at client_cert"},
	} {
		if c.err == nil {
			t.Errorf("%s: no error to explain", name)
			continue
		}
		if got := Explain(c.err); !strings.Contains(got.Error(), c.words) || !errors.Is(got, c.err) {
			t.Errorf("Explain(%v) = %v; want %q", c.err, got, c.words)
		}
	}
	if err := errors.New("something else"); Explain(err) != err || Explain(nil) != nil {
		t.Errorf("Explain(%v) = %v; want it as it is", err, Explain(err))
	}
}

// serveOnce answers each connection's first bytes with a text, and closes it.
func serveOnce(t testing.TB, text string) string {
	t.Helper()
	f := boxtest.NewProxy(t, "", func(_ *boxtest.Proxy, c net.Conn) {
		_, _ = c.Read(make([]byte, 1<<10))
		_, _ = io.WriteString(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	return f.Addr().String()
}
