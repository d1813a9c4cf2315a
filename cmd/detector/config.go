package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/internal/yolo"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [worker.NAME].
type Config struct {
	Model     string             `toml:"model" doc:"an ONNX file; or sim:, for the simulated camera's target"`
	Family    yolo.Family        `toml:"family" doc:"yolox, yolov5, yolov8 (also v9, v11), or auto: by the model's shapes"`
	InputSize pixel.Size         `toml:"input_size" doc:"WIDTHxHEIGHT, of a model that leaves it open"`
	Labels    Labels             `toml:"labels" doc:"names of the classes: a list, or a file with one a line; default: the model's own, or COCO's 80"`
	Only      []string           `toml:"only" doc:"labels that count; none is all"`
	MinScore  float64            `toml:"min_score" doc:"least score of an object, 0 to 1"`
	MinScores map[string]float64 `toml:"min_scores" doc:"least score by label, as {person = 0.5}"`
	NMS       float64            `toml:"nms" doc:"overlap above which the weaker of two boxes of one label is dropped"`
	MinWidth  int                `toml:"min_width" doc:"least width of a box, in pixels of the frame"`
	MinHeight int                `toml:"min_height" doc:"least height of a box, in pixels of the frame"`
	Mask      yolo.Mask          `toml:"mask" doc:"areas where nothing counts: polygons of corners [x, y], fractions of the frame"`
	MaxHz     float64            `toml:"max_hz" doc:"frames a second to look at, at most"`

	Gate         Gate              `toml:"gate" doc:"motion: look only when something has moved; none: always"`
	AtLeastEvery topology.Duration `toml:"at_least_every" doc:"gate: look after that time also when nothing has moved"`
	GateLevels   float64           `toml:"gate_levels" doc:"gate: change of brightness that counts, of 255"`
	GateArea     float64           `toml:"gate_area" doc:"gate: part of the picture that must have changed, 0 to 1"`

	Library      string            `toml:"library" doc:"ONNX Runtime's file; default: PERCH_ONNXRUNTIME, then the usual places"`
	Without      Without           `toml:"without_runtime" doc:"when ONNX Runtime is not there: fail, or wait for it and say so in the state"`
	Threads      int               `toml:"threads" doc:"threads of a run"`
	Optimisation onnx.Level        `toml:"optimisation" doc:"of the network's graph: off, basic, extended or all"`
	Provider     string            `toml:"provider" doc:"ONNX Runtime's execution provider: cpu, or one that the library has, such as XNNPACK"`
	Deadline     topology.Duration `toml:"deadline" doc:"longest run of the network; after it the worker ends, to be started again"`
}

// Moved says where keys of former versions are now.
func (c *Config) Moved() map[string]string {
	return map[string]string{"colour": "the camera's frames carry their colour: set it in [sensor.NAME.stream.STREAM], where it is not known"}
}

// Knows are the labels that objects can have, as far as can be told before the
// model is loaded.
func (c *Config) Knows() []string {
	switch {
	case len(c.Only) > 0:
		return c.Only
	case len(c.Labels) > 0:
		return c.Labels
	case c.Model == Simulated:
		return []string{"target"}
	}
	return yolo.COCO()
}

// Simulated is the model of the simulated camera's target.
const Simulated = "sim:"

const (
	maxHz      = 1000
	maxThreads = 256
	maxModel   = 1 << 30 // bytes
)

// DefaultConfig has no model: which objects matter is for the user to say.
func DefaultConfig() Config {
	return Config{Family: yolo.Auto, MinScore: 0.3, NMS: 0.45, MaxHz: 5,
		Gate: GateNone, AtLeastEvery: topology.Duration(5 * time.Second), GateLevels: 12, GateArea: 0.002,
		Without: Fail, Threads: 1, Optimisation: onnx.All, Provider: onnx.CPU, Deadline: topology.Duration(10 * time.Second)}
}

// Validate checks what the types cannot, and that the model is there.
func (c *Config) Validate() error {
	var errs []error
	refuse := func(key, format string, args ...any) { errs = append(errs, topology.Bad(key, format, args...)) }
	if err := c.checkModel(); err != nil {
		errs = append(errs, topology.Bad("model", "%w", err))
	}
	for key, v := range map[string]float64{"min_score": c.MinScore, "nms": c.NMS, "gate_area": c.GateArea} {
		if !(v >= 0 && v <= 1) {
			refuse(key, "want 0 to 1")
		}
	}
	for label, v := range c.MinScores {
		if !(v >= 0 && v <= 1) {
			refuse("min_scores", "%s: want 0 to 1", label)
		}
	}
	if !(c.GateLevels > 0 && c.GateLevels <= 255) {
		refuse("gate_levels", "want more than 0, up to 255")
	}
	for key, v := range map[string]int{"min_width": c.MinWidth, "min_height": c.MinHeight} {
		if v < 0 {
			refuse(key, "want 0 or more pixels")
		}
	}
	if !(c.MaxHz > 0 && c.MaxHz <= maxHz) {
		refuse("max_hz", "want more than 0, up to %d", maxHz)
	}
	if c.Threads < 1 || c.Threads > maxThreads {
		refuse("threads", "want 1 to %d", maxThreads)
	}
	if d := c.AtLeastEvery.D(); d <= 0 || d > 24*time.Hour {
		refuse("at_least_every", `want more than "0s", up to "24h"`)
	}
	if d := c.Deadline.D(); d < 100*time.Millisecond || d > time.Hour {
		refuse("deadline", `want "100ms" to "1h"`)
	}
	return errors.Join(errs...)
}

func (c *Config) checkModel() error {
	if c.Model == Simulated {
		return nil
	}
	if c.Model == "" {
		return errors.New(`want an ONNX file, or "sim:"; "make model" gets one`)
	}
	st, err := os.Stat(c.Model)
	if errors.Is(err, fs.ErrNotExist) {
		whole, _ := filepath.Abs(c.Model) // for people
		return fmt.Errorf("there is no file %s; \"make model\" gets one", whole)
	}
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > maxModel {
		return fmt.Errorf("%s of %d bytes: want an ONNX file of at most %d", st.Mode().Type(), st.Size(), maxModel)
	}
	return nil
}

// Rings is the shared memory that the messages take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.DetectionHistory()} }

// Pins is how many frames it holds at once.
func (c *Config) Pins() int { return 1 }

// leastScores are the thresholds of the classes; over 1 where a label does not count.
func (c *Config) leastScores(labels []string) ([]float32, error) {
	var errs []error
	index := map[string]int{}
	for i, l := range labels {
		index[l] = i
	}
	know := func(key, label string) {
		if _, ok := index[label]; !ok {
			errs = append(errs, fmt.Errorf("%s: the model has no label %q%s", key, label, nearest.Hint(label, labels)))
		}
	}
	scores := make([]float32, len(labels))
	for i := range scores {
		scores[i] = float32(c.MinScore)
		if len(c.Only) > 0 {
			scores[i] = 2
		}
	}
	for _, l := range c.Only {
		know("only", l)
		if i, ok := index[l]; ok {
			scores[i] = float32(c.MinScore)
		}
	}
	for l, v := range c.MinScores {
		know("min_scores", l)
		if i, ok := index[l]; ok && scores[i] <= 1 {
			scores[i] = float32(v)
		}
	}
	return scores, errors.Join(errs...)
}

// Labels are the names of a model's classes, in their order.
type Labels []string

// UnmarshalTOML reads a list of names, or the name of a file of names.
func (l *Labels) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		text, err := os.ReadFile(v)
		if err != nil {
			return fmt.Errorf("read labels: %w", err)
		}
		if len(text) > 1<<20 {
			return fmt.Errorf("read labels %s: %d bytes: want a name a line", v, len(text))
		}
		*l = strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), "\r", "")), "\n")
		return nil
	case []any:
		*l = nil
		for _, item := range v {
			name, ok := item.(string)
			if !ok {
				return fmt.Errorf("label %v: want a string in quotes", item)
			}
			*l = append(*l, name)
		}
		return nil
	}
	return errors.New("want a list of strings, or the name of a file with one a line")
}

// Gate is what must be so for the model to look.
type Gate string

// The gates.
const (
	GateNone   Gate = "none"
	GateMotion Gate = "motion"
)

// UnmarshalText makes a Gate a value of a topology.
func (g *Gate) UnmarshalText(text []byte) error {
	if Gate(text) != GateNone && Gate(text) != GateMotion {
		return errors.New("want none or motion")
	}
	*g = Gate(text)
	return nil
}

// Without is what is done while there is no ONNX Runtime.
type Without string

// The two.
const (
	Fail  Without = "fail"
	Await Without = "wait"
)

// UnmarshalText makes a Without a value of a topology.
func (w *Without) UnmarshalText(text []byte) error {
	if Without(text) != Fail && Without(text) != Await {
		return errors.New("want fail or wait")
	}
	*w = Without(text)
	return nil
}
