package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fleetResult is what a fleet takes.
type fleetResult struct {
	ready  []float64 // seconds from "supervisor up" to all ready
	memory []footprint
	idle   []idler // the fleet without a camera
	window time.Duration
}

// footprint is the memory of one process, in bytes.
type footprint struct {
	name, program string
	resident      int64 // RSS of proc(5), rings left out
	proportional  int64 // PSS: pages that several processes share count in part
	rings         int64 // RSS of mapped rings
	model         bool  // it runs a model, in a C++ library that is larger than it
}

// idler is the CPU time of one process of an idle fleet, as a part of a core.
type idler struct {
	name string
	part float64
}

// idleTopology is a box that measures the air once a second, and no more.
const idleTopology = `
[sensor.air]
program = "sensor-bme280"
bus = "sim:"
[sensor.air.stream.environment]
capture_hz = 1.0
[worker.air-csv]
program = "csvwriter"
source = "air"
flush = "1hz"
`

// measureFleet brings the demo fleet up a few times, looks at its memory, and
// then at what an idle fleet takes of the CPU.
func measureFleet(ctx context.Context, base, disk, bin string, ups int, window time.Duration) (r fleetResult, err error) {
	demo, err := demoEntries("deploy/demo.toml")
	if err != nil {
		return r, err
	}
	for i := range ups {
		err := withFleet(ctx, base, disk, bin, demo, func(f *fleet) error {
			r.ready = append(r.ready, f.ready.Seconds())
			if i < ups-1 {
				return nil
			}
			time.Sleep(5 * time.Second) // the first picture is made, the first state sent
			r.memory, err = f.footprints()
			return err
		})
		if err != nil {
			return r, err
		}
	}
	r.window = window
	err = withFleet(ctx, base, disk, bin, idleTopology, func(f *fleet) error {
		time.Sleep(3 * time.Second)
		r.idle, err = f.idle(window)
		return err
	})
	return r, err
}

// demoEntries is the shipped topology without its [node]: its folders are ours.
func demoEntries(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the demo fleet: %w", err)
	}
	return regexp.MustCompile(`(?m)^\[node\]\n(?:[^\[\n].*\n|\n)*`).ReplaceAllString(string(text), ""), nil
}

// fleet is a supervisor that runs.
type fleet struct {
	cmd    *exec.Cmd
	log    bytes.Buffer
	socket string
	shm    string
	ready  time.Duration
}

func withFleet(ctx context.Context, base, disk, bin, entries string, do func(*fleet) error) (err error) {
	dir, err := os.MkdirTemp(base, "f-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store, err := os.MkdirTemp(disk, "perch-bench-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(store)) }()
	file := filepath.Join(store, "topology.toml")
	node := fmt.Sprintf("[node]\nname = \"bench\"\nrun_dir = %q\nshm_dir = %q\ncache_dir = %q\nstore_dir = %q\n",
		dir+"/run", dir+"/shm", dir+"/cache", store)
	if err := os.WriteFile(file, []byte(node+entries), 0o600); err != nil {
		return fmt.Errorf("write topology: %w", err)
	}
	f := &fleet{socket: dir + "/run/supervisor.sock", shm: dir + "/shm/"}
	if err := f.up(ctx, filepath.Join(bin, "supervisor"), file); err != nil {
		return err
	}
	return errors.Join(do(f), f.down())
}

// up starts the supervisor and waits until it says that all are ready.
func (f *fleet) up(ctx context.Context, supervisor, file string) error {
	f.cmd = exec.CommandContext(ctx, supervisor, "up", file)
	f.cmd.Stdout, f.cmd.Stderr = &f.log, &f.log
	f.cmd.Cancel = func() error { return f.cmd.Process.Signal(syscall.SIGTERM) } // it has children to stop
	start := time.Now()
	if err := f.cmd.Start(); err != nil {
		return fmt.Errorf("start supervisor (make build makes it): %w", err)
	}
	var err error
	for time.Since(start) < 20*time.Second && ctx.Err() == nil {
		var b box
		if b, err = f.ask("wait"); err == nil && b.Ready {
			f.ready = time.Since(start)
			return nil
		}
		time.Sleep(2 * time.Millisecond) // not there yet
	}
	err = errors.Join(fmt.Errorf("the fleet is not ready after 20 s: %w", err), f.down())
	return fmt.Errorf("%w\n%s", err, f.log.Bytes())
}

func (f *fleet) down() error {
	err := f.cmd.Process.Signal(syscall.SIGTERM)
	if err = errors.Join(err, f.cmd.Wait()); err != nil {
		return fmt.Errorf("stop supervisor: %w\n%s", err, f.log.Bytes())
	}
	return nil
}

// box is as much of the supervisor's state as is needed here.
type box struct {
	Ready      bool `json:"ready"`
	Supervisor struct {
		PID int `json:"pid"`
	} `json:"supervisor"`
	Workers []boxWorker `json:"workers"`
}

type boxWorker struct {
	Name     string             `json:"name"`
	Program  string             `json:"program"`
	PID      int                `json:"pid"`
	Trouble  string             `json:"trouble"`
	Counters map[string]uint64  `json:"counters"`
	Gauges   map[string]float64 `json:"gauges"`
}

func (f *fleet) ask(verb string) (box, error) {
	conn, err := net.Dial("unix", f.socket)
	if err != nil {
		return box{}, fmt.Errorf("ask supervisor: %w", err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, `{"verb":%q,"timeout_s":15}`+"\n", verb); err != nil {
		return box{}, fmt.Errorf("ask supervisor: %w", err)
	}
	var reply struct {
		Error string `json:"error"`
		Box   *box   `json:"box"`
	}
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		return box{}, fmt.Errorf("ask supervisor: %w", err)
	}
	if reply.Box == nil {
		return box{}, fmt.Errorf("ask supervisor %s: %s", verb, reply.Error)
	}
	return *reply.Box, nil
}

// process is one of the fleet's.
type process struct {
	name, program string
	pid           int
}

func (f *fleet) processes() ([]process, error) {
	b, err := f.ask("status")
	if err != nil {
		return nil, err
	}
	list := []process{{"supervisor", "supervisor", b.Supervisor.PID}}
	for _, w := range b.Workers {
		list = append(list, process{w.Name, w.Program, w.PID})
	}
	return list, nil
}

func (f *fleet) footprints() (list []footprint, err error) {
	all, err := f.processes()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", p.pid))
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", p.name, err)
		}
		m := readMaps(string(maps), f.shm)
		m.name, m.program = p.name, p.program
		list = append(list, m)
	}
	return list, nil
}

// readMaps sums up /proc/PID/smaps (proc(5)): a line for each mapping, with its
// file last, and then its figures in kB.
func readMaps(text, rings string) (m footprint) {
	isRing := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		if !strings.HasSuffix(words[0], ":") {
			isRing = strings.Contains(line, rings)
			m.model = m.model || strings.Contains(line, "onnxruntime")
			continue
		}
		var kb int64
		if _, err := fmt.Sscan(words[1], &kb); err != nil {
			continue
		}
		switch {
		case words[0] == "Rss:" && isRing:
			m.rings += kb << 10
		case words[0] == "Rss:":
			m.resident += kb << 10
		case words[0] == "Pss:" && !isRing:
			m.proportional += kb << 10
		}
	}
	return m
}

// idle measures what the processes take of the CPU while nothing happens.
func (f *fleet) idle(window time.Duration) (list []idler, err error) {
	all, err := f.processes()
	if err != nil {
		return nil, err
	}
	before, err := cpuOf(all)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	time.Sleep(window)
	after, err := cpuOf(all)
	took := time.Since(start)
	for i, p := range all {
		list = append(list, idler{p.name, float64(after[i]-before[i]) / float64(took)})
	}
	return list, err
}

// cpuOf reads the processes' CPU clocks, to the nanosecond: clock ids are made
// of process ids as in clock_getcpuclockid(3).
func cpuOf(all []process) ([]time.Duration, error) {
	used := make([]time.Duration, len(all))
	for i, p := range all {
		const sched = 2 // CPUCLOCK_SCHED of linux/posix-timers.h
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^p.pid)<<3|sched, &ts); err != nil {
			return used, fmt.Errorf("CPU clock of %s: %w", p.name, err)
		}
		used[i] = time.Duration(ts.Nano())
	}
	return used, nil
}
