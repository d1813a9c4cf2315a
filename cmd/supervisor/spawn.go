package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/clock"
)

// mark is in the environment of all that a supervisor starts, with its run
// folder, and is inherited: by it a later supervisor finds what was left.
const mark = "PERCH_SUPERVISED="

// timerSlack is how much later than asked the kernel may wake what is started
// here, so that it can wake for several timers at once (PR_SET_TIMERSLACK,
// prctl(2)); without it, 50 µs. Go's runtime has a thread in each process that
// sleeps for 20 µs again and again as long as anything runs, which with frames at
// 30 Hz was a quarter of what a worker took. A timer of Go is late by up to 1 ms
// anyway: it waits in whole milliseconds.
const timerSlack = time.Millisecond

// spawner runs functions on one OS thread that lives as long as it does. The
// kernel sends Pdeathsig when the thread ends that made the child, not when
// the process does (prctl(2)).
type spawner struct {
	work chan func()
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not to be used for anything else
		defer close(s.done)
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack.Nanoseconds()), 0, 0, 0) // who refuses it costs some CPU
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *spawner) do(f func()) {
	done := make(chan struct{})
	s.work <- func() { defer close(done); f() }
	<-done
}

func (s *spawner) close() error {
	close(s.work)
	<-s.done
	return nil
}

// launcher starts processes in such a way that none outlives the supervisor.
type launcher struct {
	runDir   string
	watchdog time.Duration
	spawner  *spawner
	notifier *notifier
	awake    *awake
	record   *record
	cgroup   *cgroup // nil where none can be made
	book     *logbook
	logs     *logPlace
}

// start starts a program under a worker's name.
func (l *launcher) start(name, program string, args ...string) (*process, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer in.Close()
	p := &process{name: name, began: clock.Boot(), gone: make(chan struct{}), wake: make(chan struct{}, 1),
		notifier: l.notifier, awake: l.awake, oomKills: oomKills()}
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = in, in, l.environment()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	l.spawner.do(func() { err = l.launch(p) })
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, errors.Join(err, out.Close()))
	}
	if err := l.record.add(p.pid, name); err != nil {
		l.book.complain("keep the record of processes", err)
	}
	go l.watch(p, out)
	return p, nil
}

// launch runs on the spawner's thread. The notifier knows the process before it
// can have said anything. It joins its cgroup right after its start: started
// inside one (CLONE_INTO_CGROUP, clone3(2)), it would be killed at once on
// kernels such as Linux 6.18 if that group was ever killed before.
func (l *launcher) launch(p *process) error {
	l.notifier.mu.Lock()
	defer l.notifier.mu.Unlock()
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.pid = p.cmd.Process.Pid
	l.notifier.known[p.pid] = p
	l.cgroup.join(p.name, p.pid)
	return nil
}

// environment is the supervisor's own, without what its own service manager
// told it.
func (l *launcher) environment() []string {
	var env []string
	for _, v := range os.Environ() {
		key, _, _ := strings.Cut(v, "=")
		switch key + "=" {
		case "NOTIFY_SOCKET=", "WATCHDOG_PID=", "WATCHDOG_USEC=", mark:
		default:
			env = append(env, v)
		}
	}
	return append(env, mark+l.runDir, "NOTIFY_SOCKET="+l.notifier.path,
		fmt.Sprintf("WATCHDOG_USEC=%d", l.watchdog.Microseconds()))
}

// watch waits for the process's end, and takes with it all that it started.
func (l *launcher) watch(p *process, out *os.File) {
	defer close(p.gone)
	heard := make(chan []string, 1)
	go func() { heard <- l.book.follow(p.name, out) }()
	awaitExit(p.pid)
	// While it is not reaped, its id, which is also that of its group, is
	// nobody else's.
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	l.cgroup.killWorker(p.name)
	_ = p.cmd.Wait() // its answer is in ProcessState
	l.notifier.forget(p)
	_ = out.SetReadDeadline(time.Now().Add(time.Second)) // who still holds the other end is no child of ours
	p.exit = exitOf(p.cmd.ProcessState, <-heard)
	if p.exit.unexplained() {
		l.book.take(entry{Time: time.Now(), Level: slog.LevelWarn, Worker: p.name, Text: "exited without an error message",
			Attrs: []attr{{"code", strconv.Itoa(p.exit.Code)}}}) // the log is there then
		p.exit.Log = filepath.Join(l.logs.where(), p.name+".log")
	}
	_ = out.Close()
	p.exit.RanS = (clock.Boot() - p.began).Seconds()
	p.exit.OutOfMemory = p.exit.Signal == "SIGKILL" && oomKills() > p.oomKills
	if err := l.record.remove(p.pid); err != nil {
		l.book.complain("keep the record of processes", err)
	}
}

// awaitExit waits until a child has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// process is one run of a worker.
type process struct {
	name     string
	cmd      *exec.Cmd
	pid      int
	began    time.Duration // since boot
	gone     chan struct{} // closed when it has ended, and all is known of it
	exit     Exit          // valid then
	wake     chan struct{} // there is something new to be heard
	oomKills uint64        // of the machine, when it was started
	notifier *notifier     // nil in tests
	awake    *awake

	heard hearing
}

// silence is how long the process has shown no sign of life while this one could
// have heard it: what it has said is read first, and a time in which the
// supervisor itself did not run does not count.
func (p *process) silence() time.Duration {
	last := p.heard.now().beat
	if p.notifier != nil {
		p.notifier.catchUp()
		last = p.heard.now().beat
		if resumed := p.awake.since(); resumed.After(last) {
			last = resumed
		}
	}
	return time.Since(last)
}

// mostGraces is how many times its grace a process may take to end that shows
// all the while that it works: it may be bringing to disk what is in RAM.
const mostGraces = 12

// end asks the process to go, and kills it when the grace is over without a sign
// of life, or now is closed. It returns why it was killed; "" when it ended by
// itself, or by another hand.
func (p *process) end(ask syscall.Signal, grace time.Duration, now <-chan struct{}) (why string) {
	_ = p.cmd.Process.Signal(ask) // fails when it has ended by itself
	for graces := 1; why == ""; graces++ {
		select {
		case <-p.gone:
			return ""
		case <-now:
			why = "told to stop at once"
		case <-time.After(grace):
			switch {
			case p.silence() > grace:
				why = fmt.Sprintf("it did not stop when asked, and showed no sign of life for %v", grace)
			case graces == mostGraces:
				why = fmt.Sprintf("it did not stop when asked, and was still at work after %v", mostGraces*grace)
			}
		}
	}
	_ = p.cmd.Process.Kill() // its group follows, see watch
	<-p.gone
	if p.exit.Signal != "SIGKILL" {
		return ""
	}
	return why
}
