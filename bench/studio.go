package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/pkg/msg"
)

// studio has what is needed to film: the camera's frames, and folders.
type studio struct {
	dir, disk, bin string
	footage        string
	shape          shape
	segment        time.Duration // of video; each way is measured for as long, so that one segment's end is in it
	model          string
}

func openStudio(dir, disk, bin string, segment time.Duration) (*studio, error) {
	_, _, hd, _ := shapes()
	s := &studio{dir: dir, disk: disk, bin: bin, footage: filepath.Join(dir, "footage.yuv"), shape: hd, segment: segment,
		model: findModel(bin)}
	return s, makeFootage(s.footage, hd, footage)
}

func (s *studio) close() error { return os.Remove(s.footage) }

// simulated is the detector's model of the simulated scene.
const simulated = "sim:"

// findModel is YOLOX-nano's file, from "make model" or among the test data, or
// the simulated scene's model; empty where no ONNX Runtime can run one.
func findModel(bin string) string {
	_, usual := onnx.Find("")
	_, beside := onnx.Find(filepath.Join(bin, "../lib/libonnxruntime.so.1")) // where the detector in bin looks
	if usual != nil && beside != nil {
		say("no detector is measured: %v", usual)
		return ""
	}
	for _, dir := range []string{os.Getenv("PERCH_TESTDATA"), "models"} {
		path, err := filepath.Abs(filepath.Join(dir, "yolox_nano.onnx"))
		if _, statErr := os.Stat(path); err == nil && statErr == nil {
			return path
		}
	}
	return simulated
}

// camera is the table of a camera that has the footage for its hardware.
func (s *studio) camera() string {
	program, err := os.Executable()
	if err != nil {
		panic("bench: it ran itself before: " + err.Error())
	}
	return fmt.Sprintf(`
[sensor.%s]
program = "sensor-camera"
input = "exec:"
command = [%q, "camera-feed", "--file", %q, "--bytes", "%d", "--hz", "%d"]
[sensor.%[1]s.stream.%[6]s]
size = %[7]q
format = %[8]q
capture_hz = %[5]d
`, cameraName, program, s.footage, s.shape.bytes(), frameHz, streamName, s.shape.size, s.shape.format)
}

func (s *studio) clips(preset string, splice bool) string {
	return fmt.Sprintf("\n[worker.%s]\nprogram = \"h264writer\"\nsource = %q\nencoder = \"libx264\"\npreset = %q\nsplice = %t\nsegment = %q\n",
		clipsName, cameraName, preset, splice, s.segment)
}

func (s *studio) pictures(settings string) string {
	return fmt.Sprintf("\n[worker.%s]\nprogram = \"jpegwriter\"\nsource = %q\n%s\n", picturesName, cameraName, settings)
}

func (s *studio) objects(settings string) string {
	return fmt.Sprintf("\n[worker.%s]\nprogram = \"detector\"\nsource = %q\nmodel = %q\n%s\n", objectsName, cameraName, s.model, settings)
}

// encode runs a way for the length of a segment, with ffmpeg alone beside it.
func (s *studio) encode(ctx context.Context, w way) (e encoded, err error) {
	entries := s.camera() + s.clips(w.preset, w.kind != copied)
	looks := w.kind == everything && s.model != ""
	if w.kind == everything {
		entries += s.pictures("")
	}
	if looks {
		entries += s.objects("")
	}
	err = withFleet(ctx, s.dir, s.disk, s.bin, entries, func(f *fleet) error {
		e, err = s.watch(ctx, f, looks)
		return err
	})
	return e, err
}

// settling is until all goes its way.
const settling = 1500 * time.Millisecond

// watch measures a fleet that films, with the same encode beside it.
func (s *studio) watch(ctx context.Context, f *fleet, looks bool) (e encoded, err error) {
	time.Sleep(settling) // h264writer starts its ffmpeg with the first frame
	all, err := f.processes()
	if err != nil {
		return e, err
	}
	child, err := f.encoder()
	if err != nil {
		return e, err
	}
	alone, end, err := s.alone(ctx, child)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, end()) }()
	time.Sleep(settling)
	all = append(all, process{ffmpegName, ffmpegName, child}, process{aloneName, ffmpegName, alone})
	before, err := s.sight(ctx, f, all, looks)
	if err != nil {
		return e, err
	}
	time.Sleep(s.segment)
	after, err := s.sight(ctx, f, all, looks)
	return after.since(before, all), err
}

// sight is how far all have come at one moment.
type sight struct {
	at        time.Time
	cpu       []time.Duration
	frames    map[string]float64 // that each ffmpeg has read
	inference uint64             // µs
}

// sight looks at a fleet, with a detector just after it gave account, so that
// what its model took is of the same time.
func (s *studio) sight(ctx context.Context, f *fleet, all []process, looks bool) (now sight, err error) {
	now.frames = map[string]float64{}
	if looks {
		account, err := f.account(ctx, objectsName)
		if err != nil {
			return now, err
		}
		now.inference = account.Counters["inference_cpu_us"]
	}
	now.at = time.Now()
	if now.cpu, err = cpuOf(all); err != nil {
		return now, err
	}
	for _, p := range all[len(all)-2:] { // the two that encode
		n, err := bytesRead(p.pid)
		if err != nil {
			return now, err
		}
		now.frames[p.name] = float64(n) / float64(s.shape.bytes())
	}
	return now, nil
}

// account waits for a worker's next word on itself. To ask the supervisor for it
// again and again would cost it more than its work does.
func (f *fleet) account(ctx context.Context, name string) (state msg.State, err error) {
	l, err := msg.Listen(string(msg.TopicOf(msg.KindState, msg.Source(name), "state")))
	if err != nil {
		return state, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.Connect("ipc://" + filepath.Join(filepath.Dir(f.socket), name+".ipc")); err != nil {
		return state, err
	}
	m, ok, err := l.Next(ctx, time.Now().Add(5*time.Second))
	if err != nil || !ok {
		return state, errors.Join(fmt.Errorf("%s says nothing of itself", name), err)
	}
	return m.State()
}

// since is what was taken from one moment to another. What each ffmpeg has read
// says how many frames it encoded, also where the machine is too slow for all.
func (now sight) since(before sight, all []process) encoded {
	e := encoded{cpu: map[string]float64{}, frames: map[string]float64{}, offered: now.at.Sub(before.at).Seconds() * frameHz}
	for name := range now.frames {
		e.frames[name] = now.frames[name] - before.frames[name]
	}
	for i, p := range all {
		frames := e.frames[ffmpegName]
		if p.name == aloneName {
			frames = e.frames[aloneName]
		}
		e.cpu[p.name] = float64((now.cpu[i] - before.cpu[i]).Microseconds()) / frames
	}
	e.inference = float64(now.inference-before.inference) / e.frames[ffmpegName]
	return e
}

// bytesRead is what a process has read so far: rchar of /proc/PID/io (proc(5)).
func bytesRead(pid int) (n int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err == nil {
		_, err = fmt.Sscanf(string(text), "rchar: %d", &n)
	}
	if err != nil {
		return 0, fmt.Errorf("bytes read by process %d: %w", pid, err)
	}
	return n, nil
}

// encoder is the process id of h264writer's ffmpeg.
func (f *fleet) encoder() (pid int, err error) {
	all, err := f.processes()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(all, func(p process) bool { return p.name == clipsName })
	if i < 0 {
		return 0, errors.New("find h264writer: it does not run")
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i].pid))
	for _, list := range lists {
		text, readErr := os.ReadFile(list)
		if words := strings.Fields(string(text)); readErr == nil && len(words) > 0 {
			return strconv.Atoi(words[0])
		}
	}
	return 0, errors.Join(errors.New("find h264writer's ffmpeg: it has no child"), err)
}

// alone lets ffmpeg do without us what another one does for h264writer: it reads
// the camera's frames from their file, at their pace, and has the very arguments
// of the other from its input on. end ends it.
func (s *studio) alone(ctx context.Context, other int) (pid int, end func() error, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", other))
	if err != nil {
		return 0, nil, fmt.Errorf("arguments of ffmpeg: %w", err)
	}
	args, err := afterInput(strings.Split(strings.TrimRight(string(text), "\x00"), "\x00"))
	if err != nil {
		return 0, nil, err
	}
	out, err := os.MkdirTemp(s.dir, "v-")
	if err != nil {
		return 0, nil, fmt.Errorf("make folder: %w", err)
	}
	in := []string{"-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-threads", "1", "-re", "-stream_loop", "-1", "-f", "rawvideo",
		"-pix_fmt", s.shape.format.FFmpeg(), "-video_size", s.shape.size.String(), "-framerate", fmt.Sprint(frameHz), "-i", "file:" + s.footage}
	cmd := exec.CommandContext(ctx, "ffmpeg", slices.Concat(in, args, []string{"file:" + out + "/%06d.mp4"})...)
	cmd.Stderr = os.Stderr
	if err := startAsSupervised(cmd); err != nil {
		return 0, nil, errors.Join(fmt.Errorf("start ffmpeg: %w", err), os.RemoveAll(out))
	}
	return cmd.Process.Pid, func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // "signal: killed"
		return errors.Join(err, os.RemoveAll(out))
	}, nil
}

// startAsSupervised starts a program with the timer slack that the supervisor gives
// what it starts (prctl(2)), which h264writer's ffmpeg inherits.
func startAsSupervised(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("get timer slack: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(time.Millisecond), 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	return errors.Join(cmd.Start(), unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(own), 0, 0, 0))
}

// afterInput is what stands between the input and the output of ffmpeg's
// arguments.
func afterInput(argv []string) ([]string, error) {
	i := slices.Index(argv, "-i")
	if i < 0 || i+2 >= len(argv)-1 {
		return nil, fmt.Errorf("arguments of ffmpeg: %q: want an input, options and an output", argv)
	}
	return argv[i+2 : len(argv)-1], nil
}
