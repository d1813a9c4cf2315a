package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// idleSend is what a process takes that has little to do.
type idleSend struct {
	what    string
	cpu     float64 // part of a core
	wakeups float64 // a second, of all threads
}

// The workers of idleSenders, and what they are there for.
const (
	csvIdle   = "csvwriter at 1 Hz"
	sendIdle  = "jsonsender at 1 Hz"
	quietIdle = "jsonsender with nothing to send"
)

// idleSenders is a fleet with a reading a second, which goes to a file and to a receiver, and with a sender
// whose sensor measures nothing for as long as anybody looks.
func idleSenders(to string) string {
	return idleTopology + fmt.Sprintf(`
[sensor.still]
program = "sensor-bme280"
bus = "sim:"
[sensor.still.stream.environment]
capture_hz = 0.001
[worker.air-home]
program = "jsonsender"
source = "air"
to = %q
ack = true
[worker.still-home]
program = "jsonsender"
source = "still"
to = %q
ack = true
`, to, to)
}

// measureIdleSends lets them run side by side.
func measureIdleSends(ctx context.Context, base, disk, bin string, window time.Duration) (list []idleSend, err error) {
	to, err := openLines("tcp", base, newTally(1))
	if err != nil {
		return nil, err
	}
	err = withFleet(ctx, base, disk, bin, idleSenders(to.address()), func(f *fleet) error {
		time.Sleep(3 * time.Second)
		list, err = f.idleSends(window)
		return err
	})
	return list, errors.Join(err, to.close())
}

func (f *fleet) idleSends(window time.Duration) (list []idleSend, err error) {
	all, err := f.processes()
	if err != nil {
		return nil, err
	}
	before, err := wakeupsOf(all)
	if err != nil {
		return nil, err
	}
	parts, err := f.idle(window)
	if err != nil {
		return nil, err
	}
	after, err := wakeupsOf(all)
	what := map[string]string{"air-csv": csvIdle, "air-home": sendIdle, "still-home": quietIdle}
	for i, p := range all {
		if what[p.name] != "" {
			list = append(list, idleSend{what[p.name], parts[i].part, float64(after[i]-before[i]) / window.Seconds()})
		}
	}
	return list, err
}

// wakeupsOf is how often the threads of each process have waited for something so far: each wait ends
// with a wake-up (voluntary_ctxt_switches of proc(5)).
func wakeupsOf(all []process) ([]int64, error) {
	sums := make([]int64, len(all))
	for i, p := range all {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.pid))
		if err != nil || len(tasks) == 0 {
			return nil, errors.Join(fmt.Errorf("wake-ups of %s: it has no threads", p.name), err)
		}
		for _, task := range tasks {
			n, err := numberIn(task, "voluntary_ctxt_switches:")
			if err != nil {
				return nil, fmt.Errorf("wake-ups of %s: %w", p.name, err)
			}
			sums[i] += n
		}
	}
	return sums, nil
}

// numberIn is the number behind a key of a file in /proc.
func numberIn(file, key string) (n int64, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, key); found {
			_, err := fmt.Sscan(rest, &n)
			return n, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, key)
}

// wear is what a record costs of the disk while the receiver is away, ten records a sync: as one a second
// with the default spool_sync of 10 s, but faster.
type wear struct {
	records int
	bytes   float64 // a record, as the kernel counts them for the process (write_bytes of proc(5))
	first   float64 // the same of as many before, with a new segment's zeros
}

const (
	wearRate = 100 // records a second
	wearSync = "100ms"
)

func measureWear(ctx context.Context, base, disk, bin string, records int) (w wear, err error) {
	w.records = records
	dir, err := os.MkdirTemp(base, "w-")
	if err != nil {
		return w, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store, err := os.MkdirTemp(disk, "perch-bench-")
	if err != nil {
		return w, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(store)) }()
	pub, err := self(ctx, "row-publisher", "--dir", dir, "--rate", fmt.Sprint(wearRate), "--rows", fmt.Sprint(records), "--history", fmt.Sprint(2*records))
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, pub.stop()) }()
	s := &sendStage{dir: dir, program: filepath.Join(bin, "jsonsender"), rows: records}
	args := append(senderArgs(dir, sensorName, dir, "tcp://127.0.0.1:1", "spool_after="+wearSync, "spool_sync="+wearSync), "--set", "node.store_dir="+store)
	p, err := startSender(ctx, s.program, args)
	if err != nil {
		return w, err
	}
	_, err = p.end(w.count(ctx, pub, s, p.cmd.Process.Pid, args))
	return w, err
}

// count publishes all readings twice: the first ones make the segment.
func (w *wear) count(ctx context.Context, pub *child, s *sendStage, pid int, args []string) error {
	file := fmt.Sprintf("/proc/%d/io", pid)
	var marks [2]int64
	for i := range marks {
		if err := errors.Join(pub.ask(nil, "fill"), s.onDisk(ctx, args)); err != nil {
			return err
		}
		s.rows += w.records
		var err error
		if marks[i], err = numberIn(file, "write_bytes:"); err != nil {
			return fmt.Errorf("count written bytes: %w", err)
		}
	}
	w.first, w.bytes = float64(marks[0])/float64(w.records), float64(marks[1]-marks[0])/float64(w.records)
	return nil
}
