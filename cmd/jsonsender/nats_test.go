package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/boxtest/badline"
)

// startStream runs a NATS server with a stream whose de-duplication window is too short to help.
func startStream(t *testing.T) (address string, stream jetstream.Stream) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(boxtest.Limit) {
		t.Fatal("the NATS server does not start")
	}
	address = fmt.Sprintf("127.0.0.1:%d", srv.Addr().(*net.TCPAddr).Port)
	nc, err := nats.Connect("nats://" + address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err == nil {
		stream, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "PERCH", Subjects: []string{"perch.>"}, AllowDirect: true,
			Storage: jetstream.MemoryStorage, Duplicates: 100 * time.Millisecond})
	}
	if err != nil {
		t.Fatal(err)
	}
	return address, stream
}

// stored is how many messages a stream has.
func stored(t *testing.T, s jetstream.Stream) int {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return int(info.State.Msgs)
}

// storedIDs are the ids in a stream, in its order.
func storedIDs(t *testing.T, s jetstream.Stream) (list []string) {
	t.Helper()
	c, err := s.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := c.Fetch(stored(t, s), jetstream.FetchMaxWait(boxtest.Limit))
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		list = append(list, m.Headers().Get("Nats-Msg-Id"))
	}
	return list
}

// threeHours is how many readings come in three hours at 1 Hz.
const threeHours = 10_800

// Three hours of readings, most of them while the link is down, and the sender killed again and again,
// the line cut, reset and silent: the stream has each record once, in order.
func TestHoursOfflineToJetStream(t *testing.T) {
	t.Parallel()
	address, stream := startStream(t)
	line := badline.New(t, address)
	b := boxtest.New(t, fleet(home("nats://"+line.Listen, "stream = \"PERCH\"")))
	s := newSensorOf(t, b, []string{"temperature_c", "pressure_pa", "humidity_percent"}, threeHours+1)
	line.Toxic(`{"name": "t", "type": "reset_peer", "stream": "upstream", "attributes": {"timeout": 0}}`)
	n, faults, program := kills(), breaks(), built(t)
	for i := range n {
		if i == n/2 {
			line.Cure()
		}
		p := b.Start(program, "home")
		for s.n.Load() < uint64(threeHours*(i+1)/n) {
			s.rows(27)
			time.Sleep(time.Millisecond) // published at random moments of the sender's work
		}
		if i > n/2 && i%3 == 0 {
			line.Toxic(faults[i%len(faults)])
		}
		time.Sleep(rand.N(300 * time.Millisecond)) // what it is doing when it is killed is left to chance
		p.Kill()
		if i >= n/2 {
			line.Cure()
		}
	}
	p := b.Start(program, "home")
	boxtest.Poll(t, "all records to arrive", func() bool { return stored(t, stream) >= int(s.n.Load()) })
	wantSmall(t, p)
	p.Stop()
	ids := storedIDs(t, stream)
	counts := map[string]int{}
	for _, id := range ids {
		counts[id]++
	}
	wantOnce(t, counts, s)
	for i := range min(len(ids), int(s.n.Load())) {
		if ids[i] != s.id(i) {
			t.Fatalf("message %d of the stream = %s; want %s", i, ids[i], s.id(i))
		}
	}
}
