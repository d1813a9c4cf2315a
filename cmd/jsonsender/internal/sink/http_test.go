package sink

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
)

// post is a request that a collector got.
type post struct {
	header http.Header
	seqs   []int
	size   int // of the body as it came
}

// collector is a receiver of batches.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	be    func(w http.ResponseWriter, p post) // nil: 204
	posts []post
}

func newCollector(t testing.TB, be func(http.ResponseWriter, post)) *collector {
	t.Helper()
	c := &collector{be: be}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

// ServeHTTP keeps what comes, and answers.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return // who sent it is gone
	}
	p := post{header: r.Header, size: len(raw)}
	text := raw
	if r.Header.Get("Content-Encoding") == "gzip" {
		text = unzip(raw)
	}
	var batch []struct{ Seq int }
	if err := json.Unmarshal(text, &batch); err != nil || r.Method != http.MethodPost {
		http.Error(w, "want POST of a JSON array", http.StatusTeapot)
		return
	}
	for _, b := range batch {
		p.seqs = append(p.seqs, b.Seq)
	}
	c.mu.Lock()
	c.posts = append(c.posts, p)
	be := c.be
	c.mu.Unlock()
	if be == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	be(w, p)
}

func unzip(raw []byte) []byte {
	z, err := gzip.NewReader(strings.NewReader(string(raw)))
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil
	}
	return text
}

func (c *collector) got() []post {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.posts)
}

func (c *collector) become(be func(http.ResponseWriter, post)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.be = be
}

func answerWith(status int, header map[string]string, text string) func(http.ResponseWriter, post) {
	return func(w http.ResponseWriter, _ post) {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		if status != http.StatusNoContent {
			_, _ = io.WriteString(w, text) // who asked may be gone
		}
	}
}

func html() map[string]string { return map[string]string{"Content-Type": "text/html; charset=utf-8"} }

func TestBatches(t *testing.T) {
	t.Parallel()
	for _, zipped := range []bool{false, true} {
		c := newCollector(t, nil)
		o := options(t, c.URL+"/in?box=1", forever)
		o.Gzip, o.Records = zipped, 40
		o.Token = func() (string, error) { return "t0k3n", nil }
		o.Batch.Header = map[string]string{"X-Pin": "11"}
		wantAcknowledged(t, open(t, o), items(t, 100))
		posts := c.got()
		if len(posts) != 3 {
			t.Fatalf("%d requests; want 3 of at most 40 records", len(posts))
		}
		next := 0
		for _, p := range posts {
			for _, seq := range p.seqs {
				if seq != next {
					t.Fatalf("record %d after %d; want them in order", seq, next-1)
				}
				next++
			}
			got := []string{p.header.Get("Content-Type"), p.header.Get("Authorization"), p.header.Get("X-Pin"), p.header.Get("Content-Encoding"), p.header.Get("User-Agent")[:6]}
			want := []string{"application/json", "Bearer t0k3n", "11", map[bool]string{true: "gzip"}[zipped], "perch/"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		}
		if zipped && posts[0].size > 5000 {
			t.Errorf("40 records are %d bytes compressed; want less", posts[0].size)
		}
	}
}

// What an answer means: whether the records are delivered, who has to act, and in which words.
func TestHTTPAnswers(t *testing.T) {
	t.Parallel()
	page := "<!DOCTYPE html><html><body>Welcome to the café. Please log in.</body></html>"
	for _, c := range []struct {
		status int
		header map[string]string
		text   string
		want   State
		ours   bool
		after  time.Duration
		words  string
	}{
		{200, nil, "", Acknowledged, false, 0, ""},
		{200, nil, "ok", Acknowledged, false, 0, ""},
		{200, html(), "ok", Acknowledged, false, 0, ""}, // Flask and PHP label all texts as HTML
		{200, map[string]string{"Content-Type": "application/json"}, `{"ok":true}`, Acknowledged, false, 0, ""},
		{200, nil, strings.Repeat("ok", 1<<20), Acknowledged, false, 0, ""},
		{201, nil, "", Acknowledged, false, 0, ""}, {202, nil, "", Acknowledged, false, 0, ""}, {204, nil, "", Acknowledged, false, 0, ""},
		{200, html(), page, Unknown, true, 0, "web page"},
		{200, map[string]string{"Content-Type": "text/plain"}, "\n " + page, Unknown, true, 0, "captive portal"},
		{203, nil, "ok", Unknown, true, 0, "does not acknowledge"}, {207, nil, "ok", Unknown, true, 0, "want 200, 201, 202 or 204"},
		{302, map[string]string{"Location": "http://portal.example.org/login"}, "", Unknown, true, 0, "portal.example.org"},
		{308, map[string]string{"Location": "/elsewhere"}, "", Unknown, true, 0, "/elsewhere"},
		{304, nil, "", Unknown, true, 0, "redirects"},
		{401, nil, "token expired", Unknown, true, 0, "token expired"}, {403, nil, "", Unknown, true, 0, "look at token_file"},
		{404, html(), page, Unknown, true, 0, "look at the address"}, {405, nil, "", Unknown, true, 0, "405"}, {407, nil, "", Unknown, true, 0, "407"},
		{410, nil, "", Unknown, true, 0, "410"}, {421, nil, "", Unknown, true, 0, "421"},
		{408, nil, "", Unknown, false, 0, "408"}, {423, nil, "", Unknown, false, 0, "423"}, {425, nil, "", Unknown, false, 0, "425"},
		{429, map[string]string{"Retry-After": "7"}, "slow down", Unknown, false, 7 * time.Second, "slow down"},
		{429, map[string]string{"Retry-After": "99999999"}, "", Unknown, false, time.Hour, "429"},
		{503, map[string]string{"Retry-After": "Sun, 17 May 2026 09:01:30 GMT", "Date": "Sun, 17 May 2026 09:01:00 GMT"}, "", Unknown, false, 30 * time.Second, "503"},
		{500, nil, "database is locked", Unknown, false, 0, "database is locked"}, {502, html(), page, Unknown, false, 0, "502 Bad Gateway"}, {504, nil, "", Unknown, false, 0, "504"},
		{400, nil, "no such\nsensor", Refused, false, 0, `answers 400 Bad Request: "no such sensor"`}, {409, nil, "", Refused, false, 0, "409"},
		{413, nil, "", Refused, false, 0, "413"}, {422, map[string]string{"Content-Type": "application/json"}, `{"error":"unit"}`, Refused, false, 0, "unit"},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			t.Parallel()
			server := newCollector(t, answerWith(c.status, c.header, c.text))
			s := open(t, options(t, server.URL, forever))
			results, err := s.Deliver(t.Context(), items(t, 1))
			p := &Problem{}
			errors.As(err, &p)
			words := results[0].Reason
			if err != nil {
				words = err.Error()
			}
			if results[0].State != c.want || (err != nil) != (c.want == Unknown) || p.Ours != c.ours || p.RetryAfter != c.after || !strings.Contains(words, c.words) {
				t.Errorf("Deliver() with answer %d %v = %v, %v (%+v); want %v, ours %v, after %s, %q", c.status, c.header, results, err, p, c.want, c.ours, c.after, c.words)
			}
			if len(words) > 600 || strings.Contains(words, "<") {
				t.Errorf("words %q; want few, and no page", words)
			}
		})
	}
}

// refusing refuses batches that hold one of these records.
func refusing(poison ...int) func(http.ResponseWriter, post) {
	return func(w http.ResponseWriter, p post) {
		for _, seq := range p.seqs {
			if slices.Contains(poison, seq) {
				http.Error(w, fmt.Sprintf("record %d is wrong", seq), http.StatusUnprocessableEntity)
				return
			}
		}
		w.WriteHeader(http.StatusOK)
	}
}

// Single records that a receiver refuses are found, and the others arrive once.
func TestPoisonIsFound(t *testing.T) {
	t.Parallel()
	for _, poison := range [][]int{{0}, {99}, {17, 18, 63}} {
		for _, zipped := range []bool{false, true} {
			c := newCollector(t, refusing(poison...))
			o := options(t, c.URL, forever)
			o.Gzip = zipped
			s := open(t, o)
			results, err := s.Deliver(t.Context(), items(t, 100))
			if err != nil {
				t.Fatalf("Deliver() with poison %v = %v", poison, err)
			}
			for i, r := range results {
				want := Result{State: Acknowledged}
				if slices.Contains(poison, i) {
					want = Result{Refused, fmt.Sprintf(`answers 422 Unprocessable Entity: "record %d is wrong"`, i)}
				}
				if r != want {
					t.Errorf("result of record %d = %v; want %v", i, r, want)
				}
			}
			if n := len(c.got()); n > 60 {
				t.Errorf("%d requests for %d bad records of 100; want few", n, len(poison))
			}
		}
	}
}

// A receiver that refuses everything is not asked about every record.
func TestReceiverThatRefusesAll(t *testing.T) {
	t.Parallel()
	c := newCollector(t, answerWith(http.StatusBadRequest, nil, "want XML"))
	o := options(t, c.URL, forever)
	o.Gzip = true
	results, err := open(t, o).Deliver(t.Context(), items(t, 500))
	wantOurs(t, err)
	if u, _, f := states(results); u != 495 || f != 5 || !strings.Contains(err.Error(), "want XML") || len(c.got()) > 50 {
		t.Errorf("Deliver() = %d unknown, %d refused, %v after %d requests; want 495, 5, the answer's text, and few", u, f, err, len(c.got()))
	}
}

// A body that is too large is halved, and the size that was taken is remembered.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	c := newCollector(t, func(w http.ResponseWriter, p post) {
		if p.size > 8000 {
			http.Error(w, "", http.StatusRequestEntityTooLarge)
		}
	})
	s := open(t, options(t, c.URL, forever))
	wantAcknowledged(t, s, items(t, 200))
	before := len(c.got())
	wantAcknowledged(t, s, items(t, 200))
	for _, p := range c.got()[before:] {
		if p.size > 8000 {
			t.Errorf("a body of %d bytes after 413 at 8000; want that remembered", p.size)
		}
	}
}

// A receiver that does not read gzip gets plain bodies.
func TestGzipIsNotTaken(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnsupportedMediaType, http.StatusBadRequest} {
		c := newCollector(t, func(w http.ResponseWriter, p post) {
			if p.header.Get("Content-Encoding") != "" {
				http.Error(w, "what is this?", status)
			}
		})
		o := options(t, c.URL, forever)
		o.Gzip = true
		s := open(t, o)
		wantAcknowledged(t, s, items(t, 10))
		wantAcknowledged(t, s, items(t, 10))
		posts := c.got()
		if len(posts) != 3 || posts[0].header.Get("Idempotency-Key") != posts[1].header.Get("Idempotency-Key") {
			t.Errorf("%d requests after %d; want 3, the first two under one key", len(posts), status)
		}
	}
}

// The same records have the same key, in each attempt; others have another.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	c := newCollector(t, answerWith(http.StatusInternalServerError, nil, ""))
	s := open(t, options(t, c.URL, forever))
	wantUnknown(t, s, items(t, 3), "500")
	c.become(nil)
	wantAcknowledged(t, s, items(t, 3))
	wantAcknowledged(t, s, items(t, 4))
	var keys []string
	for _, p := range c.got() {
		keys = append(keys, p.header.Get("Idempotency-Key"))
	}
	if len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[1] == keys[2] {
		t.Errorf("keys %q; want the first two alike, and the third another", keys)
	}
}

// A token that is exchanged is used at once, and none is repeated.
func TestTokenIsReadForEachUse(t *testing.T) {
	t.Parallel()
	c := newCollector(t, func(w http.ResponseWriter, p post) {
		if got := p.header.Get("Authorization"); got != "Bearer new-secret" {
			http.Error(w, "what is "+got+"?", http.StatusUnauthorized)
		}
	})
	var token string
	var tokenErr error
	o := options(t, c.URL, forever)
	o.Token = func() (string, error) { return token, tokenErr }
	s := open(t, o)
	token = "old-secret"
	err := wantUnknown(t, s, items(t, 1), "401")
	wantOurs(t, err)
	if strings.Contains(err.Error(), "old-secret") {
		t.Errorf("Deliver() = %v; want no token in it", err)
	}
	token = "new-secret"
	wantAcknowledged(t, s, items(t, 1))
	tokenErr = errors.New("it has mode 0644")
	wantOurs(t, wantUnknown(t, s, items(t, 1), "token_file: it has mode 0644"))
}

func TestPassword(t *testing.T) {
	t.Parallel()
	c := newCollector(t, func(w http.ResponseWriter, p post) {
		if user, password, _ := (&http.Request{Header: p.header}).BasicAuth(); user != "box" || password != "pass" {
			http.Error(w, "not "+password, http.StatusBadRequest)
		}
	})
	o := options(t, c.URL, forever)
	o.User, o.Token = "box", func() (string, error) { return "pass", nil }
	wantAcknowledged(t, open(t, o), items(t, 1))
	o.Token = func() (string, error) { return "pa55word", nil }
	results, err := open(t, o).Deliver(t.Context(), items(t, 1))
	if err != nil || results[0].State != Refused || strings.Contains(results[0].Reason, "pa55word") {
		t.Errorf("Deliver() = %v, %v; want a refusal that does not repeat the password", results, err)
	}
}

// An answer before the whole body is none, whatever it says.
func TestAnswerBeforeTheBody(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1000)) // the rest of it stays
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}()
	big := items(t, 1)
	big[0].Body = []byte(`"` + strings.Repeat("x", 32<<20) + `"`)
	wantUnknown(t, open(t, options(t, "http://"+l.Addr().String(), 500*time.Millisecond)), big, "")
}

// A server that closes idle connections, and one that restarts, cost no delivery.
func TestConnectionIsClosedBetween(t *testing.T) {
	t.Parallel()
	c := newCollector(t, nil)
	s := open(t, options(t, c.URL, forever))
	for range 20 {
		wantAcknowledged(t, s, items(t, 3))
		c.CloseClientConnections()
	}
}

// Certificates that are not the receiver's get nothing.
func TestHTTPSIsVerified(t *testing.T) {
	t.Parallel()
	ca, stranger := boxtest.NewAuthority(t), boxtest.NewAuthority(t)
	c := newCollector(t, nil)
	secure := httptest.NewUnstartedServer(c)
	secure.TLS = certified(t, ca, here())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	o := options(t, secure.URL, forever)
	o.TLS = trust(ca)
	wantAcknowledged(t, open(t, o), items(t, 1))
	o.TLS = trust(stranger)
	wantUnknown(t, open(t, o), items(t, 1), "give its certificate as ca_file")
	o.To.Scheme = "http"
	results, err := open(t, o).Deliver(t.Context(), items(t, 1))
	for tries := 1; err != nil && tries < 20; tries++ { // the server's reset may overtake its words
		results, err = open(t, o).Deliver(t.Context(), items(t, 1))
	}
	if results[0].State != Refused || !strings.Contains(results[0].Reason, "HTTPS server") || err != nil {
		t.Errorf("plain to a TLS port = %v, %v; want the receiver's words", results, err)
	}
	plain := options(t, strings.Replace(c.URL, "http:", "https:", 1), forever)
	wantUnknown(t, open(t, plain), items(t, 1), "that port does not speak TLS")
	if n := len(c.got()); n != 1 {
		t.Errorf("%d requests; want the good one alone", n)
	}
}
