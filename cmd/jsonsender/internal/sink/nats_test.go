package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
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

// dialTo stands in for a name server.
func dialTo(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

// cable is the link between a sink and its servers. Deaf, nothing comes back through it; cut, it
// is gone. The next connection is whole again.
type cable struct {
	mu    sync.Mutex
	conns []*strand
}

type strand struct {
	net.Conn
	deaf, cut chan struct{}
}

func (c *cable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s := &strand{conn, make(chan struct{}), make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, s)
	return s, nil
}

func (s *strand) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	select {
	case <-s.deaf:
		<-s.cut
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *cable) last() *strand {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns[len(c.conns)-1]
}

func (c *cable) deafen() { close(c.last().deaf) }

func (c *cable) cut() {
	s := c.last()
	close(s.cut)
	_ = s.Close()
}

// until polls.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(natsReady); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", natsReady, what)
		}
	}
}

func natsHas(t *testing.T, s jetstream.Stream, messages uint64) {
	t.Helper()
	until(t, fmt.Sprintf("%d messages in the stream", messages), func() bool {
		info, err := s.Info(t.Context())
		return err == nil && info.State.Msgs >= messages
	})
}

// outlast waits until the stream has forgotten the ids that it has had so far.
func outlast(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	const subject, id = "perch.test.window.end", "the window is over"
	if _, err := js.Publish(t.Context(), subject, nil, jetstream.WithMsgID(id)); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of the de-duplication window", func() bool {
		ack, err := js.Publish(t.Context(), subject, nil, jetstream.WithMsgID(id))
		return err == nil && !ack.Duplicate
	})
}

// interrupt delivers items whose acknowledgements do not come back: the link is cut when the
// stream has them.
func interrupt(t *testing.T, s Sink, c *cable, stream jetstream.Stream, items []Item, messages uint64) {
	t.Helper()
	c.deafen()
	done := make(chan error, 1)
	go func() {
		results, err := s.Deliver(t.Context(), items)
		if n := count(results, Unknown); n != len(items) {
			err = fmt.Errorf("%d of %d items are unknown, %v", n, len(items), err)
		} else if err == nil {
			err = errors.New("no error")
		} else {
			err = nil
		}
		done <- err
	}()
	natsHas(t, stream, messages)
	c.cut()
	if err := <-done; err != nil {
		t.Fatalf("Deliver over a link that is cut: %v; want an error and all items unknown", err)
	}
}

func wantIDs(t *testing.T, stream jetstream.Stream, items []Item) {
	t.Helper()
	ids := slices.DeleteFunc(natsIDs(t, stream), func(id string) bool { return strings.HasPrefix(id, "the window") })
	want := itemIDs(items)
	slices.Sort(ids)
	slices.Sort(want)
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("ids in the stream (-want +got):\n%s", diff)
	}
}

// After a longer outage than the window the stream would take the records twice. Two of those
// whose acknowledgements were lost did not arrive, as when the stream's leader dies among them.
func TestNATSAsksWhatHasArrived(t *testing.T) {
	for _, name := range []string{"the link breaks", "and the process is killed", "and the server is restarted", "without direct get"} {
		t.Run(name, func(t *testing.T) {
			srv := startNATS(t)
			js := srv.admin(t, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
			stream := natsStream(t, js, func(c *jetstream.StreamConfig) { c.AllowDirect = name != "without direct get" })
			c := &cable{}
			o, log := natsOptions(t, srv.address())
			o.Dial = c.dial
			s := newNATS(t, o)
			first, items, other := readings(t, "a", 0, 199), readings(t, "a", 200, 219), readings(t, "b", 0, 9)
			deliver(t, s, slices.Concat(first, other))
			interrupt(t, s, c, stream, items, 230)
			lost := []uint64{211, 229}
			for _, seq := range lost {
				if err := stream.DeleteMsg(t.Context(), seq); err != nil {
					t.Fatal(err)
				}
			}
			outlast(t, js)
			switch name {
			case "and the process is killed":
				s = newNATS(t, o)
			case "and the server is restarted":
				srv.stop()
				srv.start(t)
				until(t, "the stream", func() bool { _, err := stream.Info(t.Context()); return err == nil })
			}
			// The later ones first: a backlog may wait while new records go out.
			deliver(t, s, readings(t, "a", 220, 229))
			deliver(t, s, items)
			wantIDs(t, stream, slices.Concat(first, other, readings(t, "a", 200, 229)))
			if log.Len() > 0 {
				t.Errorf("log = %s; want none", log)
			}
		})
	}
}

// What others than this sink put into the subject tells nothing; messages that the stream has
// dropped neither.
func TestNATSForeignMessages(t *testing.T) {
	srv := startNATS(t)
	js := srv.admin(t)
	stream := natsStream(t, js)
	o, _ := natsOptions(t, srv.address())
	items := readings(t, "a", 0, 9)
	deliver(t, newNATS(t, o), items[:5])
	if _, err := js.Publish(t.Context(), "perch.box.air.a", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	deliver(t, newNATS(t, o), items[5:])
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	outlast(t, js)
	deliver(t, newNATS(t, o), items)
	wantIDs(t, stream, items)
}

func TestNATSStalls(t *testing.T) {
	srv := startNATS(t)
	stream := natsStream(t, srv.admin(t))
	c := &cable{}
	o, _ := natsOptions(t, srv.address())
	o.Dial, o.Stall = c.dial, 500*time.Millisecond
	s := newNATS(t, o)
	deliver(t, s, readings(t, "a", 0, 0))
	c.deafen()
	results := problemOf(t, s, readings(t, "a", 1, 5), false, "no answer from")
	close(c.conns[0].cut)
	if count(results, Unknown) != 5 {
		t.Errorf("results = %v; want all unknown", results)
	}
	deliver(t, s, readings(t, "a", 1, 5))
	wantIDs(t, stream, readings(t, "a", 0, 5))
}

func TestNATSCloseEndsDeliver(t *testing.T) {
	srv := startNATS(t)
	stream := natsStream(t, srv.admin(t))
	c := &cable{}
	o, _ := natsOptions(t, srv.address())
	o.Dial = c.dial
	s := newNATS(t, o)
	deliver(t, s, readings(t, "a", 0, 0))
	c.deafen()
	done := make(chan error)
	go func() {
		_, err := s.Deliver(t.Context(), readings(t, "a", 1, 5))
		done <- err
	}()
	natsHas(t, stream, 6)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	close(c.conns[0].cut)
	if err := <-done; err == nil {
		t.Error("Deliver() = _, nil after Close; want an error")
	}
	if _, err := s.Deliver(t.Context(), readings(t, "a", 1, 5)); err == nil {
		t.Error("Deliver() = _, nil of a closed sink; want an error")
	}
}
