package main

import (
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/onnxfile"
	"github.com/perch-edge/perch/internal/yolo"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

func TestQuiet(t *testing.T) {
	low, high := yolo.Seen{Best: 0.1, Class: 0}, yolo.Seen{Best: 0.5, Class: 0}
	object := yolo.Seen{Best: 0.5, Class: -1} // of the object alone: that is no score of a class
	for name, tt := range map[string]struct {
		every  time.Duration
		frames int
		moved  bool
		found  int
		seen   yolo.Seen
		want   int // the frame at which it is reported; 0 is never
	}{
		"nothing, and something moved":    {time.Second, 1000, true, 0, low, 180},
		"nothing, at ten frames an hour":  {6 * time.Minute, 100, true, 0, low, 29},
		"nothing, and nothing moved":      {time.Second, 1000, false, 0, low, 0},
		"not for long":                    {time.Second, 179, true, 0, low, 0},
		"objects":                         {time.Second, 1000, true, 1, high, 0},
		"objects that the user left out":  {time.Second, 1000, true, 0, high, 0},
		"objects that the mask left out":  {time.Second, 1000, true, 0, yolo.Seen{Filtered: 1}, 0},
		"only the object's score is high": {time.Second, 1000, true, 0, object, 180},
	} {
		var q quiet
		at, reported := time.Hour, 0
		for i := range tt.frames {
			if q.add(at+time.Duration(i)*tt.every, tt.moved, tt.found, 0.3, tt.seen) {
				if reported > 0 {
					t.Errorf("%s: reported at frame %d and again at %d; want once", name, reported, i)
				}
				reported = i
			}
		}
		if reported != tt.want {
			t.Errorf("%s: reported at frame %d; want %d", name, reported, tt.want)
		}
	}
}

// A model that takes colours in another order finds nothing: that is in the log, once, and
// in the status until it has found something.
func TestFindsNothing(t *testing.T) {
	onnxtest.Library(t)
	model := write(t, onnxfile.Encode(exports()["yolov8"](newExport()).Graph))
	b := boxtest.New(t, detectorEntry("model = \""+model+"\"\nmax_hz = 1000\nscale = \"0-1\"\norder = \"rgb\"\nmin_score = 1.0\nmin_width = 1"))
	cam := newCamera(t, b, pixel.YUV420, vga())
	bus := b.Bus("test")
	feed := b.Follow(bus, []msg.Kind{msg.KindDetection}, "eye")
	states := b.Follow(bus, []msg.Kind{msg.KindState}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	publish := func(frame uint64, late time.Duration) msg.Detection {
		cam.draw(frame)
		cam.publishLater(late)
		return detection(t, feed)
	}
	for i := range 40 {
		publish(uint64(300+i%2*30), time.Duration(i)*10*time.Second) // the scene's number moves, no target is there
	}
	s := states.State("the report", func(s msg.State) bool { return strings.Contains(s.Status, "found nothing yet") })
	if s.Trouble != "" {
		t.Errorf("trouble = %q; want none: there may be nothing to find", s.Trouble)
	}
	eye.Stop()
	if n := strings.Count(eye.Log(), "the model has found nothing since it began"); n != 1 {
		t.Errorf("reported %d times; want once:\n%s", n, eye.Log())
	}
	for _, want := range []string{"min_score (1)", "rgb 0-1 centre", "family", "scale, order, place"} {
		if !strings.Contains(eye.Log(), want) {
			t.Errorf("the report has no %q:\n%s", want, eye.Log())
		}
	}
}

// Values that make no sense are trouble, and nothing is published of that frame.
func TestBadOutputs(t *testing.T) {
	onnxtest.Library(t)
	e := newExport() // a score of 7 for each white pixel's worth of brightness, on a frame and not on the test picture
	p := e.split("raw", 1, 4, 1)
	whitest := e.op("ReduceMax", []string{e.op("ReduceMin", []string{"images"}, attr("axes", []int64{1}))}, attr("keepdims", int64(0)))
	light := e.op("Relu", []string{e.op("Sub", []string{whitest, e.floats(nil, 0.5)})})
	e.output("output0", e.concat(1, p[0], e.op("Add", []string{p[1], e.scale(light, 14)})), onnxfile.Float, 1, 5, 2100)
	b := boxtest.New(t, detectorEntry("model = \""+write(t, onnxfile.Encode(e.Graph))+"\"\nmax_hz = 1000"))
	cam := newCamera(t, b, pixel.YUV420, vga())
	bus := b.Bus("test")
	feed := b.Follow(bus, []msg.Kind{msg.KindDetection}, "eye")
	states := b.Follow(bus, []msg.Kind{msg.KindState}, "eye")
	eye := b.Start("detector", "eye")
	cam.gate()
	cam.draw(120)
	cam.publish()
	states.State("the trouble", func(s msg.State) bool {
		return s.Counters["bad_outputs"] == 1 && strings.Contains(s.Trouble, "scores up to 7") || strings.Contains(s.Trouble, "scores up to 8")
	})
	clear(cam.picture) // black
	cam.publish()
	if d := detection(t, feed); d.FrameSeq != 1 || len(d.Objects) != 0 {
		t.Errorf("detection = %+v; want the second frame's, without objects", d)
	}
	states.State("no trouble", func(s msg.State) bool { return s.Trouble == "" && s.Counters["frames_seen"] == 1 })
	eye.Stop()
}
