package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/pixel"
)

// Each format of a camera goes to each consumer of frames: pictures and videos
// show the frames that their sidecars name, and the detector sees the target.
func TestEveryFormatToEveryConsumer(t *testing.T) {
	t.Parallel()
	onnxtest.Library(t)
	for _, format := range pixel.Formats() {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, strings.ReplaceAll(`
[sensor.porch]
program = "sensor-camera"
input = "sim:"
[sensor.porch.stream.video]
capture_hz = 15
size = "320x240"
format = "FORMAT"
slots = 12

[worker.pictures]
program = "jpegwriter"
source = "porch"
every = "300ms"

[worker.clips]
program = "h264writer"
source = "porch"
segment = "1s"
preset = "ultrafast"
encoder = "libx264"

[worker.eye]
program = "detector"
source = "porch"
model = "sim:"
max_hz = 10
`, "FORMAT", string(format)))
			f.start()
			b := f.wait("files and objects", func(b box) bool {
				return b.counter("pictures", "pictures") >= 3 && b.counter("clips", "segments") >= 2 && b.counter("eye", "objects") >= 5
			})
			for _, w := range b.Workers {
				if bad := w.Counters["lost_pictures"] + w.Counters["refused_frames"] + w.Counters["bad_frames"] + w.Counters["corrupt_frames"]; bad > 0 {
					t.Errorf("%s: %v; want no bad frame", w.Name, w.Counters)
				}
			}
			if err := f.stop(); err != nil {
				t.Errorf("supervisor up ended with %v; want 0", err)
			}
			f.wantShown("*.jpg", 3)
			f.wantShown("*.mp4", 2)
		})
	}
}

func (b box) counter(worker, name string) uint64 {
	for _, w := range b.Workers {
		if w.Name == worker {
			return w.Counters[name]
		}
	}
	return 0
}

// wantShown wants so many files in born/ at least, each of the frame that its
// sidecar names as the first.
func (f *fleet) wantShown(pattern string, least int) {
	f.t.Helper()
	files, err := filepath.Glob(filepath.Join(f.dir, "cache/born", pattern))
	if err != nil || len(files) < least {
		f.t.Errorf("born/ has %d of %s (%v); want %d", len(files), pattern, err, least)
	}
	numbers := f.firstNumbers(files)
	for i, file := range files {
		text, err := os.ReadFile(strings.TrimSuffix(file, filepath.Ext(file)) + ".json")
		if err != nil {
			f.t.Fatal(err)
		}
		var side sidecar.Sidecar
		if err := json.Unmarshal(text, &side); err != nil {
			f.t.Fatal(err)
		}
		if numbers[i] != uint64(side.Start.Seq) {
			f.t.Errorf("%s begins with frame %d; its sidecar says %d", side.Name, numbers[i], side.Start.Seq)
		}
	}
}

// firstNumbers reads the number in the first picture of each file, as ffmpeg shows it.
func (f *fleet) firstNumbers(files []string) (list []uint64) {
	f.t.Helper()
	dir := f.t.TempDir()
	raw := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	args, outputs := []string{"-v", "error"}, []string{}
	for i, file := range files {
		args = append(args, "-threads", "1", "-i", file)
		outputs = append(outputs, "-map", fmt.Sprint(i), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "yuv420p", raw(i))
	}
	if out, err := exec.Command("ffmpeg", append(args, outputs...)...).CombinedOutput(); err != nil {
		f.t.Fatalf("ffmpeg %v: %v: %s", files, err, out)
	}
	for i, file := range files {
		pixels, err := os.ReadFile(raw(i))
		if err != nil {
			f.t.Fatal(err)
		}
		img, err := pixel.NewImage(pixel.YUV420, pixel.Size{Width: 320, Height: 240}, pixels)
		if err != nil {
			f.t.Fatal(err)
		}
		n, err := scene.ReadNumber(img)
		if err != nil {
			f.t.Fatalf("%s: %v", file, err)
		}
		list = append(list, n)
	}
	return list
}
