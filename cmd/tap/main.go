// Tap looks at the bus and disturbs nothing.
//
//	publishers' endpoints --listen--> echo | hz | bw | delay --> standard output
//	run folder, ring headers -------> list
//	cache and store folders --------> explain
//
// What to look at is a topology (box.toml), names in it (air, porch.video),
// or endpoints (ipc:///run/perch/air.ipc); with none of them it is the default
// run folder. Sources may start later, and come back as another run.
//
//	tap list  box.toml               who publishes, which streams there are, who reads them
//	tap echo  box.toml air --once    messages, one JSON object a line: topic, header, payload_bytes
//	tap hz    box.toml porch.video   messages a second, and how even their intervals are
//	tap bw    box.toml               bytes a second: of frames in shared memory, and on the bus
//	tap delay box.toml               how old messages are when they arrive
//	tap explain box.toml FILE        a file's whole history, from its frames to its receipt or loss
//
// # Taking no part
//
// Tap says no name to publishers, registers in no ring, pins and maps no
// frame: frames are measured by their descriptors alone. No publisher waits
// for it or counts it, and any number of taps may run. It takes messages off
// its sockets even when its own output is stuck, and throws away what it
// cannot print. Only a tap that is stopped (SIGSTOP) makes messages wait: one
// of each stream of frames, and 1000 of each other endpoint.
//
// # Why the figures are right
//
// Messages come as they are sent, without repair, and an endpoint of frames
// keeps no queue (its high-water mark is 1), so that some never arrive. hz and
// bw therefore count sequence numbers and not messages, and measure time by
// the publisher's own stamps: between two messages that were heard,
//
//	rate = difference of seq / difference of boot_ns
//
// holds whatever was missed between them. Bytes a second are that rate times
// the mean size of the messages heard. Intervals (min, max, standard
// deviation) are taken between neighbours only. What tap missed is counted as
// such: it says nothing of what workers got, who read the rings.
//
// delay is the present boot time less the message's: a frame's begins at its
// capture, so that the time to fill the slot is part of it. Its percentiles
// are right within 1.6 %.
//
// # A file's history
//
// explain takes an id, a file's name, or a path, of which the last word is the
// name. It looks into the node's cache and store, and into the folder that the
// path leads into where that is one of a spool's (a disk from another box), for
// the file's sidecar in any state; then into what deleters wrote of files that
// are gone, and of losses. Nothing need be running. It reads and nothing else:
// nothing is made, held or changed. A time with a question mark was stamped by a
// clock that was not known to be right. --verify reads the file as well and
// compares it with its sha256. -o json prints one object with the sidecar as it
// is and, in now, the file's place.
//
// # Exit codes
//
// 0 also after Ctrl-C, or when nobody reads on; 75 when there was no message
// within --timeout; 78 for a wrong command line or topology. explain ends with 69
// when nothing is known of the file, 75 when that may be because the store is not
// mounted, and 1 when the file is damaged.
package main

import "github.com/perch-edge/perch/pkg/worker"

func main() {
	worker.Tool{Name: "tap", Summary: "Looks at the bus and disturbs nothing.", Verbs: &verbs{}}.Main()
}

// verbs are tap's command line.
type verbs struct {
	List  list  `cmd:"" help:"What is on the bus now: publishers, streams, readers."`
	Echo  echo  `cmd:"" help:"Messages as they come, one JSON object a line."`
	Hz    hz    `cmd:"" help:"Messages a second, and how even their intervals are."`
	Bw    bw    `cmd:"" help:"Bytes a second, in shared memory and on the bus."`
	Delay delay `cmd:"" help:"How old messages are when they arrive."`

	Explain explain `cmd:"" help:"A file's whole history: what it is, why it was kept, sent or deleted, and where it is."`
}
