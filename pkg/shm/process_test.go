package shm

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests of what happens to other processes run them for real: the test
// binary starts itself again, and roleEnv says as what.
const roleEnv = "PERCH_SHM_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func play(role string, args []string) int {
	var err error
	switch role {
	case "reader":
		err = playReader(args)
	case "writer":
		err = playWriter(args)
	case "torn-reader":
		err = playTornReader(args)
	case "torn-writer":
		err = playTornWriter(args)
	case "still":
		err = playStill(args)
	default:
		err = fmt.Errorf("role %q", role)
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// child is another process of this test binary. It is led line by line.
type child struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *os.File
	buf *bufio.Reader
}

// start runs a role. Its first line is read with answer.
func start(t testing.TB, role string, args ...any) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	for _, a := range args {
		cmd.Args = append(cmd.Args, fmt.Sprint(a))
	}
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GODEBUG=asyncpreemptoff=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	c := &child{t: t, cmd: cmd, in: in, out: out, buf: bufio.NewReader(out)}
	t.Cleanup(c.kill)
	return c
}

// answer is the child's next line.
func (c *child) answer() string {
	c.t.Helper()
	c.out.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, err := c.buf.ReadString('\n')
	if err != nil {
		c.t.Fatalf("process %d says %q: %v", c.cmd.Process.Pid, line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// ask sends a command and returns its answer.
func (c *child) ask(format string, args ...any) string {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		c.t.Fatalf("tell process %d: %v", c.cmd.Process.Pid, err)
	}
	return c.answer()
}

// says checks the child's next line.
func (c *child) says(want string) {
	c.t.Helper()
	if got := c.answer(); got != want {
		c.t.Fatalf("process %d says %q; want %q", c.cmd.Process.Pid, got, want)
	}
}

// want is ask for commands with one right answer.
func (c *child) want(answer, format string, args ...any) {
	c.t.Helper()
	if got := c.ask(format, args...); got != answer {
		c.t.Fatalf("%s = %q; want %q", fmt.Sprintf(format, args...), got, answer)
	}
}

// kill ends the process as kill -9 does and waits until it is gone.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		c.out.Close()
	}
}

// stop sends SIGSTOP and waits until every thread has stopped.
func (c *child) stop() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	tasks := fmt.Sprintf("/proc/%d/task", c.cmd.Process.Pid)
	poll(c.t, "the process to stop", func() bool {
		threads, err := os.ReadDir(tasks)
		return err == nil && !slices.ContainsFunc(threads, func(e os.DirEntry) bool {
			stat, err := os.ReadFile(tasks + "/" + e.Name() + "/stat")
			_, state, _ := strings.Cut(string(stat), ") ")
			return err == nil && !strings.HasPrefix(state, "T")
		})
	})
}

func (c *child) resume() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		c.t.Fatal(err)
	}
}

// poll waits for another process to bring a condition about.
func poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited two minutes for %s", what)
		}
	}
}

// folder is a new ring folder, in RAM where the machine has that.
func folder(t testing.TB) *Dir {
	t.Helper()
	path, err := os.MkdirTemp("/dev/shm", "perch-shm-test-")
	if err != nil {
		path = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	return openDir(t, path)
}

func openDir(t testing.TB, path string) *Dir {
	t.Helper()
	dir, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

const ring = Name("porch.video")

func create(t testing.TB, dir *Dir, epoch Epoch, o Options) *Writer {
	t.Helper()
	w, err := Create(dir, ring, epoch, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func open(t testing.TB, dir *Dir, who string, pins int) *Reader {
	t.Helper()
	r, err := OpenReader(dir, ring, who, pins)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// publish fills whole slots with the pattern of their sequence numbers.
func publish(t testing.TB, w *Writer, n int) {
	t.Helper()
	for range n {
		s, err := w.Claim()
		if err != nil {
			t.Fatalf("Claim() of message %d = %v", w.Published(), err)
		}
		fill(s.Bytes(), w.Published())
		s.Publish(len(s.Bytes()), Info{})
	}
}

// lease takes a lease that must be there.
func lease(t testing.TB, l Lease, err error) Lease {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fill writes a pattern in which no two messages have a word in common.
func fill(b []byte, seq uint64) {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], word(seq, i))
	}
}

// whole says whether every word is of that message.
func whole(b []byte, seq uint64) bool {
	for i := 0; i+8 <= len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) != word(seq, i) {
			return false
		}
	}
	return len(b) > 0
}

func word(seq uint64, i int) uint64 { return (seq+1)*0x9e3779b97f4a7c15 + uint64(i) }

// pinned counts the slots that carry pins.
func pinned(a area, slots int) (n int) {
	for i := range slots {
		if a.word(i).Load()&pinBits != 0 {
			n++
		}
	}
	return n
}

// needTwoProcessors skips a test that watches one goroutine from another.
func needTwoProcessors(t *testing.T) {
	t.Helper()
	if min(runtime.NumCPU(), runtime.GOMAXPROCS(0)) < 2 {
		t.Skip("watching what lasts microseconds needs two processors")
	}
}

// underRace says whether the race detector slows everything down.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
