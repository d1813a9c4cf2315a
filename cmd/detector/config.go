package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/internal/onnxfile"
	"github.com/perch-edge/perch/internal/yolo"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [worker.NAME].
type Config struct {
	Model     string             `toml:"model" doc:"an ONNX file; or sim:, for the simulated camera's target"`
	Family    yolo.Family        `toml:"family" doc:"yolox, yolov5 (also v3, v7, MegaDetector), yolov6, yolov8 (also v9, v11, v12), end2end (v10, v26, nms=True), rtdetr, or auto: from the model's shapes"`
	Scale     Scale              `toml:"scale" doc:"range of colour values in the model's input: 0-1 or 0-255; auto: the family's"`
	Order     Order              `toml:"order" doc:"order of the colours in the model's input: rgb or bgr; auto: the family's"`
	Place     Place              `toml:"place" doc:"where the frame goes in the model's input: centre, topleft, or stretch to fill it; auto: the family's"`
	InputSize pixel.Size         `toml:"input_size" doc:"WIDTHxHEIGHT, of a model that leaves it open"`
	Labels    Labels             `toml:"labels" doc:"names of the classes: a list, a file (one per line, or JSON), or coco for COCO's 80; default: the model's own, or COCO's if it has 80"`
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

	found []string // labels of the model, once Check has loaded it
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
	case len(c.found) > 0:
		return c.found
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
	return Config{Family: yolo.Auto, Scale: "auto", Order: "auto", Place: "auto", MinScore: 0.3, NMS: 0.45, MaxHz: 5,
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
	switch {
	case st.IsDir():
		return errors.New("is a folder: want an ONNX file in it")
	case !st.Mode().IsRegular():
		return fmt.Errorf("is no regular file (%v): want an ONNX file", st.Mode())
	case st.Size() == 0:
		return errors.New("the file is empty: want an ONNX file; was its download cut short?")
	case st.Size() > maxModel:
		return fmt.Errorf("%d bytes: want an ONNX file of at most %d", st.Size(), maxModel)
	}
	return nil
}

// inspect reads what the model's file states about itself, and fails when it is no
// whole ONNX file.
func (c *Config) inspect() (*onnxfile.Info, error) {
	info, err := onnxfile.Inspect(c.Model)
	if err != nil {
		return nil, err
	}
	if info.Bytes > maxModel {
		return nil, fmt.Errorf("%d bytes with its weights: want at most %d", info.Bytes, maxModel)
	}
	return info, nil
}

// Rings is the shared memory that the messages take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.DetectionHistory()} }

// Pins is how many frames it holds at once.
func (c *Config) Pins() int { return 1 }

// leastScores are the thresholds of the classes; over 1 where a label does not count.
func (c *Config) leastScores(labels []string) ([]float32, error) {
	var errs []error
	index := map[string][]int{} // several classes may have one name
	for i, l := range labels {
		index[l] = append(index[l], i)
	}
	known := func(key, label string) []int {
		if len(index[label]) == 0 {
			errs = append(errs, fmt.Errorf("%s: the model has no label %q%s", key, label, nearest.Hint(label, labels)))
		}
		return index[label]
	}
	scores := make([]float32, len(labels))
	for i := range scores {
		scores[i] = float32(c.MinScore)
		if len(c.Only) > 0 {
			scores[i] = 2
		}
	}
	for _, l := range c.Only {
		for _, i := range known("only", l) {
			scores[i] = float32(c.MinScore)
		}
	}
	for l, v := range c.MinScores {
		for _, i := range known("min_scores", l) {
			if scores[i] <= 1 {
				scores[i] = float32(v)
			}
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
		if v == "coco" {
			*l = yolo.COCO()
			return nil
		}
		names, err := readLabels(v)
		*l = names
		return err
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
	return errors.New("want a list of strings, or the name of a file with one per line")
}

// readLabels reads a file with one name per line, or with a list or dictionary of names.
func readLabels(file string) (Labels, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read labels: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > 1<<20 {
		return nil, fmt.Errorf("read labels %s: %s of %d bytes: want a file with one name per line", file, st.Mode().Type(), st.Size())
	}
	bytes, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read labels: %w", err)
	}
	text := strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(string(bytes), "\r", ""), "\ufeff"))
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		names, err := yolo.ParseNames(text)
		if err != nil {
			return nil, fmt.Errorf("read labels %s: %w", file, err)
		}
		return names, nil
	}
	if ext := filepath.Ext(file); ext == ".yaml" || ext == ".yml" {
		return nil, fmt.Errorf("read labels %s: YAML: want a file with one name per line, or JSON", file)
	}
	return strings.Split(text, "\n"), nil
}

// Scale is which values of a colour a model takes.
type Scale string

// UnmarshalText makes a Scale a value of a topology.
func (s *Scale) UnmarshalText(text []byte) error {
	return oneOf((*string)(s), text, "auto", "0-1", "0-255")
}

// Order is the order of the colours that a model takes.
type Order string

// UnmarshalText makes an Order a value of a topology.
func (o *Order) UnmarshalText(text []byte) error {
	return oneOf((*string)(o), text, "auto", "rgb", "bgr")
}

// Place is where a frame lies in a model's input.
type Place string

// UnmarshalText makes a Place a value of a topology.
func (p *Place) UnmarshalText(text []byte) error {
	return oneOf((*string)(p), text, "auto", "centre", "topleft", "stretch")
}

func oneOf(to *string, text []byte, words ...string) error {
	if !slices.Contains(words, string(text)) {
		last := len(words) - 1
		return fmt.Errorf("want %s or %s", strings.Join(words[:last], ", "), words[last])
	}
	*to = string(text)
	return nil
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
