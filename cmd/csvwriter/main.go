// Csvwriter appends sensor readings to CSV files, one a day and stream.
//
//	reading --> row --> <store_dir>/work/<id>.csv --> (the day is over) ready/<id>.csv + sidecar --> file message
//
// The columns are time, seq, epoch, boot_ns, synced, then the sensor's own, and
// bad. time is UTC as the box knew it, and to be trusted where synced is true;
// boot_ns orders the rows of one boot whatever the clock did; epoch and seq name
// the reading. A value that could not be measured is an empty cell. bad is empty,
// or says which values are missing or in doubt, and why: "column=reason;
// column=reason", quoted where it has to be (RFC 4180). A row is one line. Files of
// versions before have no column bad; an open one is completed, and a new one begun.
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
// written. When somebody removes, renames, replaces, truncates or edits it, a new
// one takes its name: with the rows that the old file still has, which includes one
// that was removed, and with those that the sensor's history or csvwriter itself
// still has. The state and the log say so, lost_rows counts the others, the log
// and the sidecar name their numbers, and the damaged part alone goes to
// quarantine/, as <id>.damaged. An edit made while csvwriter does not run is noticed
// where a line is no row any more. A file that somebody moved away keeps its rows, and
// the new one has them too: its sidecar says "at least once", and epoch and seq tell
// duplicates.
//
// The journal in work/ names the open files. One that cannot be read goes to
// quarantine/; the files in work/ are completed by what they hold, and the streams
// go on after them. The boot_id of their sidecars is "unknown" where it cannot be
// told. A file in work/ that the journal does not name, such as one that was moved
// away and put back, is completed under a new id, and its sidecar says "at least once".
//
// When the disk is full or fails it says so in its state, keeps up to 16 MiB of
// rows in memory, about two days of one a second, and tries again each second.
// Beyond that nothing is read, and the sensor's history holds its share. Told to
// stop before the disk has them it puts them into cache_dir for the next run, says
// how many there are, and exits with 1. cache_dir is in RAM: a boot loses them. Where
// it cannot keep them the next run reads what the sensor's history still has.
//
// So it does while store_mount is declared and nothing is mounted there: nothing
// is ever written below a mount point without its disk. When the disk goes while
// it runs, the rows that are not known to be durable go to a new file on the
// next one. Started before its disk is there it holds all that the sensor's
// history has, and drops of that what the disk turns out to have; what is missing
// in between is counted as lost_rows.
//
// Its counters: rows, files; damaged_files and damaged_journals, salvaged_rows,
// refilled_rows and lost_rows of those; quarantined_files, adopted_files (without a
// journal), repaired_files and repaired_bytes (torn ends), failed_syncs,
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
