package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/boxtest/badline"
	"github.com/perch-edge/perch/pkg/msg"
)

// mute accepts connections, and reads one byte in that time; 0 reads none.
func mute(t *testing.T, each time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			if each == 0 {
				continue
			}
			go func() {
				for one := make([]byte, 1); ; time.Sleep(each) { // it is this slow
					if _, err := c.Read(one); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// answers is an HTTP server that answers everything so.
func answers(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL + "/in"
}

// What goes wrong out there is in the state in words that a person can act on; nothing is lost by it, and
// no other reader of the bus waits.
func TestBadDays(t *testing.T) {
	t.Parallel()
	portal := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(portal.Close)
	for name, day := range map[string]struct{ to, more, trouble string }{
		"no such name":      {"https://receiver.invalid/in", "", "receiver.invalid"},
		"other certificate": {portal.URL + "/in", "", "certificate"},
		"a login page": {answers(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>Welcome to the hotel</html>")
		}), "", "web page"},
		"led elsewhere": {answers(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://login.hotel/", http.StatusFound)
		}), "", "login.hotel"},
		"never answers":   {"tcp://" + mute(t, time.Millisecond), "ack = true\n", "nothing has moved"},
		"never reads":     {"http://" + mute(t, 0) + "/in", "", "nothing has moved"},
		"a byte a second": {"http://" + mute(t, time.Second) + "/in", "", "nothing has moved"},
		"refuses us":      {answers(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you", http.StatusUnauthorized) }), "", "token"},
		"is broken": {answers(t, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "database is down", http.StatusServiceUnavailable)
		}), "", "503"},
		"nobody there at all": {"tcp://" + away(t), "ack = true\n", "refuses the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(home(day.to, day.more)))
			s := newSensor(t, b)
			bus := b.Bus("watch")
			states := b.Follow(bus, []msg.Kind{msg.KindState}, "home")
			seen := b.Follow(bus, []msg.Kind{msg.KindReading}, "air")
			p := b.Start("jsonsender", "home")
			s.rows(1200) // more than RAM takes
			for range 1200 {
				seen.Next()
			}
			st := states.State("trouble with "+day.trouble, func(st msg.State) bool { return strings.Contains(st.Trouble, day.trouble) })
			t.Log(st.Trouble)
			states.State("all kept", func(st msg.State) bool { return st.Gauges["waiting_records"] == 1200 })
			p.Stop()
		})
	}
}

// A token that is changed while the sender runs is used without a restart.
func TestTokenIsRotated(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	var want atomic.Value
	want.Store("old")
	var taken atomic.Int64
	to := answers(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+want.Load().(string) {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		body, err := readBody(r)
		if err != nil {
			t.Error(err)
		}
		taken.Add(int64(strings.Count(string(body), `"seq"`)))
	})
	b := boxtest.New(t, fleet(home(to, fmt.Sprintf("token_file = %q\nbatch_age = \"10ms\"", file))))
	s := newSensor(t, b)
	p := b.Start("jsonsender", "home")
	s.rows(5)
	boxtest.Poll(t, "five records", func() bool { return taken.Load() == 5 })
	write("new")
	want.Store("new")
	s.rows(5)
	boxtest.Poll(t, "ten records", func() bool { return taken.Load() == 10 })
	p.Stop()
}

// A line of 64 kbit/s and 600 ms takes all, in time.
func TestThinLine(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	line := badline.New(t, to.at())
	line.Toxic(`{"name": "slow", "type": "bandwidth", "stream": "upstream", "attributes": {"rate": 8}}`)
	line.Toxic(`{"name": "far", "type": "latency", "stream": "downstream", "attributes": {"latency": 600}}`)
	b := boxtest.New(t, fleet(fmt.Sprintf("to = \"tcp://%s\"\nack = true\nstall_after = \"20s\"", line.Listen)))
	s := newSensor(t, b)
	p := b.Start("jsonsender", "home")
	s.rows(100)
	boxtest.Poll(t, "all records to arrive", func() bool { return to.len() == 100 })
	p.Stop()
	wantOnce(t, to.counts(), s)
	if arrivals, _ := to.count(); arrivals != 100 {
		t.Errorf("%d arrivals; want 100: a line that is slow is not broken", arrivals)
	}
}

// Mosquitto gets each record at least once at QoS 1, also when it is killed and stopped for a while; what
// was sent again is counted.
func TestMosquittoComesAndGoes(t *testing.T) {
	t.Parallel()
	m := boxtest.StartMosquitto(t, "max_queued_messages 0\nmax_inflight_messages 0")
	sub := m.Subscribe("#", "%p", "-q", "1")
	line := badline.New(t, m.Address)
	b := boxtest.New(t, fleet(home("mqtt://"+line.Listen, "batch_records = 50")))
	s := newSensor(t, b)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "home")
	p := b.Start("jsonsender", "home")
	stop := s.run()
	for _, text := range breaks() {
		s.more(100)
		line.Toxic(text)
		s.more(100)
		line.Cure()
	}
	stop()
	n := int(s.n.Load())
	count := func() (rows, arrivals int) {
		ids := map[string]bool{}
		for _, l := range sub.Lines() {
			if strings.Contains(l, `"kind":"reading"`) {
				ids[l] = true
				arrivals++
			}
		}
		return len(ids), arrivals
	}
	boxtest.Poll(t, "all records at the broker", func() bool { rows, _ := count(); return rows >= n })
	st := states.State("all acknowledged", func(st msg.State) bool { return int(st.Counters["acknowledged"]) >= n })
	p.Stop()
	rows, arrivals := count()
	if rows != n || int(st.Counters["sent_again"]) < arrivals-rows {
		t.Errorf("%d records arrived %d times, sent_again = %d; want %d, and at least the repeats", rows, arrivals, st.Counters["sent_again"], n)
	}
}
