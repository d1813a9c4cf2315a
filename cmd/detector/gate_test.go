package main

import (
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/yolo"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
)

// watcher asks a gate about frames of the simulated scene.
type watcher struct {
	t     *testing.T
	gate  *gate
	scene *scene.Scene
	img   pixel.Image
}

func newWatcher(t *testing.T, f pixel.Format, cfg Config) *watcher {
	t.Helper()
	s := pixel.Size{Width: 640, Height: 480}
	sc, err := scene.New(f, s)
	if err != nil {
		t.Fatal(err)
	}
	img, err := pixel.NewImage(f, s, make([]byte, sc.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{t, newGate(cfg), sc, img}
}

// still draws a frame, lets change change it, and asks.
func (w *watcher) still(frame uint64, at time.Duration, change func([]byte)) bool {
	w.t.Helper()
	if err := w.scene.Draw(frame, w.img.Data); err != nil {
		w.t.Fatal(err)
	}
	// The frame's number would move by itself.
	luma, _ := w.img.Plane(0)
	for y := range 64 {
		clear(luma.Row(y))
	}
	if change != nil {
		change(luma.Pix)
	}
	still, err := w.gate.still(w.img, at)
	if err != nil {
		w.t.Fatal(err)
	}
	return still
}

func gated() Config {
	cfg := DefaultConfig()
	cfg.AtLeastEvery = topology.Duration(2 * time.Second)
	return cfg
}

func TestGate(t *testing.T) {
	for _, f := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		w := newWatcher(t, f, gated())
		const away, here = 300, 120 // frames without and with a target
		lighter := func(pix []byte) {
			for i := range pix {
				pix[i] += min(20, 255-pix[i])
			}
		}
		for i, step := range []struct {
			frame  uint64
			at     time.Duration
			change func([]byte)
			still  bool
			why    string
		}{
			{away, 0, nil, false, "the first frame"},
			{away, time.Second, nil, true, "nothing moved"},
			{away, 1100 * time.Millisecond, lighter, true, "a cloud went"},
			{here, 1200 * time.Millisecond, nil, false, "the target came"},
			{here, 1300 * time.Millisecond, nil, true, "it stays"},
			{away, 1400 * time.Millisecond, nil, false, "it went"},
			{away, 3399 * time.Millisecond, nil, true, "just before at_least_every"},
			{away, 3400 * time.Millisecond, nil, false, "at_least_every"},
			{away, 3300 * time.Millisecond, nil, false, "another camera's clock"},
		} {
			if got := w.still(step.frame, step.at, step.change); got != step.still {
				t.Errorf("%s, step %d, %s: still() = %v; want %v", f, i, step.why, got, step.still)
			}
		}
	}
}

// What moves slowly is compared with what the model saw, not with the frame before.
func TestGateNoticesWhatIsSlow(t *testing.T) {
	w := newWatcher(t, pixel.YUV420, gated())
	w.still(0, 0, nil)
	for frame := uint64(1); ; frame++ { // it begins with a pixel or two a frame
		if !w.still(frame, time.Duration(frame), nil) {
			return
		}
		if frame == 20 {
			t.Fatal("the target went on for 20 frames and the gate was still closed")
		}
	}
}

func TestGateLeavesOutTheMask(t *testing.T) {
	cfg := gated()
	cfg.Mask = yolo.Mask{{{0, 0}, {1, 0}, {1, 1}, {0, 1}}}
	w := newWatcher(t, pixel.YUV420, cfg)
	w.still(300, 0, nil)
	if !w.still(120, time.Second, nil) {
		t.Error("still() = false for a target that is masked; want true")
	}
}
