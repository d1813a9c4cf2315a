package yolo

import (
	"errors"
	"fmt"
	"math"
)

// scoreSlack is how far a score may be outside of 0 to 1: of float16 and of whole
// numbers' networks that much is rounding.
const scoreSlack = 0.02

// ErrTell is the reason why a network is refused that others resemble.
var ErrTell = errors.New(`boxes that are decoded, with an object score: YOLOX exports them so with --decode_in_inference (blue first, 0 to 255, at the top left), and so do networks that want pictures otherwise: set family = "yolox", or family = "yolov6" (red first, 0 to 1, in the middle), or scale, order and place`)

// Probe draws a picture of coloured squares on grey into a network's input, whose
// grey has the value of 114 and white that of 255 times scale. Networks show on it
// what their outputs are like: on a picture of zeros some show nothing.
func Probe(in Input, dst []float32) {
	w, h := in.Size.Width, in.Size.Height
	n := w * h
	for i := range dst {
		dst[i] = grey * in.Scale
	}
	squares := [4][3]float32{{0, 0, 255}, {0, 255, 0}, {255, 255, 0}, {255, 0, 255}}
	side := min(w, h) / 8
	for i, colour := range squares {
		x0, y0 := (1+2*(i%2))*w/4-side/2, (1+2*(i/2))*h/4-side/2
		for c, v := range colour {
			for y := y0; y < y0+side; y++ {
				for x := x0; x < x0+side; x++ {
					dst[c*n+y*w+x] = v * in.Scale
				}
			}
		}
	}
}

// Look settles by the outputs for Probe's picture what shapes do not tell: whether
// boxes are decoded, in which unit they are, and whether what resembles YOLOX is
// one. It fails where values show that the network is no use as it was exported:
// scores that are no numbers, or not 0 to 1.
func (l *Layout) Look(outs [][]float32) error {
	if err := l.checkLengths(outs); err != nil {
		return fmt.Errorf("look at output: %w", err)
	}
	if l.form == finishedRows || l.form == batchedRows || l.form == apart {
		l.settle(outs)
		return l.checkBatch(outs[0])
	}
	if err := l.checkScores(outs); err != nil {
		return err
	}
	switch {
	case l.form == objectRows && (l.Family == YOLOX || l.Family == YOLOv6):
		if err := l.tellYOLOX(outs[0]); err != nil {
			return err
		}
	case l.Family == RTDETR && l.form == classRows && !l.settled:
		return l.tellDETR(outs)
	}
	if l.form != gridRows && !l.settled {
		l.fractions, l.settled = l.inFractions(outs[0]), true
	}
	return nil
}

// tellDETR tells an output [1 300 6] of RT-DETR, of two classes, from one of
// finished objects, whose last number is a class.
func (l *Layout) tellDETR(outs [][]float32) error {
	l.settled = true
	for i := 0; i < len(outs[0]); i += 6 {
		row := outs[0][i : i+6]
		if row[5] != float32(int(row[5])) && max(row[0], row[1], row[2], row[3]) <= 2 {
			return nil
		}
	}
	*l = Layout{Family: EndToEnd, Size: l.Size, Outputs: l.Outputs, form: finishedRows}
	l.settle(outs)
	return nil
}

// checkBatch refuses a row of 7 classes' scores, which looks like an object's.
func (l *Layout) checkBatch(out []float32) error {
	if l.form == batchedRows && len(out) > 0 && (out[0] != 0 || out[5] != float32(int(out[5]))) {
		return errors.New("a row of 7 numbers that is no object: a classification model: want one that detects objects")
	}
	return nil
}

// tellYOLOX tells what has a row [x y w h object classes] a cell.
func (l *Layout) tellYOLOX(out []float32) error {
	ones, farthest, least := true, float32(0), float32(0)
	row := 5 + l.Classes
	for i := 0; i < len(out); i += row {
		ones = ones && out[i+4] == 1
		farthest = max(farthest, out[i], out[i+1])
		least = min(least, out[i+2], out[i+3])
	}
	decoded := ones || farthest > float32(max(l.Size.Width, l.Size.Height)/2) || least >= 0 && l.spread(out)
	switch {
	case !decoded && l.Family == YOLOv6:
		return errors.New("boxes that are not decoded: no yolov6; leave family out")
	case !decoded: // only YOLOX leaves that to whoever reads them
		l.form = gridRows
	case ones && !l.told: // v6 has no object score and writes 1
		l.Family = YOLOv6
	case !l.told && !l.standard:
		return ErrTell
	}
	return nil
}

// spread says whether boxes' middles go from one side of the picture to the other,
// in whatever unit: those that are not decoded are all near their cells.
func (l *Layout) spread(out []float32) bool {
	row := 5 + l.Classes
	across, down := l.Size.Width/8, l.Size.Height/8 // the finest grid, which comes first
	last := (across*down - 1) * row
	return last < len(out) && out[last]-out[0] > 0.6 && out[last+1]-out[1] > 0.6
}

// inFractions says whether no number of any box is larger than a pixel or two.
func (l *Layout) inFractions(out []float32) bool {
	largest := float32(0)
	l.boxes(out, func(x, y, w, h float32) { largest = max(largest, x, y, w, h) })
	return largest <= 2
}

// boxes calls each for all boxes of an output of rows or columns.
func (l *Layout) boxes(out []float32, each func(a, b, c, d float32)) {
	if n := l.rows; l.form == classColumns {
		for i := range n {
			each(out[i], out[n+i], out[2*n+i], out[3*n+i])
		}
		return
	}
	n := l.columns()
	for i := 0; i+n <= len(out); i += n {
		each(out[i], out[i+1], out[i+2], out[i+3])
	}
}

// checkScores refuses scores that are no numbers, or not 0 to 1.
func (l *Layout) checkScores(outs [][]float32) error {
	least, most, bad, n := float32(0), float32(0), 0, 0
	l.scores(outs, func(v float32) {
		n++
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			bad++
			return
		}
		least, most = min(least, v), max(most, v)
	})
	switch {
	case bad > 0:
		return fmt.Errorf("%d of %d scores of a test picture are not numbers: a damaged model, or one whose float16 overflows: export in float32 (half=False)", bad, n)
	case l.form == queries && (least < -scoreSlack || most > 1+scoreSlack):
		l.logits = true
	case !l.logits && (least < -scoreSlack || most > 1+scoreSlack):
		return fmt.Errorf("scores from %.3g to %.3g on a test picture: want 0 to 1: they are logits (export with the sigmoid in the network), or were rounded away by a quantisation that has one scale for boxes and scores", least, most)
	}
	return nil
}

// scores calls each for all scores.
func (l *Layout) scores(outs [][]float32, each func(float32)) {
	skip, n := 4, l.columns()
	out := outs[0]
	switch l.form {
	case classColumns:
		skip, n = 0, len(out)-4*l.rows
		out = out[4*l.rows:]
	case queries:
		skip, n, out = 0, l.Classes, outs[1]
	}
	for i := 0; n > 0 && i+n <= len(out); i += n {
		for _, v := range out[i+skip : i+n] {
			each(v)
		}
	}
}

// settle finds the unit of finished objects' boxes, once there is a box that tells.
func (l *Layout) settle(outs [][]float32) {
	largest := float32(0)
	l.finishedBoxes(outs, func(b Box, _ float32, _ float32) { largest = max(largest, b[2], b[3]) })
	switch {
	case largest > 2:
		l.fractions, l.settled = false, true
	case largest > 0:
		// It may also be a speck in the corner: only larger ones settle it.
		l.fractions = true
	}
}

// finishedBoxes calls each for the objects of a network that drops overlapping
// boxes itself.
func (l *Layout) finishedBoxes(outs [][]float32, each func(b Box, score, class float32)) {
	out := outs[0]
	switch l.form {
	case apart:
		n := l.rows
		if len(outs) > 3 { // of which only the first count
			n = min(n, max(int(outs[3][0]), 0))
		}
		for i := range n {
			each(Box(out[4*i:4*i+4]), outs[1][i], outs[2][i])
		}
	case batchedRows:
		for i := 0; i+7 <= len(out); i += 7 {
			each(Box(out[i+1:i+5]), out[i+6], out[i+5])
		}
	default:
		for i := 0; i+6 <= len(out); i += 6 {
			each(Box(out[i:i+4]), out[i+4], out[i+5])
		}
	}
}

// columns is how many numbers a row has.
func (l *Layout) columns() int {
	switch l.form {
	case gridRows, objectRows:
		return 5 + l.Classes
	case batchedRows:
		return 7
	case finishedRows:
		return 6
	case apart, queries:
		return 4
	}
	return 4 + l.Classes
}

// checkLengths refuses outputs of other lengths than the layout has.
func (l *Layout) checkLengths(outs [][]float32) error {
	want := []int{l.rows * l.columns()}
	switch l.form {
	case apart:
		want = append(want, l.rows, l.rows)
		if len(l.Outputs) > 3 {
			want = append(want, 1)
		}
	case queries:
		want = append(want, l.rows*l.Classes)
	}
	if len(outs) != len(want) {
		return fmt.Errorf("%d outputs: want %d for %s", len(outs), len(want), l.Family)
	}
	for i, out := range outs {
		if l.rows == 0 && len(out)%l.columns() != 0 || l.rows > 0 && len(out) != want[i] {
			return fmt.Errorf("output %d of %d values: want %d for %s", l.Outputs[i], len(out), want[i], l.Family)
		}
	}
	return nil
}

// Input is how the family wants its pictures.
func (l *Layout) Input() Input { return l.Family.input(l.Size) }
