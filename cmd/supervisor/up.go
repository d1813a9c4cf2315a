package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/pkg/worker"
)

type upCmd struct {
	Topology      string        `arg:"" help:"The fleet's topology."`
	Detach        bool          `short:"d" help:"Run in the background; return when all have been started."`
	Table         bool          `help:"Show the state in place of the log."`
	For           time.Duration `placeholder:"TIME" help:"Stop after this time, from when all have been started."`
	StartDeadline time.Duration `default:"30s" help:"How long a worker may take to be ready."`
	Watchdog      time.Duration `default:"10s" help:"How long a worker's heartbeat may stay out."`
	Grace         time.Duration `default:"10s" help:"How long a worker may take to stop; up to twelve times that while its heartbeat goes on."`
	Detached      bool          `hidden:"" help:"Be the one in the background."`
}

// Run brings the fleet up, and keeps it until it is told to stop.
func (c *upCmd) Run(ctx context.Context, to worker.Streams) error {
	if c.StartDeadline <= 0 || c.Watchdog < time.Second || c.Grace < 0 || c.For < 0 {
		return worker.BadConfig(fmt.Errorf("--start-deadline, --grace and --for: want a time; --watchdog: want 1s at least"))
	}
	con := newConsole(to)
	if c.Detach {
		return c.detach(ctx, con)
	}
	ctx, killed, done := interrupts(ctx, c.Detached)
	defer done()
	plan, err := inspect(ctx, c.Topology, true)
	if err != nil {
		return err
	}
	screen := c.screen(con)
	f, err := openFleet(plan, c.timing(), screen.take)
	if err != nil {
		return err
	}
	screen.open(plan)
	for _, w := range plan.warnings() {
		f.log.Warn("topology", "problem", w.Error())
	}
	var unwell atomic.Bool
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = f.run(ctx, killed, func() {
		if c.For > 0 {
			timer := time.AfterFunc(c.For, func() { unwell.Store(!f.box().Ready); cancel() })
			context.AfterFunc(ctx, func() { timer.Stop() })
		}
		screen.begin(ctx, f)
		if c.Detached {
			f.book.flush()
			screen.quiet()
			c.letGo(f)
		}
	})
	screen.end(f)
	if err == nil && unwell.Load() {
		return notWell()
	}
	return err
}

func (c *upCmd) timing() timing {
	return timing{Start: c.StartDeadline, Watchdog: c.Watchdog, Abort: 2 * time.Second, Grace: c.Grace, Edited: time.Second}
}

// sameOrder is how long after the first signal another one is the same order: a
// shell, a wrapper or the kernel may send it twice, and a person is not as quick.
const sameOrder = 300 * time.Millisecond

// interrupts is a context that the first SIGINT, SIGTERM or SIGHUP cancels; a later
// SIGINT or SIGTERM closes killed, where it would otherwise end this process. A
// later SIGHUP does nothing: a terminal that closes sends two within milliseconds,
// one by the kernel and one by its shell. A detached supervisor has no terminal,
// and is not stopped by SIGHUP at all.
func interrupts(parent context.Context, detached bool) (ctx context.Context, killed <-chan struct{}, done func()) {
	ctx, cancel := context.WithCancel(parent)
	signals, kill := make(chan os.Signal, 8), make(chan struct{})
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		signal.Notify(signals, syscall.SIGHUP)
	}
	quit := make(chan struct{})
	go func() {
		var first time.Time
		for {
			select {
			case s := <-signals:
				switch {
				case s == syscall.SIGHUP && detached:
				case first.IsZero():
					first = time.Now()
					cancel()
				case s != syscall.SIGHUP && time.Since(first) > sameOrder:
					close(kill)
					return
				}
			case <-quit:
				return
			}
		}
	}()
	return ctx, kill, func() {
		signal.Stop(signals)
		close(quit)
		cancel()
	}
}

// detach starts the supervisor again in a session of its own and waits until
// it lets go of its standard error: then all workers have been started. Until
// then what it says goes to this terminal.
func (c *upCmd) detach(ctx context.Context, con *console) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	said, words, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer said.Close()
	cmd := exec.Command(self, "up", "--detached", "--start-deadline", c.StartDeadline.String(),
		"--watchdog", c.Watchdog.String(), "--grace", c.Grace.String(), "--for", c.For.String(), "--", c.Topology)
	cmd.Stderr = words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	words.Close()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = said.SetReadDeadline(time.Unix(1, 0)) })()
	_, _ = io.Copy(con.err, said) // until its end
	at := place{Topology: c.Topology}
	if err := at.find(); err != nil {
		return err
	}
	answer, askErr := at.ask(ctx, request{Verb: "status"}, 10*time.Second)
	if askErr != nil || answer.Box.Supervisor.PID != cmd.Process.Pid {
		return notDetached(cmd, askErr)
	}
	b := answer.Box
	fmt.Fprintf(con.out, "%s: %s; process %d, log in %s\n", b.Node, b.summary(), b.Supervisor.PID, b.Folders.Logs)
	if !b.Ready {
		con.troubles(con.err, b)
		return notWell()
	}
	return nil
}

// notDetached tells how the supervisor in the background ended; why it did has
// been relayed.
func notDetached(cmd *exec.Cmd, err error) error {
	if absent := (*notRunningError)(nil); err != nil && !errors.As(err, &absent) {
		return err // it is there, and does not answer
	}
	if cmd.Wait() == nil {
		return errors.New("told to stop before all was started")
	}
	return worker.Said(cmd.ProcessState.ExitCode())
}

// letGo moves standard error from who started it to a file, for what the Go
// runtime may have to say.
func (c *upCmd) letGo(f *fleet) {
	path := filepath.Join(f.logs.where(), "supervisor.stderr")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err == nil {
		err = errors.Join(unix.Dup3(int(file.Fd()), 2, 0), file.Close())
	}
	if err != nil {
		f.log.Error("detach", "err", err)
	}
}
