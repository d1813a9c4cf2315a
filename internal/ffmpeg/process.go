package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is a program to be run as a child.
type Command struct {
	Argv   []string      // the program, a path or a name in PATH, and its arguments
	Stdin  bool          // connect Process.Stdin; otherwise it reads /dev/null
	Small  int           // bytes that wait in the pipe to Stdin at most, about; 0 is as many as may be
	Lend   bool          // Feed lends large parts to the pipe: see there
	Stdout bool          // connect Process.Stdout; otherwise it writes to /dev/null
	Grace  time.Duration // from SIGTERM to SIGKILL; 0 is 1 s

	// Notice, if set, is called with each line of standard error. It must not
	// block. A line for which it returns true is not kept.
	Notice func(line string) bool
}

const defaultGrace = time.Second

// FFmpeg is an ffmpeg that reads in; args say what it makes of it, and where to.
// Only errors are in its last lines.
func FFmpeg(in Input, args ...string) Command {
	argv := []string{"ffmpeg", "-hide_banner", "-nostdin", "-nostats", "-loglevel", "error"}
	return Command{Argv: append(append(argv, in.args...), args...)}
}

// Find is the path of a program, given as a path or a name in PATH. The error
// (exec.ErrNotFound) says which package has it, where that is known.
func Find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	hint := ""
	switch program {
	case "ffmpeg", "ffprobe":
		hint = "; it comes with: sudo apt install ffmpeg"
	case "rpicam-vid":
		hint = "; it comes with: sudo apt install rpicam-apps (on a Raspberry Pi)"
	}
	return "", fmt.Errorf("find program %q: %w%s", program, err, hint)
}

// Process is a running child. It is ended by Wait or Stop, which must be called
// once its pipes are no longer in use.
type Process struct {
	Stdin  *os.File // pipes of ours, with deadlines; nil where Command has none
	Stdout *os.File

	name   string
	lend   int // bytes of the smallest part that is lent; 0 is none
	cmd    *exec.Cmd
	theirs []*os.File // the child's ends, until it has them
	words  tail
	end    context.CancelFunc
	done   chan struct{}
	err    error // of the child; set when done
}

// Start runs a program. It is ended when ctx is done.
func Start(ctx context.Context, c Command) (*Process, error) {
	if len(c.Argv) == 0 {
		return nil, errors.New("start child: no program")
	}
	path, err := Find(c.Argv[0])
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	p := &Process{name: filepath.Base(path), end: end, done: make(chan struct{}), words: tail{notice: c.Notice}}
	p.cmd = exec.CommandContext(ctx, path, c.Argv[1:]...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Cancel = func() error { return p.signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = max(c.Grace, 0)
	if c.Grace == 0 {
		p.cmd.WaitDelay = defaultGrace
	}
	p.cmd.Stderr = &p.words
	if err = p.connect(c); err == nil {
		started := make(chan error)
		go p.live(started)
		err = <-started
	}
	if err != nil {
		end()
		return nil, errors.Join(fmt.Errorf("start %s: %w", p.name, err), closeAll(p.theirs), p.closePipes())
	}
	return p, closeAll(p.theirs)
}

// connect makes the pipes that are wanted.
func (p *Process) connect(c Command) error {
	if c.Stdin {
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		p.cmd.Stdin, p.Stdin, p.theirs = read, write, append(p.theirs, read)
		size := resize(write, c.Small)
		if c.Lend {
			p.lend = size + 1
		}
	}
	if c.Stdout {
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		p.cmd.Stdout, p.Stdout, p.theirs = write, read, append(p.theirs, write)
		resize(read, 0)
	}
	return nil
}

// live is the child's life, from start to burial, on a thread that ends no
// sooner: see the package comment.
func (p *Process) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	defer close(p.done)
	// The group is killed while its dead leader still holds its number, so
	// that no stranger can have got it.
	for errors.Is(unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	_ = p.signal(syscall.SIGKILL) // an error says that there is nobody left
	p.err = p.cmd.Wait()
}

func (p *Process) signal(s syscall.Signal) error {
	err := syscall.Kill(-p.cmd.Process.Pid, s)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// PID is the child's process id, and that of its group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Words are the last lines that the child wrote to its standard error, or that
// Heard was given.
func (p *Process) Words() []string { return p.words.last() }

// Heard adds text to the child's last words that it wrote elsewhere than to its
// standard error.
func (p *Process) Heard(text []byte) {
	_, _ = p.words.Write(text) // it never fails
}

// Wait gives the child some time to end by itself, ends it where it does not,
// and closes our pipes. The error is an *ExitError, nil after exit status 0.
func (p *Process) Wait(patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	late := false
	select {
	case <-p.done:
	case <-timer.C:
		late = true
	}
	p.Stop()
	if late {
		return &ExitError{Program: p.name, Err: fmt.Errorf("did not end by itself within %v", patience), Words: p.Words()}
	}
	if p.err != nil {
		return &ExitError{Program: p.name, Err: p.err, Words: p.Words()}
	}
	return nil
}

// Stop closes our pipes, ends the child and waits until it is gone. How it
// ends then means nothing.
func (p *Process) Stop() {
	_ = p.closePipes() // pipes hold nothing that a close could lose
	p.end()
	<-p.done
}

func (p *Process) closePipes() error {
	in, out := p.Stdin, p.Stdout
	p.Stdin, p.Stdout = nil, nil
	return closeAll([]*os.File{in, out})
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// ExitError says how a child ended that should not have.
type ExitError struct {
	Program string
	Err     error    // an *exec.ExitError as a rule
	Words   []string // its last lines of text
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("%s: %v", e.Program, e.Err)
	for i, line := range e.Words {
		if i == 0 {
			text += "; its last words: "
		} else {
			text += " | "
		}
		text += line
	}
	return text
}

// Unwrap is how it ended.
func (e *ExitError) Unwrap() error { return e.Err }

// crashed says whether a child has ended with an error by itself, or by what it
// did itself; and not by a signal that somebody sent.
func crashed(err error) bool {
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) {
		return false
	}
	switch status, _ := exit.Sys().(syscall.WaitStatus); status.Signal() {
	case syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGABRT, syscall.SIGILL, syscall.SIGFPE:
		return true
	default:
		return status.Exited()
	}
}
