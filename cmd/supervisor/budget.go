package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/proc"
	"github.com/perch-edge/perch/pkg/shm"
	"github.com/perch-edge/perch/pkg/topology"
)

// budget is the memory that a fleet's rings take, and what there is.
type budget struct {
	RingBytes uint64 `json:"ring_bytes"` // all rings
	// SpareBytes is the largest ring once more: when its writer was killed, the
	// next one makes its own while readers still have the old one mapped.
	SpareBytes     uint64 `json:"spare_bytes"`
	Rings          int    `json:"rings"`
	ShmDir         string `json:"shm_dir"`
	ShmFreeBytes   uint64 `json:"shm_free_bytes"`  // what this fleet has there now is counted as free
	AvailableBytes uint64 `json:"available_bytes"` // RAM, MemAvailable of proc(5)
}

func (b budget) String() string {
	return fmt.Sprintf("%s take %s, and %s more while a writer restarts, of %s free in %s and %s of RAM", plural(b.Rings, "ring"),
		size(b.RingBytes), size(b.SpareBytes), size(b.ShmFreeBytes), b.ShmDir, size(b.AvailableBytes))
}

// checkBudget adds up the rings of all streams, and proves that they fit. What
// does not is put down to the largest.
func (p *plan) checkBudget() topology.Problems {
	b := &p.budget
	b.ShmDir = p.top.Node.ShmDir
	var largest topology.Problem
	for _, e := range p.top.Entries {
		for _, ring := range p.reports[e.Name].Rings {
			bytes := uint64(shm.Footprint(ring.Slots, ring.SlotBytes))
			b.RingBytes += bytes
			b.Rings++
			if bytes > b.SpareBytes {
				b.SpareBytes = bytes
				largest = e.Table.Problem("stream."+ring.Stream, "its ring of %d slots of %s is the largest", ring.Slots, size(uint64(ring.SlotBytes)))
			}
		}
	}
	held := heldBy(b.ShmDir)
	b.ShmFreeBytes = freeBytes(b.ShmDir) + held
	b.AvailableBytes = uint64(proc.AvailableRAM()) + held
	need := b.RingBytes + b.SpareBytes
	if need <= min(b.ShmFreeBytes, b.AvailableBytes) || b.Rings == 0 {
		return nil
	}
	largest.Message = fmt.Sprintf("%s: %s, %d and %d bytes; use fewer slots or smaller frames, or free or enlarge %s",
		largest.Message, strings.Replace(b.String(), "take", "would take", 1), b.RingBytes, b.SpareBytes, b.ShmDir)
	return topology.Problems{largest}
}

// heldBy is how much memory the rings take that are in a folder already: this
// fleet's own, which runs or has left them.
func heldBy(dir string) (bytes uint64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode()&fs.ModeType == 0 && slices.Contains([]string{".dat", ".ctl"}, filepath.Ext(e.Name())) {
			bytes += uint64(info.Size())
		}
	}
	return bytes
}
