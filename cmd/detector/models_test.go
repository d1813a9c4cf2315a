package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/onnxfile"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/scenemodel"
	"github.com/perch-edge/perch/pkg/pixel"
)

// export is the network of the simulated scene, exported in another way. Its own
// output, [1 5 2100] as YOLOv8 has it, is "raw"; its own input is "net".
type export struct {
	*onnxfile.Graph
	n int
}

func newExport() *export {
	e := &export{Graph: scenemodel.Graph()}
	for i := range e.Nodes {
		for from, to := range map[string]string{"images": "net", "output0": "raw"} {
			for _, list := range [][]string{e.Nodes[i].In, e.Nodes[i].Out} {
				if at := slices.Index(list, from); at >= 0 {
					list[at] = to
				}
			}
		}
	}
	e.Outputs = nil
	e.Metadata = []onnxfile.Pair{{Key: "names", Value: "{0: 'target'}"}}
	return e.input(onnxfile.Float, 1, 3, 320, 320)
}

// input makes images of that type and shape the network's, by ops if there are any.
func (e *export) input(t onnxfile.Type, shape ...int64) *export {
	e.Inputs = []onnxfile.Value{{Name: "images", Type: t, Shape: shape}}
	e.Nodes = slices.DeleteFunc(e.Nodes, func(n onnxfile.Node) bool { return slices.Contains(n.Out, "net") })
	return e.before("Identity")
}

// before puts a node between images and net.
func (e *export) before(op string, attributes ...onnxfile.Attribute) *export {
	e.Nodes = slices.DeleteFunc(e.Nodes, func(n onnxfile.Node) bool { return slices.Contains(n.Out, "net") })
	e.Nodes = slices.Insert(e.Nodes, 0, onnxfile.Node{Op: op, In: []string{"images"}, Out: []string{"net"}, Attributes: attributes})
	return e
}

func attr(name string, value any) onnxfile.Attribute {
	return onnxfile.Attribute{Name: name, Value: value}
}

// op adds a node and returns its output.
func (e *export) op(op string, in []string, attributes ...onnxfile.Attribute) string {
	e.n++
	out := fmt.Sprintf("x%d", e.n)
	e.Nodes = append(e.Nodes, onnxfile.Node{Op: op, In: in, Out: []string{out}, Attributes: attributes})
	return out
}

func (e *export) floats(shape []int64, values ...float32) string {
	e.n++
	e.Constants = append(e.Constants, onnxfile.Constant{Name: fmt.Sprintf("f%d", e.n), Shape: shape, Floats: values})
	return fmt.Sprintf("f%d", e.n)
}

func (e *export) ints(values ...int64) string {
	e.n++
	e.Constants = append(e.Constants, onnxfile.Constant{Name: fmt.Sprintf("i%d", e.n), Shape: []int64{int64(len(values))}, Ints: values})
	return fmt.Sprintf("i%d", e.n)
}

func (e *export) concat(axis int64, in ...string) string {
	return e.op("Concat", in, attr("axis", axis))
}
func (e *export) cast(x string, to onnxfile.Type) string {
	return e.op("Cast", []string{x}, attr("to", int64(to)))
}
func (e *export) scale(x string, by float32) string {
	return e.op("Mul", []string{x, e.floats(nil, by)})
}

// split takes a tensor apart along an axis.
func (e *export) split(x string, axis int64, sizes ...int64) (parts []string) {
	for range sizes {
		e.n++
		parts = append(parts, fmt.Sprintf("x%d", e.n))
	}
	e.Nodes = append(e.Nodes, onnxfile.Node{Op: "Split", In: []string{x, e.ints(sizes...)}, Out: parts, Attributes: []onnxfile.Attribute{attr("axis", axis)}})
	return parts
}

// output makes x an output of the network.
func (e *export) output(name, x string, t onnxfile.Type, shape ...int64) *export {
	e.Nodes = append(e.Nodes, onnxfile.Node{Op: "Identity", In: []string{x}, Out: []string{name}})
	e.Outputs = append(e.Outputs, onnxfile.Value{Name: name, Type: t, Shape: shape})
	return e
}

func (e *export) note(key, value string) *export {
	e.Metadata = append(e.Metadata, onnxfile.Pair{Key: key, Value: value})
	return e
}

func (e *export) noNames() *export {
	e.Metadata = nil
	return e
}

// rows are the boxes in rows: x, y, w, h, score.
func (e *export) rows() string {
	return e.op("Transpose", []string{"raw"}, attr("perm", []int64{0, 2, 1}))
}

// all has the same value in all of a shape.
func (e *export) all(v float32, shape ...int64) string {
	return e.op("Expand", []string{e.floats(nil, v), e.ints(shape...)})
}

// finished are the objects: x0, y0, x1, y1 [2100 4], score and class [2100 1].
func (e *export) finished() (boxes, scores, classes string) {
	p := e.split(e.op("Squeeze", []string{e.rows(), e.ints(0)}), 1, 2, 2, 1)
	half := e.scale(p[1], 0.5)
	return e.concat(1, e.op("Sub", []string{p[0], half}), e.op("Add", []string{p[0], half})), p[2], e.all(0, 2100, 1)
}

// best keeps the n rows of x with the highest scores.
func (e *export) best(x, scores string, n int64) string {
	flat := e.op("Squeeze", []string{scores, e.ints(1)})
	e.Nodes = append(e.Nodes, onnxfile.Node{Op: "TopK", In: []string{flat, e.ints(n)}, Out: []string{"top", "place"}, Attributes: []onnxfile.Attribute{attr("axis", int64(0))}})
	return e.op("Gather", []string{x, "place"})
}

func (e *export) endToEnd() *export {
	b, s, c := e.finished()
	return e.output("output0", e.op("Unsqueeze", []string{e.best(e.concat(1, b, s, c), s, 300), e.ints(0)}), onnxfile.Float, 1, 300, 6)
}

// yoloRows are rows with an object score and some classes, the first of which is it.
func (e *export) yoloRows(classes int64, object float32) string {
	p := e.split(e.rows(), 2, 4, 1)
	parts := []string{p[0], e.all(object, 1, 2100, 1), p[1]}
	if classes > 1 {
		parts = append(parts, e.all(0, 1, 2100, classes-1))
	}
	return e.concat(2, parts...)
}

func exports() map[string]func(*export) *export {
	const names = "{0: 'target', 1: 'person', 2: 'vehicle'}"
	return map[string]func(*export) *export{
		"yolov8": func(e *export) *export { return e.output("output0", "raw", onnxfile.Float, 1, 5, 2100) },
		"yolov8 transposed": func(e *export) *export {
			return e.output("output0", e.rows(), onnxfile.Float, 1, 2100, 5)
		},
		"yolov8 transposed, three classes": func(e *export) *export {
			return e.noNames().note("names", names).output("output0", e.concat(2, e.rows(), e.all(0, 1, 2100, 2)), onnxfile.Float, 1, 2100, 7)
		},
		"yolov8 with boxes from 0 to 1": func(e *export) *export {
			p := e.split("raw", 1, 4, 1)
			return e.output("output0", e.concat(1, e.scale(p[0], 1.0/320), p[1]), onnxfile.Float, 1, 5, 2100)
		},
		"float16": func(e *export) *export {
			e.input(onnxfile.Float16, 1, 3, 320, 320).before("Cast", attr("to", int64(onnxfile.Float)))
			return e.output("output0", e.cast("raw", onnxfile.Float16), onnxfile.Float16, 1, 5, 2100)
		},
		"uint8": func(e *export) *export {
			e.input(onnxfile.Uint8, 1, 3, 320, 320)
			e.Constants = append(e.Constants, onnxfile.Constant{Name: "level", Floats: []float32{1.0 / 255}})
			e.Nodes = append([]onnxfile.Node{{Op: "Cast", In: []string{"images"}, Out: []string{"levels"}, Attributes: []onnxfile.Attribute{attr("to", int64(onnxfile.Float))}},
				{Op: "Mul", In: []string{"levels", "level"}, Out: []string{"net"}}}, e.Nodes[1:]...)
			return e.output("output0", "raw", onnxfile.Float, 1, 5, 2100)
		},
		"colours last": func(e *export) *export {
			e.input(onnxfile.Float, 1, 320, 320, 3).before("Transpose", attr("perm", []int64{0, 3, 1, 2}))
			return e.output("output0", "raw", onnxfile.Float, 1, 5, 2100)
		},
		"whole numbers beside": func(e *export) *export {
			e.output("count", e.cast(e.all(3, 1), onnxfile.Int64), onnxfile.Int64, 1)
			return e.output("output0", "raw", onnxfile.Float, 1, 5, 2100)
		},
		"dynamic": func(e *export) *export {
			return e.input(onnxfile.Float, -1, -1, -1, -1).note("imgsz", "[320, 320]").output("output0", "raw", onnxfile.Float, -1, 5, -1)
		},
		"yolov5 of four grids, as MegaDetector": func(e *export) *export {
			r := e.yoloRows(3, 0.8)
			return e.noNames().note("names", names).output("output", e.concat(1, r, r, r, e.all(0, 1, 75, 8)), onnxfile.Float, 1, 6375, 8)
		},
		"yolov6":   func(e *export) *export { return e.output("outputs", e.yoloRows(1, 1), onnxfile.Float, 1, 2100, 6) },
		"v10, v26": func(e *export) *export { return e.note("end2end", "True").endToEnd() },
		"nms=True": func(e *export) *export { return e.note("args", "{'nms': True, 'half': False}").endToEnd() },
		"end to end, boxes from 0 to 1": func(e *export) *export {
			b, s, c := e.finished()
			return e.output("output0", e.op("Unsqueeze", []string{e.best(e.concat(1, e.scale(b, 1.0/320), s, c), s, 300), e.ints(0)}), onnxfile.Float, 1, 300, 6)
		},
		"v7 end to end": func(e *export) *export { // no rows at all where there is nothing
			b, s, c := e.finished()
			some := e.op("Greater", []string{e.op("Squeeze", []string{s, e.ints(1)}), e.floats(nil, 0.25)})
			place := e.op("Squeeze", []string{e.op("NonZero", []string{some}), e.ints(0)})
			return e.output("output", e.op("Gather", []string{e.concat(1, e.all(0, 2100, 1), b, c, s), place}), onnxfile.Float, -1, 7)
		},
		"EfficientNMS": func(e *export) *export {
			b, s, c := e.finished()
			p := e.split(e.best(e.concat(1, b, s, c), s, 100), 1, 4, 1, 1)
			row := func(x string) string { return e.op("Transpose", []string{x}, attr("perm", []int64{1, 0})) }
			e.output("num_dets", e.cast(e.all(100, 1, 1), onnxfile.Int32), onnxfile.Int32, 1, 1)
			e.output("det_boxes", e.op("Unsqueeze", []string{p[0], e.ints(0)}), onnxfile.Float, 1, 100, 4)
			e.output("det_scores", row(p[1]), onnxfile.Float, 1, 100)
			return e.output("det_classes", e.cast(row(p[2]), onnxfile.Int32), onnxfile.Int32, 1, 100)
		},
		"RT-DETR, one output": func(e *export) *export {
			p := e.split(e.op("Squeeze", []string{e.rows(), e.ints(0)}), 1, 4, 1)
			return e.output("output0", e.op("Unsqueeze", []string{e.best(e.concat(1, e.scale(p[0], 1.0/320), p[1]), p[1], 300), e.ints(0)}), onnxfile.Float, 1, 300, 5)
		},
		"RT-DETR of two classes": func(e *export) *export {
			p := e.split(e.op("Squeeze", []string{e.rows(), e.ints(0)}), 1, 4, 1)
			e.noNames().note("names", "{0: 'target', 1: 'other'}")
			return e.output("output0", e.op("Unsqueeze", []string{e.best(e.concat(1, e.scale(p[0], 1.0/320), p[1], e.all(0.01, 2100, 1)), p[1], 300), e.ints(0)}), onnxfile.Float, 1, 300, 6)
		},
		"RT-DETR, two inputs": func(e *export) *export {
			e.Inputs = append(e.Inputs, onnxfile.Value{Name: "orig_target_sizes", Type: onnxfile.Int64, Shape: []int64{-1, 2}})
			b, s, c := e.finished()
			p := e.split(e.best(e.concat(1, e.scale(b, 1.0/320), s, c), s, 300), 1, 4, 1, 1)
			size := e.cast("orig_target_sizes", onnxfile.Float)
			row := func(x string) string { return e.op("Transpose", []string{x}, attr("perm", []int64{1, 0})) }
			e.output("labels", e.cast(row(p[2]), onnxfile.Int64), onnxfile.Int64, 1, 300)
			e.output("boxes", e.op("Unsqueeze", []string{e.op("Mul", []string{p[0], e.concat(1, size, size)}), e.ints(0)}), onnxfile.Float, 1, 300, 4)
			return e.output("scores", row(p[1]), onnxfile.Float, 1, 300)
		},
		"RT-DETR of logits and boxes": func(e *export) *export {
			p := e.split(e.op("Squeeze", []string{e.rows(), e.ints(0)}), 1, 4, 1)
			q := e.split(e.best(e.concat(1, e.scale(p[0], 1.0/320), p[1]), p[1], 300), 1, 4, 1)
			one := e.op("Clip", []string{q[1], e.floats(nil, 1e-4), e.floats(nil, 1-1e-4)})
			logits := e.op("Log", []string{e.op("Div", []string{one, e.op("Sub", []string{e.floats(nil, 1), one})})})
			e.noNames().note("names", "{0: 'target', 1: 'other'}")
			e.output("logits", e.op("Unsqueeze", []string{e.concat(1, logits, e.all(-9, 300, 1)), e.ints(0)}), onnxfile.Float, 1, 300, 2)
			return e.output("pred_boxes", e.op("Unsqueeze", []string{q[0], e.ints(0)}), onnxfile.Float, 1, 300, 4)
		},
	}
}

func write(t *testing.T, model []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, model, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func with(t *testing.T, model string) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Model, cfg.Library = model, onnxtest.Library(t)
	return cfg
}

// finds says whether a model finds the target where it is, and nothing else.
func finds(t *testing.T, cfg Config) {
	t.Helper()
	n, err := openNetwork(t.Context(), cfg)
	if err != nil {
		t.Errorf("openNetwork() = %v; want a network", err)
		return
	}
	d := &detector{cfg: cfg, network: n, gate: newGate(cfg)}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	size := pixel.Size{Width: 320, Height: 192}
	s, err := scene.New(pixel.YUV420, size)
	if err != nil {
		t.Fatal(err)
	}
	img, err := pixel.NewImage(pixel.YUV420, size, make([]byte, s.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range []uint64{120, 300, 10} { // at 300 there is none
		if err := s.Draw(frame, img.Data); err != nil {
			t.Fatal(err)
		}
		r, visible := scene.Target(frame, size)
		want := single([4]float64{float64(r.Min.X), float64(r.Min.Y), float64(r.Max.X), float64(r.Max.Y)})
		img.Colour = scene.Colour()
		got := d.in(t, img)
		if visible != (len(got) == 1) || visible && (got[0].Label != "target" || single(got[0].Box).IoU(want) < 0.8) {
			t.Errorf("frame %d: found %v; want a target, %v, at %v", frame, got, visible, want)
		}
		if err := n.decoder.Seen().Err(); err != nil {
			t.Errorf("frame %d: %v", frame, err)
		}
	}
}

// Models find the same, however they were exported.
func TestExports(t *testing.T) {
	onnxtest.Library(t)
	for name, make := range exports() {
		t.Run(name, func(t *testing.T) {
			finds(t, with(t, write(t, onnxfile.Encode(make(newExport()).Graph))))
		})
	}
}

// Weights in a file beside the model are read, also where the runtime by itself
// would not read them.
func TestWeightsBeside(t *testing.T) {
	e := exports()["yolov8"](newExport())
	dir := t.TempDir()
	for i := range e.Constants {
		c := &e.Constants[i]
		c.File = fmt.Sprintf("weights/%d.data", i)
		path := filepath.Join(dir, c.File)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, c.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	model := filepath.Join(dir, "model.onnx")
	if err := os.WriteFile(model, onnxfile.Encode(e.Graph), 0o600); err != nil {
		t.Fatal(err)
	}
	finds(t, with(t, model))
}

// What resembles YOLOX and is not for sure one has to be told; a key settles it.
func TestWhatResemblesYOLOX(t *testing.T) {
	e := newExport()
	model := write(t, onnxfile.Encode(e.output("dets", e.yoloRows(1, 0.9), onnxfile.Float, 1, 2100, 6).Graph))
	cfg := with(t, model)
	if _, err := openNetwork(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `set family = "yolox", or family = "yolov6"`) {
		t.Errorf("openNetwork() = %v; want the keys", err)
	}
	cfg.Family = "yolov6"
	finds(t, cfg)
	cfg.Family, cfg.Scale, cfg.Order, cfg.Place = "auto", "0-1", "rgb", "centre"
	finds(t, cfg)

	// The same made for YOLOX's pictures: blue first, 0 to 255, at the top left.
	e = newExport()
	e.Constants = append(e.Constants, onnxfile.Constant{Name: "turn", Shape: []int64{3}, Ints: []int64{2, 1, 0}}, onnxfile.Constant{Name: "level", Floats: []float32{1.0 / 255}})
	e.Nodes = append([]onnxfile.Node{{Op: "Gather", In: []string{"images", "turn"}, Out: []string{"rgb"}, Attributes: []onnxfile.Attribute{attr("axis", int64(1))}},
		{Op: "Mul", In: []string{"rgb", "level"}, Out: []string{"net"}}}, e.Nodes[1:]...)
	e.output("output", e.yoloRows(1, 0.9), onnxfile.Float, 1, 2100, 6)
	finds(t, with(t, write(t, onnxfile.Encode(e.Graph))))
}

func TestRefusedExports(t *testing.T) {
	onnxtest.Library(t)
	for name, tt := range map[string]struct {
		make func(*export) *export
		want string
	}{
		"logits": {func(e *export) *export {
			p := e.split("raw", 1, 4, 1)
			return e.output("output0", e.concat(1, p[0], e.op("Sub", []string{e.scale(p[1], 20), e.floats(nil, 10)})), onnxfile.Float, 1, 5, 2100)
		}, "they are logits"},
		"not numbers": {func(e *export) *export {
			p := e.split("raw", 1, 4, 1)
			zero := e.floats(nil, 0)
			return e.output("output0", e.concat(1, p[0], e.op("Div", []string{e.scale(p[1], 0), zero})), onnxfile.Float, 1, 5, 2100)
		}, "are not numbers"},
		"batch": {func(e *export) *export {
			return e.input(onnxfile.Float, 4, 3, 320, 320).output("output0", "raw", onnxfile.Float, 1, 5, 2100)
		}, "export with batch=1"},
		"no names": {func(e *export) *export { return e.noNames().endToEnd() }, "give labels"},
		"an operator of TensorRT": {func(e *export) *export {
			return e.output("num_dets", e.op("EfficientNMS_TRT", []string{"raw"}), onnxfile.Float, 1, 1)
		}, "without --end2end"},
		"Paddle": {func(e *export) *export {
			e.Inputs = append(e.Inputs, onnxfile.Value{Name: "scale_factor", Type: onnxfile.Float, Shape: []int64{1, 2}})
			return e.output("output0", "raw", onnxfile.Float, 1, 5, 2100)
		}, "PaddleDetection"},
		"YOLO-NAS": {func(e *export) *export {
			p := e.split(e.rows(), 2, 4, 1)
			return e.output("boxes", p[0], onnxfile.Float, 1, 2100, 4).output("scores", p[1], onnxfile.Float, 1, 2100, 1)
		}, "YOLO-NAS"},
		"a size that does not fit": {func(e *export) *export {
			return e.input(onnxfile.Float, 1, 3, -1, -1).output("output0", "raw", onnxfile.Float, 1, 5, -1)
		}, "set input_size"},
	} {
		n, err := openNetwork(t.Context(), with(t, write(t, onnxfile.Encode(tt.make(newExport()).Graph))))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: openNetwork() = %v; want an error with %q", name, err, tt.want)
		}
		if n != nil {
			_ = n.close()
		}
	}
}
