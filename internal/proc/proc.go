// Package proc reads what the kernel says of memory.
//
//	/proc/meminfo, /proc/PID/smaps_rollup --> name: bytes
//
// What cannot be read is absent from the answer: such figures are for rules of
// thumb and for people, and no reason to fail.
package proc

import (
	"os"
	"strconv"
	"strings"
)

// Sizes reads lines such as "MemAvailable: 123 kB" (proc(5)), and returns bytes.
func Sizes(path string) map[string]uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	sizes := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if number, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB"); ok {
			if kb, err := strconv.ParseUint(number, 10, 64); err == nil {
				sizes[name] = kb << 10
			}
		}
	}
	return sizes
}

// AvailableRAM is how much RAM programs can have without swapping, in bytes.
func AvailableRAM() int64 { return int64(Sizes("/proc/meminfo")["MemAvailable"]) }
