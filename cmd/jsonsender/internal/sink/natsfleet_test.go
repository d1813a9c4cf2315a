package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/topology"
)

// fleetDir is what users copy.
const fleetDir = "../../../../deploy/fleet"

// serverFile names the configuration of the server that the test binary is, when it is one.
const serverFile = "PERCH_TEST_NATS_SERVER"

// TestNATSServerProcess is a server of the cluster, in a process of its own, so that it can be killed.
func TestNATSServerProcess(t *testing.T) {
	file := os.Getenv(serverFile)
	if file == "" {
		t.Skip("a part of TestNATSFleet, not a test")
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
}

// fleet is the cluster of docs/FLEET.md, with its files, on ports of this machine.
type fleet struct {
	t       *testing.T
	dir     string
	ports   map[string]string // by host and port as in the files
	roots   *x509.CertPool
	servers [3]*exec.Cmd
	admin   jetstream.JetStream
	used    atomic.Int64 // CPU time of servers that have ended
}

// identity is an nkey.
type identity struct{ seed, public string }

func newIdentity(t *testing.T) (id identity) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := pair.Seed()
	id.seed = string(seed)
	id.public, _ = pair.PublicKey()
	return id
}

func startFleet(t *testing.T, list string, admin identity) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), ports: map[string]string{}, roots: x509.NewCertPool()}
	for i := 1; i <= 3; i++ {
		for _, port := range []string{"4222", "6222"} {
			f.ports[fmt.Sprintf("nats%d.example.org:%s", i, port)] = freePort(t)
		}
	}
	users := exec.Command(fleetDir + "/users")
	users.Stdin, users.Stderr = strings.NewReader(list), os.Stderr
	conf, err := users.Output()
	if err != nil {
		t.Fatal(err)
	}
	f.write("users.conf", string(conf))
	f.write("sys.conf", "users: [ { nkey: "+newIdentity(t).public+" } ]\n")
	ca := boxtest.NewAuthority(t)
	f.roots.AddCert(ca.Cert)
	caFile := boxtest.WritePEM(t, "CERTIFICATE", ca.Cert.Raw)
	cert, key := ca.SignFile(t, &x509.Certificate{IPAddresses: boxtest.Loopback(), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"nats1.example.org", "nats2.example.org", "nats3.example.org"}})
	text, err := os.ReadFile(fleetDir + "/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 3; i++ {
		own := fmt.Sprintf("nats%d.example.org:", i)
		here := string(text)
		for name, port := range f.ports {
			here = strings.ReplaceAll(here, name, "127.0.0.1:"+port)
		}
		replace := []string{"port: 4222", "listen: 127.0.0.1:" + f.ports[own+"4222"], "port: 6222", "listen: 127.0.0.1:" + f.ports[own+"6222"],
			"/etc/nats/server.pem", cert, "/etc/nats/server.key", key, "/etc/nats/ca.pem", caFile, "/var/lib/nats", fmt.Sprintf("%s/store%d", f.dir, i)}
		for old := range slices.Chunk(replace, 2) {
			if !strings.Contains(here, old[0]) {
				t.Fatalf("nats.conf has no %q; want it, to be replaced here", old[0])
			}
		}
		f.write(fmt.Sprintf("nats%d.conf", i), strings.NewReplacer(replace...).Replace(here)+fmt.Sprintf("\nlog_file: %q\n", f.dir+fmt.Sprintf("/nats%d.log", i)))
	}
	for i := range f.servers {
		f.start(i)
	}
	t.Cleanup(func() {
		for i := range f.servers {
			f.kill(i)
		}
	})
	f.connect(admin)
	return f
}

func (f *fleet) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (f *fleet) start(i int) {
	f.t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestNATSServerProcess$")
	name := fmt.Sprintf("nats%d", i+1)
	c.Env = append(os.Environ(), serverFile+"="+filepath.Join(f.dir, name+".conf"), "NATS_NAME="+name)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.servers[i] = c
}

func (f *fleet) kill(i int) {
	c := f.servers[i]
	if c == nil {
		return
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	f.used.Add(int64(c.ProcessState.UserTime() + c.ProcessState.SystemTime()))
	f.servers[i] = nil
}

// dial reaches the servers by the names that they have in the files.
func (f *fleet) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+f.ports[address])
}

func (f *fleet) connect(admin identity) {
	f.t.Helper()
	pair, err := nkeys.FromSeed([]byte(admin.seed))
	if err != nil {
		f.t.Fatal(err)
	}
	nc, err := nats.Connect("nats://nats1.example.org:4222,nats2.example.org:4222,nats3.example.org:4222", nats.Nkey(admin.public, pair.Sign),
		nats.Secure(&tls.Config{RootCAs: f.roots}), nats.SkipHostLookup(), nats.IgnoreDiscoveredServers(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.RetryOnFailedConnect(true),
		nats.SetCustomDialer(natsDial(func(network, address string) (net.Conn, error) { return f.dial(context.Background(), network, address) })))
	if err == nil {
		f.admin, err = jetstream.New(nc)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
}

// stream makes the stream of the file, as soon as the servers are ready.
func (f *fleet) stream() (stream jetstream.Stream) {
	f.t.Helper()
	text, err := os.ReadFile(fleetDir + "/stream.json")
	var cfg jetstream.StreamConfig
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		err = d.Decode(&cfg)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	var last error
	defer func() {
		if stream == nil {
			f.t.Logf("last error: %v; logs in %s", last, f.dir)
		}
	}()
	for deadline := time.Now().Add(time.Minute); stream == nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("the cluster makes no stream within a minute: %v", last)
		}
		ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
		stream, last = f.admin.CreateStream(ctx, cfg)
		cancel()
	}
	return stream
}

// leader is the server that leads the stream.
func (f *fleet) leader(stream jetstream.Stream) int {
	f.t.Helper()
	led := ""
	until(f.t, "a leader of the stream", func() bool {
		info, err := stream.Info(f.t.Context())
		if err == nil && info.Cluster != nil {
			led = info.Cluster.Leader
		}
		return led != ""
	})
	return int(led[len("nats")] - '1')
}

// fakeBox has a sensor, a queue instead of a disk, and the real sink.
type fakeBox struct {
	node  string
	sink  Sink
	down  atomic.Bool // its line
	cable cable

	mu    sync.Mutex
	queue []Item
	made  []string
	born  map[string]time.Time
	delay []time.Duration // of each reading that was acknowledged
	fails map[string]int  // errors, with how often
}

func (f *fleet) box(i int, id identity, stall time.Duration) *fakeBox {
	f.t.Helper()
	b := &fakeBox{node: fmt.Sprintf("box-%d", i), born: map[string]time.Time{}, fails: map[string]int{}}
	to, err := url.Parse("nats://nats1.example.org,nats2.example.org,nats3.example.org")
	if err != nil {
		f.t.Fatal(err)
	}
	b.sink, err = New(Options{To: to, Node: b.node, Worker: "fleet", Prefix: "perch", Stream: "PERCH", Stall: stall, Records: 500, Bytes: 1 << 20,
		Token: secret(id.seed + "\n"), TLS: func() (*tls.Config, error) { return &tls.Config{RootCAs: f.roots}, nil },
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if b.down.Load() {
				return nil, errors.New("the line is down")
			}
			conn, err := f.dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			b.cable.mu.Lock()
			defer b.cable.mu.Unlock()
			s := &strand{conn, make(chan struct{}), make(chan struct{})}
			b.cable.conns = append(b.cable.conns, s)
			return s, nil
		}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = b.sink.Close() })
	return b
}

// measure makes a reading every interval until the end.
func (b *fakeBox) measure(t testing.TB, every time.Duration, end <-chan struct{}) {
	time.Sleep(time.Duration(rand.Int64N(int64(every)))) // boxes do not tick together
	tick := time.NewTicker(every)
	defer tick.Stop()
	for seq := 0; ; seq++ {
		item := reading(t, b.node, "environment", seq)
		b.mu.Lock()
		id := item.Record.ID()
		b.queue = append(b.queue, item)
		b.made = append(b.made, id)
		b.born[id] = time.Now()
		b.mu.Unlock()
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}

// send delivers until the queue is empty after the end.
func (b *fakeBox) send(ctx context.Context, end <-chan struct{}) {
	pause := backoff.Backoff{First: 200 * time.Millisecond, Most: 2 * time.Second, Full: true}
	for ctx.Err() == nil {
		b.mu.Lock()
		items := slices.Clone(b.queue[:min(len(b.queue), 500)])
		b.mu.Unlock()
		if len(items) == 0 {
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		results, err := b.sink.Deliver(ctx, items)
		b.take(items, results, err)
		if err != nil {
			time.Sleep(pause.Failed(0))
		} else {
			pause.Succeeded()
		}
	}
}

func (b *fakeBox) take(items []Item, results []Result, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.fails[err.Error()]++
	}
	var left []Item
	for i, r := range results {
		if r.State == Acknowledged {
			b.delay = append(b.delay, time.Since(b.born[items[i].Record.ID()]))
		} else {
			left = append(left, items[i])
		}
	}
	b.queue = append(left, b.queue[len(items):]...)
}

// Many boxes publish while the server that leads the stream is killed and comes back, and while lines
// break. At the end the stream has each record, and none twice.
func TestNATSFleet(t *testing.T) {
	t.Parallel()
	boxes, every, run := 20, 200*time.Millisecond, 6*time.Second
	if os.Getenv("PERCH_SOAK") != "" {
		boxes, every, run = 200, time.Second, 2*time.Minute
	}
	admin := newIdentity(t)
	list := "# test\nadmin " + admin.public + "\n"
	ids := make([]identity, boxes)
	for i := range ids {
		ids[i] = newIdentity(t)
		list += fmt.Sprintf("box box-%d fleet %s\n", i, ids[i].public)
	}
	f := startFleet(t, list, admin)
	stream := f.stream()
	ctx, cancel := context.WithTimeout(t.Context(), run+2*time.Minute)
	defer cancel()
	all := make([]*fakeBox, boxes)
	end := make(chan struct{})
	var work sync.WaitGroup
	begin, cpu := time.Now(), ownCPU()
	for i := range all {
		b := f.box(i, ids[i], 10*time.Second)
		all[i] = b
		work.Go(func() { b.measure(t, every, end) })
		work.Go(func() { b.send(ctx, end) })
	}
	time.Sleep(run / 6)
	for i := 0; i < boxes; i += 4 { // a quarter of the lines break, for half the run
		all[i].breakLine()
	}
	time.Sleep(run / 6)
	killed := f.leader(stream)
	f.kill(killed)
	time.Sleep(run / 3)
	for i := 0; i < boxes; i += 4 {
		all[i].down.Store(false)
	}
	f.start(killed)
	time.Sleep(run / 3)
	close(end)
	work.Wait()
	took := time.Since(begin)
	var made []string
	var delay [2][]time.Duration // of boxes with and without a broken line
	fails := map[string]int{}
	for i, b := range all {
		made = append(made, b.made...)
		group := &delay[min(i%4, 1)]
		*group = append(*group, b.delay...)
		for e, n := range b.fails {
			fails[e] += n
		}
	}
	got := natsIDs(t, stream)
	slices.Sort(made)
	slices.Sort(got)
	lost, twice := differ(made, got)
	t.Logf("%d boxes, %d readings in %.1f s (%.0f a second); CPU of the boxes %s", boxes, len(made), took.Seconds(), float64(len(made))/took.Seconds(), ownCPU()-cpu)
	for i, name := range []string{"a line that broke", "a good line"} {
		d := delay[i]
		slices.Sort(d)
		t.Logf("with %s acknowledged after p50 %s, p90 %s, p99 %s, most %s", name, d[len(d)/2], d[len(d)*9/10], d[len(d)*99/100], d[len(d)-1])
	}
	for i := range f.servers {
		f.kill(i)
	}
	t.Logf("CPU of the servers %s", time.Duration(f.used.Load()))
	for e, n := range fails {
		t.Logf("%d times: %s", n, e)
	}
	if len(lost) > 0 || len(twice) > 0 {
		t.Errorf("lost %q, there twice or not made %q; want none", lost, twice)
	}
}

func (b *fakeBox) breakLine() {
	b.down.Store(true)
	b.cable.mu.Lock()
	defer b.cable.mu.Unlock()
	for _, s := range b.cable.conns {
		_ = s.Close()
	}
}

// differ compares sorted lists.
func differ(want, got []string) (missing, surplus []string) {
	for len(want) > 0 || len(got) > 0 {
		switch {
		case len(got) == 0 || len(want) > 0 && want[0] < got[0]:
			missing, want = append(missing, want[0]), want[1:]
		case len(want) == 0 || got[0] < want[0]:
			surplus, got = append(surplus, got[0]), got[1:]
		default:
			want, got = want[1:], got[1:]
		}
	}
	return missing, surplus
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The topology of a box of the fleet is one that loads.
func TestFleetTopology(t *testing.T) {
	if _, err := topology.Load(fleetDir+"/box.toml", topology.Settings{}); err != nil {
		t.Errorf("Load(box.toml) = %v; want no problem", err)
	}
}
