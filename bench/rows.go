package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/clock"
)

// rowRun is what became of readings at one rate.
type rowRun struct {
	rate      int     // offered, a second
	held      float64 // what the publisher reached of it, a second
	rows      int     // published
	lost      int     // of them not in the file, or there twice, or out of order
	behind    float64 // seconds from the last reading to its row in the file
	publisher float64 // µs of CPU a reading
	writer    float64 // the same of csvwriter, its start included
}

// sustained says whether the rate went through: all there, the publisher on
// time, and the file not falling behind.
func (r *rowRun) sustained() bool {
	return r.lost == 0 && r.held > 0.98*float64(r.rate) && r.behind < 1
}

// history is as many readings as the ring of the measured publisher holds,
// 32 MiB: at 50,000 a second 1.3 s, in which csvwriter may wait for the disk.
const history = 64 << 10

// measureRows sends readings through the real csvwriter, with flush = "1hz",
// into a folder on disk.
func measureRows(ctx context.Context, base, disk, bin string, rate, rows int) (r rowRun, err error) {
	dir, err := os.MkdirTemp(base, "r-")
	if err != nil {
		return r, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store, err := os.MkdirTemp(disk, "perch-bench-")
	if err != nil {
		return r, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(store)) }()
	pub, err := self(ctx, "row-publisher", "--dir", dir, "--rate", fmt.Sprint(rate), "--rows", fmt.Sprint(rows), "--history", fmt.Sprint(history))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, pub.stop()) }()
	csv, err := startWriter(ctx, dir, store, bin)
	if err != nil {
		return r, err
	}
	r = rowRun{rate: rate, rows: rows}
	if err := errors.Join(r.measure(ctx, pub, store), csv.end()); err != nil {
		return r, err
	}
	r.writer = csv.cpu() / float64(rows)
	r.lost, err = countLost(store, rows)
	return r, err
}

func (r *rowRun) measure(ctx context.Context, pub *child, store string) error {
	var p published
	if err := pub.ask(&p, "go"); err != nil {
		return err
	}
	r.held = float64(r.rows) / (time.Duration(p.Last-p.First).Seconds() + 1/float64(r.rate))
	r.publisher = p.CPU / float64(r.rows)
	for wait := 10 * time.Second; ; {
		last, err := lastSeq(store)
		if err != nil {
			return err
		}
		r.behind = (clock.Boot() - time.Duration(p.Last)).Seconds()
		if last == r.rows-1 || r.behind > wait.Seconds() || ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// writer is a csvwriter that runs.
type writer struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func startWriter(ctx context.Context, dir, store, bin string) (*writer, error) {
	w := &writer{cmd: exec.CommandContext(ctx, filepath.Join(bin, "csvwriter"), "--name", rowsName,
		"--source", "ipc://"+dir+"/run/"+sensorName+".ipc", "--set", "flush=1hz", "--set", "dir="+store,
		"--set", "node.run_dir="+dir+"/run", "--set", "node.shm_dir="+dir+"/shm", "--set", "node.store_dir="+store)}
	w.cmd.Stderr = &w.log
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start csvwriter (make build makes it): %w", err)
	}
	return w, nil
}

func (w *writer) end() error {
	err := w.cmd.Process.Signal(syscall.SIGTERM)
	if err = errors.Join(err, w.cmd.Wait()); err != nil {
		return fmt.Errorf("stop csvwriter: %w\n%s", err, w.log.Bytes())
	}
	return nil
}

func (w *writer) cpu() float64 {
	u, ok := w.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return rusageMicros(u)
}

// rowFiles lists the CSV files in a store, finished or not, oldest first.
func rowFiles(store string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(store, "*", "*.csv"))
	if err != nil {
		return nil, fmt.Errorf("list rows: %w", err)
	}
	return files, nil
}

// seqColumn is where a row has its sequence number: time, seq, epoch, …
const seqColumn = 1

func seqOf(row []byte) (int, error) {
	cells := bytes.SplitN(row, []byte(","), seqColumn+2)
	if len(cells) < seqColumn+2 {
		return 0, fmt.Errorf("row %.80q: want a sequence number in column %d", row, seqColumn)
	}
	return strconv.Atoi(string(cells[seqColumn]))
}

// lastSeq is the number in the last whole row on disk, or -1.
func lastSeq(store string) (int, error) {
	files, err := rowFiles(store)
	if err != nil || len(files) == 0 {
		return -1, err
	}
	f, err := os.Open(files[len(files)-1])
	if errors.Is(err, os.ErrNotExist) {
		return -1, nil // finished and moved just now
	}
	if err != nil {
		return -1, fmt.Errorf("read rows: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return -1, fmt.Errorf("read rows: %w", err)
	}
	tail := make([]byte, min(st.Size(), 1<<10))
	if _, err := f.ReadAt(tail, st.Size()-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return -1, fmt.Errorf("read rows: %w", err)
	}
	lines := bytes.Split(tail, []byte("\n"))
	if len(lines) < 3 {
		return -1, nil
	}
	seq, err := seqOf(lines[len(lines)-2])
	if err != nil {
		return -1, nil // the head of a new file
	}
	return seq, nil
}

// countLost reads all rows: each number from 0 on must be there once, in order.
func countLost(store string, rows int) (lost int, err error) {
	files, err := rowFiles(store)
	if err != nil {
		return 0, err
	}
	next, wrong := 0, 0
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return 0, fmt.Errorf("count rows: %w", err)
		}
		in := bufio.NewScanner(f)
		in.Scan() // the names of the columns
		for in.Scan() {
			seq, err := seqOf(in.Bytes())
			if err != nil {
				f.Close()
				return 0, fmt.Errorf("count rows of %s: %w", name, err)
			}
			if seq != next {
				wrong += max(seq-next, 1)
			}
			next = seq + 1
		}
		f.Close()
		if err := in.Err(); err != nil {
			return 0, fmt.Errorf("count rows of %s: %w", name, err)
		}
	}
	return wrong + max(rows-next, 0), nil
}

// ceiling raises the rate until it does not go through. It returns the last
// rate that did, and the first that did not.
func ceiling(ctx context.Context, base, disk, bin string, seconds int) (good, bad rowRun, err error) {
	for rate := 75_000; rate <= 1_000_000; rate += rate / 4 {
		r, err := measureRows(ctx, base, disk, bin, rate, rate*seconds)
		if err != nil {
			return good, bad, err
		}
		say("readings: %d/s offered, %.0f held, %d lost, %.3f s behind", r.rate, r.held, r.lost, r.behind)
		if !r.sustained() {
			return good, r, nil
		}
		good = r
	}
	return good, bad, nil
}
