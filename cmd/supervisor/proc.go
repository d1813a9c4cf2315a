package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/proc"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc: 100 on every
// architecture that Go runs on (proc(5)).
const ticksPerSecond = 100

// procStat is what /proc/PID/stat says (proc(5)).
type procStat struct {
	zombie    bool
	suspended bool          // by a signal, as Ctrl-Z sends it
	cpu       time.Duration // user and system
	started   uint64        // ticks since boot: with the id, it names a process for good
}

func statOf(pid int) (procStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The second field is the program's name in parentheses and may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	number := func(i int) uint64 { // numbered as in proc(5)
		n, _ := strconv.ParseUint(fields[i-3], 10, 64)
		return n
	}
	return procStat{zombie: fields[0] == "Z" || fields[0] == "X", suspended: fields[0] == "T",
		cpu: time.Duration(number(14)+number(15)) * time.Second / ticksPerSecond, started: number(22)}, nil
}

// memoryOf is how much memory a process holds: its own, and what of the shared
// memory it has mapped.
func memoryOf(pid int) (own, shared uint64) {
	sizes := proc.Sizes(fmt.Sprintf("/proc/%d/status", pid))
	return sizes["RssAnon"] + sizes["RssFile"], sizes["RssShmem"]
}

// oomKills is how many processes the kernel has killed for want of memory since
// boot (oom_kill of /proc/vmstat, since Linux 4.13).
func oomKills() uint64 {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			n, err := strconv.ParseUint(number, 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// bearing lists the processes with an environment that has this entry.
func bearing(entry string) (pids []int) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, d := range all {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile("/proc/" + d.Name() + "/environ")
		if err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+entry+"\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}
