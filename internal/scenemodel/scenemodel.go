// Package scenemodel is a tiny neural network that finds the target of the
// simulated scene (internal/scene), for a box without a camera and without a
// downloaded model.
//
//	picture [1 3 320 320] --> how magenta each pixel is --> moments of windows --> boxes [1 5 2100]
//
// It is a real ONNX file with the inputs and outputs of a YOLOv8 of one class,
// "target": red, green and blue from 0 to 1, and for each of 2100 cells x, y, width,
// height in pixels and a score. It was not trained but written down by Build; the
// file that the programs carry, target.onnx, is Build's output, and a test
// compares the two ("go test ./internal/scenemodel -update" writes it anew).
//
// # How it works
//
// A pixel's weight m is 1 where both red and blue are more than green by 0.8 or
// more, 0 where by 0.2 or less, and in a straight line between. At an edge that
// scaling made soft the weights add up to the area that is covered.
//
// The means of m, mx, my, mxx and myy are taken over the cells of grids of 8, 16 and
// 32 pixels, and over windows of 7 x 7 cells around each cell. They give the weight's
// middle, mx/m, and its extent: a bar of length l has the variance (l*l - 1)/12 when
// it is made of whole pixels. A cell's score is the product of four numbers, each 0 to 1:
//
//	near    the middle is in the cell, and less the more cells it is away
//	full    the weight fills the box that its extent gives
//	enough  the weight is that of 16 pixels or more
//	fits    the box is under three quarters of the window: what is larger may be
//	        cut off by it, and belongs to a coarser grid
//
// A target is so found by up to three grids and some neighbours, with the same box;
// non-maximum suppression leaves one.
package scenemodel

import (
	_ "embed"
	"fmt"

	"github.com/perch-edge/perch/internal/onnxfile"
)

//go:embed target.onnx
var target string

// Model is the file.
func Model() []byte { return []byte(target) }

const (
	side   = 320 // of the input, pixels
	window = 7   // cells
)

// Build writes the network down.
func Build() []byte { return onnxfile.Encode(Graph()) }

// Graph is the network, to be built upon.
func Graph() *onnxfile.Graph {
	b := &builder{g: onnxfile.Graph{Name: "scene-target",
		Doc:      "Finds the magenta target of perch's simulated scene. Written by internal/scenemodel.",
		Inputs:   []onnxfile.Value{{Name: "images", Type: onnxfile.Float, Shape: []int64{1, 3, side, side}}},
		Outputs:  []onnxfile.Value{{Name: "output0", Type: onnxfile.Float, Shape: []int64{1, 5, 2100}}},
		Metadata: []onnxfile.Pair{{Key: "task", Value: "detect"}, {Key: "names", Value: "{0: 'target'}"}, {Key: "imgsz", Value: fmt.Sprintf("[%d, %d]", side, side)}},
	}}
	cells := b.pool(b.moments(b.weight("images")), 8, 8, 0)
	var heads []string
	for stride := 8; stride <= 32; stride *= 2 {
		if stride > 8 {
			cells = b.pool(cells, 2, 2, 0)
		}
		heads = append(heads, b.head(cells, stride))
	}
	b.node("Concat", heads, []string{"output0"}, onnxfile.Attribute{Name: "axis", Value: int64(2)})
	return &b.g
}

// weight is how much of each pixel is the target's.
func (b *builder) weight(images string) string {
	over := b.constant([]int64{2, 3, 1, 1}, 1, -1, 0, 0, -1, 1) // red over green, blue over green
	least := b.op("ReduceMin", []string{b.op("Conv", []string{images, over})}, onnxfile.Attribute{Name: "axes", Value: []int64{1}})
	return b.clip(b.add(b.scale(least, 1/0.6), -0.2/0.6))
}

// moments are m, mx, my, mxx and myy of each pixel, x and y from 0 to 1.
func (b *builder) moments(m string) string {
	x := b.constant([]int64{1, 1, 1, side}, middles(side)...)
	y := b.constant([]int64{1, 1, side, 1}, middles(side)...)
	mx, my := b.mul(m, x), b.mul(m, y)
	return b.concat(m, mx, my, b.mul(mx, x), b.mul(my, y))
}

// middles are those of n cells in a row from 0 to 1.
func middles(n int) []float32 {
	list := make([]float32, n)
	for i := range list {
		list[i] = (float32(i) + 0.5) / float32(n)
	}
	return list
}

// head is the boxes and scores of one grid.
func (b *builder) head(cells string, stride int) string {
	grid := side / stride
	m := b.split(b.pool(cells, window, 1, window/2), 5)
	safe := b.op("Max", []string{m[0], b.constant(nil, 1e-9)})
	x, y := b.div(m[1], safe), b.div(m[2], safe)
	w, h := b.extent(m[3], x, safe), b.extent(m[4], y, safe)

	across, down := b.constant([]int64{1, 1, 1, int64(grid)}, middles(grid)...), b.constant([]int64{1, 1, int64(grid), 1}, middles(grid)...)
	away := b.op("Max", []string{b.op("Abs", []string{b.sub(x, across)}), b.op("Abs", []string{b.sub(y, down)})})
	near := b.clip(b.add(b.scale(away, -float32(grid)), 1.5))
	area := b.scale(m[0], float32(window*window*stride*stride)) // pixels
	full := b.clip(b.div(area, b.op("Max", []string{b.scale(b.mul(w, h), side*side), b.constant(nil, 1)})))
	enough := b.clip(b.scale(area, 1.0/16))
	fits := b.clip(b.add(b.scale(b.op("Max", []string{w, h}), -float32(grid)), 0.75*window))
	score := b.mul(b.mul(near, full), b.mul(enough, fits))

	all := b.concat(b.scale(x, side), b.scale(y, side), b.scale(w, side), b.scale(h, side), score)
	return b.op("Reshape", []string{all, b.ints(1, 5, int64(grid*grid))})
}

// extent is the length of a bar with that mean square and mean, from 0 to 1.
func (b *builder) extent(squares, middle, safe string) string {
	variance := b.sub(b.div(squares, safe), b.mul(middle, middle))
	return b.op("Sqrt", []string{b.op("Max", []string{b.add(b.scale(variance, 12), 1.0/(side*side)), b.constant(nil, 0)})})
}

// builder names what it adds to the graph by number.
type builder struct {
	g onnxfile.Graph
	n int
}

func (b *builder) name() string {
	b.n++
	return fmt.Sprintf("v%d", b.n)
}

func (b *builder) node(op string, in, out []string, attributes ...onnxfile.Attribute) {
	b.g.Nodes = append(b.g.Nodes, onnxfile.Node{Op: op, In: in, Out: out, Attributes: attributes})
}

func (b *builder) op(op string, in []string, attributes ...onnxfile.Attribute) string {
	out := b.name()
	b.node(op, in, []string{out}, attributes...)
	return out
}

func (b *builder) constant(shape []int64, values ...float32) string {
	name := b.name()
	b.g.Constants = append(b.g.Constants, onnxfile.Constant{Name: name, Shape: shape, Floats: values})
	return name
}

func (b *builder) ints(values ...int64) string {
	name := b.name()
	b.g.Constants = append(b.g.Constants, onnxfile.Constant{Name: name, Shape: []int64{int64(len(values))}, Ints: values})
	return name
}

func (b *builder) mul(x, y string) string { return b.op("Mul", []string{x, y}) }
func (b *builder) div(x, y string) string { return b.op("Div", []string{x, y}) }
func (b *builder) sub(x, y string) string { return b.op("Sub", []string{x, y}) }

func (b *builder) scale(x string, by float32) string { return b.mul(x, b.constant(nil, by)) }
func (b *builder) add(x string, v float32) string {
	return b.op("Add", []string{x, b.constant(nil, v)})
}

// clip cuts to 0..1.
func (b *builder) clip(x string) string {
	return b.op("Clip", []string{x, b.constant(nil, 0), b.constant(nil, 1)})
}

func (b *builder) concat(parts ...string) string {
	return b.op("Concat", parts, onnxfile.Attribute{Name: "axis", Value: int64(1)})
}

// split takes the n planes apart.
func (b *builder) split(x string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = b.name()
	}
	b.node("Split", []string{x}, out, onnxfile.Attribute{Name: "axis", Value: int64(1)})
	return out
}

// pool is the mean over squares of cells, of which those outside count as 0.
func (b *builder) pool(x string, cells, step, pad int64) string {
	return b.op("AveragePool", []string{x}, onnxfile.Attribute{Name: "kernel_shape", Value: []int64{cells, cells}},
		onnxfile.Attribute{Name: "strides", Value: []int64{step, step}}, onnxfile.Attribute{Name: "pads", Value: []int64{pad, pad, pad, pad}},
		onnxfile.Attribute{Name: "count_include_pad", Value: int64(1)})
}
