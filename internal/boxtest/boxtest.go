// Package boxtest is a box for the time of one test: its folders, its topology,
// the programs that run on it, and what they say of themselves.
//
//	New(t, entries) --> Start("csvwriter", …) --> States(…).Until(…) --> Stop, Kill --> nothing is left
//
// Its disks can be small (Small) or fail (NewFaulty, Faulty); Ordeal lets one fail
// at each call of a program, and kills it there.
//
// A test binary is its programs: TestMain calls Main, which puts them on the
// PATH. Everything fails the test by itself. At its end what still runs is
// killed, and what was left in the run folder is an error of the test.
package boxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/perch-edge/perch/pkg/msg"
)

// Main is what TestMain calls: the test binary is these programs as well. Tests
// that wait for processes run eight at a time, as long as nobody says -parallel.
func Main(m *testing.M, programs map[string]func()) {
	if programs[filepath.Base(os.Args[0])] == nil {
		os.Args = slices.Insert(os.Args, 1, "-test.parallel=8")
		if os.Getenv("GORACE") == "" { // for the programs: by default each sleeps a second at its end
			_ = os.Setenv("GORACE", "atexit_sleep_ms=10")
		}
	}
	testscript.Main(m, programs)
}

// Limit bounds every wait for another process. It is long, so that only what hangs
// comes to it: on a busy machine the work of seconds takes a minute.
const Limit = 2 * time.Minute

// Box is a box. Its folder holds run and shm, and store and cache too, unless
// these are on a disk that can fail.
type Box struct {
	Dir      string
	Disk     string // the folder of store and cache, for the test
	Topology string // a file
	at       string // the folder of store and cache, for the programs
	t        testing.TB
}

// New makes a box. entries is what stands in its topology after [node], where
// DIR is the box's folder.
func New(t testing.TB, entries string) *Box {
	t.Helper()
	b := newBox(t)
	b.Write(entries)
	return b
}

func newBox(t testing.TB) *Box {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "p-") // short: a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	b := &Box{Dir: dir, Disk: dir, Topology: filepath.Join(dir, "box.toml"), at: dir, t: t}
	t.Cleanup(func() {
		b.wantNoSockets()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Write replaces the topology's entries.
func (b *Box) Write(entries string) {
	b.t.Helper()
	text := "[node]\nname = \"box\"\nrun_dir = \"DIR/run\"\nshm_dir = \"DIR/shm\"\nstore_dir = \"DISK/store\"\ncache_dir = \"DISK/cache\"\n" +
		"responsible_party = \"River Lab\"\nlatitude = -33.8568\nlongitude = 151.2153\nlog_level = \"debug\"\n" + entries
	if err := os.WriteFile(b.Topology, []byte(strings.NewReplacer("DIR", b.Dir, "DISK", b.at).Replace(text)), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// wantNoSockets looks for what a program that was not killed leaves in the run
// folder.
func (b *Box) wantNoSockets() {
	if b.t.Failed() {
		return
	}
	entries, err := os.ReadDir(b.Dir + "/run")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Error(err)
	}
	for _, e := range entries {
		b.t.Errorf("%s was left in the run folder", e.Name())
	}
}

// Bus opens the bus under a name, for the test itself.
func (b *Box) Bus(name msg.Source) *msg.Bus {
	b.t.Helper()
	bus, err := msg.Open(msg.Config{Node: "box", Name: name, RunDir: b.Dir + "/run", ShmDir: b.Dir + "/shm"})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return bus
}

// Process is a running program.
type Process struct {
	t    testing.TB
	cmd  *exec.Cmd
	log  *tail
	done chan struct{}
}

// Start runs the entry of that name.
func (b *Box) Start(program, name string, args ...string) *Process {
	b.t.Helper()
	return b.StartEnv(nil, program, append([]string{"--topology", b.Topology, "--name", name}, args...)...)
}

// StartEnv runs a program with arguments and variables of the test's own.
func (b *Box) StartEnv(env []string, program string, args ...string) *Process {
	b.t.Helper()
	p := &Process{t: b.t, cmd: exec.Command(program, args...), log: &tail{}, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its code is asked for
	}()
	b.t.Cleanup(func() {
		p.Kill()
		if b.t.Failed() {
			b.t.Logf("%s %s wrote:\n%s", program, args, p.Log())
		}
	})
	return p
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is what it wrote so far.
func (p *Process) Log() string { return p.log.String() }

// Logs waits until it has written that: a log may lag behind what its program does.
func (p *Process) Logs(want string) bool {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for deadline := time.Now().Add(Limit); !strings.Contains(p.Log(), want); <-tick.C {
		if p.ended() || time.Now().After(deadline) {
			return strings.Contains(p.Log(), want)
		}
	}
	return true
}

// PeakKB is how much memory it has had at most, once it has ended.
func (p *Process) PeakKB() int64 {
	p.t.Helper()
	p.Wait()
	usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		p.t.Fatal("the system does not tell how much memory a process had")
	}
	return usage.Maxrss
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal process %d: %v", p.PID(), err)
	}
}

// Kill ends it as kill -9 does, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // perhaps it has ended by itself
	<-p.done
}

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ended says whether it has.
func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Wait waits until it ends, and returns its exit code; -1 after a signal.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(Limit):
		p.t.Fatalf("process %d still runs after %s; it wrote:\n%s", p.PID(), Limit, p.Log())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Ready waits until a worker has said that it is ready.
func (p *Process) Ready() {
	p.t.Helper()
	Poll(p.t, fmt.Sprintf("process %d to be ready", p.PID()), func() bool {
		if p.ended() {
			p.t.Fatalf("process %d has ended; it wrote:\n%s", p.PID(), p.Log())
		}
		return p.isReady()
	})
}

func (p *Process) isReady() bool { return strings.Contains(p.Log(), `"msg":"ready"`) }

// Stop tells a worker to end when it is ready, and wants code 0.
func (p *Process) Stop() {
	p.t.Helper()
	p.Ready()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		p.t.Fatalf("process %d ended with code %d; want 0; it wrote:\n%s", p.PID(), code, p.Log())
	}
}

// tail keeps what a process writes.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Feed is what workers publish, as it comes.
type Feed struct {
	t       testing.TB
	sub     *msg.Subscriber
	trouble string
}

// Follow subscribes to some workers' messages of these kinds.
func (b *Box) Follow(bus *msg.Bus, kinds []msg.Kind, workers ...msg.Source) *Feed {
	b.t.Helper()
	var from []msg.Address
	for _, w := range workers {
		from = append(from, msg.Address{Source: w})
	}
	sub, err := bus.Subscribe(msg.Subscription{Sources: from, Kinds: kinds})
	if err != nil {
		b.t.Fatal(err)
	}
	return &Feed{t: b.t, sub: sub}
}

// Next is the next message.
func (f *Feed) Next() msg.Message {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	m, ok, err := f.sub.Next(ctx, time.Time{})
	if err != nil || !ok {
		f.t.Fatalf("Next() = %v, %v; want a message within %s", ok, err, Limit)
	}
	return m
}

// State waits for a worker's state of which something is true.
func (f *Feed) State(what string, is func(msg.State) bool) msg.State {
	f.t.Helper()
	var last msg.State
	for deadline := time.Now().Add(Limit); ; {
		m, ok, err := f.sub.Next(context.Background(), deadline)
		if err != nil || !ok {
			f.t.Fatalf("no state with %s within %s; the last is %+v (%v)", what, Limit, last, err)
		}
		if m.Kind != msg.KindState {
			continue
		}
		if last, err = m.State(); err != nil {
			f.t.Fatal(err)
		}
		if is(last) {
			return last
		}
	}
}

// Trouble is that of the last state that has come by now.
func (f *Feed) Trouble() string {
	f.t.Helper()
	for {
		m, ok, err := f.sub.Next(context.Background(), time.Now().Add(time.Millisecond))
		if err != nil {
			f.t.Fatal(err)
		}
		if !ok {
			return f.trouble
		}
		if m.Kind != msg.KindState {
			continue
		}
		st, err := m.State()
		if err != nil {
			f.t.Fatal(err)
		}
		f.trouble = st.Trouble
	}
}

// Poll waits until something is true. The longer it takes, the less often it looks:
// many tests wait at the same time, and some look at many files.
func Poll(t testing.TB, what string, is func() bool) {
	t.Helper()
	pollEach(t, 5*time.Millisecond, what, is)
}

func pollEach(t testing.TB, first time.Duration, what string, is func() bool) {
	t.Helper()
	begun, timer := time.Now(), time.NewTimer(first)
	defer timer.Stop()
	for !is() {
		took := time.Since(begun)
		if took > Limit {
			t.Fatalf("waited %s for %s", Limit, what)
		}
		timer.Reset(min(max(first, took/8), 4*pause))
		<-timer.C
	}
}

// Scripts runs the txtar scripts of testdata/script. In them $BOX is a short
// folder that is removed at the end, and "code N PROGRAM ARG…" runs a program
// and wants that exit code.
func Scripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("/dev/shm", "p-")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(dir) })
			env.Setenv("BOX", dir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code},
	})
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s ended with code %d; want %s", args[1], got, args[0])
	}
}
