package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/internal/rtspcam"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [sensor.NAME].
type Config struct {
	Input      Address           `toml:"input" doc:"v4l2:PATH, file:PATH, exec:COMMAND WORDS, rtsp://HOST/PATH or sim:"`
	Command    []string          `toml:"command" doc:"exec: program and arguments as a list, where a word holds spaces or quotes"`
	Loop       bool              `toml:"loop" doc:"file: begin again at the end, without end; a still picture is shown at capture_hz, or once a second"`
	Transport  string            `toml:"transport" doc:"rtsp: tcp or udp; udp is also used if the camera refuses tcp"`
	AllowBasic bool              `toml:"allow_basic" doc:"rtsp: send the password in clear to a camera that offers only Basic authentication"`
	CAFile     string            `toml:"ca_file" doc:"rtsps: PEM file with the certificate of the camera or its authority; default: the system's authorities"`
	StallAfter topology.Duration `toml:"stall_after" doc:"how long the source may be silent; the first picture may take 10s more"`
	Controls
	Stream map[string]StreamConfig `toml:"stream" doc:"the one stream of frames"`

	video    ffmpeg.Video // what a file is, since Validate
	unprobed error        // why that is not known: ffprobe took too long
}

// StreamConfig is the table [sensor.NAME.stream.STREAM].
type StreamConfig struct {
	CaptureHz float64      `toml:"capture_hz" doc:"frames a second at most; 0 is the source's own rate, and 30 for sim:"`
	Size      pixel.Size   `toml:"size" doc:"WIDTHxHEIGHT in pixels; may be left out for file: and rtsp:"`
	Format    pixel.Format `toml:"format" doc:"yuv420, nv12, yuyv, rgb24 or mjpeg"`
	Colour    pixel.Colour `toml:"colour" doc:"matrix of YCbCr: bt601, bt709 or bt2020, with -full for samples of 0..255; auto is the source's own"`
	Stride    int          `toml:"stride" doc:"exec: bytes in a row of a frame's first plane, if the command pads rows; 0 is unpadded, or automatic for rpicam-vid"`
	Slots     int          `toml:"slots" doc:"frames in shared memory: each reader holds some, 2 are the writer's"`
}

const (
	transportTCP  = "tcp"
	transportUDP  = "udp"
	maxHz         = 1000
	maxSlots      = 1024
	simHz         = 30
	probePatience = 10 * time.Second
)

// DefaultConfig has no input: which camera is meant is for the user to say.
func DefaultConfig() Config {
	return Config{Transport: transportTCP, StallAfter: topology.Duration(5 * time.Second),
		Stream: map[string]StreamConfig{"": {Format: pixel.YUV420, Slots: 8}}}
}

// Validate checks what the types cannot. It asks ffprobe what a file is, and
// keeps the answer.
func (c *Config) Validate() error {
	var errs []error
	refuse := func(key, format string, args ...any) { errs = append(errs, topology.Bad(key, format, args...)) }
	if err := c.checkInput(); err != nil {
		errs = append(errs, err)
	}
	if c.Loop && c.Input.Scheme != File {
		refuse("loop", "only a file can begin again")
	}
	if len(c.Command) > 0 && c.Input.Scheme != Exec {
		refuse("command", "only for input = \"exec:\"")
	}
	errs = append(errs, c.checkNetwork())
	if d := c.StallAfter.D(); d < 100*time.Millisecond || d > time.Hour {
		refuse("stall_after", "want 100ms to 1h")
	}
	if len(c.Stream) != 1 {
		refuse("stream", "%d streams: want one table such as [sensor.NAME.stream.video]", len(c.Stream))
	}
	errs = append(errs, c.Controls.check(c.Input.Scheme))
	for name, s := range c.Stream {
		errs = append(errs, c.checkStream("stream."+name, s))
	}
	return errors.Join(errs...)
}

// checkInput checks the address, as far as that can be done without a camera.
func (c *Config) checkInput() error {
	switch c.Input.Scheme {
	case V4L2:
		if !filepath.IsAbs(c.Input.Rest) {
			return topology.Bad("input", `want the path of a device, as "v4l2:/dev/v4l/by-id/NAME"`)
		}
	case File:
		return c.checkFile()
	case Exec:
		return c.checkCommand()
	case RTSP:
		_, missing := ffmpeg.Find("ffmpeg")
		_, err := rtspcam.ParseAddress(c.Input.Rest)
		if err := errors.Join(missing, err); err != nil {
			return topology.Bad("input", "%v", err)
		}
	case Sim:
		if c.Input.Rest != "" {
			return topology.Bad("input", "%q after sim: means nothing", c.Input.Rest)
		}
	default:
		return topology.Bad("input", "not set: %s", wantAddress)
	}
	return nil
}

// checkNetwork checks the keys of network cameras.
func (c *Config) checkNetwork() error {
	var errs []error
	refuse := func(key, format string, args ...any) { errs = append(errs, topology.Bad(key, format, args...)) }
	secure := c.Input.Scheme == RTSP && strings.HasPrefix(c.Input.Rest, "rtsps:")
	switch {
	case c.Transport != transportTCP && c.Transport != transportUDP:
		refuse("transport", `%.32q: want "tcp" or "udp"`, c.Transport)
	case c.Transport == transportUDP && c.Input.Scheme != RTSP:
		refuse("transport", "only for rtsp:")
	}
	if c.AllowBasic && (c.Input.Scheme != RTSP || secure) {
		refuse("allow_basic", "only for rtsp:// (over rtsps:// nobody can listen)")
	}
	if c.CAFile != "" {
		if !secure {
			refuse("ca_file", "only for rtsps://")
		} else if _, err := os.ReadFile(c.CAFile); err != nil {
			refuse("ca_file", "%v", err)
		}
	}
	return errors.Join(errs...)
}

func (c *Config) checkCommand() error {
	key := "input"
	if len(c.Command) > 0 {
		key = "command"
		if c.Input.Rest != "" {
			return topology.Bad(key, `the command stands in input already; want input = "exec:" with it`)
		}
	}
	if strings.ContainsAny(c.Input.Rest, shellSigns) {
		return topology.Bad(key, `the words are split at spaces and no shell sees them; for others want command = ["PROGRAM", "ARGUMENT", ...]`)
	}
	argv := c.argv()
	if len(argv) == 0 {
		return topology.Bad(key, `want "exec:COMMAND WORDS", or "exec:" and command = ["PROGRAM", "ARGUMENT", ...]`)
	}
	if _, err := ffmpeg.Find(argv[0]); err != nil {
		return topology.Bad(key, "%v", err)
	}
	return nil
}

// argv is the command of an exec: input.
func (c *Config) argv() []string {
	if len(c.Command) > 0 {
		return c.Command
	}
	return strings.Fields(c.Input.Rest)
}

func (c *Config) checkStream(path string, s StreamConfig) error {
	var errs []error
	refuse := func(key, format string, args ...any) {
		errs = append(errs, topology.Bad(path+"."+key, format, args...))
	}
	if !(s.CaptureHz >= 0 && s.CaptureHz <= maxHz) {
		refuse("capture_hz", "want 0 (the source's own) to %d", maxHz)
	}
	if err := c.checkColour(s); err != nil {
		refuse("colour", "%w", err)
	}
	if s.Slots < 3 || s.Slots > maxSlots {
		refuse("slots", "want 3 to %d", maxSlots)
	}
	switch size := c.size(s); {
	case size == pixel.Size{}:
		if scheme := c.Input.Scheme; scheme != "" && scheme != RTSP && scheme != File {
			refuse("size", `not set: want it for %s:, as size = "1280x720"`, scheme)
		}
	case c.Input.Scheme == Sim && min(size.Width, size.Height) < scene.MinSide:
		refuse("size", "want at least %d pixels a side for sim:", scene.MinSide)
	default:
		_, _, err := pixel.Layout(s.Format, size)
		if err == nil && s.Stride != 0 {
			if _, _, bad := padded(s.Format, size, s.Stride); c.Input.Scheme != Exec {
				refuse("stride", "only for exec: other inputs give rows without padding")
			} else if bad != nil {
				refuse("stride", "%v", bad)
			}
		}
		if err != nil && s.Size != size {
			err = fmt.Errorf("not set, and the file's own will not do: %w", err)
		}
		if err != nil {
			refuse("size", "%v", err)
		}
	}
	return errors.Join(errs...)
}

// size is the size of the stream's frames, which may be the file's own; none
// where only the camera knows it.
func (c *Config) size(s StreamConfig) pixel.Size {
	if s.Size == (pixel.Size{}) {
		return c.turn(c.video.Size)
	}
	return s.Size
}

// stream is the one stream and its name.
func (c *Config) stream() (string, StreamConfig) {
	for name, s := range c.Stream {
		return name, s
	}
	panic(fmt.Sprint("config without a stream passed Validate: ", c))
}

// patience is how long a source of that rate may be silent: at less than a frame
// a second silence is usual.
func (c *Config) patience(hz float64) time.Duration {
	patience := c.StallAfter.D()
	if hz > 0 {
		patience += time.Duration(float64(time.Second) / hz)
	}
	return patience
}

// Rings is the shared memory that the stream takes. A network camera whose size
// is left out is not asked for it here: its slots count as 0 bytes.
func (c *Config) Rings() []worker.Ring {
	name, s := c.stream()
	_, bytes, err := pixel.Layout(s.Format, c.size(s))
	if stride := c.stride(s); err == nil && stride > 0 {
		_, bytes, err = padded(s.Format, c.size(s), stride)
	}
	if err != nil { // no size yet: all others passed Validate
		bytes = 0
	}
	return []worker.Ring{{Stream: name, Kind: msg.KindFrame, Slots: s.Slots, SlotBytes: bytes}}
}
