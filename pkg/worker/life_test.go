package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

func TestExitCodeOfAnError(t *testing.T) {
	lost := errors.New("three rows are lost")
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, ExitDone},
		{context.Canceled, ExitDone},
		{fmt.Errorf("read frame: %w", context.Canceled), ExitDone},
		{errors.Join(context.Canceled, nil), ExitDone},
		{errors.Join(context.Canceled, fmt.Errorf("wait: %w", context.Canceled)), ExitDone},
		{errors.Join(context.Canceled, lost), ExitFailed},
		{errors.Join(lost, context.Canceled), ExitFailed},
		{fmt.Errorf("%w: %w", lost, context.Canceled), ExitFailed},
		{context.DeadlineExceeded, ExitFailed},
		{lost, ExitFailed},
		{NoDevice(lost), ExitNoDevice},
		{fmt.Errorf("open: %w", Temporary(lost)), ExitTemporary},
		{BadConfig(lost), ExitConfig},
		{topology.Problems{{Message: "x"}}, ExitConfig},
		{fmt.Errorf("publish: %w", &lockfile.HeldError{Path: "x"}), ExitTemporary},
		{errors.Join(context.Canceled, NoDevice(lost)), ExitNoDevice},
	} {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("ExitCode(%v) = %d; want %d", tt.err, got, tt.want)
		}
	}
	texts := map[string]bool{}
	for _, code := range []int{ExitDone, ExitFailed, ExitNoDevice, ExitTemporary, ExitConfig} {
		texts[CodeText(code)] = true
	}
	if len(texts) != 5 {
		t.Errorf("CodeText() of five codes = %v; want five texts", texts)
	}
}

// The first line is what a supervisor shows: it is no word on having been told to stop.
func TestReasonLeavesOutTheOrderToStop(t *testing.T) {
	lost := errors.New("three rows are lost")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{lost, "three rows are lost"},
		{errors.Join(context.Canceled, lost), "three rows are lost"},
		{errors.Join(lost, fmt.Errorf("wait: %w", context.Canceled)), "three rows are lost"},
		{errors.Join(errors.Join(context.Canceled, lost), errors.New("close: busy")), "three rows are lost\nclose: busy"},
		{fmt.Errorf("write: %w: %w", lost, context.Canceled), "write: three rows are lost: context canceled"},
	} {
		if got := reason(tt.err); got != tt.want {
			t.Errorf("reason(%v) = %q; want %q", tt.err, got, tt.want)
		}
	}
}

// notifications is a socket as systemd gives one.
type notifications struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func notifySocket(t *testing.T, b *boxtest.Box) *notifications {
	t.Helper()
	path := b.Dir + "/notify"
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notifications{t, conn, path}
}

// next is the next datagram, "" when none comes by then.
func (n *notifications) next(by time.Time) string {
	n.t.Helper()
	if err := n.conn.SetReadDeadline(by); err != nil {
		n.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	size, err := n.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return string(buf[:size])
}

// until skips datagrams until one is as wanted.
func (n *notifications) until(want string) {
	n.t.Helper()
	var seen []string
	for by := time.Now().Add(boxtest.Limit); ; {
		got := n.next(by)
		if got == want {
			return
		}
		if seen = append(seen, got); got == "" {
			n.t.Fatalf("notifications = %q; want %q among them", seen, want)
		}
	}
}

const counting = `[sensor.count]
program = "ticker"
[sensor.count.stream.count]
`

func withEnd(keys string) string { return strings.Replace(counting, "\n[", "\n"+keys+"\n[", 1) }

// watchdogPeriod is far more than a step takes on a busy machine, and little
// enough for a test.
const watchdogPeriod = 3 * time.Second

func (n *notifications) env() []string {
	return []string{"NOTIFY_SOCKET=" + n.path, fmt.Sprintf("WATCHDOG_USEC=%d", watchdogPeriod.Microseconds())}
}

func TestServiceManagerHearsOfTheLifeOfAWorker(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, counting)
	n := notifySocket(t, b)
	p := b.StartEnv(n.env(), "ticker", "--topology", b.Topology)
	n.until("STATUS=counting every 20ms; and more") // a line each, sd_notify(3)
	n.until("READY=1")
	n.until("WATCHDOG=1")
	n.until("WATCHDOG=1")
	p.Stop()
}

// The heartbeat is the work loop's: when that hangs there is none, though the
// process lives and its state still comes.
func TestWatchdogIsNotFedByALoopThatHangs(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, withEnd("end = \"hang\"\nafter = 5"))
	n := notifySocket(t, b)
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	p := b.StartEnv(n.env(), "ticker", "--topology", b.Topology)
	n.until("STATUS=hanging")
	hung := feed.State("the status hanging", func(s msg.State) bool { return s.Status == "hanging" })
	for range 4 { // a second each, and so longer than the period
		if s := feed.State("anything", func(msg.State) bool { return true }); s.ProgressNS != hung.ProgressNS {
			t.Errorf("progress_ns = %d; want %d as before", s.ProgressNS, hung.ProgressNS)
		}
	}
	if got := n.next(time.Now()); got != "" {
		t.Errorf("notification of a worker that hangs = %q; want none", got)
	}
	p.Kill()
	if err := errors.Join(os.Remove(b.Dir+"/run/count.ipc"), os.Remove(b.Dir+"/run/count.ipc.lock")); err != nil {
		t.Error(err)
	}
}

// A sensor that waits for its readers is not one that hangs.
func TestStartGateFeedsTheWatchdog(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, counting+"[worker.sum]\nprogram = \"adder\"\nsource = \"count\"\n")
	n := notifySocket(t, b)
	p := b.StartEnv(n.env(), "ticker", "--topology", b.Topology, "--set", "node.start_gate=20s")
	n.until("READY=1")
	n.until("WATCHDOG=1")
	n.until("WATCHDOG=1")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	if s := feed.State("the worker ready", func(s msg.State) bool { return s.Ready }); s.Counters["numbers"] != 0 {
		t.Errorf("the sensor has published %d numbers before its reader came; want none", s.Counters["numbers"])
	}
	reader := b.Start("adder", "sum")
	feed.State("numbers", func(s msg.State) bool { return s.Counters["numbers"] > 0 })
	sum := b.Follow(b.Bus("look"), []msg.Kind{msg.KindState}, "sum").State("five rows", func(s msg.State) bool { return s.Status == "five from count" })
	if a := sum.Sources[0]; a.Skipped != 0 || a.Lost != 0 {
		t.Errorf("account = %+v; want everything from the first number on", a)
	}
	p.Stop()
	reader.Stop()
}

func TestStateTellsOfTheWorkerEachSecond(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, counting+"[worker.sum]\nprogram = \"adder\"\nsource = \"count\"\n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	reader, p := b.Start("adder", "sum"), b.Start("ticker", "count")
	s := feed.State("a reader and numbers", func(s msg.State) bool { return s.Counters["numbers"] > 20 && len(s.Subscribers) > 1 })
	topic := msg.Topic("reading/count/count")
	if s.Program != "ticker" || s.PID != p.PID() || !s.Ready || s.Status != "counting every 20ms\nand more" || s.ProgressNS == 0 ||
		s.Gauges["last_n"] != float64(s.Counters["numbers"]-1) || s.Published[topic] != s.Counters["numbers"] || s.Dropped[topic] != 0 {
		t.Errorf("state = %+v; want that of the process %d", s, p.PID())
	}
	if diff := cmp.Diff([]string{"sum", "watch"}, s.Subscribers); diff != "" {
		t.Errorf("subscribers (-want +got):\n%s", diff)
	}
	if odd := s.Counters["numbers"]%2 == 0; odd != (s.Trouble != "") {
		t.Errorf("trouble after %d numbers = %q; want it after an odd one only", s.Counters["numbers"], s.Trouble)
	}
	first, count := s, 0
	last := feed.State("four more", func(msg.State) bool { count++; return count == 4 })
	if apart := time.Duration(last.BootNS - first.BootNS); last.Seq != first.Seq+4 || apart < 3*time.Second || apart > 5*time.Second {
		t.Errorf("four states later seq is %d after %s; want %d after 4 s", last.Seq, apart, first.Seq+4)
	}
	p.Signal(syscall.SIGTERM)
	word := feed.State("the last word", func(s msg.State) bool { return s.Seq > last.Seq })
	if code := p.Wait(); code != ExitDone || word.Counters["numbers"] != word.Published[topic] {
		t.Errorf("exit code %d with %d numbers of %d; want 0 and all", code, word.Counters["numbers"], word.Published[topic])
	}
	if !strings.Contains(p.Log(), `"msg":"stopped"`) || strings.Contains(p.Log(), "level=") {
		t.Errorf("log = %s; want JSON that ends with stopped", p.Log())
	}
	reader.Stop()
}

func TestSecondSignalEndsTheProcess(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, withEnd(`end = "deaf"`))
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	p := b.Start("ticker", "count")
	feed.State("the worker ready", func(s msg.State) bool { return s.Ready })
	p.Signal(syscall.SIGTERM)
	feed.State("the first signal heard", func(s msg.State) bool { return s.Status == "told to stop" })
	<-time.After(2 * sameOrder)
	p.Signal(syscall.SIGINT)
	if code := p.Wait(); code != -1 {
		t.Errorf("exit code after a second signal = %d; want an end by the signal", code)
	}
	if err := errors.Join(os.Remove(b.Dir+"/run/count.ipc"), os.Remove(b.Dir+"/run/count.ipc.lock")); err != nil {
		t.Error(err)
	}
}

// A stop that loses something is a failure, whatever asked for the stop.
func TestStopThatLosesSomethingIsAFailure(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, withEnd(`end = "loss"`))
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	p := b.Start("ticker", "count")
	feed.State("the worker ready", func(s msg.State) bool { return s.Ready })
	p.Signal(syscall.SIGINT)
	if code := p.Wait(); code != ExitFailed || !strings.Contains(p.Log(), "three rows are lost") {
		t.Errorf("exit code = %d with the log %s; want 1 and the reason", code, p.Log())
	}
}

func TestSecondWorkerOfANameIsRefusedWithWhoHasIt(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, counting)
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	p := b.Start("ticker", "count")
	feed.State("the worker ready", func(s msg.State) bool { return s.Ready })
	second := b.Start("ticker", "count")
	if code := second.Wait(); code != ExitTemporary || !strings.Contains(second.Log(), fmt.Sprintf("process %d (ticker)", p.PID())) {
		t.Errorf("exit code = %d with the log %s; want 75 and process %d", code, second.Log(), p.PID())
	}
	before := feed.State("anything", func(msg.State) bool { return true })
	feed.State("the first to go on", func(s msg.State) bool { return s.Counters["numbers"] > before.Counters["numbers"] })
	p.Stop()
}

func TestWorkerThatWasKilledIsFollowedByTheNext(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, counting)
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "count")
	var last msg.Epoch
	for range 3 {
		p := b.Start("ticker", "count")
		s := feed.State("a new run", func(s msg.State) bool { return s.Epoch > last && s.Ready })
		last = s.Epoch
		p.Kill()
	}
	p := b.Start("ticker", "count")
	feed.State("a new run", func(s msg.State) bool { return s.Epoch > last && s.Ready })
	p.Stop()
}
