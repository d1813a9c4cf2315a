package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/onnx"
)

// studio has what is needed to film: the camera's frames, and folders.
type studio struct {
	dir, disk, bin string
	footage        string
	shape          shape
	segment        time.Duration // of video; each way is measured for as long, so that one segment's end is in it
	model          string
	args           map[string][]string // of h264writer's ffmpeg, from its output on, by preset
}

func openStudio(dir, disk, bin string, segment time.Duration) (*studio, error) {
	_, _, hd, _ := shapes()
	s := &studio{dir: dir, disk: disk, bin: bin, footage: filepath.Join(dir, "footage.yuv"), shape: hd, segment: segment,
		model: findModel(bin), args: map[string][]string{}}
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

// encode runs a way for the length of a segment.
func (s *studio) encode(ctx context.Context, w way) (e encoded, err error) {
	if w.kind == bare {
		return s.alone(ctx, w.preset)
	}
	err = s.film(ctx, w, func(f *fleet) error {
		e, err = s.watch(f)
		return err
	})
	return e, err
}

// film brings a way's fleet up.
func (s *studio) film(ctx context.Context, w way, do func(*fleet) error) error {
	entries := s.camera() + s.clips(w.preset, w.kind != copied)
	if w.kind == everything {
		entries += s.pictures("")
		if s.model != "" {
			entries += s.objects("")
		}
	}
	return withFleet(ctx, s.dir, s.disk, s.bin, entries, func(f *fleet) error {
		time.Sleep(settling)
		return do(f)
	})
}

// settling is until all goes its way.
const settling = 1500 * time.Millisecond

// watch measures a fleet that films.
func (s *studio) watch(f *fleet) (e encoded, err error) {
	all, err := f.processes()
	if err != nil {
		return e, err
	}
	child, err := f.encoder()
	if err != nil {
		return e, err
	}
	if e, err = over(s.segment, s.shape.bytes(), append(all, process{ffmpegName, ffmpegName, child})); err != nil {
		return e, err
	}
	b, err := f.ask("status")
	for _, w := range b.Workers {
		for _, flow := range w.Published {
			e.inference += w.Gauges["inference_ms"] * 1000 * flow.Hz / frameHz // only a detector has that gauge
		}
	}
	return e, err
}

// over measures for a while, and not what it takes to start. The last process is
// the ffmpeg that encodes: what it has read says how many frames those were,
// also where the machine is too slow for all.
func over(window time.Duration, frameBytes int, all []process) (e encoded, err error) {
	read := func() (before []time.Duration, bytes int64) {
		if err == nil {
			before, err = cpuOf(all)
		}
		if err == nil {
			bytes, err = bytesRead(all[len(all)-1].pid)
		}
		return before, bytes
	}
	before, from := read()
	start := time.Now()
	time.Sleep(window)
	after, to := read()
	if err != nil {
		return e, err
	}
	e = encoded{cpu: map[string]float64{}, offered: time.Since(start).Seconds() * frameHz, frames: float64(to-from) / float64(frameBytes)}
	for i, p := range all {
		e.cpu[p.name] = float64((after[i] - before[i]).Microseconds()) / e.frames
	}
	return e, nil
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

// alone lets ffmpeg do the same without us: it reads the camera's frames from
// their file, at their pace, and has the very arguments of h264writer's.
func (s *studio) alone(ctx context.Context, preset string) (e encoded, err error) {
	args, err := s.arguments(ctx, preset)
	if err != nil {
		return e, err
	}
	out, err := os.MkdirTemp(s.dir, "v-")
	if err != nil {
		return e, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	in := []string{"-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-threads", "1", "-re", "-stream_loop", "-1", "-f", "rawvideo",
		"-pix_fmt", s.shape.format.FFmpeg(), "-video_size", s.shape.size.String(), "-framerate", fmt.Sprint(frameHz), "-i", "file:" + s.footage}
	ctx, end := context.WithCancel(ctx)
	defer end()
	cmd := exec.CommandContext(ctx, "ffmpeg", slices.Concat(in, args, []string{"file:" + out + "/%06d.mp4"})...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return e, fmt.Errorf("start ffmpeg: %w", err)
	}
	time.Sleep(settling)
	e, err = over(s.segment, s.shape.bytes(), []process{{ffmpegName, ffmpegName, cmd.Process.Pid}})
	end()
	_ = cmd.Wait() // "exit status 255" is its answer to SIGTERM
	return e, err
}

// arguments are those of h264writer's ffmpeg from its input to its output's
// name, taken from one that runs.
func (s *studio) arguments(ctx context.Context, preset string) ([]string, error) {
	if args := s.args[preset]; args != nil {
		return args, nil
	}
	err := s.film(ctx, way{preset, lent}, func(f *fleet) error {
		pid, err := f.encoder()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			return fmt.Errorf("arguments of ffmpeg: %w", err)
		}
		s.args[preset], err = afterInput(strings.Split(strings.TrimRight(string(text), "\x00"), "\x00"))
		return err
	})
	return s.args[preset], err
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
