// Package e2e runs whole fleets as a user does: real binaries, real processes,
// real faults, and a client in another language.
//
//	go build ./cmd/... --> bin --> supervisor up fleet.toml --> kill, look, count --> supervisor down --> nothing is left
package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bin is the folder of the programs, built once for all tests.
var bin string

func TestMain(m *testing.M) {
	os.Args = slices.Insert(os.Args, 1, "-test.parallel=4") // whole fleets, unless the command line says otherwise
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	if bin = os.Getenv("PERCH_BIN"); bin != "" { // "make test" has built all of it
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "perch-bin-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	bin = dir
	build := exec.Command("go", "build", "-o", dir+"/", "../cmd/...", "./counter", "./maker")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return 1, fmt.Errorf("build the programs: %w", err)
	}
	return m.Run(), nil
}

// fleet is a running topology.
type fleet struct {
	t        *testing.T
	dir      string // of everything; short, since it holds sockets
	topology string
	up       *exec.Cmd
	log      *os.File
}

// node is the [node] table of a test's topology: folders of its own.
const node = `[node]
name = "box"
run_dir = "run"
shm_dir = "shm"
cache_dir = "cache"
store_dir = "store"
`

// newFleet writes the topology, its [node] aside.
func newFleet(t *testing.T, topology string) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "p-")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, dir: dir, topology: filepath.Join(dir, "box.toml")}
	text := node + strings.ReplaceAll(topology, "$DIR", dir)
	text = strings.ReplaceAll(text, "$BIN", bin)
	if err := os.WriteFile(f.topology, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.clean)
	return f
}

// clean stops what a failed test left running.
func (f *fleet) clean() {
	if f.up != nil {
		f.stop()
	}
	if f.t.Failed() && f.log != nil {
		text, _ := os.ReadFile(f.log.Name())
		f.t.Logf("log of the fleet, its last part:\n%s", text[max(0, len(text)-6000):])
	}
	os.RemoveAll(f.dir)
}

// start runs "supervisor up" and waits until all is ready.
func (f *fleet) start() {
	f.t.Helper()
	f.launch()
	f.wait("all ready", func(b box) bool { return b.Ready })
}

func (f *fleet) launch() {
	f.t.Helper()
	var err error
	if f.log, err = os.OpenFile(filepath.Join(f.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.up = exec.Command(filepath.Join(bin, "supervisor"), "up", f.topology)
	f.up.Stdout, f.up.Stderr = f.log, f.log
	f.up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // a test binary that panics leaves no fleet
	if err := f.up.Start(); err != nil {
		f.t.Fatal(err)
	}
}

// stop asks for an ordered end, and returns the supervisor's own error.
func (f *fleet) stop() error {
	if err := f.up.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.AfterFunc(time.Minute, func() { f.up.Process.Kill() })
	defer timer.Stop()
	err := f.up.Wait()
	f.up = nil
	return err
}

// box is the part of the state document that tests look at.
type box struct {
	Ready   bool `json:"ready"`
	Workers []struct {
		Name     string             `json:"name"`
		Phase    string             `json:"phase"`
		PID      int                `json:"pid"`
		Restarts int                `json:"restarts"`
		Trouble  string             `json:"trouble"`
		Counters map[string]uint64  `json:"counters"`
		Gauges   map[string]float64 `json:"gauges"`
	} `json:"workers"`
}

func (b box) pid(name string) int {
	for _, w := range b.Workers {
		if w.Name == name && w.Phase == "ready" {
			return w.PID
		}
	}
	return 0
}

func (b box) phase(name string) string {
	for _, w := range b.Workers {
		if w.Name == name {
			return w.Phase
		}
	}
	return "unknown"
}

// status asks on the supervisor's socket, as "supervisor status" does. Tests ask
// many times a second, and a process for each would keep the machine busy.
func (f *fleet) status() (box, error) {
	conn, err := net.Dial("unix", filepath.Join(f.dir, "run", "supervisor.sock"))
	if err != nil {
		return box{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return box{}, err
	}
	if _, err := io.WriteString(conn, `{"verb":"status"}`+"\n"); err != nil {
		return box{}, err
	}
	var reply struct {
		OK    bool
		Error string
		Box   box
	}
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		return box{}, fmt.Errorf("supervisor status: %w", err)
	}
	if !reply.OK {
		return box{}, fmt.Errorf("supervisor status: %s", reply.Error)
	}
	return reply.Box, nil
}

// wait polls the state until it is as wanted; three minutes without that are a failure.
// The longer it takes, the less often it looks: an answer costs the supervisor a
// look at each process.
func (f *fleet) wait(what string, wanted func(box) bool) (last box) {
	f.t.Helper()
	for begun := time.Now(); time.Since(begun) < 3*time.Minute; {
		b, err := f.status()
		if err == nil && wanted(b) {
			return b
		}
		last = b
		time.Sleep(min(max(20*time.Millisecond, time.Since(begun)/20), 250*time.Millisecond)) // between two looks at another process
	}
	f.t.Fatalf("waited three minutes for: %s; the last state was %+v", what, last)
	return last
}

// leftovers lists what should not be there after an end: rings, sockets,
// locks, processes.
func (f *fleet) leftovers() (left []string) {
	for _, pattern := range []string{"shm/*", "run/*.ipc", "run/*.lock", "run/*.sock"} {
		found, _ := filepath.Glob(filepath.Join(f.dir, pattern))
		left = append(left, found...)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		line, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(line), f.dir) {
			left = append(left, p+": "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return left
}
