package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/pkg/msg"
)

// store is a receiver that knows each batch by its Idempotency-Key, and fails now and then: before
// it takes a batch, or between that and its answer.
type store struct {
	t      *testing.T
	server *http.Server
	at     string

	mu      sync.Mutex
	keys    map[string]bool
	counts  map[string]int // by id
	repeats int            // batches that came again
	faulty  bool
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{t: t, keys: map[string]bool{}, counts: map[string]int{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.at = listener.Addr().String()
	s.serve(listener)
	t.Cleanup(s.close)
	return s
}

func (s *store) serve(listener net.Listener) {
	server := &http.Server{Handler: s}
	s.server = server
	go func() { _ = server.Serve(listener) }()
}

func (s *store) close() { _ = s.server.Close() }

// reopen lets it be reached again, at the same address.
func (s *store) reopen() {
	s.t.Helper()
	listener, err := net.Listen("tcp", s.at)
	if err != nil {
		s.t.Fatal(err)
	}
	s.serve(listener)
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var batch []msg.Header
	if err := json.Unmarshal(body, &batch); err != nil {
		s.t.Errorf("body %.200q: %v; want a list of records", body, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faulty && rand.IntN(4) == 0 {
		panic(http.ErrAbortHandler) // the connection is reset
	}
	key := r.Header.Get("Idempotency-Key")
	if s.keys[key] {
		s.repeats++
	} else {
		s.keys[key] = true
		for _, h := range batch {
			s.counts[h.Node+"/"+h.ID()]++
		}
	}
	if s.faulty && rand.IntN(4) == 0 {
		panic(http.ErrAbortHandler)
	}
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(r.Body)
	}
	unzip, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(unzip)
}

func (s *store) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.counts)
}

func (s *store) setFaulty(faulty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faulty = faulty
}

// A receiver that drops what comes again under the same key has each record exactly once, however
// often the sender is killed, the link cut and the receiver away.
func TestKilledWithAnIdempotentReceiver(t *testing.T) {
	t.Parallel()
	kills := 10
	if faultfs.Soak() > 0 {
		kills = 200
	}
	to := newStore(t)
	to.setFaulty(true)
	b := boxtest.New(t, fleet(fmt.Sprintf(`to = "http://%s/in"
gzip = true
batch_age = "20ms"
batch_records = 100
spool_after = "100ms"
spool_sync = "300ms"
retry_most = "1s"`, to.at)))
	s := newSensor(t, b)
	stop := s.run()
	away := false
	for range kills {
		p := b.Start("jsonsender", "home")
		s.more(rand.IntN(300))
		if away {
			to.reopen()
		} else if rand.IntN(3) == 0 {
			to.close()
			away = true
			s.more(rand.IntN(100))
			p.Kill()
			continue
		}
		away = false
		s.more(rand.IntN(100))
		p.Kill()
	}
	if away {
		to.reopen()
	}
	stop()
	to.setFaulty(false)
	p := b.Start("jsonsender", "home")
	boxtest.Poll(t, "all records to arrive", func() bool { return to.len() >= int(s.n.Load()) })
	p.Stop()
	wantOnce(t, to.counts, s)
	t.Logf("%d records, %d batches, %d of them repeated", s.n.Load(), len(to.keys), to.repeats)
}

// wantOnce wants each of the sensor's readings exactly once.
func wantOnce(t *testing.T, counts map[string]int, s *sensor) {
	t.Helper()
	n := int(s.n.Load())
	for i := range n {
		if got := counts[s.id(i)]; got != 1 {
			t.Errorf("record %d of %d came %d times; want once", i, n, got)
		}
	}
	if len(counts) != n {
		t.Errorf("%d records came; want %d", len(counts), n)
	}
}

// What waits when the sender is told to stop is on disk, and is sent by the next run.
func TestStoppedWhileTheReceiverIsAway(t *testing.T) {
	t.Parallel()
	to := newStore(t)
	to.close()
	b := boxtest.New(t, fleet(fmt.Sprintf("to = \"http://%s/in\"\ngzip = true\nretry_most = \"1s\"", to.at)))
	s := newSensor(t, b)
	p := b.Start("jsonsender", "home")
	p.Ready()
	s.rows(50)
	p.Stop()
	to.reopen()
	p = b.Start("jsonsender", "home")
	boxtest.Poll(t, "all records to arrive", func() bool { return to.len() == 50 })
	p.Stop()
	wantOnce(t, to.counts, s)
}
