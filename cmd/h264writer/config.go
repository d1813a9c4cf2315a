package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [worker.NAME].
type Config struct {
	Dir        string            `toml:"dir" doc:"where segments are born; default: the node's cache_dir"`
	Segment    topology.Duration `toml:"segment" doc:"length of a segment; each begins with a key frame"`
	Fragment   topology.Duration `toml:"fragment" doc:"what a crash may cost of a segment, 1s at most"`
	Encoder    string            `toml:"encoder" doc:"auto, libx264, h264_v4l2m2m, h264_nvenc or libopenh264; auto takes the first that works of h264_v4l2m2m and libx264"`
	Preset     string            `toml:"preset" doc:"libx264: ultrafast (least CPU) to veryslow (smallest files)"`
	CRF        int               `toml:"crf" doc:"libx264: constant quality, 0 (lossless) to 51 (worst); unused where bitrate is set"`
	Bitrate    Bitrate           `toml:"bitrate" doc:"bits a second, as \"2M\" or \"800k\"; 0 is by crf, or by the picture's size where the encoder has no crf"`
	Threads    int               `toml:"threads" doc:"libx264: threads for one picture; 1 takes the least CPU in all"`
	Extra      []string          `toml:"extra" doc:"more for the encoder: profile=, level=, maxrate=, bufsize=, refs=, qmin=, qmax="`
	Splice     bool              `toml:"splice" doc:"lend frames of more than 1 MiB to ffmpeg instead of copying them into its pipe: less CPU, and a second frame of the ring is held"`
	StallAfter topology.Duration `toml:"stall_after" doc:"how long ffmpeg may take nothing before it is started again"`
}

// DefaultConfig is ten seconds a segment at low cost.
func DefaultConfig() Config {
	return Config{Segment: topology.Duration(10 * time.Second), Fragment: topology.Duration(500 * time.Millisecond),
		Encoder: auto, Preset: "superfast", CRF: 23, Threads: 2, Splice: true, StallAfter: topology.Duration(10 * time.Second)}
}

// Bitrate is in bits a second.
type Bitrate int

// UnmarshalText reads "2M", "800k" or "1500000".
func (b *Bitrate) UnmarshalText(text []byte) error {
	digits, unit := string(text), 1.0
	for suffix, size := range map[string]float64{"k": 1e3, "M": 1e6} {
		if cut, ok := strings.CutSuffix(digits, suffix); ok {
			digits, unit = cut, size
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(n*unit == 0 || n*unit >= 1e4 && n*unit <= 1e9) {
		return errors.New(`want bits a second such as "2M" or "800k", 10k to 1000M, or "0"`)
	}
	*b = Bitrate(n * unit)
	return nil
}

func (b Bitrate) String() string {
	switch {
	case b != 0 && b%1e6 == 0:
		return fmt.Sprintf("%dM", int(b/1e6))
	case b != 0 && b%1e3 == 0:
		return fmt.Sprintf("%dk", int(b/1e3))
	}
	return strconv.Itoa(int(b))
}

func presets() []string {
	return []string{"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"}
}

// Validate checks what the types cannot.
func (c *Config) Validate() error {
	var errs []error
	refuse := func(key, format string, args ...any) { errs = append(errs, topology.Bad(key, format, args...)) }
	if d := c.Segment.D(); d < time.Second || d > time.Hour || d%time.Millisecond != 0 {
		refuse("segment", `want "1s" to "1h", in whole milliseconds`)
	}
	if d := c.Fragment.D(); d < 100*time.Millisecond || d > time.Second {
		refuse("fragment", `want "100ms" to "1s"`)
	}
	if all := append([]string{auto}, encoderNames()...); !slices.Contains(all, c.Encoder) {
		refuse("encoder", "unknown encoder%s", nearest.Hint(c.Encoder, all))
	}
	if !slices.Contains(presets(), c.Preset) {
		refuse("preset", "unknown preset%s", nearest.Hint(c.Preset, presets()))
	}
	if c.CRF < 0 || c.CRF > 51 {
		refuse("crf", "want 0 to 51")
	}
	if c.Threads < 1 || c.Threads > 64 {
		refuse("threads", "want 1 to 64")
	}
	if d := c.StallAfter.D(); d < 500*time.Millisecond || d > time.Hour {
		refuse("stall_after", `want "500ms" to "1h"`)
	}
	if _, err := extraArgs(c.Extra); err != nil {
		refuse("extra", "%v", err)
	}
	return errors.Join(errs...)
}

// Rings is the shared memory that the file events take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.FileHistory()} }

// Cached reports whether files are born in RAM.
func (c *Config) Cached() worker.Cached {
	if c.Dir != "" {
		return ""
	}
	return worker.Fills
}

// Pins is how many frames it holds at once.
func (c *Config) Pins() int {
	if c.Splice {
		return 2
	}
	return 1
}
