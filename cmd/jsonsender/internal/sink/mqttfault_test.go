package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v5 "github.com/eclipse/paho.golang/packets"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/uplink"
)

const statusTopic = "perch/shed %232/status"

// wantOursWith wants an error that says that a person has to act.
func wantOursWith(t *testing.T, err error, words string) {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) || !p.Ours || !strings.Contains(err.Error(), words) {
		t.Errorf("Deliver() = %v; want a problem of ours with %q", err, words)
	}
}

func TestBrokerIsKilledBeforeItAcknowledges(t *testing.T) {
	t.Parallel()
	broker := boxtest.StartMosquitto(t, "")
	m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.Address))
	list := mqttItems(t, 10)
	deliverMQTT(t, m, list[:1])
	broker.Signal(syscall.SIGSTOP)
	ended := make(chan error, 1)
	go func() {
		results, err := m.Deliver(context.Background(), list)
		for i, r := range results {
			if r.State != Unknown {
				t.Errorf("item %d = %+v; want it unknown", i, r)
			}
		}
		ended <- err
	}()
	broker.Kill()
	if err := <-ended; err == nil {
		t.Error("Deliver() to a broker that was killed = nil; want an error")
	}
	broker.Start()
	sub := broker.Subscribe("perch/#", "%t %p")
	deliverMQTT(t, m, list)
	boxtest.Poll(t, "all messages", func() bool { return len(readingLines(sub)) == len(list) })
	wantRetained(t, broker, statusTopic, format.Online)
}

func TestWillAndSuccessor(t *testing.T) {
	t.Parallel()
	broker := boxtest.StartMosquitto(t, "")
	var mu sync.Mutex
	var last net.Conn
	o := mqttOptions(t, "mqtt://"+broker.Address)
	dial := o.Dial
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		mu.Lock()
		defer mu.Unlock()
		last = c
		return c, err
	}
	m := newMQTT(t, o)
	deliverMQTT(t, m, mqttItems(t, 1))
	wantRetained(t, broker, statusTopic, format.Online)
	mu.Lock()
	err := last.Close() // as the kernel does where the process is killed
	mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	wantRetained(t, broker, statusTopic, format.Offline)

	// A broker may publish the will of a connection after its successor came online.
	deliverMQTT(t, m, mqttItems(t, 1))
	wantRetained(t, broker, statusTopic, format.Online)
	host, port, _ := net.SplitHostPort(broker.Address)
	if out, err := exec.Command("mosquitto_pub", "-h", host, "-p", port, "-r", "-q", "1", "-t", statusTopic, "-m", format.Offline).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub = %v: %s", err, out)
	}
	wantRetained(t, broker, statusTopic, format.Online)
}

func TestClientIDIsTakenOver(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	broker.serve(t, func(c *fakeConn) {
		c.welcome(0, &v5.Properties{})
		c.ack(c.published(), 0)
		c.send(&v5.Disconnect{ReasonCode: v5.DisconnectSessionTakenOver, Properties: &v5.Properties{}})
		acknowledge(c)
	}, well)
	m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.address))
	deliverMQTT(t, m, mqttItems(t, 1))
	<-m.link.broken
	_, err := m.Deliver(context.Background(), mqttItems(t, 1))
	wantOursWith(t, err, "another client took over the client id")
	deliverMQTT(t, m, mqttItems(t, 1)) // and it tries again
}

// Mosquitto 2.0 gives no reason when it closes the older of two connections.
func TestTwoBoxesOfOneName(t *testing.T) {
	t.Parallel()
	broker := boxtest.StartMosquitto(t, "")
	one, two := newMQTT(t, mqttOptions(t, "mqtt://"+broker.Address)), newMQTT(t, mqttOptions(t, "mqtt://"+broker.Address))
	for range suspicions {
		deliverMQTT(t, one, mqttItems(t, 1))
		first := one.link
		if two.link != nil {
			<-two.link.broken
		}
		two.cut = 0
		deliverMQTT(t, two, mqttItems(t, 1))
		<-first.broken
	}
	if _, err := one.Deliver(context.Background(), mqttItems(t, 1)); err == nil || !strings.Contains(err.Error(), "does another box have its name?") {
		t.Errorf("Deliver() of a box whose name another has too = %v; want a hint", err)
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mosquitto_passwd", "-b", file, "box", "right").CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
		t.Skip("mosquitto_passwd is not installed: scripts/setup --test gets it")
	} else if err != nil {
		t.Fatalf("mosquitto_passwd = %v: %s", err, out)
	}
	broker := boxtest.StartMosquitto(t, "allow_anonymous false\npassword_file "+file)
	for _, version := range []wire{mqtt5{}, mqtt4{}} {
		o := mqttOptions(t, "mqtt://"+broker.Address)
		secret := "wrong"
		o.User, o.Token = "box", func() (string, error) { return secret, nil }
		m := newMQTT(t, o)
		m.speak = version
		_, err := m.Deliver(context.Background(), mqttItems(t, 1))
		wantOursWith(t, err, "see user and token_file")
		if strings.Contains(err.Error(), secret) {
			t.Errorf("Deliver() = %v; want no secret in it", err)
		}
		secret = "right" // the file has changed
		m.speak = version
		deliverMQTT(t, m, mqttItems(t, 1))
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca := boxtest.NewAuthority(t)
	cert, key := ca.SignFile(t, &x509.Certificate{IPAddresses: boxtest.Loopback()})
	broker := boxtest.StartMosquitto(t, "certfile "+cert+"\nkeyfile "+key)
	o := mqttOptions(t, "mqtts://"+broker.Address)
	o.TLS = func() (*tls.Config, error) {
		pool := x509.NewCertPool()
		pool.AddCert(ca.Cert)
		return &tls.Config{RootCAs: pool}, nil
	}
	deliverMQTT(t, newMQTT(t, o), mqttItems(t, 50))

	o.TLS = func() (*tls.Config, error) { return &tls.Config{RootCAs: x509.NewCertPool()}, nil }
	_, err := newMQTT(t, o).Deliver(context.Background(), mqttItems(t, 1))
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		t.Errorf("Deliver() to a broker of another authority = %v; want its certificate refused", err)
	}
}

func TestBrokerThatNeverAcknowledges(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	broker.serve(t, func(c *fakeConn) {
		c.welcome(0, &v5.Properties{})
		c.ack(c.published(), 0)
		for c.published() != nil {
		}
	})
	m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.address))
	deliverMQTT(t, m, mqttItems(t, 1))
	m.o.Stall = 100 * time.Millisecond
	results, err := m.Deliver(context.Background(), mqttItems(t, 3))
	if !errors.Is(err, errStalled) || results[0].State != Unknown {
		t.Errorf("Deliver() = %v, %v; want items unknown, %v", results, err, errStalled)
	}
}

func TestBrokerIsNotThere(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = newMQTT(t, mqttOptions(t, "mqtt://"+address)).Deliver(context.Background(), mqttItems(t, 1))
	if want := "connect to mqtt://" + address + ": " + address + " refuses the connection"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Deliver() = %v; want %q", err, want)
	}
}

func TestBrokerThatNeverAnswers(t *testing.T) {
	t.Parallel()
	o := mqttOptions(t, "mqtt://"+startFake(t).address)
	o.Stall = 100 * time.Millisecond
	if _, err := newMQTT(t, o).Deliver(context.Background(), mqttItems(t, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Deliver() = %v; want it out of time", err)
	}
}

func TestCloseEndsDeliver(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	got := make(chan struct{})
	broker.serve(t, func(c *fakeConn) {
		c.welcome(0, &v5.Properties{})
		c.published()
		close(got)
		acknowledge(c)
	})
	m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.address))
	ended := make(chan error, 1)
	go func() {
		_, err := m.Deliver(context.Background(), mqttItems(t, 1))
		ended <- err
	}()
	<-got
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, errClosed) {
		t.Errorf("Deliver() = %v; want %v", err, errClosed)
	}
}

func TestCanceledDeliverKeepsTheLink(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	ctx, cancel := context.WithCancel(context.Background())
	broker.serve(t, func(c *fakeConn) {
		c.welcome(0, &v5.Properties{})
		first := c.published()
		cancel()
		c.ack(c.published(), 0) // of the second Deliver
		c.ack(first, 0)
		acknowledge(c)
	})
	m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.address))
	if results, err := m.Deliver(ctx, mqttItems(t, 1)); !errors.Is(err, context.Canceled) || results[0].State != Unknown {
		t.Errorf("Deliver() = %v, %v; want one item unknown, canceled", results, err)
	}
	deliverMQTT(t, m, mqttItems(t, 1))
	deliverMQTT(t, m, mqttItems(t, 20))
	if len(broker.conns) > 0 {
		t.Error("it connected again")
	}
}

func TestReasonCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code byte
		want State
		ours bool
		word string // of the error, or of the refusal
	}{
		{0x00, Acknowledged, false, ""},
		{0x10, Acknowledged, false, ""},
		{0x97, Unknown, false, "quota"},
		{0x91, Unknown, false, "0x91"},
		{0x87, Unknown, true, "not authorised"},
		{0x90, Refused, false, "topic"},
		{0x99, Refused, false, "payload's format"},
		{0x80, Refused, false, "0x80"},
		{0x83, Refused, false, "0x83"},
	} {
		broker := startFake(t)
		broker.serve(t, func(conn *fakeConn) {
			conn.welcome(0, &v5.Properties{})
			conn.ack(conn.published(), c.code)
			acknowledge(conn)
		})
		m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.address))
		results, err := m.Deliver(context.Background(), mqttItems(t, 2))
		if results[0].State != c.want || results[1].State != Acknowledged {
			t.Errorf("Deliver() with PUBACK 0x%02X = %+v; want %v, and the next acknowledged", c.code, results, c.want)
		}
		var p *Problem
		if errors.As(err, &p) != c.ours || !strings.Contains(fmt.Sprint(err, results[0].Reason), c.word) || (err != nil) != (c.want == Unknown) {
			t.Errorf("Deliver() with PUBACK 0x%02X = %+v, %v; want %q", c.code, results, err, c.word)
		}
	}
}

func TestReceiveMaximum(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	limit := uint16(3)
	most := make(chan int, 1)
	broker.serve(t, func(c *fakeConn) {
		c.welcome(0, &v5.Properties{ReceiveMaximum: &limit})
		under, packets := 0, 0
		for packets < 30 {
			// All that the broker allows, then nothing until one is acknowledged.
			var held []*v5.Publish
			for len(held) < int(limit) && packets < 30 {
				held, packets = append(held, c.published()), packets+1
			}
			under = max(under, len(held)+waits(c))
			for _, m := range held {
				c.ack(m, 0)
			}
		}
		most <- under
		acknowledge(c)
	})
	deliverMQTT(t, newMQTT(t, mqttOptions(t, "mqtt://"+broker.address)), mqttItems(t, 30))
	if got := <-most; got != int(limit) {
		t.Errorf("%d messages were under way; want %d", got, limit)
	}
}

// waits is how many more packets have come, that may be read without waiting long.
func waits(c *fakeConn) (n int) {
	if err := c.c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
		c.t.Error(err)
	}
	if _, err := c.in.Peek(1); err == nil {
		n++
	}
	if err := c.c.SetReadDeadline(time.Time{}); err != nil {
		c.t.Error(err)
	}
	return n
}

func TestPacketTooLarge(t *testing.T) {
	t.Parallel()
	broker := boxtest.StartMosquitto(t, "max_packet_size 1000")
	for _, version := range []wire{mqtt5{}, mqtt4{}} {
		m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.Address))
		list := mqttItems(t, 20)
		list[7].Body = bytes.Repeat([]byte("x"), 5000)
		done := map[int]State{}
		for range 20 { // as a caller does: what is unknown is sent again
			var left []Item
			var at []int
			for i := range list {
				if done[i] == Unknown {
					left, at = append(left, list[i]), append(at, i)
				}
			}
			if len(left) == 0 {
				break
			}
			m.mu.Lock()
			connected := m.link != nil
			m.mu.Unlock()
			if !connected || version.version() == 4 {
				m.speak = version
			}
			results, _ := m.Deliver(context.Background(), left) // in version 3.1.1 the broker closes the connection
			for k, r := range results {
				done[at[k]] = r.State
			}
		}
		for i := range list {
			if want := map[bool]State{false: Acknowledged, true: Refused}[i == 7]; done[i] != want {
				t.Errorf("version %d: item %d = %v; want %v", version.version(), i, done[i], want)
			}
		}
	}
}

func TestDisconnectAboutOneRecord(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	broker.serve(t, func(c *fakeConn) {
		c.welcome(0, &v5.Properties{})
		for m := c.published(); m != nil; m = c.published() {
			if string(m.Payload) == `{"n":2}` {
				c.send(&v5.Disconnect{ReasonCode: v5.DisconnectPayloadFormatInvalid, Properties: &v5.Properties{}})
				c.close()
				return
			}
			c.ack(m, 0)
		}
	})
	m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.address))
	for _, want := range []State{Unknown, Refused} { // the second time each of them goes alone
		results, err := m.Deliver(context.Background(), mqttItems(t, 4))
		if err == nil || results[2].State != want || results[3].State != Unknown || want == Refused && results[1].State != Acknowledged {
			t.Errorf("Deliver() = %+v, %v; want item 2 %v, and what follows unknown", results, err, want)
		}
	}
}

// oldFront stands before a broker and lets MQTT 3.1.1 through only.
func oldFront(t *testing.T, broker string, refuse []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { passOld(c, broker, refuse) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

func passOld(c net.Conn, broker string, refuse []byte) {
	defer c.Close()
	var first [9]byte // header, length, "MQTT" with its length, version
	if _, err := io.ReadFull(c, first[:]); err != nil {
		return
	}
	if first[8] != 4 {
		_, _ = c.Write(refuse)
		return
	}
	to, err := net.Dial("tcp", broker)
	if err != nil {
		return
	}
	defer to.Close()
	_, _ = to.Write(first[:])
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(c, to)
		_ = c.Close()
	}()
	_, _ = io.Copy(to, c)
	_ = to.Close()
	<-done
}

func TestBrokerOfVersion311(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string][]byte{"return code": {0x20, 2, 0, 1}, "reason code": {0x20, 3, 0, 0x84, 0}, "closes": nil} {
		broker := boxtest.StartMosquitto(t, "")
		sub := broker.Subscribe("perch/#", "%t %p")
		m := newMQTT(t, mqttOptions(t, "mqtt://"+oldFront(t, broker.Address, refuse)))
		deliverMQTT(t, m, mqttItems(t, 50))
		if m.speak.version() != 4 {
			t.Errorf("%s: it speaks version %d; want 4", name, m.speak.version())
		}
		boxtest.Poll(t, "all messages", func() bool { return len(readingLines(sub)) == 50 })
		wantRetained(t, broker, statusTopic, format.Online)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		wantRetained(t, broker, statusTopic, format.Offline)
	}
}

func TestBrokerThatCanDoLess(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	zero := byte(0)
	last := make(chan *v5.Connect, 1)
	published := make(chan *v5.Publish, 1)
	refuse := func(code byte) func(c *fakeConn) {
		return func(c *fakeConn) {
			c.welcome(code, &v5.Properties{})
			c.close()
		}
	}
	broker.serve(t, refuse(0x85), refuse(0x9A), refuse(0x9B), func(c *fakeConn) {
		last <- c.welcome(0, &v5.Properties{RetainAvailable: &zero})
		m := c.published()
		published <- m
		c.ack(m, 0)
		acknowledge(c)
	})
	o := mqttOptions(t, "mqtt://"+broker.address)
	o.Node = "shed"
	state := mqttItem(t, "state/supervisor/box", 0, `"program":"supervisor","pid":1,"ready":true,"status":"","progress_ns":1,"counters":{}`)
	deliverMQTT(t, newMQTT(t, o), []Item{state})
	hello := <-last
	if hello.ClientID != shortID("shed", "send") || len(hello.ClientID) > 23 || hello.WillRetain || hello.WillQOS != 0 || !hello.WillFlag {
		t.Errorf("CONNECT = %v; want a client id of 23 bytes at most, and a will of QoS 0 that is not retained", hello)
	}
	if m := <-published; m.Retain {
		t.Error("a state was published as retained, to a broker that retains nothing")
	}
}

func TestBrokerOfQoS0(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	zero := byte(0)
	broker.serve(t, func(c *fakeConn) { c.welcome(0, &v5.Properties{MaximumQOS: &zero}) })
	_, err := newMQTT(t, mqttOptions(t, "mqtt://"+broker.address)).Deliver(context.Background(), mqttItems(t, 1))
	wantOursWith(t, err, "QoS 0 only")
}

func TestPing(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	pings := make(chan bool)
	broker.serve(t, func(c *fakeConn) {
		c.welcome(0, &v5.Properties{})
		for p, n := c.next(), 0; p != nil; p = c.next() {
			switch m := p.Content.(type) {
			case *v5.Publish:
				c.ack(m, 0)
			case *v5.Pingreq:
				if n++; n == 1 { // and no answer any more
					c.send(&v5.Pingresp{})
				}
				pings <- true
			}
		}
		close(pings)
	})
	m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.address))
	deliverMQTT(t, m, mqttItems(t, 1))
	l, now := m.link, time.Now()
	l.ping(now.Add(keepAlive), keepAlive/2)
	<-pings
	boxtest.Poll(t, "the answer", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.pinged.IsZero()
	})
	l.ping(now.Add(2*keepAlive), keepAlive/2)
	<-pings
	l.ping(now.Add(2*keepAlive+l.stall), keepAlive/2)
	<-l.broken
	if !errors.Is(l.cause, errSilent) {
		t.Errorf("the link ended by %v; want %v", l.cause, errSilent)
	}
	<-pings // the connection is closed
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"mqtt://broker": "broker:1883", "mqtts://broker": "broker:8883", "mqtt://broker:1884": "broker:1884", "mqtt://[::1]": "[::1]:1883",
		"mqtt://broker/topic": "", "mqtt://:1883": "", "http://broker": "", "mqtt://broker?x=1": "",
	} {
		m, err := NewMQTT(mqttOptions(t, to))
		if (err == nil) != (want != "") || m != nil && m.address != want {
			t.Errorf("NewMQTT(%s) = %v, %v; want %q", to, m, err, want)
		}
	}
	for _, prefix := range []string{"", "#", "a/+", "/a", "a/", "$SYS"} {
		o := mqttOptions(t, "mqtt://broker")
		o.Prefix = prefix
		if _, err := NewMQTT(o); err == nil {
			t.Errorf("NewMQTT() with the prefix %q = nil; want an error", prefix)
		}
	}
}

func TestClientIDs(t *testing.T) {
	t.Parallel()
	if got, want := clientID("airpi-01", "send"), "perch-airpi-01-send"; got != want {
		t.Errorf("clientID() = %s; want %s", got, want)
	}
	seen := map[string]bool{}
	for _, node := range []string{"shed #2", "shed _2", "shed", strings.Repeat("a", 64), strings.Repeat("a", 63), "Hütte"} {
		id := clientID(node, "send")
		if seen[id] || len(id) > 64 || id != clientID(node, "send") {
			t.Errorf("clientID(%q) = %s; want one of its own", node, id)
		}
		seen[id] = true
	}
}

// What a broker sends never ends the program.
func FuzzMQTTPackets(f *testing.F) {
	f.Add([]byte{0x20, 3, 0, 0, 0})
	f.Add([]byte{0x20, 2, 0, 1})
	f.Add([]byte{0x40, 2, 0, 1})
	f.Add([]byte{0xe0, 0})
	f.Add([]byte{0xe0, 2, 0x8e, 0})
	f.Add(mqtt5{}.publish(&format.Publication{Topic: "a/b", Body: []byte("c"), Retain: true}, 1, 7, "id"))
	f.Add(mqtt4{}.publish(&format.Publication{Topic: "a/b", Body: []byte("c")}, 0, 0, ""))
	f.Fuzz(func(t *testing.T, text []byte) {
		packet, err := readPacket(bufioReader(text))
		if err != nil {
			return
		}
		for _, w := range []wire{mqtt5{}, mqtt4{}} {
			_, _ = w.read(packet)
			_, _ = w.welcome(packet)
		}
	})
}

// A line that is slow is not one that has stalled.
func TestMQTTProgress(t *testing.T) {
	t.Parallel()
	broker := startFake(t)
	conn, err := uplink.New(uplink.Settings{Stall: time.Minute}).Dial(context.Background(), "tcp", broker.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer := <-broker.conns
	l := &link{conn: conn}
	var seen int64
	if l.moved(&seen) {
		t.Error("moved() before anything was written = true; want false")
	}
	if _, err := conn.Write(make([]byte, 2*leastProgress)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peer.c, make([]byte, 2*leastProgress)); err != nil {
		t.Fatal(err)
	}
	boxtest.Poll(t, "the bytes to arrive", func() bool { return l.moved(&seen) })
	if l.moved(&seen) {
		t.Error("moved() with nothing more = true; want false")
	}
}
