package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// mostWait is how long records may take to arrive.
const mostWait = time.Minute

// sendWay is how records come to a receiver.
type sendWay string

const (
	bare  sendWay = "bare loop"
	ram   sendWay = "from RAM"
	live  sendWay = "from the bus"
	drain sendWay = "from disk"
)

// sending is one run: how long it took from the first record's arrival to the last one's, and the
// CPU time of the sending process, its start included.
type sending struct {
	seconds float64
	cpu     float64 // µs a record
}

// jsonsender is one that runs.
type jsonsender struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

// senderArgs are those of a jsonsender that reads a source on the bus in bus, and keeps what it has in dir.
func senderArgs(bus, source, dir, to string, settings ...string) []string {
	args := []string{"--name", "home", "--source", "ipc://" + bus + "/run/" + source + ".ipc"}
	settings = append(settings, "to="+to, "node.name=bench", "node.run_dir="+bus+"/run", "node.shm_dir="+bus+"/shm",
		"node.cache_dir="+dir+"/cache", "node.store_dir="+dir+"/store")
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	return args
}

// startSender starts a program that is a jsonsender, with more in its environment.
func startSender(ctx context.Context, program string, args []string, env ...string) (*jsonsender, error) {
	s := &jsonsender{cmd: exec.CommandContext(ctx, program, args...)}
	s.cmd.Stderr, s.cmd.Env = &s.log, append(os.Environ(), env...)
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start jsonsender (make build makes it): %w", err)
	}
	return s, nil
}

// end stops it, and returns its CPU time in µs. With an error it tells what the program logged.
func (s *jsonsender) end(failed error) (cpu float64, err error) {
	err = s.cmd.Process.Signal(syscall.SIGTERM)
	if err = errors.Join(failed, err, s.cmd.Wait()); err != nil {
		return 0, fmt.Errorf("jsonsender: %w\n%s", err, s.log.Bytes())
	}
	u, ok := s.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, nil
	}
	return rusageMicros(u), nil
}

// sendStage is what all runs share: a publisher whose history holds all readings, and a backlog that
// holds the same.
type sendStage struct {
	dir     string
	program string // jsonsender
	inRAM   string // its outbox, sender and sink, with records in RAM
	rows    int
	backlog string // the store with the backlog
	pub     *child
}

func openSendStage(ctx context.Context, base, bin string, rows int) (s *sendStage, err error) {
	dir, err := os.MkdirTemp(base, "s-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	s = &sendStage{dir: dir, program: filepath.Join(bin, "jsonsender"), inRAM: dir + "/jsonsender-ram", rows: rows, backlog: dir + "/backlog"}
	s.pub, err = self(ctx, "row-publisher", "--dir", dir, "--rate", fmt.Sprint(50_000), "--rows", fmt.Sprint(rows), "--history", fmt.Sprint(rows))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.pub.ask(nil, "fill"); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.fill(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("fill a backlog: %w", err), s.close())
	}
	return s, nil
}

func (s *sendStage) close() error { return errors.Join(s.pub.stop(), os.RemoveAll(s.dir)) }

// fill lets a jsonsender without a receiver write all readings to disk.
func (s *sendStage) fill(ctx context.Context) error {
	args := senderArgs(s.dir, sensorName, s.dir, "tcp://127.0.0.1:1", "spool_after=100ms", "spool_sync=100ms")
	p, err := startSender(ctx, s.program, args)
	if err != nil {
		return err
	}
	_, err = p.end(s.onDisk(ctx, args))
	return errors.Join(err, os.Rename(s.dir+"/store", s.backlog), os.RemoveAll(s.dir+"/cache"))
}

// onDisk waits until all readings are on disk.
func (s *sendStage) onDisk(ctx context.Context, args []string) error {
	var status struct{ Records int }
	for begun := time.Now(); time.Since(begun) < mostWait; time.Sleep(200 * time.Millisecond) {
		out, err := exec.CommandContext(ctx, s.program, append([]string{"status", "--output", "json"}, args...)...).Output()
		if err != nil {
			return fmt.Errorf("ask for its status: %w", err)
		}
		if err := json.Unmarshal(out, &status); err != nil {
			return fmt.Errorf("status %.80q: %w", out, err)
		}
		if status.Records == s.rows {
			return nil
		}
	}
	return fmt.Errorf("%d of %d records are on disk after %s", status.Records, s.rows, mostWait)
}

// run sends all readings to a new receiver of a scheme.
func (s *sendStage) run(ctx context.Context, scheme string, way sendWay) (r sending, err error) {
	t := newTally(s.rows)
	dir, err := os.MkdirTemp(s.dir, "r-")
	if err != nil {
		return r, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	to, err := openReceiver(ctx, scheme, dir, t)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, to.close()) }()
	if way == bare {
		return s.bare(ctx, to, t)
	}
	p, err := s.sender(ctx, way, dir, to)
	if err != nil {
		return r, err
	}
	took, err := t.wait(ctx, mostWait)
	cpu, err := p.end(err)
	return sending{took.Seconds(), cpu / float64(s.rows)}, err
}

// sender starts what has its records from the bus, from disk or in RAM.
func (s *sendStage) sender(ctx context.Context, way sendWay, dir string, to receiver) (*jsonsender, error) {
	alone := senderArgs(dir, "nobody", dir, to.address(), to.settings()...)
	switch way {
	case ram:
		if err := s.buildRAM(ctx); err != nil {
			return nil, err
		}
		return startSender(ctx, s.inRAM, alone, fmt.Sprintf("PERCH_BENCH_RECORDS=%d", s.rows))
	case drain:
		if err := os.CopyFS(dir+"/store", os.DirFS(s.backlog)); err != nil {
			return nil, fmt.Errorf("copy backlog: %w", err)
		}
		return startSender(ctx, s.program, alone)
	default:
		return startSender(ctx, s.program, senderArgs(s.dir, sensorName, dir, to.address(), to.settings()...))
	}
}

// buildRAM makes the program that has its records in RAM, of jsonsender's tests.
func (s *sendStage) buildRAM(ctx context.Context) error {
	if _, err := os.Stat(s.inRAM); err == nil {
		return nil
	}
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", s.inRAM, "github.com/perch-edge/perch/cmd/jsonsender").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the sender's tests: %w: %s", err, out)
	}
	return nil
}

func (s *sendStage) bare(ctx context.Context, to receiver, t *tally) (r sending, err error) {
	c, err := self(ctx, "bare-loop", "--to", to.address(), "--rows", fmt.Sprint(s.rows))
	if err != nil {
		return r, err
	}
	err = c.tell("go")
	took := time.Duration(0)
	if err == nil {
		took, err = t.wait(ctx, mostWait)
	}
	if err = errors.Join(err, c.stop()); err != nil {
		return r, err
	}
	u, _ := c.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sending{took.Seconds(), rusageMicros(u) / float64(s.rows)}, nil
}
