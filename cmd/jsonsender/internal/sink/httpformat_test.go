package sink

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
)

func TestAuthorize(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "Bearer secret"},
		{Options{User: "u"}, "Basic dTpzZWNyZXQ="},
		{Options{Batch: format.Batch{BareToken: true}}, "secret"},
	} {
		c.o.Token = func() (string, error) { return "secret", nil }
		req, err := http.NewRequest(http.MethodPost, "https://receiver.example/", nil)
		if err == nil {
			err = authorize(req, &c.o)
		}
		if got := req.Header.Get("Authorization"); err != nil || got != c.want {
			t.Errorf("authorize(%+v) = %q, %v; want %q", c.o, got, err, c.want)
		}
	}
}

// With batch_records = 1 a request is one event, which receivers without batches take.
func TestOneEventARequest(t *testing.T) {
	for _, c := range []struct {
		records     int
		media, body string
	}{
		{1, "application/cloudevents+json; charset=utf-8", `{"specversion":`},
		{2, "application/cloudevents-batch+json; charset=utf-8", `[{"specversion":`},
	} {
		got := make(chan [2]string, 9)
		receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			raw, _ := io.ReadAll(r.Body) // what is cut off is missed below
			got <- [2]string{r.Header.Get("Content-Type"), string(raw)}
		}))
		defer receiver.Close()
		f, err := format.New("cloudevents", format.Options{})
		if err != nil {
			t.Fatal(err)
		}
		o := Options{To: mustURL(t, receiver.URL), Batch: f.Batch(), Records: c.records, Dial: new(net.Dialer).DialContext, Stall: 10 * time.Second}
		s, err := openHTTP(o)
		if err != nil {
			t.Fatal(err)
		}
		r := oneRecord(t)
		text, err := f.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		results, err := s.Deliver(t.Context(), []Item{{Record: r, Body: text}})
		if err != nil || results[0].State != Acknowledged {
			t.Fatalf("Deliver() = %v, %v; want it acknowledged", results, err)
		}
		if it := <-got; s.Close() != nil || it[0] != c.media || !strings.HasPrefix(it[1], c.body) {
			t.Errorf("with %d records a request, it got %s: %.30s; want %s: %s", c.records, it[0], it[1], c.media, c.body)
		}
	}
}

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func oneRecord(t *testing.T) *record.Record {
	t.Helper()
	r, err := record.Parse("reading/air/environment", []byte(`{"v":1,"kind":"reading","node":"airpi-01","source":"air","stream":"environment",`+
		`"epoch":"000283baec0033c3","boot_id":"b","seq":0,"time":"2026-05-17T09:41:07.250000000Z","boot_ns":0,"synced":true,"columns":["a"],"values":[1]}`))
	if err != nil {
		t.Fatal(err)
	}
	return &r
}
