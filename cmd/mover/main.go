// Mover decides which files are kept, and brings those from RAM to disk.
//
//	file messages, cache_dir/born/ --+
//	                                 +--keep?--> yes, or not known in time --> copied, synced: store_dir/ready/ --> file message
//	detections ----------------------+       └─> no --> cache_dir/dropped/ --> file message (a deleter removes it)
//
// The rule keep speaks of a file and of the detections that overlap it: those
// in frames from post before its first to pre after its last frame, so that a
// clip is kept that begins up to pre before something was seen, or ends up to
// post after it. A picture is judged by the frames within a second of it. Without
// a rule everything is kept.
//
// # When it decides
//
// It decides once every detector has covered the file: covered_until in its
// messages is past the file's end and pre. For the rule to decide, a frame of the
// file must have been looked at, and none longer than max_gap ago, since what
// nobody looked at is not known to be empty. verdict_timeout after that moment it
// goes by what it knows: a file for which the rule holds already is kept, and any
// other goes by otherwise. So a detector that is dead, slow or late costs no clip, unless
// otherwise = "drop" says that it may.
//
// Which detectors there are it knows from the topology: sources that read the
// file's camera too and write no files, and all that have ever spoken of it.
//
// # What becomes of a file
//
// The sidecar gets the detections, and the decision with its reason and its
// rule. From RAM to disk a file is copied and hashed, synced, renamed under its
// name, and the original is removed last. What a killed mover left half-way is
// settled at the next start and every minute; a file whose message everybody missed
// is found then too.
//
// While the store is absent (store_mount) or fails, or when max_write is used
// up, kept files wait in RAM, and the state says so. When RAM has less than
// min_free left, files that are not decided yet go to disk, the oldest first,
// rather than be lost. So they do when the mover is told to stop: RAM may be
// switched off next. No file is ever deleted here.
//
// A file whose bytes are not those it was made with goes to quarantine/. A
// message about a file of a worker that is no source is refused and counted
// (refused_files); in messages only ids are believed, and each is looked up.
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "mover",
		Summary:   "Decides which files are kept, and brings those from RAM to disk.",
		Reads:     []msg.Kind{msg.KindFile, msg.KindDetection},
		Publishes: []msg.Kind{msg.KindFile},
		Config:    DefaultConfig,
		Run:       run,
	})
}
