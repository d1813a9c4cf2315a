package uplink

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair is a connection of a link, and its other end.
func pair(t testing.TB, stall time.Duration, network, address string) (*Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := New(Settings{Stall: stall}).Dial(t.Context(), network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = other.Close() })
	return c.(*Conn), other
}

// A silent connection fails only where it was asked to, and a caller's own deadline holds.
func TestSilence(t *testing.T) {
	t.Parallel()
	const stall = 50 * time.Millisecond
	c, _ := pair(t, stall, "tcp", "127.0.0.1:0")
	if err := c.SetReadDeadline(time.Now().Add(4 * stall)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(err.Error(), "moved") || time.Since(begun) < 4*stall {
		t.Errorf("Read() = %v after %s; want the caller's deadline alone", err, time.Since(begun))
	}
	FailSilent(c)
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "nothing has moved for 50ms") {
		t.Errorf("Read() = %v; want that nothing has moved", err)
	}
}

// A write that the other side does not take fails by itself, and by the caller's deadline.
func TestWriteThatIsNotTaken(t *testing.T) {
	t.Parallel()
	c, _ := pair(t, 100*time.Millisecond, "tcp", "127.0.0.1:0")
	if _, err := c.Write(make([]byte, 64<<20)); err == nil || !strings.Contains(err.Error(), "nothing has moved for 100ms") {
		t.Errorf("Write() = %v; want that nothing has moved", err)
	}
	c, _ = pair(t, time.Minute, "tcp", "127.0.0.1:0")
	if err := c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write() = %v; want the caller's deadline", err)
	}
}

// What has arrived is told until the connection breaks: a reset empties the queue, and acknowledges nothing.
func TestArrived(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "socket")} {
		c, other := pair(t, time.Minute, network, address)
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if network == "unix" {
			if n, err := c.Arrived(); err != nil || n >= 1000 {
				t.Errorf("unix: Arrived() = %d, %v before it is read; want less than 1000", n, err)
			}
			if _, err := io.ReadFull(other, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		for {
			n, err := c.Arrived()
			if err != nil {
				t.Fatalf("%s: Arrived() = %v; want no error", network, err)
			}
			if n == 1000 {
				break
			}
		}
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if tcp, ok := other.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset
		}
		_ = other.Close() // with unread bytes
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("Read() = nil; want a reset")
		}
		if n, err := c.Arrived(); err == nil {
			t.Errorf("%s: Arrived() = %d, nil after a reset; want an error", network, n)
		}
	}
}
