package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/sidecar"
)

// life is a fleet from the clip of the test data to a server: camera, video,
// detector, mover, uploader, deleter, with more keys of three of them.
func life(data, detector, mover, uploader string) string {
	return strings.NewReplacer("$DATA", data, "$DETECTOR", detector, "$MOVER", mover, "$UPLOADER", uploader).Replace(`
[sensor.porch]
program = "sensor-camera"
input = "file:$DATA/clip.mp4"
[sensor.porch.stream.video]
format = "yuv420"

[worker.porch-clips]
program = "h264writer"
source = "porch"
segment = "4s"
preset = "ultrafast"

[worker.porch-objects]
program = "detector"
source = "porch"
model = "$DATA/yolox_nano.onnx"
$DETECTOR

[worker.keep]
program = "mover"
source = ["porch-clips", "porch-objects"]
keep = 'any(detections, .label == "person" && .score >= 0.5)'
$MOVER

[worker.send]
program = "uploader"
source = "keep"
$UPLOADER

[worker.clean]
program = "deleter"
source = ["keep", "send"]
`)
}

// Persons are in the segments of 4 to 8 s and of 12 to 16 s.
func TestLifeOfAClip(t *testing.T) {
	t.Parallel()
	data := os.Getenv("PERCH_TESTDATA")
	if data == "" {
		t.Skip("PERCH_TESTDATA names no folder of test data")
	}
	onnxtest.Library(t)
	for name, c := range map[string]struct {
		server          func(*testing.T) (keys string, files place)
		detector, mover string
		after           func(*fleet)
		want            []int // segments that arrive
	}{
		"nginx":                     {server: nginx, detector: "max_hz = 5", want: []int{2, 4}},
		"s3":                        {server: s3, detector: "max_hz = 2", want: []int{2, 4}},
		"one look in three seconds": {server: nginx, detector: "max_hz = 0.34", want: []int{2, 4}},
		"the detector is stopped": {server: nginx, detector: "max_hz = 5", mover: `verdict_timeout = "3s"`, want: []int{1, 2, 3, 4, 5},
			after: func(f *fleet) { f.supervisor("stop", "porch-objects") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, at := c.server(t)
			f := newFleet(t, life(data, c.detector, c.mover, keys))
			f.start()
			if c.after != nil {
				c.after(f)
			}
			f.wantSent(at, c.want)
			f.wantEmptyRAM()
			if err := f.stop(); err != nil {
				t.Errorf("supervisor up ended with %v; want 0", err)
			}
			f.wantExplained(c.want)
		})
	}
}

// supervisor runs one of its verbs on the fleet.
func (f *fleet) supervisor(verb string, args ...string) {
	f.t.Helper()
	out, err := exec.Command(filepath.Join(bin, "supervisor"), append([]string{verb, f.topology}, args...)...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("supervisor %s = %v: %s", verb, err, out)
	}
}

// wantSent waits until the video is over and just those segments have arrived.
func (f *fleet) wantSent(at place, want []int) {
	f.t.Helper()
	f.wait(fmt.Sprintf("segments %v at the server, and nothing in RAM", want), func(b box) bool {
		return b.phase("porch") == "done" && b.counter("send", "sent_files") == uint64(len(want)) && len(f.files("cache", ".mp4")) == 0
	})
	got := map[int]bool{}
	all := at()
	for name, text := range all {
		id, isVideo := strings.CutSuffix(name, ".mp4")
		if !isVideo {
			continue
		}
		got[number(f.t, sidecar.ID(id))] = true
		side, err := sidecar.Decode(all[id+".json"])
		if err != nil {
			f.t.Errorf("the sidecar of %s at the server: %v", name, err)
			continue
		}
		if sum := sha256.Sum256(text); side.SHA256 != hex.EncodeToString(sum[:]) || side.Bytes != int64(len(text)) {
			f.t.Errorf("%s at the server has %d bytes with sha256 %x; want %d with %s", name, len(text), sum, side.Bytes, side.SHA256)
		}
	}
	if len(got) != len(want) || slices.ContainsFunc(want, func(n int) bool { return !got[n] }) {
		f.t.Errorf("the server has segments %v; want %v", got, want)
	}
}

func (f *fleet) wantEmptyRAM() {
	f.t.Helper()
	for _, end := range []string{".mp4", ".json", ".run", ".part"} {
		if left := f.files("cache", end); len(left) > 0 {
			f.t.Errorf("RAM has %v; want nothing", left)
		}
	}
}

// wantExplained asks for the history of all five segments: why they were sent,
// or are gone.
func (f *fleet) wantExplained(sent []int) {
	f.t.Helper()
	known := f.segments()
	if len(known) != 5 {
		f.t.Errorf("the box knows of segments %v; want all 5", known)
	}
	for n, id := range known {
		text, err := exec.Command(filepath.Join(bin, "tap"), "explain", f.topology, string(id)).CombinedOutput()
		words := []string{"dropped by the rule", "gone"}
		if slices.Contains(sent, n) {
			words = []string{"sent", "127.0.0.1"}
		}
		for _, word := range words {
			if err != nil || !strings.Contains(string(text), word) {
				f.t.Errorf("tap explain of segment %d = %v:\n%s\nwant %q in it", n, err, text, word)
			}
		}
	}
}

// files are those below a folder of the box with that end.
func (f *fleet) files(dir, end string) (list []string) {
	f.t.Helper()
	err := filepath.WalkDir(filepath.Join(f.dir, dir), func(p string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, end) {
			list = append(list, p)
		}
		if os.IsNotExist(err) { // moved on meanwhile
			return nil
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return list
}

// segments are the clips that the box knows of, in its store and in its memory
// of what is gone, by their number.
func (f *fleet) segments() map[int]sidecar.ID {
	found := map[int]sidecar.ID{}
	add := func(text []byte) {
		var side sidecar.Sidecar
		if json.Unmarshal(text, &side) == nil && side.Worker == "porch-clips" {
			found[number(f.t, side.ID)] = side.ID
		}
	}
	for _, p := range append(f.files("store", ".json"), f.files("store/gone", ".jsonl")...) {
		text, err := os.ReadFile(p)
		if err != nil {
			f.t.Fatal(err)
		}
		add(text)
		for line := range strings.Lines(string(text)) {
			add([]byte(line))
		}
	}
	return found
}

// number is the last part of an id: which of its worker's files it is.
func number(t *testing.T, id sidecar.ID) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(string(id[strings.LastIndexByte(string(id), '-')+1:]), "%d", &n); err != nil {
		t.Fatalf("id %q has no number: %v", id, err)
	}
	return n
}
