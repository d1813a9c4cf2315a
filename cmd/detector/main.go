// Detector finds objects in a camera's newest frame by a YOLO network.
//
//	frame (in its slot) --gate--> letterbox --> tensor --ONNX Runtime--> tensor --> boxes --> detection message
//	                       └─ nothing moved: what was seen last, again
//
// It looks at the newest frame there is, at most max_hz times a second, one at a
// time, and never at one that waited in a queue. For each frame that it looked at
// it publishes a detection, also when it saw nothing, so that covered_until goes on
// and nobody waits for a word on older frames. The frame is given back to the
// camera as soon as it is scaled, before the network runs.
//
// The model is an ONNX file of the families yolox, yolov5 or yolov8 (and v9, v11),
// which are told apart by the shapes of their tensors; "make model" gets YOLOX-nano.
// model = "sim:" is a small one within the program, which finds the target of the
// simulated camera. ONNX Runtime is found as library, PERCH_ONNXRUNTIME or in the
// usual places; "make setup" provides it.
//
// With gate = "motion" a frame in which nothing has changed since the model looked
// last is not given to it, until at_least_every has passed. Its message says so
// (gate is "still") and carries the objects of that last look: they are still there.
//
// It fails with exit 69 when there is no ONNX Runtime (or with without_runtime =
// "wait", says so in its state and waits until there is one), with 78 when the model is
// none that it can use, and with 1 when a run takes longer than deadline. A frame
// that is damaged is counted (bad_frames) and becomes the state's trouble. The state
// has times of each step (preprocess_ms, inference_ms, postprocess_ms), how old the
// frame was when it was taken (frame_age_ms), and the CPU time of all runs of the
// network together (inference_cpu_us).
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "detector",
		Summary:   "Finds objects in a camera's newest frame by a YOLO network.",
		Reads:     []msg.Kind{msg.KindFrame},
		Publishes: []msg.Kind{msg.KindDetection},
		Config:    DefaultConfig,
		Run:       run,
	})
}
