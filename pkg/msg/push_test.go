package msg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// puller is a PULL socket in Python that prints the parts of each message, with | between.
const puller = `
import sys, threading, zmq
from zmq.utils import z85
port, secret, client = sys.argv[1:4]
ctx = zmq.Context()
def judge(zap): # ZeroMQ RFC 27
    while True:
        version, number, domain, address, identity, mechanism, key = zap.recv_multipart()
        ok = z85.encode(key).decode() == client
        zap.send_multipart([version, number, b"200" if ok else b"400", b"", b"", b""])
if client:
    zap = ctx.socket(zmq.REP)
    zap.bind("inproc://zeromq.zap.01")
    threading.Thread(target=judge, args=(zap,), daemon=True).start()
s = ctx.socket(zmq.PULL)
s.linger = 0
if secret:
    s.curve_server = True
    s.curve_secretkey = secret.encode()
    s.curve_publickey = zmq.curve_public(secret.encode())
s.bind("tcp://127.0.0.1:" + port)
print(s.get_string(zmq.LAST_ENDPOINT), flush=True)
while True:
    print("|".join(p.decode() for p in s.recv_multipart()), flush=True)
`

type pull struct {
	t        *testing.T
	cmd      *exec.Cmd
	out      *bufio.Scanner
	endpoint string
}

// startPull binds to a port, "*" is any. With client only that public key is accepted.
func startPull(t *testing.T, port, secret, client string) *pull {
	t.Helper()
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import zmq; assert zmq.has('curve')").CombinedOutput(); err != nil {
		t.Skipf("no python3 with zmq and CURVE (apt-get install python3-zmq): %v: %s", err, out)
	}
	p := &pull{t: t, cmd: exec.Command(python, "-c", puller, port, secret, client)}
	var stderr strings.Builder
	p.cmd.Stderr = &stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.out = bufio.NewScanner(out)
	if p.endpoint = p.line(); p.endpoint == "" {
		t.Fatalf("the PULL socket does not bind: %s", &stderr)
	}
	return p
}

func (p *pull) line() string {
	p.out.Scan()
	return p.out.Text()
}

func (p *pull) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *pull) want(lines ...string) {
	p.t.Helper()
	for _, want := range lines {
		if got := p.line(); got != want {
			p.t.Fatalf("the peer received %q; want %q", got, want)
		}
	}
}

func curveKey(t *testing.T) (secret, public string) {
	t.Helper()
	secret, err := NewCurveSecret()
	if err == nil {
		public, err = CurvePublic(secret)
	}
	if err != nil {
		t.Fatal(err)
	}
	return secret, public
}

func openPush(t *testing.T, endpoint string, keys *CurveKeys) *Push {
	t.Helper()
	p, err := OpenPush(t.Context(), endpoint, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestPushWithCurve(t *testing.T) {
	boxSecret, boxPublic := curveKey(t)
	secret, public := curveKey(t)
	peer := startPull(t, "*", secret, boxPublic)
	p := openPush(t, peer.endpoint, &CurveKeys{Secret: boxSecret, Peer: public})
	for i := range 100 {
		if err := p.Send(within(t), []byte("reading/air/a"), fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		peer.want(fmt.Sprintf("reading/air/a|%d", i))
	}
	peer.kill()
	for ctx := within(t); ; {
		err := p.Send(ctx, []byte("after"))
		if ctx.Err() != nil {
			t.Fatal("Send() goes on after the peer is gone; want an error")
		}
		if err != nil {
			break
		}
	}
}

// A peer that restarts is a new link.
func TestPushPeerRestarts(t *testing.T) {
	peer := startPull(t, "*", "", "")
	p := openPush(t, peer.endpoint, nil)
	if err := p.Send(within(t), []byte("first")); err != nil {
		t.Fatal(err)
	}
	peer.want("first")
	peer.kill()
	_, port, _ := strings.Cut(strings.TrimPrefix(peer.endpoint, "tcp://"), ":")
	peer = startPull(t, port, "", "")
	for ctx := within(t); p.Send(ctx, []byte("lost")) == nil; {
		if ctx.Err() != nil {
			t.Fatal("Send() goes on after the peer is gone; want an error")
		}
	}
	if err := openPush(t, peer.endpoint, nil).Send(within(t), []byte("second")); err != nil {
		t.Fatal(err)
	}
	peer.want("second")
}

func TestPushWithoutLink(t *testing.T) {
	boxSecret, _ := curveKey(t)
	secret, public := curveKey(t)
	_, other := curveKey(t)
	curve := startPull(t, "*", secret, "")
	picky := startPull(t, "*", secret, other)
	plain := startPull(t, "*", "", "")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	tests := []struct {
		name, endpoint string
		keys           *CurveKeys
		want           string
		handshake      bool
	}{
		{"nobody listens", "tcp://" + closed.Addr().String(), nil, "cannot connect", false},
		{"wrong key of the receiver", curve.endpoint, &CurveKeys{boxSecret, other}, "CURVE", true},
		{"our key is not accepted", picky.endpoint, &CurveKeys{boxSecret, public}, "CURVE", true},
		{"a receiver without CURVE", plain.endpoint, &CurveKeys{boxSecret, public}, "CURVE", true},
		{"a sender without CURVE", curve.endpoint, nil, "CURVE", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := openPush(t, test.endpoint, test.keys).Send(within(t), []byte("x"))
			if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrHandshake) != test.handshake {
				t.Errorf("Send() = %v; want %q in it", err, test.want)
			}
		})
	}
}

func TestPushRefuses(t *testing.T) {
	secret, public := curveKey(t)
	tests := []struct {
		endpoint string
		keys     *CurveKeys
		want     string
	}{
		{"tcp://192.0.2.1:5000", nil, "want CURVE keys"},
		{"ipc:///run/x", nil, "want tcp://HOST:PORT"},
		{"tcp://127.0.0.1", nil, "want tcp://HOST:PORT"},
		{"tcp://:5000", nil, "want tcp://HOST:PORT"},
		{"tcp://127.0.0.1:5000", &CurveKeys{"short", public}, "want 40 of Z85"},
		{"tcp://127.0.0.1:5000", &CurveKeys{secret, strings.Repeat("~", 40)}, "want 40 of Z85"},
	}
	for _, test := range tests {
		p, err := OpenPush(t.Context(), test.endpoint, test.keys)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("OpenPush(%s) = %v, %v; want %q", test.endpoint, p, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("OpenPush(%s) = _, %v; want no secret in it", test.endpoint, err)
		}
	}
}

// A peer that takes nothing: what is taken from the sender is bounded, and Send ends with its context.
func TestPushWithSlowPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer := startPull(t, "*", "", "")
	done := make(chan struct{})
	defer close(done)
	go func() { // between the two: it reads from the sender until the handshake is done
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", strings.TrimPrefix(peer.endpoint, "tcp://"))
		if err != nil {
			return
		}
		defer out.Close()
		_ = in.(*net.TCPConn).SetReadBuffer(4096)
		go func() { _, _ = io.Copy(in, out) }()
		_, _ = io.CopyN(out, in, 300)
		<-done
	}()
	p := openPush(t, "tcp://"+l.Addr().String(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	sent := 0
	for ; err == nil; sent++ {
		err = p.Send(ctx, make([]byte, 300))
	}
	if !errors.Is(err, context.DeadlineExceeded) || sent > 1000 {
		t.Errorf("a peer that does not read was sent %d messages, then %v; want a few, then the deadline", sent, err)
	}
	t.Logf("%d messages of 300 bytes were taken", sent)
}
