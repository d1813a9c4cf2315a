// Jpegwriter writes a JPEG picture every few seconds of the newest frame.
//
//	frame (in its slot) --libjpeg-turbo--> JPEG + Exif --> <cache_dir>/born/<id>.jpg + sidecar --> file message
//	                                                   └─> <cache_dir>/latest.jpg
//
// At each tick it takes the newest frame there is, and none in between, so it
// costs what one picture costs. The pixels are compressed where the camera put
// them; those of limited range or of another matrix than BT.601 are converted to
// what JPEG has, so that the picture shows the scene's colours. An mjpeg camera's
// picture is taken as it is, unless its frames say that it breaks JPEG's rule. How old the frame was at
// the tick is in the state (frame_age_ms). Pictures are born in RAM; a mover
// brings those that matter to disk. latest.jpg is there for people and is
// replaced with each picture.
//
// A tick without a new frame is counted (ticks_without_frame) and becomes the
// state's trouble. When the cache is full the picture is lost, counted
// (lost_pictures), and the next tick tries again. A picture that cannot be
// announced is announced later, tried again each second; of more than 256 the
// oldest are given up, and so are all at the end (unannounced_files). They are in
// born/ all the same.
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "jpegwriter",
		Summary:   "Writes a JPEG picture every few seconds of the newest frame.",
		Reads:     []msg.Kind{msg.KindFrame},
		Publishes: []msg.Kind{msg.KindFile},
		Config:    DefaultConfig,
		Run:       run,
	})
}
