// Package clock stamps what perch records, so that a box without a battery
// clock can still be trusted.
//
//	wall time (may step) + boot time (never steps) + boot id + "was it synced?" --> Stamp
//
// Wall time is for people and is right only when Synced. Boot time
// (CLOCK_BOOTTIME, clock_gettime(2)) orders everything within one boot id
// (/proc/sys/kernel/random/boot_id, random(4)), whatever the wall clock does.
// Synced is the kernel's own word (adjtimex(2), STA_UNSYNC clear), which
// chrony, ntpd and systemd-timesyncd set. Where the kernel does not answer,
// Synced is false: not known is not synced.
package clock

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stamp is one moment, in both clocks.
type Stamp struct {
	Wall   time.Time     // UTC
	Boot   time.Duration // since boot, time asleep included
	Synced bool          // the wall clock was disciplined
}

// Clock gives stamps. Tests inject their own with Fixed.
type Clock struct {
	now    func() Stamp
	bootID string
}

// System is the machine's clock. It fails when the boot id cannot be read.
func System() (*Clock, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	s := &sync1hz{}
	return &Clock{now: s.now, bootID: strings.TrimSpace(string(text))}, nil
}

// Fixed is a clock for tests: each stamp is what now returns.
func Fixed(bootID string, now func() Stamp) *Clock { return &Clock{now: now, bootID: bootID} }

// Now is the present moment.
func (c *Clock) Now() Stamp { return c.now() }

// BootID names this boot of the machine.
func (c *Clock) BootID() string { return c.bootID }

// Boot is the time since boot, time asleep included (CLOCK_BOOTTIME).
func Boot() time.Duration { return read(unix.CLOCK_BOOTTIME) }

// Monotonic is the time since boot without the time asleep (CLOCK_MONOTONIC):
// what drivers stamp frames with.
func Monotonic() time.Duration { return read(unix.CLOCK_MONOTONIC) }

func read(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic("clock_gettime: " + err.Error()) // Linux has had both since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// sync1hz asks the kernel for the state of the wall clock once a second at
// most: the answer changes in minutes, stamps are taken thousands of times a
// second.
type sync1hz struct {
	mu     sync.Mutex
	asked  time.Duration
	known  bool
	synced bool
}

func (s *sync1hz) now() Stamp {
	boot := Boot()
	s.mu.Lock()
	if !s.known || boot-s.asked >= time.Second {
		s.asked, s.known, s.synced = boot, true, disciplined()
	}
	synced := s.synced
	s.mu.Unlock()
	return Stamp{Wall: time.Now().UTC(), Boot: boot, Synced: synced}
}

func disciplined() bool {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	return err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0
}
