// Jpegwriter writes the newest frame as a JPEG picture every few seconds.
//
//	frame (in its slot) --libjpeg-turbo--> JPEG + Exif --> <cache_dir>/born/<id>.jpg + sidecar --> file message
//	                                                   └─> <cache_dir>/latest.jpg
//
// At each tick it takes the newest frame and skips those in between, so the cost is
// that of one picture. Pixels are compressed in the slot. If they are not full-range
// BT.601, as JPEG demands, they are converted first, so that the picture shows the
// scene's colours. An mjpeg camera's picture is copied unchanged, unless its frames
// declare other colours than JPEG's. The age of the frame at the tick is in the
// state (frame_age_ms). Pictures are born in RAM; a mover moves those that matter to
// disk. latest.jpg is for people and is replaced with each picture.
//
// A tick without a new frame is counted (ticks_without_frame) and is trouble. If the
// cache is full, the picture is lost and counted (lost_pictures), and the next tick
// tries again. Announcing a picture is retried each second. Beyond 256 of them the
// oldest are given up, and at the end all (unannounced_files); the files stay in
// born/.
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
