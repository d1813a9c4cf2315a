package sink

import (
	"crypto/x509"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/uplink"
)

// All kinds go by the proxy of the environment, plain ones as well: the proxy is asked for the receiver
// by its name.
func TestSinksByProxy(t *testing.T) {
	ca := boxtest.NewAuthority(t)
	cert := &x509.Certificate{DNSNames: []string{"collect.example.org"}}
	secure := certified(t, ca, cert)
	web, socket := httptest.NewUnstartedServer(newCollector(t, nil)), httptest.NewUnstartedServer(newSockets(t, nil))
	for _, s := range []*httptest.Server{web, socket} {
		s.TLS = secure.Clone()
		s.StartTLS()
		t.Cleanup(s.Close)
	}
	plain, private := newLines(t, "tcp", "127.0.0.1:0", nil, answerID(t)), newLines(t, "tcp", "127.0.0.1:0", secure, answerID(t))
	for _, c := range []struct{ to, at string }{
		{"https://collect.example.org:7001/in", web.Listener.Addr().String()},
		{"wss://collect.example.org:7002/in", socket.Listener.Addr().String()},
		{"tcp://collect.example.org:7003", plain.Addr().String()},
		{"tls://collect.example.org:7004", private.Addr().String()},
	} {
		proxy := boxtest.NewProxy(t, c.at, boxtest.ServeConnect)
		t.Setenv("HTTPS_PROXY", "http://"+proxy.Addr().String())
		o := options(t, c.to, forever)
		o.Ack, o.TLS = strings.HasPrefix(c.to, "t"), trust(ca)
		o.Dial = uplink.New(uplink.Settings{Stall: forever}).Dial
		s := open(t, o)
		wantAcknowledged(t, s, items(t, 3))
		if diff := cmp.Diff([]string{o.To.Host}, proxy.Asked()); diff != "" {
			t.Errorf("%s: asked of the proxy (-want +got):\n%s", c.to, diff)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A proxy that does not let us is told in words.
func TestProxyThatRefusesASink(t *testing.T) {
	proxy := boxtest.NewProxy(t, "", boxtest.ServeConnect)
	proxy.User = "box:geheim"
	t.Setenv("HTTPS_PROXY", "http://box:falsch@"+proxy.Addr().String())
	for _, to := range []string{"https://collect.example.org/in", "wss://collect.example.org/in", "tls://collect.example.org:7000"} {
		o := options(t, to, forever)
		o.TLS = trust(boxtest.NewAuthority(t))
		o.Dial = uplink.New(uplink.Settings{Stall: forever}).Dial
		err := wantUnknown(t, open(t, o), items(t, 1), "the proxy wants a name and a password")
		if strings.Contains(err.Error(), "falsch") {
			t.Errorf("Deliver() = %v; want no password in it", err)
		}
	}
}
