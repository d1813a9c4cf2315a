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

// wear is what a record costs of the disk while the receiver is away.
type wear struct {
	records int
	bytes   float64 // a record, as the program counts what it writes (written_24h_bytes)
}

// awayTopology has ten records a sync, as one a second has with the default spool_sync of 10 s. It has
// them in half a second.
const awayTopology = `
[sensor.air]
program = "sensor-bme280"
bus = "sim:"
[sensor.air.stream.environment]
capture_hz = 20.0
[worker.home]
program = "jsonsender"
source = "air"
to = "tcp://127.0.0.1:1"
spool_after = "500ms"
spool_sync = "500ms"
`

// measureWear compares the gauges of two moments: what is written at the start, such as the first
// segment's zeros, is not in it.
func measureWear(ctx context.Context, base, disk, bin string, window time.Duration) (w wear, err error) {
	err = withFleet(ctx, base, disk, bin, awayTopology, func(f *fleet) error {
		var records, bytes [2]float64
		for i, wait := range []time.Duration{3 * time.Second, window} {
			time.Sleep(wait)
			b, err := f.worker("home")
			if err != nil {
				return err
			}
			records[i], bytes[i] = b.Gauges["waiting_on_disk_records"], b.Gauges["written_24h_bytes"]
		}
		w.records, w.bytes = int(records[1]-records[0]), (bytes[1]-bytes[0])/(records[1]-records[0])
		return nil
	})
	return w, err
}
