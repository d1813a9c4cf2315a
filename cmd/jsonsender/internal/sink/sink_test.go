package sink

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/uplink"
)

func TestMain(m *testing.M) {
	const toxi = "github.com/Shopify/toxiproxy/v2" // which leaves goroutines behind when a line is cut
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(toxi+"/toxics.(*ToxicStub).Run"), goleak.IgnoreAnyFunction(toxi+".(*ToxicLink).read"),
		goleak.IgnoreAnyFunction(toxi+".(*ToxicLink).write"), goleak.IgnoreAnyFunction(toxi+".(*ToxicCollection).StartLink"))
}

// item is a reading as it goes out.
func item(t testing.TB, seq int) Item {
	t.Helper()
	text := fmt.Sprintf(`{"v":1,"kind":"reading","node":"airpi-01","source":"air","stream":"environment","epoch":"000283baec0033c3",`+
		`"boot_id":"5f0c8f2e","seq":%d,"time":"2026-05-17T09:41:07.250000000Z","boot_ns":43223250000000,"synced":true,`+
		`"columns":["temperature_c"],"values":[21.5]}`, seq)
	r, err := record.Parse("reading/air/environment", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Item{Record: &r, Body: []byte(text)}
}

func items(t testing.TB, n int) []Item {
	t.Helper()
	list := make([]Item, n)
	for i := range list {
		list[i] = item(t, i)
	}
	return list
}

func idOf(seq int) string { return fmt.Sprintf("airpi-01/air/environment/000283baec0033c3/%d", seq) }

// counts are a worker's counters.
type counts struct {
	mu sync.Mutex
	n  map[string]uint64
}

func (c *counts) add(name string, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]uint64{}
	}
	c.n[name] += n
}

func (c *counts) get(name string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[name]
}

// options are those of a sink for a receiver of the test. Stall is long: where it decides, a test
// gives a short one.
func options(t testing.TB, to string, stall time.Duration) Options {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return Options{To: u, Node: "airpi-01", Worker: "send", Stall: stall, Records: 500, Bytes: 1 << 20, Log: slog.New(slog.DiscardHandler),
		Batch: format.Batch{MediaType: "application/json", Open: "[", Separator: ",", Close: "]"},
		Dial:  uplink.New(uplink.Settings{Stall: stall}).Dial}
}

// forever is a stall that no test waits for.
const forever = time.Minute

// open makes a sink, which is closed at the test's end.
func open(t testing.TB, o Options) Sink {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// states counts the results of each state.
func states(results []Result) (unknown, acknowledged, refused int) {
	for _, r := range results {
		switch r.State {
		case Unknown:
			unknown++
		case Acknowledged:
			acknowledged++
		case Refused:
			refused++
		}
	}
	return unknown, acknowledged, refused
}

func wantAcknowledged(t testing.TB, s Sink, list []Item) {
	t.Helper()
	results, err := s.Deliver(t.Context(), list)
	if _, n, _ := states(results); err != nil || n != len(list) {
		t.Fatalf("Deliver(%d items) = %d acknowledged, %v; want all", len(list), n, err)
	}
}

// wantUnknown delivers items of which none is acknowledged, and returns the error.
func wantUnknown(t testing.TB, s Sink, list []Item, words string) error {
	t.Helper()
	results, err := s.Deliver(t.Context(), list)
	if n, _, _ := states(results); err == nil || n != len(list) || !strings.Contains(err.Error(), words) {
		t.Fatalf("Deliver(%d items) = %d unknown, %v; want all, and %q", len(list), n, err, words)
	}
	return err
}

// wantOurs wants an error for which a person has to act.
func wantOurs(t testing.TB, err error) {
	t.Helper()
	if p := (*Problem)(nil); !errors.As(err, &p) || !p.Ours {
		t.Errorf("error %v; want one for which a person has to act", err)
	}
}

// trust is the TLS of a box that trusts an authority.
func trust(ca *boxtest.Authority) func() (*tls.Config, error) {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return func() (*tls.Config, error) { return &tls.Config{RootCAs: pool}, nil }
}

// certified is the TLS of a receiver on this machine.
func certified(t testing.TB, ca *boxtest.Authority, c *x509.Certificate) *tls.Config {
	t.Helper()
	der, key := ca.Sign(t, c)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func here() *x509.Certificate {
	return &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
}

func retryAfterOf(err error) time.Duration {
	if p := (*Problem)(nil); errors.As(err, &p) {
		return p.RetryAfter
	}
	return 0
}
