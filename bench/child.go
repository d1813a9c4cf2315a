package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// child is a process that is measured. It is told what to do by lines on its
// stdin, answers most of them with a line of JSON, and ends with its stdin.
type child struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// start runs a program until its stdin is closed or ctx is done, and waits for
// its first answer, which says that it is there.
func start(ctx context.Context, program string, args ...string) (*child, error) {
	c, err := spawn(ctx, program, args...)
	if err != nil {
		return nil, err
	}
	if err := c.hear(nil); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func spawn(ctx context.Context, program string, args ...string) (*child, error) {
	c := &child{name: args[0], cmd: exec.CommandContext(ctx, program, args...)}
	c.cmd.Stderr = os.Stderr
	c.cmd.WaitDelay = time.Second
	in, inErr := c.cmd.StdinPipe()
	out, outErr := c.cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	c.in, c.out = in, bufio.NewReaderSize(out, 64<<10)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return c, nil
}

// self starts this program with one of its hidden commands.
func self(ctx context.Context, args ...string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return start(ctx, program, args...)
}

func (c *child) tell(format string, args ...any) error {
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		return fmt.Errorf("tell %s %q: %w", c.name, fmt.Sprintf(format, args...), err)
	}
	return nil
}

// hear takes one answer; into may be nil.
func (c *child) hear(into any) error {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("hear %s: %w", c.name, err)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(line, into); err != nil {
		return fmt.Errorf("hear %s: %w: %.80s", c.name, err, line)
	}
	return nil
}

func (c *child) ask(into any, format string, args ...any) error {
	if err := c.tell(format, args...); err != nil {
		return err
	}
	return c.hear(into)
}

func (c *child) signal(s syscall.Signal) error {
	if err := c.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %s to %s: %w", s, c.name, err)
	}
	return nil
}

// kill ends the process as a crash does, and returns when the kernel has let
// go of its locks.
func (c *child) kill() error {
	if err := c.signal(syscall.SIGKILL); err != nil {
		return err
	}
	_ = c.cmd.Wait() // "signal: killed" is what was asked for
	return nil
}

func (c *child) stop() error {
	if c.cmd.ProcessState != nil {
		return nil // killed before
	}
	c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	return nil
}

// stopAll stops children in order: readers go before what they read.
func stopAll(children []*child) error {
	var errs []error
	for _, c := range children {
		errs = append(errs, c.stop())
	}
	return errors.Join(errs...)
}

// orders are the lines that a child is told, and a context that ends with them.
func orders(ctx context.Context) (context.Context, <-chan string) {
	ctx, cancel := context.WithCancel(ctx)
	lines := make(chan string)
	go func() { // ends with the process: a read of stdin cannot be called off
		defer close(lines)
		defer cancel()
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- in.Text()
		}
	}()
	return ctx, lines
}

func answer(v any) error {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// cpuMicros is the CPU time of this process so far.
func cpuMicros() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic("getrusage of this process: " + err.Error()) // it has no way to fail
	}
	return rusageMicros(&u)
}

func rusageMicros(u *syscall.Rusage) float64 {
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1000
}
