package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// regexpFolders matches the folders of a [node].
var regexpFolders = regexp.MustCompile(`(?m)^(run_dir|shm_dir|cache_dir|store_dir) = .*$`)

// Every shipped topology passes the supervisor's own check, where its hardware
// is not asked for.
func TestShippedTopologiesPassTheCheck(t *testing.T) {
	// A stand-in for what only a Raspberry Pi has.
	tools := t.TempDir()
	if err := os.WriteFile(filepath.Join(tools, "rpicam-vid"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	files, _ := filepath.Glob("../deploy/*.toml")
	for _, path := range files {
		copied := shipped(t, path)
		if out, err := exec.Command(filepath.Join(bin, "supervisor"), "check", copied).CombinedOutput(); err != nil {
			t.Errorf("supervisor check %s: %v\n%s", path, err, out)
		}
	}
}

// shipped copies a topology that ships, with folders of the test's own.
func shipped(t *testing.T, path string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "p-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = regexpFolders.ReplaceAll(text, []byte(`${1} = "`+dir+`/${1}"`))
	token := filepath.Join(dir, "token") // what each box has of its own
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^token_file = "[^"]*"`).ReplaceAll(text, []byte(`token_file = "`+token+`"`))
	text = regexp.MustCompile(`(?m)^model = "[^"]*"`).ReplaceAll(text, []byte(`model = "sim:"`))
	copied := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}

// What "make demo SECONDS=8" does, with the topology that ships.
func TestDemo(t *testing.T) {
	t.Parallel()
	box := shipped(t, "../deploy/demo.toml")
	out, err := exec.Command(filepath.Join(bin, "supervisor"), "up", "--table", "--for", "8s", box).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "stopped; nothing is left running") {
		t.Fatalf("supervisor up --table --for 8s: %v\n%s", err, out)
	}
	for pattern, most := range map[string]int{"store_dir/ready/*.jpg": 99, "store_dir/ready/*.mp4": 99, "store_dir/work/*.csv": 1} {
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(box), pattern)); len(found) < 1 || len(found) > most {
			t.Errorf("the demo left %v as %s; want one at least, %d at most", found, pattern, most)
		}
	}
}

// A video that ends: the camera is done and left alone, its reader stays.
func TestEndOfAVideo(t *testing.T) {
	t.Parallel()
	f := newFleet(t, `
[sensor.porch]
program = "sensor-camera"
input = "file:$DIR/clip.mp4"
[sensor.porch.stream.video]
format = "yuv420"

[worker.pictures]
program = "jpegwriter"
source = "porch"
every = "200ms"
`)
	make := exec.Command("ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=15", "-t", "2", "-pix_fmt", "yuv420p", f.dir+"/clip.mp4")
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("make a clip: %v\n%s", err, out)
	}
	f.start()
	b := f.wait("the camera is done", func(b box) bool { return b.phase("porch") == "done" })
	if got := b.phase("pictures"); got != "ready" {
		t.Errorf("the reader of a video that ended is %s; want ready", got)
	}
	if err := f.stop(); err != nil {
		t.Errorf("supervisor up ended with %v; want 0", err)
	}
	if left := f.leftovers(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

const demo = `
[sensor.air]
program = "sensor-bme280"
bus = "sim:"
[sensor.air.stream.environment]
capture_hz = 5

[sensor.porch]
program = "sensor-camera"
input = "sim:"
[sensor.porch.stream.video]
capture_hz = 15
size = "1280x720"
format = "yuv420"

[worker.air-csv]
program = "csvwriter"
source = "air"
flush = "1hz"

[worker.pictures]
program = "jpegwriter"
source = "porch"
every = "500ms"
`

// A program in another language, written from docs/PROTOCOL.md, reads readings
// and finds the frame's number in pixels that it never copied.
func TestClientInPython(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import zmq").Run(); err != nil {
		t.Skipf("no python3 with zmq (apt-get install python3-zmq): %v", err)
	}
	f := newFleet(t, demo)
	f.start()
	out, err := exec.Command(python, "client.py", "readings", "ipc://"+f.dir+"/run/air.ipc", "--count", "3").Output()
	if err != nil {
		t.Fatalf("client.py readings: %v", failure(err))
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	for _, line := range lines {
		var r struct {
			Row map[string]float64 `json:"row"`
		}
		err := json.Unmarshal(line, &r)
		if _, ok := r.Row["temperature_c"]; err != nil || !ok || len(r.Row) != 3 {
			t.Errorf("client.py readings printed %s; want a reading of three values", line)
		}
	}
	if len(lines) != 3 {
		t.Errorf("client.py readings printed %d lines; want 3", len(lines))
	}
	for range 5 {
		out, err := exec.Command(python, "client.py", "frame", "ipc://"+f.dir+"/run/porch.video.ipc", "--shm", f.dir+"/shm").Output()
		if err != nil {
			t.Fatalf("client.py frame: %v", failure(err))
		}
		var frame struct{ Seq, Number *uint64 }
		if err := json.Unmarshal(out, &frame); err != nil || frame.Seq == nil || frame.Number == nil || *frame.Seq != *frame.Number {
			t.Errorf("client.py frame printed %s (%v); want the number in the pixels to be the sequence number", out, err)
		}
	}
	if err := f.stop(); err != nil {
		t.Errorf("supervisor up ended with %v; want 0", err)
	}
	if left := f.leftovers(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func failure(err error) string {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return err.Error() + ": " + string(exit.Stderr)
	}
	return err.Error()
}

// What a user looks at after a run: files that open.
func TestFilesOpen(t *testing.T) {
	t.Parallel()
	f := newFleet(t, demo)
	f.start()
	f.wait("three pictures and five rows", func(b box) bool {
		pictures, rows := uint64(0), uint64(0)
		for _, w := range b.Workers {
			pictures += w.Counters["pictures"]
			rows += w.Counters["rows"]
		}
		return pictures >= 3 && rows >= 5
	})
	if err := f.stop(); err != nil {
		t.Errorf("supervisor up ended with %v; want 0", err)
	}
	pictures, _ := filepath.Glob(f.dir + "/cache/born/*.jpg")
	pictures = append(pictures, f.dir+"/cache/latest.jpg")
	for _, path := range pictures {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := jpeg.Decode(file)
		file.Close()
		if err != nil || img.Bounds().Dx() != 1280 {
			t.Errorf("%s does not open as a picture of 1280x720: %v", path, err)
		}
		if side := strings.TrimSuffix(path, ".jpg") + ".json"; !strings.HasSuffix(path, "latest.jpg") {
			if _, err := os.Stat(side); err != nil {
				t.Errorf("a picture without its sidecar: %v", err)
			}
		}
	}
	for epoch, seqs := range f.rows("air-csv") {
		f.wholeRun("air-csv", epoch, seqs, 5)
	}
}
