package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ticker paces as a camera does: by a file that becomes readable (timerfd(2)).
// Waiting for it costs what waiting for a pipe or a device costs, and not what
// the runtime's own timers do.
type ticker struct{ file *os.File }

func newTicker(hz float64) (*ticker, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make timer: %w", err)
	}
	t := &ticker{os.NewFile(uintptr(fd), "timer")}
	period := unix.NsecToTimespec(int64(float64(time.Second) / hz))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: period, Value: unix.Timespec{Nsec: 1}}, nil); err != nil {
		t.file.Close()
		return nil, fmt.Errorf("set timer: %w", err)
	}
	return t, nil
}

// wait waits for the next tick; it returns how many have passed.
func (t *ticker) wait() (ticks int, err error) {
	var count [8]byte
	if _, err := t.file.Read(count[:]); err != nil {
		return 0, fmt.Errorf("wait for timer: %w", err)
	}
	return int(binary.NativeEndian.Uint64(count[:])), nil
}

func (t *ticker) close() { t.file.Close() }
