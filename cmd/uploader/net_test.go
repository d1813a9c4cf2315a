package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/boxtest/badline"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// writeCert writes a certificate to a file.
func writeCert(t *testing.T, cert *x509.Certificate) string {
	t.Helper()
	return boxtest.WritePEM(t, "CERTIFICATE", cert.Raw)
}

// Whatever a line does, a file arrives once when the line is well again.
func TestBadLines(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	for name, toxic := range map[string]string{
		"cut on the way":  fmt.Sprintf(`{"name": "t", "type": "limit_data", "stream": "upstream", "attributes": {"bytes": %d}}`, 4000+rand.IntN(size)),
		"cut on the back": fmt.Sprintf(`{"name": "t", "type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, rand.IntN(1500)),
		"a black hole":    `{"name": "t", "type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
		"no answer":       `{"name": "t", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`,
		"a reset":         `{"name": "t", "type": "reset_peer", "stream": "upstream", "attributes": {"timeout": 5}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newShelf(t)
			line := badline.New(t, strings.TrimPrefix(server.URL, "https://"))
			line.Toxic(toxic)
			address := "https://" + line.Listen
			b := boxtest.New(t, fleet(fmt.Sprintf("to = %q\nca_file = %q\nstall_after = \"1s\"\nretry_most = \"1s\"", address+"/box", server.ca)))
			s := newShop(t, b.Dir+"/store")
			side := s.put(".mp4", noise(size))
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
			p := b.Start("uploader", "send")
			st := states.State("two failed attempts", func(st msg.State) bool { return st.Counters["failed_attempts"] >= 2 && st.Trouble != "" })
			if st.Counters["sent_files"] != 0 || len(s.in(spool.Ready)) != 1 {
				t.Errorf("%d files sent over a line that does not carry one", st.Counters["sent_files"])
			}
			line.Cure()
			s.wait(spool.Sent, 1)
			p.Stop()
			server.wantOnce(t, side)
			s.wantSent(side)
		})
	}
}

// lazy accepts connections that take in little at a time.
type lazy struct{ net.Listener }

func (l *lazy) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetReadBuffer(16 << 10)
	}
	return c, err
}

// A line that is slow is no line that stalls, also while only the kernel still
// has something to send: how long the whole takes does not matter.
func TestSlowLineIsNoStall(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	slow := httptest.NewUnstartedServer(server)
	slow.Listener = &lazy{slow.Listener}
	slow.StartTLS()
	t.Cleanup(slow.Close)
	server.be(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Body = &slowly{r.Body}
		return false
	})
	b := boxtest.New(t, fleet(fmt.Sprintf("to = %q\nca_file = %q\nstall_after = \"1s\"", slow.URL+"/box", server.ca)))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".mp4", noise(1<<20)) // some seconds
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
	p := b.Start("uploader", "send")
	st := states.State("the file sent", func(st msg.State) bool { return st.Counters["sent_files"] == 1 })
	if st.Counters["failed_attempts"] > 0 {
		t.Errorf("%d attempts failed; want none", st.Counters["failed_attempts"])
	}
	p.Stop()
	server.wantOnce(t, side)
}

// slowly reads little at a time.
type slowly struct{ io.ReadCloser }

func (s *slowly) Read(p []byte) (int, error) {
	time.Sleep(6 * time.Millisecond)
	return s.ReadCloser.Read(p[:min(len(p), 16<<10)])
}

// A receiver that takes the connection and stops reading is noticed.
func TestReceiverThatStopsReading(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	over := make(chan struct{}) // the request's context would only end with its body
	t.Cleanup(func() { close(over) })
	server.be(func(_ http.ResponseWriter, r *http.Request) bool {
		if _, err := r.Body.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		<-over
		return true
	})
	b := boxtest.New(t, fleet(server.keys("stall_after = \"1s\"\nretry_most = \"1s\"")))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".mp4", noise(16<<20))
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
	p := b.Start("uploader", "send")
	states.State("a stall noticed", func(st msg.State) bool { return strings.Contains(st.Trouble, "nothing has moved for 1s") })
	server.be(nil)
	s.wait(spool.Sent, 1)
	p.Stop()
	server.wantOnce(t, side)
}

// All uploads together keep to the limit.
func TestLimit(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys(`limit = "400kB"`)))
	s := newShop(t, b.Dir+"/store")
	one, two := s.put(".mp4", noise(400_000)), s.put(".mp4", noise(400_001))
	begun := time.Now()
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 2)
	if took := time.Since(begun); took < 1900*time.Millisecond {
		t.Errorf("800 kB took %s at 400 kB a second; want two seconds", took)
	}
	p.Stop()
	server.wantOnce(t, one, two)
}

// Certificates that are not the receiver's, or are over, get nothing, not even
// a request.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, stranger := boxtest.NewAuthority(t), boxtest.NewAuthority(t)
	here := boxtest.Loopback()
	for name, c := range map[string]struct {
		by      *boxtest.Authority
		cert    *x509.Certificate
		trouble string
	}{
		"expired":                   {ca, &x509.Certificate{IPAddresses: here, NotAfter: time.Now().Add(-time.Hour)}, "expired"},
		"of another host":           {ca, &x509.Certificate{DNSNames: []string{"other.example.org"}}, "127.0.0.1"},
		"of an unknown authority":   {stranger, &x509.Certificate{IPAddresses: here}, "unknown authority"},
		"good":                      {ca, &x509.Certificate{IPAddresses: here}, ""},
		"good, and wants to see us": {ca, &x509.Certificate{IPAddresses: here, DNSNames: []string{"mutual"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newShelf(t)
			lies := httptest.NewUnstartedServer(server)
			der, key := c.by.Sign(t, c.cert)
			lies.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
			keys := fmt.Sprintf("retry_most = \"1s\"\nca_file = %q\n", writeCert(t, ca.Cert))
			if c.cert.DNSNames != nil && c.trouble == "" {
				lies.TLS.ClientAuth, lies.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
				lies.TLS.ClientCAs.AddCert(ca.Cert)
				cert, key := ca.SignFile(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
				keys += fmt.Sprintf("client_cert = %q\nclient_key = %q\n", cert, key)
			}
			lies.StartTLS()
			t.Cleanup(lies.Close)
			b := boxtest.New(t, fleet(keys+fmt.Sprintf("to = %q", lies.URL+"/box")))
			s := newShop(t, b.Dir+"/store")
			side := s.put(".csv", "a,b\n")
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
			p := b.Start("uploader", "send")
			if c.trouble == "" {
				s.wait(spool.Sent, 1)
				p.Stop()
				server.wantOnce(t, side)
				return
			}
			st := states.State("a failed attempt", func(st msg.State) bool { return st.Counters["failed_attempts"] >= 1 && st.Trouble != "" })
			if !strings.Contains(st.Trouble, c.trouble) || len(server.requests(http.MethodPut)) > 0 {
				t.Errorf("trouble %q, %d requests; want %q, and none", st.Trouble, len(server.requests(http.MethodPut)), c.trouble)
			}
			p.Stop()
		})
	}
}

// An upload by the proxy of the environment arrives, and a stall on that way is noticed as on any other.
func TestProxy(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(*boxtest.Proxy, net.Conn){"http": boxtest.ServeConnect, "socks5": boxtest.ServeSOCKS} {
		server := newShelf(t)
		line := badline.New(t, strings.TrimPrefix(server.URL, "https://"))
		line.Toxic(`{"name": "t", "type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`)
		proxy := boxtest.NewProxy(t, line.Listen, serve)
		// The certificate of the test's server is for example.com.
		b := boxtest.New(t, fleet(fmt.Sprintf("to = \"https://example.com/box\"\nca_file = %q\nstall_after = \"1s\"\nretry_most = \"1s\"", server.ca)))
		s := newShop(t, b.Dir+"/store")
		side := s.put(".mp4", noise(1<<20))
		states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
		p := b.StartEnv([]string{"HTTPS_PROXY=" + name + "://" + proxy.Addr().String()}, "uploader", "--topology", b.Topology, "--name", "send")
		states.State("a stall noticed", func(st msg.State) bool { return strings.Contains(st.Trouble, "nothing has moved for 1s") })
		line.Cure()
		s.wait(spool.Sent, 1)
		p.Stop()
		server.wantOnce(t, side)
		if asked := proxy.Asked(); len(asked) == 0 || asked[0] != "example.com:443" {
			t.Errorf("%s proxy asked for %q; want example.com:443", name, asked)
		}
	}
}
