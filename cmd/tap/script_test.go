package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"tap": main, "publish": publish})
}

// TestScript runs testdata/script. In the scripts $DIR is a short folder, in
// their topologies too; tap looks at a real sensor-bme280 on a simulated bus, at
// publish, which plays a camera, and at what a real deleter leaves.
func TestScript(t *testing.T) {
	bin := boxtest.Built(t, "sensor-bme280", "deleter")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("/dev/shm", "p-")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("DIR", dir)
			env.Setenv("LONG", strings.Repeat("long-folder/", 9)+"x")
			env.Setenv("PATH", env.Getenv("PATH")+":"+bin)
			return expand(env.WorkDir, dir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": code},
	})
}

// code N PROGRAM ARGS... runs a program that must end with exit code N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d; want %s", got, args[0])
	}
}

// expand puts the folder into a script's topologies.
func expand(work, dir string) error {
	files, err := filepath.Glob(work + "/*.toml")
	for _, f := range files {
		text, readErr := os.ReadFile(f)
		if readErr != nil {
			return readErr
		}
		text = []byte(os.Expand(string(text), func(string) string { return dir }))
		if err := os.WriteFile(f, text, 0o600); err != nil {
			return err
		}
	}
	return err
}

// publish DIR NAME STREAM HZ publishes frames of 64x48, and a state a second,
// until it is interrupted.
func publish() {
	if err := play(os.Args[1], msg.Source(os.Args[2]), msg.Stream(os.Args[3]), os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		os.Exit(1)
	}
}

func play(dir string, name msg.Source, stream msg.Stream, rate string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	hz, err := strconv.ParseFloat(rate, 64)
	if err != nil {
		return err
	}
	p, err := openCamera(dir, name, stream, hz)
	if err != nil {
		return err
	}
	defer p.bus.Close()
	frame, second := time.NewTicker(time.Duration(float64(time.Second)/hz)), time.NewTicker(time.Second)
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-frame.C:
			err = p.frame(p.bus.Clock().Now())
		case <-second.C:
			err = p.states.Publish(p.bus.Clock().Now(), msg.State{Program: "publish", PID: os.Getpid(), Ready: true,
				Status: "playing a camera", Subscribers: p.pub.Subscribers()})
		}
	}
	return err
}
