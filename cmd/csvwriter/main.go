// Csvwriter appends sensor readings to CSV files, one a day and stream.
//
//	reading --> row --> <store_dir>/work/<id>.csv --> (the day is over) ready/<id>.csv + sidecar --> file message
//
// The columns are time, seq, epoch, boot_ns, synced, and then the sensor's own.
// time is UTC as the box knew it, and to be trusted where synced is true;
// boot_ns orders the rows of one boot whatever the clock did; epoch and seq name
// the reading. A value that could not be measured is an empty cell.
//
// A file ends when the date of its rows changes, after 24 hours of boot time,
// at another boot, when the columns change, and at 64 MiB. So a clock that is
// stepped can neither merge two days nor write into an old file.
//
// Killed and started again, it goes on after the last whole row: a torn one is
// cut off and counted, and what came meanwhile is fetched from the sensor's
// history. Nothing is missing and nothing is there twice as long as that
// history reaches back; what it has lost is counted in the state. An open file
// that is not what was written, edited or damaged, is moved to quarantine/.
//
// When the disk is full or fails it says so in its state, keeps up to 16 MiB of
// rows in memory, about two days of one a second, and tries again each second.
// Beyond that nothing is read, and the sensor's history holds its share. Told to
// stop before the disk has them it exits with 1; the next run reads what that
// history still has.
//
// So it does while store_mount is declared and nothing is mounted there: nothing
// is ever written below a mount point without its disk. When the disk goes while
// it runs, the rows that are not known to be durable go to a new file on the
// next one. Started before its disk is there it holds all that the sensor's
// history has, and drops of that what the disk turns out to have; what is missing
// in between is counted as lost_rows.
//
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
