package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/fakev4l2"
	"github.com/perch-edge/perch/pkg/msg"
)

// TestMain lets the test binary be the program itself, the fake camera's
// process, and a command that writes frames.
func TestMain(m *testing.M) {
	if fakev4l2.IsChild() {
		os.Exit(fakev4l2.Main())
	}
	boxtest.Main(m, map[string]func(){"sensor-camera": main, "frames": frames})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: func(env *testscript.Env) error {
		env.Setenv("PERCH_TESTDATA", os.Getenv("PERCH_TESTDATA"))
		return nil
	}})
}

// limit bounds every wait for another process.
const limit = 2 * time.Minute

// box is a fleet of one camera, "porch", and one reader, "look", which is the test.
type box struct {
	t        *testing.T
	dir      string
	topology string
	bus      *msg.Bus
	last     *process
}

// noneRuns says that there is no camera any more.
func (b *box) noneRuns() bool {
	select {
	case <-b.last.done:
		return true
	default:
		return false
	}
}

// newBox writes a topology; camera is what stands in the camera's table.
func newBox(t *testing.T, camera string) *box {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "p-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	b := &box{t: t, dir: dir, topology: filepath.Join(dir, "box.toml")}
	text := fmt.Sprintf(`[node]
name = "box"
run_dir = "%[1]s/run"
shm_dir = "%[1]s/shm"
store_dir = "%[1]s"
start_gate = "20s"
[sensor.porch]
program = "sensor-camera"
log_level = "debug"
%[2]s
[worker.look]
program = "look"
source = "porch"
`, dir, camera)
	must(t, os.WriteFile(b.topology, []byte(text), 0o600))
	b.bus = b.open("look")
	return b
}

// open opens the bus under a name.
func (b *box) open(name msg.Source) *msg.Bus {
	b.t.Helper()
	bus, err := msg.Open(msg.Config{Node: "box", Name: name, RunDir: b.dir + "/run", ShmDir: b.dir + "/shm"})
	must(b.t, err)
	b.t.Cleanup(func() { must(b.t, bus.Close()) })
	return bus
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// frames connects the reader, which the camera waits for.
func (b *box) frames() *reader {
	b.t.Helper()
	f, err := b.bus.Frames(msg.FrameSource{Source: "porch", Stream: "video", Pins: 2})
	must(b.t, err)
	// Under another name: the camera is to wait for who reads frames.
	sub, err := b.open("watch").Subscribe(msg.Subscription{Sources: []msg.Address{{Source: "porch"}}, Kinds: []msg.Kind{msg.KindState}})
	must(b.t, err)
	return &reader{b, b.t, f, sub}
}

// reader reads the camera's frames and its state.
type reader struct {
	b      *box
	t      *testing.T
	frames *msg.Frames
	states *msg.Subscriber
}

// next is the next frame; it is the caller's to release.
func (r *reader) next() msg.Frame {
	r.t.Helper()
	until := time.Now().Add(limit)
	for {
		f, ok, err := r.frames.Next(r.t.Context(), time.Now().Add(time.Second))
		if ok {
			return f
		}
		if err != nil || time.Now().After(until) || r.b.noneRuns() {
			r.t.Fatalf("Next() = %v, %v; want a frame (%v)", ok, err, r.frames.Waiting())
		}
	}
}

// ended wants the end of the stream, and nothing lost before it.
func (r *reader) ended(frames uint64) {
	r.t.Helper()
	f, ok, err := r.frames.Next(r.t.Context(), time.Now().Add(limit))
	if !errors.Is(err, msg.ErrEnded) {
		r.t.Fatalf("Next() = frame %d, %v, %v; want the stream's end", f.Seq, ok, err)
	}
	if got := r.frames.Totals(); got.Received != frames || got.Lost+got.Skipped != 0 {
		r.t.Errorf("Totals() = %+v; want %d received and none lost", got, frames)
	}
}

// state waits for a state of the camera that is as wanted.
func (r *reader) state(what string, want func(*msg.State) bool) *msg.State {
	r.t.Helper()
	var last msg.State
	for until := time.Now().Add(limit); ; {
		m, ok, err := r.states.Next(r.t.Context(), until)
		must(r.t, err)
		if !ok {
			r.t.Fatalf("no state with %s; the last one is %+v", what, last)
		}
		last, err = m.State()
		must(r.t, err)
		if want(&last) {
			return &last
		}
	}
}

// process is a running camera.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	log  bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// logs waits until the program has written that: its log may lag behind what it does.
func (p *process) logs(want string) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(p.output(), want) {
			return true
		}
	}
	return false
}

// start runs the program on the topology.
func (b *box) start(flags ...string) *process {
	b.t.Helper()
	p := &process{t: b.t, done: make(chan struct{})}
	b.last = p
	p.cmd = exec.Command("sensor-camera", append([]string{"--topology", b.topology}, flags...)...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	must(b.t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // exit asks for the code
	}()
	b.t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		p.exit()
		if b.t.Failed() {
			log := p.output()
			b.t.Logf("sensor-camera wrote:\n%s", log[max(0, len(log)-4000):])
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // it may have ended

// exit waits for the end and returns the exit code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.signal(syscall.SIGKILL)
		<-p.done
		p.t.Errorf("sensor-camera did not end within %v", limit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// leftovers are the files that a camera which has ended should not leave.
func (b *box) leftovers() (list []string) {
	b.t.Helper()
	for _, dir := range []string{"/run", "/shm"} {
		entries, err := os.ReadDir(b.dir + dir)
		must(b.t, err)
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".lock") {
				list = append(list, e.Name())
			}
		}
	}
	return list
}

// tool runs a program whose output is wanted, or skips the test without it.
func tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	var complaint bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, complaint.Bytes())
	}
	return out
}
