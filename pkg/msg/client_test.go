package msg

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"

	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/pkg/pixel"
)

// Clients in another language, written from docs/PROTOCOL.md alone, against
// publishers of this package: an honest check of that page.

const clientFile = "../../e2e/client.py"

// python runs a script with Debian's own Python, until the test's end at most.
func python(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	for _, need := range []string{"import zmq", "import ctypes; ctypes.CDLL('libatomic.so.1')"} {
		if out, err := exec.CommandContext(ctx, "/usr/bin/python3", "-c", need).CombinedOutput(); err != nil {
			t.Skipf("apt install python3-zmq libatomic1: %q: %v: %s", need, err, out)
		}
	}
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", args...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Stderr = &bytes.Buffer{}
	return cmd
}

// finished waits for a client that was started, and wants it content.
func finished(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v = %v: %s", cmd.Args, err, cmd.Stderr)
	}
}

// begun starts a client and returns what it prints.
func begun(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	check(t, err, cmd.Start())
	return bufio.NewReader(out)
}

func TestPythonRunsTheVectors(t *testing.T) {
	cmd := python(t, clientFile, "vectors", "testdata/vectors")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("client.py vectors = %v: %s", err, cmd.Stderr)
	}
	want := ""
	for _, name := range []string{"messages", "bodies", "topics", "endpoints", "meta"} {
		want += fmt.Sprintf("%s: %d cases\n", name, len(vectors(t, name+".jsonl")))
	}
	if string(out) != want {
		t.Errorf("client.py vectors printed %q; want %q", out, want)
	}
}

func TestPythonFailsOnAWrongVector(t *testing.T) {
	dir := t.TempDir()
	check(t, os.CopyFS(dir, os.DirFS("testdata/vectors")))
	check(t, os.WriteFile(dir+"/topics.jsonl", []byte(`{"topic":"reading/air/x","refuse":"malformed"}`+"\n"), 0o600))
	cmd := python(t, clientFile, "vectors", dir)
	if err := cmd.Run(); err == nil || !strings.Contains(fmt.Sprint(cmd.Stderr), "topics: reading/air/x: accepted; want it malformed") {
		t.Errorf("client.py vectors = %v: %s; want it to find the wrong case", err, cmd.Stderr)
	}
}

func TestPythonReadsReadings(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	cmd := python(t, clientFile, "readings", "ipc://"+run+"/air.ipc", "--count", "20")
	out := begun(t, cmd)
	c.hears(t, "client-py")
	c.publish(t, 20)
	lines := json.NewDecoder(out)
	for n := range 20 {
		var got struct {
			Source, Stream, Epoch string
			Seq                   int
			Row                   map[string]float64
		}
		check(t, lines.Decode(&got))
		if got.Source != "air" || got.Stream != "count" || got.Epoch != c.pub.Epoch().String() || got.Seq != n || got.Row["n"] != float64(n) {
			t.Fatalf("line %d = %+v; want air/count %d", n, got, n)
		}
	}
	finished(t, cmd)
}

// filming publishes scenes until stop is called.
func filming(t *testing.T, out *FrameStream, format pixel.Format, size pixel.Size, clock func() Stamp) (stop func()) {
	t.Helper()
	s, err := scene.New(format, size)
	check(t, err)
	quit, done := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := uint64(0); ; n++ {
			slot, err := out.Claim()
			if err == nil {
				err = s.Draw(n, slot.Bytes()[:s.Bytes()])
			}
			if err == nil {
				_, err = slot.Publish(s.Bytes(), clock())
			}
			if err != nil {
				done <- err
				return
			}
			select {
			case <-tick.C:
			case <-quit:
				done <- nil
				return
			}
		}
	}()
	return func() { close(quit); check(t, <-done) }
}

// startCamera opens a simulated camera and its stream, with room for one reader.
func startCamera(t *testing.T, run, shm string, format pixel.Format, size pixel.Size) (*Bus, *FrameStream) {
	t.Helper()
	planes, bytes, err := pixel.Layout(format, size)
	check(t, err)
	b := openBus(t, run, shm, "porch")
	p, err := b.Publisher()
	check(t, err)
	out, err := p.Frames("video", Geometry{Format: string(format), Width: size.Width, Height: size.Height, Planes: planes, Hz: 50}, 4, bytes)
	check(t, err)
	return b, out
}

func TestPythonFindsTheFrameNumber(t *testing.T) {
	for _, c := range []struct {
		format pixel.Format
		size   pixel.Size
	}{
		{pixel.YUV420, pixel.Size{Width: 640, Height: 480}},
		{pixel.NV12, pixel.Size{Width: 1280, Height: 720}},
		{pixel.YUYV, pixel.Size{Width: 64, Height: 64}},
		{pixel.RGB24, pixel.Size{Width: 320, Height: 240}},
	} {
		t.Run(string(c.format), func(t *testing.T) {
			run, shm := folders(t)
			b, out := startCamera(t, run, shm, c.format, c.size)
			defer b.Close()
			cmd := python(t, clientFile, "frame", "ipc://"+run+"/porch.video.ipc", "--shm", shm)
			lines := begun(t, cmd)
			hasSubscribed(t, out.Gate, "client-py")
			stop := filming(t, out, c.format, c.size, b.Clock().Now)
			var got struct{ Seq, Number, Slot *uint64 }
			err := json.NewDecoder(lines).Decode(&got)
			stop()
			finished(t, cmd)
			if err != nil || got.Seq == nil || got.Number == nil || got.Slot == nil || *got.Number != *got.Seq || *got.Slot > 3 {
				t.Fatalf("client.py frame = %v, %+v; want seq and number alike: %s", err, got, cmd.Stderr)
			}
			leftNothing(t, out)
		})
	}
}

// leftNothing wants neither a reader nor a pin in the ring.
func leftNothing(t *testing.T, out *FrameStream) {
	t.Helper()
	ring := out.out.ring
	if readers := ring.Readers(); len(readers) != 0 {
		t.Errorf("readers after the client's end = %v; want none", readers)
	}
	if pins := ring.Reclaim(); pins != 0 || ring.Dropped() != 0 {
		t.Errorf("%d pins left behind, %d frames dropped; want none", pins, ring.Dropped())
	}
}

func TestPythonIsRefusedByAFullRing(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	b, out := startCamera(t, run, shm, pixel.RGB24, pixel.Size{Width: 64, Height: 64})
	defer b.Close()
	other := openBus(t, run, shm, "clips")
	defer other.Close()
	frames := readFrames(t, other, 2)
	stop := filming(t, out, pixel.RGB24, pixel.Size{Width: 64, Height: 64}, b.Clock().Now)
	defer stop()
	nextFrame(t, frames).Release()
	cmd := python(t, clientFile, "frame", "ipc://"+run+"/porch.video.ipc", "--shm", shm)
	if err := cmd.Run(); err == nil || !strings.Contains(fmt.Sprint(cmd.Stderr), "4 slots, its readers may hold 2 and the writer needs 2: no room for 1 more") {
		t.Errorf("client.py frame = %v: %s; want a refusal with numbers", err, cmd.Stderr)
	}
}

// The programs in the manual are whole: they run as they stand there.
func TestProgramsOfTheManual(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	dir := t.TempDir()
	for _, name := range []string{"readings", "frame"} {
		check(t, os.WriteFile(filepath.Join(dir, name+".py"), []byte(fence(t, "python "+name)), 0o600))
	}
	t.Run("readings", func(t *testing.T) {
		p, at := example(t, run, shm, "air")
		s, err := p.Readings("environment", []string{"temperature_c", "humidity_pct"}, Retention{})
		check(t, err)
		cmd := python(t, dir+"/readings.py", "ipc://"+run+"/air.ipc")
		lines := begun(t, cmd)
		got := make(chan string)
		go func() {
			line, _ := lines.ReadString('\n')
			got <- line
		}()
		line := ""
		for line == "" { // it says no name: publish until it hears
			_, err := s.Publish(at, []float64{21.5, math.NaN()}, nil)
			check(t, err)
			select {
			case line = <-got:
				if line == "" {
					t.Fatalf("readings.py ended: %v: %s", cmd.Wait(), cmd.Stderr)
				}
			case <-time.After(20 * time.Millisecond):
			}
		}
		check(t, cmd.Process.Kill())
		if err := cmd.Wait(); err == nil || fmt.Sprint(cmd.Stderr) != "" {
			t.Errorf("readings.py ended with %v: %s", err, cmd.Stderr)
		}
		if want := "2026-05-17T09:41:07.250000000Z {'temperature_c': 21.5, 'humidity_pct': None}\n"; line != want {
			t.Errorf("readings.py printed %q; want %q", line, want)
		}
	})
	t.Run("frame", func(t *testing.T) {
		size := pixel.Size{Width: 64, Height: 64}
		b, out := startCamera(t, run, shm, pixel.YUV420, size)
		defer b.Close()
		stop := filming(t, out, pixel.YUV420, size, b.Clock().Now)
		cmd := python(t, dir+"/frame.py", "ipc://"+run+"/porch.video.ipc", shm)
		text, err := cmd.Output()
		stop()
		var seq, bytes int
		var mean float64
		if _, scan := fmt.Sscanf(string(text), "frame %d of %d bytes, mean of the first plane %g\n", &seq, &bytes, &mean); err != nil || scan != nil || bytes != 6144 || mean < 16 || mean > 235 {
			t.Errorf("frame.py = %v, %q; want a frame of 6144 bytes: %s", err, text, cmd.Stderr)
		}
		leftNothing(t, out)
	})
}
