package ffmpeg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The tests' children are the test binary itself, told by this variable what
// to be.
const roleEnv = "PERCH_FFMPEG_TEST_CHILD"

// TestMain also sees to it that no test leaves a goroutine.
func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "echo":
		_, err := io.Copy(os.Stdout, os.Stdin)
		os.Exit(exitCode(err))
	case "complain":
		for i := range 20 {
			fmt.Fprintf(os.Stderr, "line %d of rtsp://me:secret@camera/x\r\n\n", i)
		}
		fmt.Fprint(os.Stderr, "no newline")
		os.Exit(3)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		select {}
	case "parent": // of a grandchild that holds its output
		grandchild := child("stubborn", Command{}).exec()
		grandchild.Stdout = os.Stdout
		err := grandchild.Start()
		fmt.Println(grandchild.Process.Pid)
		os.Exit(exitCode(err))
	case "owner": // of a child started by Start
		p, err := Start(context.Background(), child("stubborn", Command{Stdout: true}))
		if err != nil {
			os.Exit(exitCode(err))
		}
		fmt.Println(p.PID())
		select {}
	}
}

func exitCode(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a command that plays a role of TestMain.
func child(role string, c Command) Command {
	c.Argv = []string{"env", roleEnv + "=" + role, os.Args[0]}
	return c
}

func (c Command) exec() *exec.Cmd { return exec.Command(c.Argv[0], c.Argv[1:]...) }

func start(t *testing.T, c Command) *Process {
	t.Helper()
	p, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// gone waits until a process is no more, or a zombie.
func gone(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(2 * time.Minute); alive(pid); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("process %d still runs", pid)
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(after, "Z")
}

func readPID(t *testing.T, r io.Reader) int {
	t.Helper()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestPipesCarryBytesAndHaveDeadlines(t *testing.T) {
	p := start(t, child("echo", Command{Stdin: true, Stdout: true}))
	if _, err := io.WriteString(p.Stdin, "pixels"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(p.Stdout, got); err != nil || string(got) != "pixels" {
		t.Fatalf("read %q, %v; want what was written", got, err)
	}
	if err := p.Stdout.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Stdout.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read() = %d, %v; want the deadline to pass", n, err)
	}
	if err := p.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(10 * time.Second); err != nil {
		t.Errorf("Wait() = %v; want nil after exit status 0", err)
	}
}

func TestPipesAreEnlarged(t *testing.T) {
	p := start(t, child("echo", Command{Stdin: true, Stdout: true}))
	for name, pipe := range map[string]*os.File{"Stdin": p.Stdin, "Stdout": p.Stdout} {
		conn, err := pipe.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var size int
		if err := errors.Join(conn.Control(func(fd uintptr) { size, err = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0) }), err); err != nil {
			t.Fatal(err)
		}
		if want := mostPipe(); size < want {
			t.Errorf("%s holds %d bytes; want %d", name, size, want)
		}
	}
}

func TestExitErrorHasTheLastWordsWithoutSecrets(t *testing.T) {
	p := start(t, child("complain", Command{}))
	err := p.Wait(10 * time.Second)
	var exit *ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("Wait() = %v; want an *ExitError", err)
	}
	var want []string
	for i := 12; i < 20; i++ {
		want = append(want, fmt.Sprintf("line %d of rtsp://***@camera/x", i))
	}
	if diff := cmp.Diff(append(want, "no newline"), exit.Words); diff != "" {
		t.Errorf("Words (-want +got):\n%s", diff)
	}
	status := (*exec.ExitError)(nil)
	if !errors.As(err, &status) || status.ExitCode() != 3 || !strings.Contains(err.Error(), "exit status 3; its last words: line 12") {
		t.Errorf("Wait() = %v; want exit status 3 and the last words", err)
	}
}

func TestStopKillsWhoIgnoresSIGTERM(t *testing.T) {
	p := start(t, child("stubborn", Command{Stdout: true, Grace: 10 * time.Millisecond}))
	if _, err := bufio.NewReader(p.Stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	pid := p.PID()
	p.Stop()
	p.Stop() // twice is once
	if alive(pid) {
		t.Errorf("process %d runs after Stop", pid)
	}
}

func TestWaitEndsWhoDoesNotEnd(t *testing.T) {
	p := start(t, child("stubborn", Command{Stdout: true, Grace: 10 * time.Millisecond}))
	if _, err := bufio.NewReader(p.Stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(time.Millisecond); err == nil || !strings.Contains(err.Error(), "did not end by itself") {
		t.Errorf("Wait() = %v; want a complaint that it did not end", err)
	}
}

func TestGrandchildrenEndWithTheGroup(t *testing.T) {
	p := start(t, child("parent", Command{Stdout: true}))
	pid := readPID(t, p.Stdout)
	if err := p.Wait(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
}

func TestChildDiesWithItsOwner(t *testing.T) {
	owner := child("owner", Command{}).exec()
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	pid := readPID(t, out)
	if !alive(pid) {
		t.Fatalf("child %d is not there", pid)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // it was killed
	gone(t, pid)
}

// The thread that a caller is locked to ends with its goroutine; a child that
// this thread had created would be killed by that.
func TestChildOutlivesTheThreadOfItsCaller(t *testing.T) {
	started, tid := make(chan *Process), 0
	call := func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		tid = unix.Gettid()
		if tid == os.Getpid() { // Go parks the first thread of a process instead
			started <- nil
			return
		}
		p, err := Start(context.Background(), child("echo", Command{Stdin: true, Stdout: true}))
		if err != nil {
			t.Error(err)
		}
		started <- p
	}
	go call()
	p := <-started
	if p == nil && tid == os.Getpid() {
		go call()
		p = <-started
	}
	if p == nil {
		t.FailNow()
	}
	defer p.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(2 * time.Minute); ; <-tick.C {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("thread %d does not end", tid)
		}
	}
	got := make([]byte, 1)
	if _, err := p.Stdin.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p.Stdout, got); err != nil {
		t.Errorf("child does not answer after its caller's thread ended: %v", err)
	}
}

func TestStartNamesThePackageOfWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Start(t.Context(), FFmpeg(File("x.mp4")))
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "sudo apt install ffmpeg") {
		t.Errorf("Start(ffmpeg) = %v; want ErrNotFound and the package", err)
	}
	if _, err := Start(t.Context(), Command{}); err == nil {
		t.Error("Start() of no program = nil; want an error")
	}
}
