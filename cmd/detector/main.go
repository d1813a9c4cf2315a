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
// # Models
//
// The model is an ONNX file; "make model" gets YOLOX-nano. docs/MODELS.md has the
// commands that export others, and what to set. Its shapes, its exporter's notes
// and a run on a test picture tell which family it is of:
//
//	yolox    YOLOX
//	yolov5   YOLOv5, also P6 and MegaDetector v5; v3, v7
//	yolov6   YOLOv6
//	yolov8   YOLOv8, v9, v11, v12
//	end2end  v10, YOLO26, exports with nms=True or --end2end, EfficientNMS
//	rtdetr   RT-DETR, D-FINE, DEIM
//
// Each family expects its input prepared in its own way; scale, order and place override
// that. A model that only resembles YOLOX needs the key family. Inputs may be float32,
// float16 or uint8; weights may be in a separate file in the model's folder. Models for
// other tasks (pose, segmentation), or whose scores are not from 0 to 1, are refused with
// advice. --check, and so "supervisor check", loads the model exactly as the worker does,
// within seconds; if the file is not a model, it says what it is.
//
// If a model finds nothing in its first three minutes although something moved, the log
// and the status report it once: the input may be prepared in the wrong way.
//
// model = "sim:" is a small one within the program, which finds the target of the
// simulated camera. ONNX Runtime is found as library, PERCH_ONNXRUNTIME or in the
// usual places; "make setup" provides it.
//
// # Gate and failures
//
// With gate = "motion" a frame in which nothing has changed since the model looked
// last is not given to it, until at_least_every has passed. Its message says so
// (gate is "still") and carries the objects of that last look: they are still there.
//
// It fails with exit 69 when there is no ONNX Runtime (or with without_runtime =
// "wait", says so in its state and waits until there is one), with 78 when it cannot use
// the model, and with 1 when a run takes longer than deadline. A damaged frame is counted
// (bad_frames) and becomes the state's trouble, and so does one for which the network's
// output makes no sense (bad_outputs): nothing is published for it. The state
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
