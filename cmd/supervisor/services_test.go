package main

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/pkg/msg"
)

// complaints are what services reported.
type complaints struct {
	mu  sync.Mutex
	all []string
}

func (c *complaints) take(what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, what+": "+err.Error())
}

func (c *complaints) until(t *testing.T, what string) {
	t.Helper()
	for by := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		text := strings.Join(c.all, "; ")
		c.mu.Unlock()
		if strings.Contains(text, what) {
			return
		}
		if time.Now().After(by) {
			t.Fatalf("complaints = %q; want %q", text, what)
		}
	}
}

// An error that passes, such as too many open files, does not end the control
// socket: it is reported, and the next caller is answered.
func TestControlOutlivesErrors(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	c, err := listenForRequests(dir)
	if err != nil {
		t.Fatal(err)
	}
	var said complaints
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.serve(ctx, said.take, func(context.Context, request) reply { return reply{OK: true} })
	}()
	if err := c.listener.SetDeadline(time.Unix(1, 0)); err != nil { // accept(2) fails
		t.Fatal(err)
	}
	said.until(t, "accept requests: ")
	if err := c.listener.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	at := place{RunDir: dir}
	if _, err := at.ask(t.Context(), request{Verb: "status"}, 20*time.Second); err != nil {
		t.Errorf("ask() after an error = %v; want an answer", err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}

// The same of the socket on which heartbeats come: without it each worker would be
// aborted, again and again.
func TestNotifierOutlivesErrors(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	var said complaints
	n, err := listenForNotes(dir, said.take)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{pid: os.Getpid(), wake: make(chan struct{}, 1)}
	n.mu.Lock()
	n.known[p.pid] = p
	n.mu.Unlock()
	if err := n.conn.SetReadDeadline(time.Unix(1, 0)); err != nil { // recvmsg(2) fails
		t.Fatal(err)
	}
	said.until(t, "listen for readiness: ")
	if err := n.conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	notify(t, n.path, "READY=1")
	select {
	case <-p.wake:
	case <-time.After(20 * time.Second):
		t.Fatal("a worker was not heard after an error")
	}
	if err := n.close(); err != nil {
		t.Error(err)
	}
}

func notify(t *testing.T, path, text string) {
	t.Helper()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// catchUp takes in what was said before it, and does not wait where nothing more
// can come: the socket's name may be another's by now.
func TestCatchUpNeverWaits(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	n, err := listenForNotes(dir, func(string, error) {})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{pid: os.Getpid(), wake: make(chan struct{}, 1)}
	n.known[p.pid] = p
	for range 100 {
		p.heard = hearing{}
		notify(t, n.path, "READY=1")
		if n.catchUp(); !p.heard.now().ready {
			t.Fatal("catchUp() returned before what was said had been taken in")
		}
	}
	if err := os.Remove(n.path); err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: n.path})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	n.catchUp()
	if err := n.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(n.path); err != nil {
		t.Errorf("close() removed the socket that another process has made: %v", err)
	}
	n.catchUp()
}

// A worker that sends without end does not hold the supervisor up.
func TestCatchUpInAFlood(t *testing.T) {
	t.Parallel()
	n, err := listenForNotes(shortDir(t), func(string, error) {})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: n.path})
	if err != nil {
		t.Fatal(err)
	}
	var flood sync.WaitGroup
	for range 4 {
		flood.Go(func() {
			for err := error(nil); err == nil; {
				_, err = conn.Write([]byte("WATCHDOG=1"))
			}
		})
	}
	for range 20 {
		n.catchUp()
	}
	conn.Close()
	flood.Wait()
	if err := n.close(); err != nil {
		t.Error(err)
	}
}

// A pause of the supervisor itself is no silence of its workers.
func TestAwakeNoticesPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAwake(10 * time.Second)
		for range 20 {
			time.Sleep(a.every + 100*time.Millisecond)
			if at := a.since(); !at.IsZero() {
				t.Fatalf("since() = %v; want no pause", at)
			}
		}
		time.Sleep(a.every + time.Second)
		resumed := a.since()
		if !resumed.Equal(time.Now()) {
			t.Errorf("since() after a pause = %v; want now, %v", resumed, time.Now())
		}
		time.Sleep(time.Second)
		if at := a.since(); !at.Equal(resumed) {
			t.Errorf("since() = %v; want %v", at, resumed)
		}
	})
}

// A job's heartbeats that came while the supervisor was stopped are read before it
// is judged by them.
func TestHeartbeatsAreReadBeforeTheyAreMissed(t *testing.T) {
	t.Parallel()
	n, err := listenForNotes(shortDir(t), func(string, error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	p := &process{pid: os.Getpid(), wake: make(chan struct{}, 1), notifier: n, awake: newAwake(time.Hour)}
	n.known[p.pid] = p
	p.heard.last.beat = time.Now().Add(-time.Minute)
	n.reading.Lock() // as if the supervisor had not come to it
	notify(t, n.path, "WATCHDOG=1")
	n.reading.Unlock()
	if silent := p.silence(); silent > 50*time.Second {
		t.Errorf("silence() = %v; want what came just now", silent)
	}
	p.heard.last.beat = time.Now().Add(-time.Minute)
	p.awake.missed()
	if silent := p.silence(); silent > 50*time.Second {
		t.Errorf("silence() after a pause = %v; want the time since", silent)
	}
}

// A reader goes back to an epoch when a message of another one turns out to be
// wrong: nothing is counted twice.
func TestIntakeOfEpochsInTurn(t *testing.T) {
	var i intake
	for _, a := range []msg.Account{{Epoch: 1, Received: 10}, {Epoch: 2, Received: 1, Lost: 3}, {Epoch: 1, Received: 12}, {Epoch: 3, Received: 5}, {Epoch: 1, Received: 13, Repaired: 1}} {
		i.take(a, 7, time.Second)
	}
	if i.got != 20 || i.lost != 3 {
		t.Errorf("got %d, lost %d; want 14 + 1 + 5, and 3", i.got, i.lost)
	}
}

// Signals that come twice are one order; SIGHUP is never the second.
func TestInterrupts(t *testing.T) { // not parallel: signals are the process's
	for _, tt := range []struct {
		name     string
		detached bool
		signals  []unix.Signal
		stop     bool
	}{
		{"hang-up", false, []unix.Signal{unix.SIGHUP, unix.SIGHUP, unix.SIGHUP}, true},
		{"hang-up, detached", true, []unix.Signal{unix.SIGHUP, unix.SIGHUP}, false},
		{"doubled Ctrl-C", false, []unix.Signal{unix.SIGINT, unix.SIGINT}, true},
		{"service manager", false, []unix.Signal{unix.SIGTERM, unix.SIGHUP}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			skipWithoutHangup(t)
			ctx, killed, done := interrupts(t.Context(), tt.detached)
			defer done()
			for _, s := range tt.signals {
				if err := unix.Kill(os.Getpid(), s); err != nil {
					t.Fatal(err)
				}
			}
			if tt.stop {
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Second):
					t.Fatal("the context goes on")
				}
			}
			select {
			case <-killed:
				t.Error("killed; want an end in order")
			case <-time.After(100 * time.Millisecond):
			}
			if !tt.stop && ctx.Err() != nil {
				t.Errorf("the context has ended: %v", ctx.Err())
			}
		})
	}
}
