package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

// A service manager that reads nothing, since it was stopped or is stuck, does not
// stop the work; and READY=1 arrives once it reads again.
func TestNobodyReadsTheHeartbeats(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, counting)
	n := notifySocket(t, b)
	filler, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	if err := filler.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write([]byte("X_FILLER=1"))
	}
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	p := b.StartEnv([]string{"NOTIFY_SOCKET=" + n.path, "WATCHDOG_USEC=90000"}, "ticker", "--topology", b.Topology)
	s := feed.State("work and dropped heartbeats", func(s msg.State) bool { return s.Counters["dropped_heartbeats"] >= 10 })
	feed.State("more work", func(now msg.State) bool { return now.Counters["numbers"] >= s.Counters["numbers"]+50 })
	n.until("STATUS=counting every 20ms; and more")
	n.until("READY=1")
	n.until("WATCHDOG=1")
	p.Stop()
}

// A service manager whose socket is away for a while hears all when it is back.
func TestSocketOfTheManagerIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, counting)
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	p := b.StartEnv([]string{"NOTIFY_SOCKET=" + b.Dir + "/notify", "WATCHDOG_USEC=90000"}, "ticker", "--topology", b.Topology)
	feed.State("dropped heartbeats", func(s msg.State) bool { return s.Counters["dropped_heartbeats"] >= 3 })
	n := notifySocket(t, b)
	n.until("READY=1")
	n.until("WATCHDOG=1")
	p.Stop()
}

// full is a pipe with no room left.
func full(t *testing.T) (from, into *os.File) {
	t.Helper()
	from, into, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close(); into.Close() })
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", into.Fd()), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for err == nil {
		_, err = unix.Write(fd, []byte("{}\n"))
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return from, into
}

// Nobody reads what the worker logs: it works on, and tells later of the lines
// that were dropped.
func TestNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, counting)
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	from, into := full(t)
	cmd := exec.Command("ticker", "--topology", b.Topology)
	cmd.Stderr = into
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	s := feed.State("dropped lines", func(s msg.State) bool { return s.Counters["dropped_log_lines"] >= 2 })
	feed.State("more work", func(now msg.State) bool { return now.Counters["numbers"] >= s.Counters["numbers"]+50 })
	if err := into.Close(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(from)
	for told := false; !told; {
		if !lines.Scan() {
			t.Fatalf("the log ended (%v) without a word on what was dropped", lines.Err())
		}
		if told = strings.Contains(lines.Text(), "log lines were dropped"); told && !json.Valid(lines.Bytes()) {
			t.Errorf("line %q; want JSON", lines.Text())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // until its end
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Whatever fits into a pipe at a time: lines come out whole and in order, and what
// is missing is told where it is missing.
func TestLinesInAPipeAreWholeOrDropped(t *testing.T) {
	t.Parallel()
	from, into, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	defer into.Close()
	var dropped atomic.Uint64
	p, ok := withoutWaiting(into, &dropped).(*pipe)
	if !ok {
		t.Fatal("withoutWaiting() of a pipe is no *pipe")
	}
	p.note = func(to io.Writer, lines uint64) { fmt.Fprintf(to, "lost %d\n", lines) }
	const lines = 200
	text := strings.Repeat("x", 7000) // more than PIPE_BUF: a part of it may fit
	var out bytes.Buffer
	drain := func(atMost int64) {
		t.Helper()
		if err := from.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&out, io.LimitReader(from, atMost)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	for n := range lines {
		if n == lines-1 {
			drain(1 << 20)
		}
		if _, err := fmt.Fprintf(p, "%d %s\n", n, text); err != nil {
			t.Fatal(err)
		}
		if n%50 == 49 {
			drain(20000)
		}
	}
	drain(1 << 20)
	next, lost := 0, 0
	for line := range strings.Lines(out.String()) {
		var n int
		if _, err := fmt.Sscanf(line, "lost %d\n", &n); err == nil {
			next, lost = next+n, lost+n
			continue
		}
		if want := fmt.Sprintf("%d %s\n", next, text); line != want {
			t.Fatalf("line %.20q… of %d bytes; want %.20q… of %d", line, len(line), want, len(want))
		}
		next++
	}
	if next != lines || lost == 0 || uint64(lost) != dropped.Load() {
		t.Errorf("%d lines came or were told of, %d of them lost, counted %d; want %d, and some lost", next, lost, dropped.Load(), lines)
	}
}

// A terminal that closes sends SIGHUP twice: by the kernel, and by its shell.
func TestTwoHangupsAreOneOrderToStop(t *testing.T) {
	t.Parallel()
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("SIGHUP is ignored, as by nohup(1): programs that are started here ignore it too")
	}
	b := boxtest.New(t, withEnd(`end = "deaf"`))
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	p := b.Start("ticker", "count")
	feed.State("the worker ready", func(s msg.State) bool { return s.Ready })
	p.Signal(syscall.SIGHUP)
	feed.State("the first signal heard", func(s msg.State) bool { return s.Status == "told to stop" })
	for range 3 {
		p.Signal(syscall.SIGHUP)
		p.Signal(unix.SIGCONT)
	}
	feed.State("life after the second", func(s msg.State) bool { return s.Status == "told to stop" })
	<-time.After(2 * sameOrder)
	p.Signal(syscall.SIGHUP)
	feed.State("life after a late one", func(s msg.State) bool { return s.Status == "told to stop" })
	p.Kill()
	if err := errors.Join(os.Remove(b.Dir+"/run/count.ipc"), os.Remove(b.Dir+"/run/count.ipc.lock")); err != nil {
		t.Error(err)
	}
}
