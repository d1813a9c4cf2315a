package sink

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

// zmqPuller is a PULL socket in Python that prints the parts of each message as JSON.
const zmqPuller = `
import json, sys, zmq
s = zmq.Context().socket(zmq.PULL)
s.linger = 0
if sys.argv[2]:
    s.curve_server = True
    s.curve_secretkey = sys.argv[2].encode()
    s.curve_publickey = zmq.curve_public(sys.argv[2].encode())
s.bind("tcp://127.0.0.1:" + (sys.argv[1] if sys.argv[1] != "0" else "*"))
print(s.get_string(zmq.LAST_ENDPOINT), flush=True)
while True:
    print(json.dumps([p.decode() for p in s.recv_multipart()]), flush=True)
`

type zmqPeer struct {
	*bufio.Scanner
	port string
	kill func()
}

func startZMQ(t *testing.T, port, secret string) *zmqPeer {
	t.Helper()
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import zmq; assert zmq.has('curve')").CombinedOutput(); err != nil {
		t.Skipf("no python3 with zmq and CURVE (apt-get install python3-zmq): %v: %s", err, out)
	}
	cmd := exec.Command(python, "-c", zmqPuller, port, secret)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &zmqPeer{Scanner: bufio.NewScanner(out), kill: sync.OnceFunc(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })}
	t.Cleanup(p.kill)
	if !p.Scan() {
		t.Fatalf("the PULL socket does not bind: %s", &stderr)
	}
	p.port = p.Text()[strings.LastIndexByte(p.Text(), ':')+1:]
	return p
}

func (p *zmqPeer) want(t *testing.T, items []Item) {
	t.Helper()
	for _, item := range items {
		var parts []string
		if p.Scan(); json.Unmarshal(p.Bytes(), &parts) != nil || len(parts) != 2 || parts[0] != string(item.Record.Topic()) || parts[1] != string(item.Body) {
			t.Fatalf("the receiver printed %s; want topic and body of %s", p.Text(), item.Record.ID())
		}
	}
}

func zmqSinkTo(t *testing.T, port string, keys *msg.CurveKeys) Sink {
	t.Helper()
	to, err := url.Parse("zmq+tcp://127.0.0.1:" + port)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{To: to, Stall: natsReady, Records: 500, Bytes: 1 << 20}
	if keys != nil {
		o.Curve = func() (*msg.CurveKeys, error) { return keys, nil }
	}
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

func zmqKeys(t *testing.T) (secret, public string) {
	t.Helper()
	secret, err := msg.NewCurveSecret()
	if err == nil {
		public, err = msg.CurvePublic(secret)
	}
	if err != nil {
		t.Fatal(err)
	}
	return secret, public
}

// The receiver restarts between two deliveries, and another time it is away.
func TestZMQDelivers(t *testing.T) {
	secret, public := zmqKeys(t)
	own, _ := zmqKeys(t)
	peer := startZMQ(t, "0", secret)
	s := zmqSinkTo(t, peer.port, &msg.CurveKeys{Secret: own, Peer: public})
	deliver(t, s, readings(t, "a", 0, 199))
	peer.want(t, readings(t, "a", 0, 199))
	peer.kill()
	link := s.(*zmqSink).link
	until(t, "the end of the link", func() bool { return link.Check() != nil })
	problemOf(t, s, readings(t, "a", 200, 209), false, "cannot connect")
	peer = startZMQ(t, peer.port, secret)
	deliver(t, s, readings(t, "a", 200, 209))
	peer.want(t, readings(t, "a", 200, 209))
}

// What went out last before the link broke is not known to have arrived.
func TestZMQLinkBreaksAmidDelivery(t *testing.T) {
	peer := startZMQ(t, "0", "")
	s := zmqSinkTo(t, peer.port, nil)
	first := readings(t, "a", 0, 0)
	deliver(t, s, first)
	peer.want(t, first)
	items := readings(t, "a", 1, 100)
	for i := range items {
		items[i].Body = make([]byte, 1<<20) // more than all buffers on the way, since the peer's output is not read
	}
	type end struct {
		results []Result
		err     error
	}
	done := make(chan end)
	go func() {
		results, err := s.Deliver(t.Context(), items)
		done <- end{results, err}
	}()
	time.AfterFunc(200*time.Millisecond, peer.kill) // at any time: amid the delivery, or before it
	got := <-done
	if got.err == nil {
		t.Fatal("Deliver() to a receiver that is killed = _, nil; want an error")
	}
	n := count(got.results, Acknowledged)
	for i, r := range got.results {
		if (r.State == Acknowledged) != (i < n) {
			t.Errorf("result %d = %v; want the first ones acknowledged and no others", i, r)
		}
	}
	t.Logf("%d of %d acknowledged", n, len(items))
}

func TestZMQWrongKeyIsOurs(t *testing.T) {
	secret, _ := zmqKeys(t)
	own, other := zmqKeys(t)
	peer := startZMQ(t, "0", secret)
	s := zmqSinkTo(t, peer.port, &msg.CurveKeys{Secret: own, Peer: other})
	if results := problemOf(t, s, readings(t, "a", 0, 9), true, "CURVE"); count(results, Unknown) != 10 {
		t.Errorf("results = %v; want all unknown", results)
	}
	s = zmqSinkTo(t, peer.port, nil)
	s.(*zmqSink).o.Curve = func() (*msg.CurveKeys, error) { return nil, errors.New("the file is gone") }
	problemOf(t, s, readings(t, "a", 0, 9), true, "the file is gone")
}

func TestZMQCloseEndsDeliver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := zmqSinkTo(t, fmt.Sprint(l.Addr().(*net.TCPAddr).Port), nil)
	done := make(chan error)
	go func() {
		_, err := s.Deliver(t.Context(), readings(t, "a", 1, 5))
		done <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("Deliver() = _, nil after Close; want an error")
	}
}

// The receiver of docs/FLEET.md lets the boxes in that it knows.
func TestZMQDocumentedReceiver(t *testing.T) {
	startZMQ(t, "0", "").kill() // skips where there is no pyzmq
	dir := t.TempDir()
	secret, public := zmqKeys(t)
	own, box := zmqKeys(t)
	stranger, _ := zmqKeys(t)
	for name, text := range map[string]string{"receiver.py": boxtest.Documented(t, "FLEET.md", "python")[0], "secret": secret + "\n", "boxes": box + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/usr/bin/python3", "receiver.py", "tcp://127.0.0.1:*", "secret", "boxes")
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the receiver ended: %s", &stderr)
	}
	port := lines.Text()[strings.LastIndexByte(lines.Text(), ':')+1:]
	problemOf(t, zmqSinkTo(t, port, &msg.CurveKeys{Secret: stranger, Peer: public}), readings(t, "a", 0, 0), true, "CURVE")
	items := readings(t, "a", 1, 3)
	deliver(t, zmqSinkTo(t, port, &msg.CurveKeys{Secret: own, Peer: public}), items)
	for _, item := range items {
		if want := "reading/air/a " + string(item.Body); !lines.Scan() || lines.Text() != want {
			t.Fatalf("the receiver printed %q; want %q", lines.Text(), want)
		}
	}
}
