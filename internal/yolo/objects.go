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
	best   []float32 // classColumns: the best score of each cell, and whose it is
	whose  []int32
	unit   Box // what one is in pixels of the input, across, down, across, down
	seen   Seen
}

// Seen is what the last output was like, whatever the filter made of it.
type Seen struct {
	Best     float32 // the highest score; where the object's is low, that
	Class    int     // whose it is; -1 where only the object's score was looked at
	Filtered int     // objects with a sufficient score that the filter's size or mask dropped
	broken   int     // scores or boxes that are no numbers
	over     float32 // the highest score over 1
	beyond   int     // a class that there is no name for; 0 is none
}

// Err says what is wrong with the values of the last output.
func (s Seen) Err() error {
	switch {
	case s.broken > 0:
		return fmt.Errorf("the network's output has %d scores or boxes that are not numbers: a damaged model, or one whose float16 overflows (export with half=False)", s.broken)
	case s.over > 0:
		return fmt.Errorf("the network's output has scores up to %.3g: want 0 to 1; if it was exported without the sigmoid, export it with", s.over)
	case s.beyond > 0:
		return fmt.Errorf("the network's output has class %d, and there are fewer names: give labels, one for each of its classes", s.beyond)
	}
	return nil
}

// NewDecoder fails when the filter has another number of classes than the layout.
func NewDecoder(l Layout, f Filter) (*Decoder, error) {
	if len(f.Scores) == 0 || l.Classes > 0 && len(f.Scores) != l.Classes {
		return nil, fmt.Errorf("decode output: %d least scores: want one for each of %d classes", len(f.Scores), l.Classes)
	}
	d := &Decoder{layout: l, filter: f, lowest: slices.Min(f.Scores)}
	if l.form == classColumns {
		d.best, d.whose = make([]float32, l.rows), make([]int32, l.rows)
	}
	return d, nil
}

// Decode returns the objects in the outputs that the layout reads, in pixels of
// the frame that box put into the input; the best first, at most MaxObjects, valid
// until the next call. It fails when outputs have other lengths than the layout
// says. Values that make no sense are left out, and told by Seen.
func (d *Decoder) Decode(outs [][]float32, box *Letterbox) ([]Object, error) {
	if err := d.layout.checkLengths(outs); err != nil {
		return nil, fmt.Errorf("decode output: %w", err)
	}
	d.found, d.seen = d.found[:0], Seen{Class: -1}
	d.unit = Box{1, 1, 1, 1}
	if d.layout.fractions {
		w, h := float32(d.layout.Size.Width), float32(d.layout.Size.Height)
		d.unit = Box{w, h, w, h}
	}
	switch d.layout.form {
	case gridRows:
		d.rows(outs[0], d.cellBox)
	case objectRows:
		d.rows(outs[0], d.rowBox)
	case classRows:
		d.plainRows(outs[0], 4, outs[0])
	case queries:
		d.plainRows(outs[0], 0, outs[1])
	case classColumns:
		d.columns(outs[0])
	default:
		d.finished(outs)
	}
	d.suppress()
	kept := d.found[:0]
	for _, o := range d.found {
		if o.Box = box.toFrame(o.Box); d.filter.keeps(o, box.size) {
			kept = append(kept, o)
		} else {
			d.seen.Filtered++
		}
	}
	d.found = kept[:min(len(kept), MaxObjects)]
	return d.found, nil
}

// Seen is what the last output was like.
func (d *Decoder) Seen() Seen { return d.seen }

// around is the box with that middle and size.
func around(x, y, w, h float32) Box { return Box{x - w/2, y - h/2, x + w/2, y + h/2} }

func (d *Decoder) rowBox(_ int, row []float32) Box {
	return around(row[0]*d.unit[0], row[1]*d.unit[1], row[2]*d.unit[2], row[3]*d.unit[3])
}

func (d *Decoder) cellBox(i int, row []float32) Box {
	x, y, side := d.layout.cell(i)
	exp := func(v float32) float32 { return float32(math.Exp(float64(v))) * side }
	return around((row[0]+x)*side, (row[1]+y)*side, exp(row[2]), exp(row[3]))
}

// cell is the place of cell i in its grid, and its side in pixels.
func (l *Layout) cell(i int) (x, y, side float32) {
	for _, strides := range grids() {
		if cells(l.Size, strides) != l.rows {
			continue
		}
		for _, s := range strides {
			across, down := l.Size.Width/s, l.Size.Height/s
			if i < across*down {
				return float32(i % across), float32(i / across), float32(s)
			}
			i -= across * down
		}
	}
	return 0, 0, 0
}

// rows finds the candidates of an output that has a row a box, with an object score.
func (d *Decoder) rows(out []float32, box func(i int, row []float32) Box) {
	n := 5 + d.layout.Classes
	for i := range d.layout.rows {
		row := out[i*n : i*n+n]
		if !(row[4] >= d.lowest) { // also where it is no number
			if row[4] > d.seen.Best {
				d.seen.Best, d.seen.Class = row[4], -1
			} else if row[4] != row[4] {
				d.seen.broken++
			}
			continue
		}
		class, score := highest(row[5:])
		d.add(class, score*row[4], func() Box { return box(i, row) })
	}
}

// highest is the class with the highest score.
func highest(scores []float32) (class int, score float32) {
	score = scores[0]
	for c, v := range scores[1:] {
		if v > score {
			class, score = c+1, v
		}
	}
	return class, score
}

// plainRows finds the candidates of an output that has a row a box, of which the
// class scores follow skip other numbers of a row of scores.
func (d *Decoder) plainRows(out []float32, skip int, scores []float32) {
	n, wide := d.layout.columns(), skip+d.layout.Classes
	for i := range d.layout.rows {
		class, score := highest(scores[i*wide+skip : (i+1)*wide])
		if d.layout.logits {
			score = float32(1 / (1 + math.Exp(-float64(score))))
		}
		d.add(class, score, func() Box { return d.rowBox(i, out[i*n:]) })
	}
}

// columns finds the candidates of an output that has a row for each number of all
// boxes.
func (d *Decoder) columns(out []float32) {
	n := d.layout.rows
	clear(d.best)
	for c := range d.layout.Classes {
		best, whose := d.best, d.whose[:len(d.best)]
		for i, v := range out[(4+c)*n : (5+c)*n] {
			if v > best[i] {
				best[i], whose[i] = v, int32(c)
			}
		}
	}
	for _, v := range out[4*n : 5*n] { // where one class is no number, all are
		if v != v {
			d.seen.broken++
		}
	}
	for i, score := range d.best {
		if score < d.lowest && score <= d.seen.Best {
			continue
		}
		d.add(int(d.whose[i]), score, func() Box {
			return around(out[i]*d.unit[0], out[n+i]*d.unit[1], out[2*n+i]*d.unit[2], out[3*n+i]*d.unit[3])
		})
	}
}

// finished finds the objects of a network that drops overlapping boxes itself.
func (d *Decoder) finished(outs [][]float32) {
	if !d.layout.settled {
		d.layout.settle(outs)
		if w, h := float32(d.layout.Size.Width), float32(d.layout.Size.Height); d.layout.fractions {
			d.unit = Box{w, h, w, h}
		}
	}
	d.layout.finishedBoxes(outs, func(b Box, score, class float32) {
		c := int(class)
		switch {
		case score != score || class != class:
			d.seen.broken++
			return
		case score <= 0: // a row that stands for no object
			return
		case c < 0 || c >= len(d.filter.Scores):
			if score >= d.lowest {
				d.seen.beyond = max(d.seen.beyond, c, 1)
			}
			return
		}
		d.add(c, score, func() Box {
			return Box{b[0] * d.unit[0], b[1] * d.unit[1], b[2] * d.unit[2], b[3] * d.unit[3]}
		})
	})
}

func (d *Decoder) add(class int, score float32, box func() Box) {
	if score > d.seen.Best {
		d.seen.Best, d.seen.Class = score, class
	}
	if !(score >= d.filter.Scores[class]) {
		if score != score {
			d.seen.broken++
		}
		return
	}
	if score > 1+scoreSlack {
		d.seen.over = max(d.seen.over, score)
	}
	b := box()
	for _, v := range b {
		if !(v > -1e6 && v < 1e6) {
			d.seen.broken++
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
		return float32(min(max((float64(v)-float64(l.x))/l.scaleX, 0), float64(l.size.Width)))
	}
	y := func(v float32) float32 {
		return float32(min(max((float64(v)-float64(l.y))/l.scaleY, 0), float64(l.size.Height)))
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
