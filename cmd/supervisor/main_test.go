package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is also the supervisor and the programs that it runs: each
// lies in one folder under its own name.
func TestMain(m *testing.M) {
	os.Setenv("GORACE", "atexit_sleep_ms=0") // otherwise each process takes a second to end
	if filepath.Base(os.Args[0]) == "supervisor.test" {
		os.Args = slices.Insert(os.Args, 1, "-test.parallel=8") // they wait; a -parallel that is given comes later, and wins
	}
	testscript.Main(m, map[string]func(){
		"supervisor":  main,
		"fake-sensor": fakeSensor,
		"fake-reader": fakeReader,
		"fake-camera": fakeCamera,
		"fake-viewer": fakeViewer,
		"fake-job":    fakeJob,
		"fake-mute":   func() { fmt.Fprintln(os.Stderr, "what is --check?"); os.Exit(3) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", WorkdirRoot: shortDir(t), RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			path, err := exec.LookPath("supervisor")
			env.Setenv("BIN", filepath.Dir(path))
			env.Defer(func() { _ = exec.Command("supervisor", "down", "--run-dir", filepath.Join(env.WorkDir, "run")).Run() }) // of a script that failed
			return err
		}})
}

// shortDir is a folder for sockets, whose paths have 107 bytes at most.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "p-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// box is a fleet under test.
type box struct {
	t    *testing.T
	dir  string
	file string // its topology
	run  string
	shm  string
}

// newBox writes a topology; at the end of the test all must be gone.
func newBox(t *testing.T, entries string) *box {
	t.Helper()
	dir := shortDir(t)
	b := &box{t: t, dir: dir, file: filepath.Join(dir, "box.toml"), run: filepath.Join(dir, "run"), shm: filepath.Join(dir, "shm")}
	b.write(entries)
	t.Cleanup(func() {
		if _, err := b.supervisor("down", "--discard", b.file); codeOf(err) > 1 { // 1: a worker failed, as it was to
			t.Errorf("down: %v", err)
		}
		b.wantNothingLeft()
		b.wantNoRace()
	})
	return b
}

func (b *box) write(entries string) {
	b.t.Helper()
	node := "[node]\nname = \"test\"\nrun_dir = \"run\"\nshm_dir = \"shm\"\nstore_dir = \"store\"\n"
	if err := os.WriteFile(b.file, []byte(node+entries), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// supervisor runs one command to its end.
func (b *box) supervisor(args ...string) (string, error) {
	out, err := exec.Command("supervisor", args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("supervisor %v: %w\n%s", args, err, out)
	}
	return string(out), err
}

func codeOf(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// running is a supervisor in the foreground.
type running struct {
	*exec.Cmd
	t    *testing.T
	said bytes.Buffer
	gone chan struct{}
}

// up starts a supervisor in the foreground and waits until it answers.
func (b *box) up(flags ...string) *running {
	b.t.Helper()
	r := &running{Cmd: exec.Command("supervisor", append([]string{"up", b.file}, flags...)...), t: b.t, gone: make(chan struct{})}
	r.Stderr = &r.said
	r.WaitDelay = time.Second
	if err := r.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { defer close(r.gone); _ = r.Wait() }()
	b.t.Cleanup(func() {
		_ = r.Process.Signal(syscall.SIGTERM)
		r.ended(30 * time.Second)
	})
	b.until("the supervisor answers", 10*time.Second, func() bool {
		at := place{RunDir: b.run}
		answer, err := at.ask(b.t.Context(), request{Verb: "status"}, 10*time.Second)
		return err == nil && answer.Box.Supervisor.PID == r.Process.Pid
	})
	return r
}

// ended waits for the supervisor's end.
func (r *running) ended(atMost time.Duration) {
	r.t.Helper()
	select {
	case <-r.gone:
	case <-time.After(atMost):
		_ = r.Process.Kill()
		<-r.gone
		r.t.Fatalf("the supervisor did not end in %v:\n%s", atMost, r.said.String())
	}
}

// state asks for the state of the box.
func (b *box) state() *Box {
	b.t.Helper()
	at := place{RunDir: b.run}
	answer, err := at.ask(b.t.Context(), request{Verb: "status"}, 10*time.Second)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.Box
}

func (b *box) worker(name string) Worker {
	b.t.Helper()
	s := b.state()
	i := slices.IndexFunc(s.Workers, func(w Worker) bool { return w.Name == name })
	if i < 0 {
		b.t.Fatalf("state has no worker %q", name)
	}
	return s.Workers[i]
}

func (b *box) job(name string) Job {
	b.t.Helper()
	s := b.state()
	i := slices.IndexFunc(s.Jobs, func(j Job) bool { return j.Name == name })
	if i < 0 {
		b.t.Fatalf("state has no job %q", name)
	}
	return s.Jobs[i]
}

func (b *box) untilPhase(name string, want Phase) Worker {
	b.t.Helper()
	var w Worker
	b.until(fmt.Sprintf("%s is %s", name, want), 20*time.Second, func() bool {
		w = b.worker(name)
		return w.Phase == want
	})
	return w
}

// until polls for a condition that other processes bring about.
func (b *box) until(what string, atMost time.Duration, is func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(atMost); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("not after %v: %s\n%s", atMost, what, b.logs())
		}
	}
}

func (b *box) logs() string {
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(b.dir, "store/logs/*"))
	for _, f := range files {
		text, _ := os.ReadFile(f)
		fmt.Fprintf(&all, "-- %s\n%s", filepath.Base(f), text)
	}
	return all.String()
}

func (b *box) wantNothingLeft() {
	b.t.Helper()
	for _, dir := range []string{b.run, b.shm} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.t.Error(err)
		}
		for _, e := range entries {
			b.t.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
	for _, pid := range bearing(mark + b.run) {
		if st, err := statOf(pid); err == nil && !st.zombie {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			b.t.Errorf("process %d is left: %q", pid, text)
		}
	}
}

// wantNoRace looks for what the race detector of the other processes said.
func (b *box) wantNoRace() {
	b.t.Helper()
	if logs := b.logs(); strings.Contains(logs, "DATA RACE") {
		b.t.Errorf("a race:\n%s", logs)
	}
}

func alive(pid int) bool {
	st, err := statOf(pid)
	return err == nil && !st.zombie
}
