// Sweeper finds files that were never sent and announces them again.
//
//	<cache_dir>/born, <store_dir>/ready --list--> file messages --> who reads the sources, or is one
//	their state messages --account for each message? --> exit 0, a summary in the log
//
// It is a job: it runs, and ends. A file whose message everybody missed is found
// by it, at the latest. In a topology:
//
//	[job.sweep]
//	program = "sweeper"
//	source = ["porch-clips", "keep"]
//	every = "10m"
//
// Its source names who it speaks for. Every worker that reads files and shares
// one of these sources hears it, and so does one that is named there and reads
// workers itself: above, what reads keep, what reads porch-clips, and keep. Its
// messages carry the file's id and state and no sidecar, which is beside the
// file. A file may be announced that somebody is just at work on; those who hear
// of it tell files apart by their ids.
//
// It waits until they are there (3 s at most), announces all files, the oldest
// names first, and waits until each has accounted for every message, in its
// state once a second. Should there be more than 16384 files it goes no further
// ahead than that of the slowest, so that nobody loses any: its memory holds
// names, about 200 bytes a file. With nothing to announce it ends at once.
//
// # Exit codes
//
// 0 when everybody heard everything. 75 when a worker was not there, or had not
// heard all of it after wait; which is named, and the others have heard it all
// the same. 75 also when the store is not mounted: then only the cache is swept.
// 78 when the topology has nobody to hear it.
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "sweeper",
		Summary:   "Finds files that were never sent and announces them again.",
		Reads:     []msg.Kind{msg.KindFile},
		Publishes: []msg.Kind{msg.KindFile},
		Config:    DefaultConfig,
		Run:       run,
		Job:       true,
	})
}
