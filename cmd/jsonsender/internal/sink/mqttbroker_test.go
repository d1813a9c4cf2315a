package sink

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"

	v5 "github.com/eclipse/paho.golang/packets"
)

// fakeBroker is a broker that does what a test wants, packet by packet.
type fakeBroker struct {
	address string
	conns   chan *fakeConn
	stop    func() // takes no more connections
}

// fakeConn is one connection to it.
type fakeConn struct {
	t  *testing.T
	c  net.Conn
	in *bufio.Reader
}

func startFake(t *testing.T) *fakeBroker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBroker{address: l.Addr().String(), conns: make(chan *fakeConn, 100)}
	b.stop = sync.OnceFunc(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	done := make(chan struct{})
	var all []net.Conn
	go func() {
		defer close(done)
		defer close(b.conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all = append(all, c)
			b.conns <- &fakeConn{t, c, bufio.NewReader(c)}
		}
	}()
	t.Cleanup(func() {
		b.stop()
		<-done
		for _, c := range all {
			if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	})
	return b
}

// serve answers each connection in turn, the last function all that follow.
func (b *fakeBroker) serve(t *testing.T, answer ...func(c *fakeConn)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			c, open := <-b.conns
			if !open {
				return
			}
			answer[min(n, len(answer)-1)](c)
		}
	}()
	t.Cleanup(func() {
		b.stop()
		<-done
	})
}

// next reads a packet; nil is the end.
func (c *fakeConn) next() *v5.ControlPacket {
	packet, err := readPacket(c.in)
	if err != nil {
		return nil
	}
	p, err := v5.ReadPacket(bytes.NewReader(packet))
	if err != nil {
		c.t.Errorf("packet %x: %v", packet, err)
		return nil
	}
	return p
}

// published reads up to the next record, and answers what is none.
func (c *fakeConn) published() *v5.Publish {
	for {
		p := c.next()
		if p == nil {
			return nil
		}
		switch m := p.Content.(type) {
		case *v5.Publish:
			if len(m.Properties.User) > 0 {
				return m
			}
			c.ack(m, 0)
		case *v5.Subscribe:
			c.send(&v5.Suback{PacketID: m.PacketID, Reasons: make([]byte, len(m.Subscriptions)), Properties: &v5.Properties{}})
		}
	}
}

func (c *fakeConn) send(p v5.Packet) {
	if _, err := p.WriteTo(c.c); err != nil && !errors.Is(err, net.ErrClosed) {
		c.t.Log(err) // the sink may be gone
	}
}

func (c *fakeConn) ack(m *v5.Publish, code byte) {
	if m.QoS > 0 {
		c.send(&v5.Puback{PacketID: m.PacketID, ReasonCode: code, Properties: &v5.Properties{}})
	}
}

// welcome takes a CONNECT and answers with a CONNACK.
func (c *fakeConn) welcome(code byte, p *v5.Properties) *v5.Connect {
	hello := c.next()
	if hello == nil {
		return nil
	}
	c.send(&v5.Connack{ReasonCode: code, Properties: p})
	return hello.Content.(*v5.Connect)
}

func (c *fakeConn) close() {
	if err := c.c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		c.t.Error(err)
	}
}

// well takes all.
func well(c *fakeConn) {
	c.welcome(0, &v5.Properties{})
	acknowledge(c)
}

// acknowledge takes all that comes.
func acknowledge(c *fakeConn) {
	for m := c.published(); m != nil; m = c.published() {
		c.ack(m, 0)
	}
}

func bufioReader(text []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(text)) }
