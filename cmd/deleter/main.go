// Deleter makes room: it removes files that are done with, and says of each why
// it is gone.
//
//	file messages, cache_dir, store_dir --plan--> what goes, in which order --> store_dir/gone/ --> removed --> file message
//	                                                                       └─> losses file (what nobody has) --> file message, to be sent
//
// Without any setting it removes what lies in dropped/, where the mover puts
// what its rule does not keep, and from disk nothing. What else may go is said
// in two tables, ram for cache_dir and disk for store_dir:
//
//	when       a rule, as 'sent and class == "clips" and age_h > 24'
//	max_age    no file there is older
//	max_bytes  what all files there take up, with their sidecars, in blocks of 4 KiB
//	min_free   free room of the file system
//
// For max_bytes and min_free files go in this order: those that were sent, then
// those that the receiver rejected; of these by their class, in the declared
// order; of these the oldest first.
//
// # What is never deleted
//
// Files that are waiting to be sent (born/, ready/) are deleted by no setting
// as long as evict_unsent = false. With evict_unsent = true the rule when may
// speak of those in ready/, and min_free, the hard floor, takes them all, after
// everything else; max_age and max_bytes never do. Files in work/ and
// quarantine/, losses files before they were sent, and what is none of ours are
// left alone whatever is set. So is a file that another worker is at work on,
// and one whose sidecar cannot be read.
//
// Ages are reckoned by boot time, and between boots only where both wall
// clocks are known to be right. A file whose age is not known is never too old.
//
// # What is left of a file
//
// Before a file is removed its sidecar is written to the log store_dir/gone/,
// where its whole history can be found (tap explain). A file that no receiver
// has, unless the mover's rule dropped it, leaves a line in a losses file first:
// JSON lines, in ready/ after five minutes at most, and sent as all others.
// Killed at any moment it may tell of a file twice, and never of none. Should the
// disk fail between the line and the removal, the file may yet be sent: it has
// then not been lost.
//
// While the store is absent or takes no line of the log, files stay where they
// are until room is short: less than a quarter free, or below what is set. Then
// those go without a line in the log, and are counted (unrecorded_files). One
// that must leave a line in a losses file stays.
//
// # To look first
//
// "deleter plan" prints what would go now, in which order and why, and when the
// disks will be full at the present rate. It removes nothing, and may be asked
// while the deleter runs. One that cannot keep to a limit says so in its state.
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "deleter",
		Summary:   "Removes files that are done with, by rule and by budget.",
		Reads:     []msg.Kind{msg.KindFile},
		Publishes: []msg.Kind{msg.KindFile},
		Config:    DefaultConfig,
		Run:       run,
		Verbs:     []worker.Verb[Config]{{Name: "plan", Summary: "Print what would go and why, and when the disks are full. Removes nothing.", Run: printPlan}},
	})
}
