package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

// The test data's clip at its own pace through camera and detector: what is found
// agrees with what another implementation found, and the last frame is told of too.
func TestObjectsOfAVideo(t *testing.T) {
	data := os.Getenv("PERCH_TESTDATA")
	if data == "" {
		t.Skip("PERCH_TESTDATA names no folder of test data")
	}
	t.Parallel()
	onnxtest.Library(t)
	hz := 5
	if faultfs.Soak() > 0 {
		hz = 30
	}
	f := newFleet(t, strings.NewReplacer("$DATA", data, "$HZ", fmt.Sprint(hz)).Replace(`
[sensor.porch]
program = "sensor-camera"
input = "file:$DATA/clip.mp4"
[sensor.porch.stream.video]
format = "yuv420"

[worker.eye]
program = "detector"
source = "porch"
model = "$DATA/yolox_nano.onnx"
max_hz = $HZ
`))
	f.start()
	f.wait("the camera is done", func(b box) bool { return b.phase("porch") == "done" })
	all := detections(t, f)
	if err := f.stop(); err != nil {
		t.Errorf("supervisor up ended with %v; want 0", err)
	}
	golden := goldenClip(t, filepath.Join(data, "clip.golden.json"))
	compared := 0
	for i, d := range all {
		if i > 0 && (d.FrameSeq <= all[i-1].FrameSeq || d.CoveredUntil <= all[i-1].CoveredUntil) {
			t.Errorf("frame %d after %d, covered until %d after %d; want them to go on", d.FrameSeq, all[i-1].FrameSeq, d.CoveredUntil, all[i-1].CoveredUntil)
		}
		want, ok := golden[d.FrameSeq]
		if !ok {
			continue
		}
		compared++
		for _, w := range want {
			if w.Score >= 0.4 && !finds(d.Objects, w) {
				t.Errorf("frame %d: nothing is %v; found %v", d.FrameSeq, w, d.Objects)
			}
		}
	}
	// How many there is time for is the machine's affair: cmd/detector looks at all of them.
	if compared < 1 || all[len(all)-1].FrameSeq != 299 {
		t.Errorf("%d of %d golden frames were looked at, the last is %d; want one at least, and 299", compared, len(golden), all[len(all)-1].FrameSeq)
	}
}

// detections are all that the detector has told, from its history, up to the last frame.
func detections(t *testing.T, f *fleet) (all []msg.Detection) {
	t.Helper()
	bus, err := msg.Open(msg.Config{Node: "box", Name: "test", RunDir: f.dir + "/run", ShmDir: f.dir + "/shm"})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	sub, err := bus.Subscribe(msg.Subscription{Sources: []msg.Address{{Source: "eye"}}, Kinds: []msg.Kind{msg.KindDetection}})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, ok, err := sub.Next(t.Context(), time.Now().Add(3*time.Second))
		if err != nil || !ok && len(all) == 0 {
			t.Fatalf("Next() = %v, %v; want detections", ok, err)
		}
		if !ok {
			return all
		}
		d, err := m.Detection()
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, d); d.FrameSeq == 299 {
			return all
		}
	}
}

func goldenClip(t *testing.T, path string) map[msg.Seq][]msg.Object {
	t.Helper()
	var clip struct {
		Detections []struct {
			Frame   msg.Seq
			Objects []msg.Object
		}
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &clip)
	}
	if err != nil {
		t.Fatal(err)
	}
	all := map[msg.Seq][]msg.Object{}
	for _, d := range clip.Detections {
		all[d.Frame] = d.Objects
	}
	return all
}

// finds says whether one of the objects agrees: the same label, an overlap of 0.85
// or more, scores that differ by at most 0.08.
func finds(objects []msg.Object, want msg.Object) bool {
	area := func(b [4]float64) float64 { return (b[2] - b[0]) * (b[3] - b[1]) }
	for _, o := range objects {
		w := min(o.Box[2], want.Box[2]) - max(o.Box[0], want.Box[0])
		h := min(o.Box[3], want.Box[3]) - max(o.Box[1], want.Box[1])
		both := max(w, 0) * max(h, 0)
		if o.Label == want.Label && both/(area(o.Box)+area(want.Box)-both) >= 0.85 && math.Abs(o.Score-want.Score) <= 0.08 {
			return true
		}
	}
	return false
}
