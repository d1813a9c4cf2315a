package sink

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

const natsReady = 20 * time.Second // bounds waits of these tests

// natsServer is a NATS server with JetStream in this process.
type natsServer struct {
	*server.Server
	opts *server.Options
}

func startNATS(t *testing.T, change ...func(*server.Options)) *natsServer {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true}
	for _, c := range change {
		c(opts)
	}
	s := &natsServer{opts: opts}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *natsServer) start(t testing.TB) {
	t.Helper()
	var err error
	if s.Server, err = server.NewServer(s.opts.Clone()); err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(natsReady) {
		t.Fatal("the NATS server does not start")
	}
	s.opts.Port = s.Addr().(*net.TCPAddr).Port // the next start takes the same
}

func (s *natsServer) stop() {
	s.Shutdown()
	s.WaitForShutdown()
}

func (s *natsServer) address() string { return fmt.Sprintf("127.0.0.1:%d", s.opts.Port) }

// admin is a connection that may do everything.
func (s *natsServer) admin(t *testing.T, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect("nats://"+s.address(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func natsStream(t *testing.T, js jetstream.JetStream, change ...func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	cfg := jetstream.StreamConfig{Name: "PERCH", Subjects: []string{"perch.>"}, AllowDirect: true, Duplicates: 100 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	s, err := js.CreateStream(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// natsIDs are the ids in a stream, in its order.
func natsIDs(t *testing.T, s jetstream.Stream) (list []string) {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.Msgs == 0 {
		return nil
	}
	c, err := s.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := c.Fetch(int(info.State.Msgs), jetstream.FetchMaxWait(natsReady))
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		list = append(list, m.Headers().Get("Nats-Msg-Id"))
	}
	return list
}

// options are those of a sink of this test; its log goes to the buffer.
func natsOptions(t *testing.T, address string) (Options, *bytes.Buffer) {
	t.Helper()
	to, err := url.Parse("nats://" + address)
	if err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	return Options{To: to, Node: "box", Worker: "send", Prefix: "perch", Stall: natsReady, Records: 500, Bytes: 1 << 20,
		Log: slog.New(slog.NewTextHandler(log, nil))}, log
}

func newNATS(t *testing.T, o Options) Sink {
	t.Helper()
	s, err := NewNATS(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// readings are items first to last of a stream of the box.
func readings(t *testing.T, stream string, first, last int) (items []Item) {
	t.Helper()
	for seq := first; seq <= last; seq++ {
		items = append(items, reading(t, "box", stream, seq))
	}
	return items
}

func reading(t testing.TB, node, stream string, seq int) Item {
	t.Helper()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(seq) * time.Second)
	r := &msg.Reading{Header: msg.Header{Version: msg.Version, Kind: msg.KindReading, Node: node, Source: "air", Stream: msg.Stream(stream), Epoch: 1 << 40,
		BootID: "b0a7", Seq: msg.Seq(seq), Time: msg.Time{Time: at}, BootNS: int64(seq+1) * 1e9, Synced: true},
		Columns: []string{"temperature_c", "pressure_pa", "humidity_percent"}, Values: msg.Values{20.5, 100653.25, float64(seq)}}
	rec, err := record.Reduced(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Item{Record: &rec, Body: rec.Raw()}
}

func itemIDs(items []Item) (list []string) {
	for _, i := range items {
		list = append(list, i.Record.ID())
	}
	return list
}

// deliver wants all items acknowledged.
func deliver(t *testing.T, s Sink, items []Item) {
	t.Helper()
	results, err := s.Deliver(t.Context(), items)
	if err != nil || count(results, Acknowledged) != len(items) {
		t.Fatalf("Deliver(%d items) = %v, %v; want all acknowledged", len(items), results, err)
	}
}

func count(results []Result, state State) (n int) {
	for _, r := range results {
		if r.State == state {
			n++
		}
	}
	return n
}

func TestNATSDelivers(t *testing.T) {
	srv := startNATS(t)
	stream := natsStream(t, srv.admin(t))
	o, _ := natsOptions(t, srv.address())
	s := newNATS(t, o)
	items := append(readings(t, "a", 0, 599), readings(t, "b", 0, 4)...)
	deliver(t, s, items)
	if diff := cmp.Diff(itemIDs(items), natsIDs(t, stream)); diff != "" {
		t.Errorf("ids in the stream (-want +got):\n%s", diff)
	}
	last, err := stream.GetLastMsgForSubject(t.Context(), "perch.box.air.b")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(last.Data, items[604].Body) || last.Header.Get("Perch-Boot-Id") != "b0a7" {
		t.Errorf("last message = %s %v; want %s and its boot id", last.Data, last.Header, items[604].Body)
	}
}
