package yolo

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/perch-edge/perch/pkg/pixel"
)

const (
	// MaxObjects is how many objects a frame can have.
	MaxObjects = 100
	// maxCandidates is how many boxes are compared with each other.
	maxCandidates = 1000
)

// Box is an area of a frame in its pixels: x0, y0 the first edge, x1, y1 the last.
type Box [4]float32

// Object is something that the network found.
type Object struct {
	Class int
	Score float32 // 0 to 1
	Box   Box
}

// Filter says which objects count.
type Filter struct {
	// Scores is the least score, by class; an object of a class whose least score
	// is over 1 is never returned.
	Scores []float32
	// NMS is the overlap (intersection over union) above which the weaker of two
	// boxes of one class is dropped.
	NMS float32
	// MinWidth and MinHeight are the least size of a box, in pixels of the frame.
	MinWidth, MinHeight float32
	// Mask are areas of the frame where nothing counts: objects whose middle is in
	// one of them are dropped.
	Mask Mask
}

// Decoder reads outputs of one layout. It is for one goroutine.
type Decoder struct {
	layout Layout
	filter Filter
	lowest float32 // of all least scores
	found  []Object
	best   []float32 // yolov8: the best score of each cell, and whose it is
	whose  []int32
}

// NewDecoder fails when the filter has another number of classes than the layout.
func NewDecoder(l Layout, f Filter) (*Decoder, error) {
	if len(f.Scores) != l.Classes {
		return nil, fmt.Errorf("decode output: %d least scores: want one for each of %d classes", len(f.Scores), l.Classes)
	}
	d := &Decoder{layout: l, filter: f, lowest: slices.Min(f.Scores)}
	if l.Family == YOLOv8 {
		d.best, d.whose = make([]float32, l.cells), make([]int32, l.cells)
	}
	return d, nil
}

// Decode returns the objects in an output, in pixels of the frame that box put
// into the input; the best first, at most MaxObjects, valid until the next call.
// It fails when the output has another length than the layout says.
func (d *Decoder) Decode(out []float32, box *Letterbox) ([]Object, error) {
	if len(out) != d.layout.values() {
		return nil, fmt.Errorf("decode output: %d values: want %d for %s", len(out), d.layout.values(), d.layout.Family)
	}
	d.found = d.found[:0]
	switch d.layout.Family {
	case YOLOX:
		d.yolox(out)
	case YOLOv5:
		d.rows(out, func(_ int, row []float32) Box { return around(row[0], row[1], row[2], row[3]) })
	default:
		d.yolov8(out)
	}
	d.suppress()
	kept := d.found[:0]
	for _, o := range d.found {
		if o.Box = box.toFrame(o.Box); d.filter.keeps(o, box.size) {
			kept = append(kept, o)
		}
	}
	d.found = kept[:min(len(kept), MaxObjects)]
	return d.found, nil
}

// around is the box with that middle and size.
func around(x, y, w, h float32) Box { return Box{x - w/2, y - h/2, x + w/2, y + h/2} }

func (d *Decoder) yolox(out []float32) {
	if d.layout.decoded {
		d.rows(out, func(_ int, row []float32) Box { return around(row[0], row[1], row[2], row[3]) })
		return
	}
	d.rows(out, func(i int, row []float32) Box {
		x, y, side := d.layout.cell(i)
		exp := func(v float32) float32 { return float32(math.Exp(float64(v))) * side }
		return around((row[0]+x)*side, (row[1]+y)*side, exp(row[2]), exp(row[3]))
	})
}

// cell is the place of cell i in its grid, and its side in pixels.
func (l *Layout) cell(i int) (x, y, side float32) {
	for _, s := range strides() {
		across, down := l.Size.Width/s, l.Size.Height/s
		if i < across*down {
			return float32(i % across), float32(i / across), float32(s)
		}
		i -= across * down
	}
	return 0, 0, 0
}

// rows finds the candidates of an output that has a row a box.
func (d *Decoder) rows(out []float32, box func(i int, row []float32) Box) {
	n := 5 + d.layout.Classes
	for i := range d.layout.cells {
		row := out[i*n : i*n+n]
		if !(row[4] >= d.lowest) { // also where it is no number
			continue
		}
		class, score := 0, row[5]
		for c, v := range row[6:] {
			if v > score {
				class, score = c+1, v
			}
		}
		d.add(class, score*row[4], func() Box { return box(i, row) })
	}
}

// yolov8 finds the candidates of an output that has a row for each number of all
// boxes.
func (d *Decoder) yolov8(out []float32) {
	n := d.layout.cells
	clear(d.best)
	for c := range d.layout.Classes {
		best, whose := d.best, d.whose[:len(d.best)]
		for i, v := range out[(4+c)*n : (5+c)*n] {
			if v > best[i] {
				best[i], whose[i] = v, int32(c)
			}
		}
	}
	for i, score := range d.best {
		if score >= d.lowest {
			d.add(int(d.whose[i]), score, func() Box { return around(out[i], out[n+i], out[2*n+i], out[3*n+i]) })
		}
	}
}

func (d *Decoder) add(class int, score float32, box func() Box) {
	if !(score >= d.filter.Scores[class]) {
		return
	}
	b := box()
	for _, v := range b {
		if !(v > -1e6 && v < 1e6) {
			return
		}
	}
	if b[0] < b[2] && b[1] < b[3] {
		d.found = append(d.found, Object{class, min(score, 1), b})
	}
}

// suppress sorts the candidates, the best first, and drops those that overlap a
// better one of their class.
func (d *Decoder) suppress() {
	slices.SortStableFunc(d.found, func(a, b Object) int { return cmp.Compare(b.Score, a.Score) })
	d.found = d.found[:min(len(d.found), maxCandidates)]
	kept := d.found[:0]
	for _, o := range d.found {
		if !slices.ContainsFunc(kept, func(k Object) bool { return k.Class == o.Class && k.Box.IoU(o.Box) > d.filter.NMS }) {
			kept = append(kept, o)
		}
	}
	d.found = kept
}

// IoU is how much two boxes overlap: the area of both over that of either, 0 to 1.
func (b Box) IoU(c Box) float32 {
	w := min(b[2], c[2]) - max(b[0], c[0])
	h := min(b[3], c[3]) - max(b[1], c[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (b.area() + c.area() - w*h)
}

func (b Box) area() float32 { return (b[2] - b[0]) * (b[3] - b[1]) }

// toFrame brings a box from the tensor to the frame, cut at its edges.
func (l *Letterbox) toFrame(b Box) Box {
	x := func(v float32) float32 {
		return float32(min(max((float64(v)-float64(l.x))/l.scale, 0), float64(l.size.Width)))
	}
	y := func(v float32) float32 {
		return float32(min(max((float64(v)-float64(l.y))/l.scale, 0), float64(l.size.Height)))
	}
	return Box{x(b[0]), y(b[1]), x(b[2]), y(b[3])}
}

func (f *Filter) keeps(o Object, frame pixel.Size) bool {
	w, h := o.Box[2]-o.Box[0], o.Box[3]-o.Box[1]
	if w <= 0 || h <= 0 || w < f.MinWidth || h < f.MinHeight {
		return false
	}
	x := float64(o.Box[0]+o.Box[2]) / 2 / float64(frame.Width)
	y := float64(o.Box[1]+o.Box[3]) / 2 / float64(frame.Height)
	return !f.Mask.Covers(x, y)
}
