// Jsonsender sends readings, detections, file records and states to a receiver.
//
//	bus --> choose --> [reduce] --> records --> format --> sink ══> the receiver
//	                                   └─ not acknowledged within spool_after ─> backlog on disk ─> sink
//
// What is sent. The messages of its sources, of the chosen kinds, streams and columns; with every and
// reduce, one reading in that time, which says how many values it stands for. Values that are bad or
// null are counted and never averaged in. A record has one id for ever:
// <node>/<source>/<stream>/<epoch>/<seq>. docs/FORMATS.md shows what each format makes of it.
//
// Where to. The scheme of to says how: tcp, tls, unix, ws, wss, http, https, mqtt, mqtts, nats or
// zmq+tcp. One worker has one receiver; several workers can read the same source, each with its own
// receiver and backlog. docs/RECEIVERS.md says what a receiver gets, and what its acknowledgement is.
//
// Order and repeats. Each stream is sent in order. What the receiver has acknowledged is not sent
// again, also after this program was killed. A record that was under way when the link broke may have
// arrived, and is sent again: NATS JetStream, an HTTP receiver that knows batches by their
// Idempotency-Key, and a table whose key is the id then have it once; others have it twice, and
// sent_again counts these.
//
// The backlog. What is not acknowledged within spool_after goes to <store_dir>/outbox/<name>/: while
// the link is well the disk is spared. It belongs to the worker's name, so that an address can be
// corrected, and it is a log that survives kills, power cuts and damage (package backlog). At
// spool_most, or on a full disk, the oldest readings are thinned to every second one, then every
// fourth, and so on; detections and file records go last. States are about now: only the newest
// waits, in RAM.
//
// What a power cut costs. With the link up, what was not acknowledged: spool_after at most. With the
// link down, what was not synced: spool_sync at most. With spool_after = "0s" each record is synced
// before it is sent. What was sent from the backlog comes again if it was acknowledged within the last
// second. A kill costs nothing: the histories of the bus have what was in RAM alone.
//
// Failures. A link that fails is tried again after a second and then ever less often, up to
// retry_most, at random. A receiver that refuses a record, while it takes others, does not hold them
// up: after attempts refusals the record is set aside in outbox/<name>.refused.jsonl. A receiver that
// refuses everything is in trouble itself, or our settings are: that costs no record, and the state
// says what to do. When the disk fails too, RAM holds 1000 records; after that nothing is read from
// the bus, whose histories hold the next ones.
//
// "jsonsender status" shows what waits on disk and what was lost, "jsonsender adopt OLD" takes over
// the backlog of a worker that was renamed, and "jsonsender skip" gives the backlog up.
package main

import (
	"github.com/perch-edge/perch/cmd/jsonsender/internal/choose"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:    "jsonsender",
		Summary: "Sends readings, detections, file records and states to a receiver.",
		Reads:   choose.Kinds(),
		Config:  DefaultConfig,
		Run:     run,
		Verbs:   verbs(),
	})
}
