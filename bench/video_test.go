package main

import (
	"bytes"
	"fmt"
	"image"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/pkg/pixel"
)

func postcard() shape { return shape{"postcard", pixel.YUV420, pixel.Size{Width: 128, Height: 96}} }

// film writes footage to a file, and returns it.
func film(t *testing.T, frames int) (path string, all []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "footage.yuv")
	if err := makeFootage(path, postcard(), frames); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, all
}

// The footage is the scene with a little noise, and the same at each call.
func TestFootage(t *testing.T) {
	s := postcard()
	_, all := film(t, 3)
	if _, again := film(t, 3); !bytes.Equal(all, again) {
		t.Error("makeFootage() makes other footage when it is called again")
	}
	drawn, err := scene.New(s.format, s.size)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, drawn.Bytes())
	for i := range 3 {
		if err := drawn.Draw(uint64(scene.Cycle+i), want); err != nil {
			t.Fatal(err)
		}
		counts := map[int]int{}
		for j, got := range all[i*len(want):][:len(want)] {
			counts[int(got)-int(want[j])]++
		}
		for d, n := range counts {
			if d < -2 || d > 2 || d != 0 && n < s.size.Width*s.size.Height/10 {
				t.Errorf("frame %d: %d samples differ by %d; want noise of -2 to 2, as much of each", i, n, d)
			}
		}
		if len(counts) != 5 {
			t.Errorf("frame %d has differences %v; want -2 to 2", i, counts)
		}
	}
}

// The camera's hardware gives the file's frames in order, and begins again.
func TestCameraFeed(t *testing.T) {
	path, all := film(t, 2)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "camera-feed", "--file", path, "--bytes", fmt.Sprint(len(all)/2), "--hz", "200")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5*len(all)/2)
	if _, err := io.ReadFull(out, got); err != nil {
		t.Fatal(err)
	}
	if want := bytes.Repeat(all, 3)[:len(got)]; !bytes.Equal(got, want) {
		t.Error("camera-feed gave other bytes than the file's, again and again")
	}
	_ = out.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("camera-feed with nobody to read ended well; want an end by its broken pipe")
	}
}

func TestAfterInput(t *testing.T) {
	got, err := afterInput(strings.Fields("ffmpeg -threads 1 -f matroska -i pipe:0 -map 0:v:0 -preset veryfast file:/x/%06d.mp4"))
	if diff := cmp.Diff([]string{"-map", "0:v:0", "-preset", "veryfast"}, got); err != nil || diff != "" {
		t.Errorf("afterInput() = %v; differs (-want +got):\n%s", err, diff)
	}
	for _, text := range []string{"", "ffmpeg -version", "ffmpeg -i", "ffmpeg -i in out"} {
		if got, err := afterInput(strings.Fields(text)); err == nil {
			t.Errorf("afterInput(%q) = %q; want an error", text, got)
		}
	}
}

// What is read counts, of whatever kind the file is.
func TestBytesRead(t *testing.T) {
	path, all := film(t, 1)
	before, err := bytesRead(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	after, err := bytesRead(os.Getpid())
	if n := int(after - before); err != nil || n < len(all) || n > len(all)+8<<10 {
		t.Errorf("bytesRead() rose by %d, %v; want about %d", n, err, len(all))
	}
}

func TestVideoIsSetAgainstFFmpegBesideIt(t *testing.T) {
	at := func(camera, writer, ffmpeg, alone, rest, inference float64) encoded {
		return encoded{cpu: map[string]float64{cameraName: camera, clipsName: writer, ffmpegName: ffmpeg, aloneName: alone, objectsName: rest},
			inference: inference, frames: map[string]float64{ffmpegName: 150, aloneName: 150}, offered: 150}
	}
	r := videoResult{}
	for i := range 3 {
		round := map[way]encoded{}
		for _, w := range ways() {
			scale := map[string]float64{"veryfast": 2, "ultrafast": 1}[w.preset]
			round[w] = map[kind]encoded{lent: at(1*scale, 2*scale, 101*scale, 100*scale, 0, 0),
				copied: at(1*scale, 6*scale, 103*scale, 100*scale, 0, 0), everything: at(1*scale, 2*scale, 101*scale, 100*scale, 50*scale, 40*scale)}[w.kind]
		}
		if slow := round[way{"veryfast", lent}]; i == 2 { // and the window does not count
			slow.cpu[ffmpegName], slow.frames[aloneName] = 1000, 100
			round[way{"veryfast", lent}] = slow
		}
		r.rounds = append(r.rounds, round)
	}
	var got []string
	for _, b := range r.bars() {
		got = append(got, fmt.Sprintf("%.2f, %s", b.value, b.note))
	}
	want := []string{"1.14, 1.04 without jpegwriter and detector; 1.10 without splice too",
		"1.14, 1.04 without jpegwriter and detector; 1.10 without splice too", "1.03, 1.09 without splice"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bars() differ (-want +got):\n%s", diff)
	}
	if rows := strings.Count(r.table(), "\n"); rows != 2+len(ways()) {
		t.Errorf("table() has %d lines; want a head of 2 and a line for each of %d ways:\n%s", rows, len(ways()), r.table())
	}
}

// What was taken counts for each frame that an encoder read, also where it read
// fewer than there were.
func TestSince(t *testing.T) {
	all := []process{{cameraName, "sensor-camera", 1}, {ffmpegName, ffmpegName, 2}, {aloneName, ffmpegName, 3}}
	begun := time.Now()
	before := sight{begun, []time.Duration{time.Second, time.Second, 0}, map[string]float64{ffmpegName: 10, aloneName: 20}, 500}
	after := sight{begun.Add(4 * time.Second), []time.Duration{time.Second + 100*time.Millisecond, 3 * time.Second, 6 * time.Second},
		map[string]float64{ffmpegName: 110, aloneName: 140}, 1500}
	want := encoded{cpu: map[string]float64{cameraName: 1000, ffmpegName: 20_000, aloneName: 50_000}, inference: 10,
		frames: map[string]float64{ffmpegName: 100, aloneName: 120}, offered: 4 * frameHz}
	if diff := cmp.Diff(want, after.since(before, all), cmp.AllowUnexported(encoded{})); diff != "" {
		t.Errorf("since() differs (-want +got):\n%s", diff)
	}
}

// All encoders make the picture that was given to them, ours that of the library.
func TestJPEG(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("no C compiler to make testdata/jpeg.c with")
	}
	r, err := measureJPEG(t.Context(), t.TempDir(), postcard(), 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range encoders() {
		if len(r.rounds) != 2 || r.bytes[e] < 1000 || r.bytes[e] > 10_000 {
			t.Errorf("%s: %d bytes, in %d rounds; want some thousand, in 2", e, r.bytes[e], len(r.rounds))
		}
	}
}

func TestStdEncodesTheSamePicture(t *testing.T) {
	path, _ := film(t, 1)
	img, err := firstFrame(path, postcard().size)
	if err != nil {
		t.Fatal(err)
	}
	std := stdImage(img)
	if got := std.Bounds(); got != image.Rect(0, 0, 128, 96) {
		t.Errorf("bounds %v; want 128x96", got)
	}
	last := []byte{img.Data[128*96-1], img.Data[128*96+64*48-1], img.Data[len(img.Data)-1]}
	if c := std.YCbCrAt(127, 95); !slices.Equal([]byte{c.Y, c.Cb, c.Cr}, last) {
		t.Errorf("last pixel %v; want %v", c, last)
	}
}

// Only YOLOX-nano is held to its bar.
func TestLooksOfAnotherModel(t *testing.T) {
	r := looksResult{shares: []float64{0.05, 0.07, 0.06}, stalled: map[string][]float64{objectsName: {0.5}, picturesName: {1.5}}}
	for model, want := range map[string]int{"yolox_nano.onnx": 3, simulated: 2} {
		r.model = model
		if got := r.bars(); len(got) != want || got[len(got)-1].verdict() != "MISS" {
			t.Errorf("bars() with %s = %+v; want %d, the last missed", model, got, want)
		}
	}
}
