// Jsonsender sends readings, detections, file records and states to a receiver.
//
//	bus --> choose, reduce --> records --> format --> sink ══> the receiver
//	                              └──> spool on disk, while the receiver does not acknowledge
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
