// Csvwriter appends sensor readings to CSV files, one a day and stream.
//
//	reading --> row --> <store_dir>/work/<id>.csv --> (the day is over) ready/<id>.csv + sidecar --> file message
//
// The columns are time, seq, epoch, boot_ns, synced, then the sensor's own, and
// bad. time is UTC as the box knew it, and to be trusted where synced is true;
// boot_ns orders the rows of one boot whatever the clock did; epoch and seq name
// the reading. A value that could not be measured is an empty cell. bad is normally
// empty; otherwise it says which values are missing or doubtful, and why:
// "column=reason; column=reason", quoted if necessary (RFC 4180). A row is always one
// line. Files of earlier versions lack the column bad; an open one is completed, and a
// new file begun.
//
// A file ends when the date of its rows changes, after 24 hours of boot time,
// at another boot, when the columns change, and at 64 MiB. So a clock that is
// stepped can neither merge two days nor write into an old file.
//
// Killed and started again, it goes on after the last whole row: a torn one is
// cut off and counted, and what came meanwhile is fetched from the sensor's
// history. Nothing is missing and nothing is there twice as long as that
// history reaches back; what it has lost is counted in the state.
//
// Twice a second, and when it is complete, an open file is compared with what was
// written. If somebody removed, renamed, replaced, truncated or edited it, a new file
// takes its name. Its rows come from the old file (even a removed one is still open),
// from the sensor's history, and from csvwriter's own memory. The state and the log
// report this; lost_rows counts the rows found nowhere, and the log and the sidecar list
// their numbers. Only the damaged part goes to quarantine/, as <id>.damaged. If a file
// was moved away, both it and the new one have its rows: the new one's sidecar says "at
// least once", and epoch and seq identify duplicates. An edit made while csvwriter is not
// running is noticed only if a line is no longer a row.
//
// The journal in work/ names the open files. If it cannot be read, it goes to
// quarantine/; the files in work/ are completed, and their streams continue in new ones.
// The boot_id in their sidecars is "unknown" if it cannot be determined. A file in work/
// that the journal does not name, such as one that was moved away and put back, is
// completed under a new id, and its sidecar says "at least once".
//
// If the disk is full or fails, csvwriter says so in its state, keeps up to 16 MiB of
// rows in memory (about two days of one reading a second), and tries again each second.
// Beyond that it stops reading, and the sensor's history holds what it can. If it is told
// to stop before the rows are on disk, it puts them into cache_dir for the next run, says
// how many there are, and exits with 1. cache_dir is in RAM, so a reboot loses them. If
// they cannot be kept there, the next run reads what the sensor's history still has.
//
// It does the same while store_mount is declared and nothing is mounted there: nothing
// is ever written below a mount point without its disk. When the disk goes while
// it runs, the rows that are not known to be durable go to a new file on the
// next one. Started before its disk is there it holds all that the sensor's
// history has, and drops of that what the disk turns out to have; what is missing
// in between is counted as lost_rows.
//
// Its counters: rows, files; damaged_files and damaged_journals; salvaged_rows,
// refilled_rows and lost_rows of damaged files; quarantined_files, adopted_files (not in
// the journal), repaired_files and repaired_bytes (torn ends), failed_syncs,
// unsaved_rows (at the end of a run), malformed_readings.
// The gauge written_24h_bytes is what it wrote to disk in 24 hours of boot time.
// A synced row costs an SD card a page or more: flush = "1hz" spares it.
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "csvwriter",
		Summary:   "Appends sensor readings to CSV files, one a day.",
		Reads:     []msg.Kind{msg.KindReading},
		Publishes: []msg.Kind{msg.KindFile},
		Config:    DefaultConfig,
		Run:       run,
	})
}
