package yolo

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/perch-edge/perch/pkg/pixel"
)

// Family is how a network's tensors are laid out; the zero value is Auto.
type Family string

// The families.
const (
	Auto   Family = "auto"
	YOLOX  Family = "yolox"
	YOLOv5 Family = "yolov5"
	YOLOv8 Family = "yolov8"
)

// UnmarshalText makes a Family a value of a topology.
func (f *Family) UnmarshalText(text []byte) error {
	switch Family(text) {
	case Auto, YOLOX, YOLOv5, YOLOv8:
		*f = Family(text)
		return nil
	}
	return fmt.Errorf("family %.20q: want auto, yolox, yolov5 or yolov8 (which is also v9's and v11's)", text)
}

// Bounds of what a network may be. A model is a file from elsewhere.
const (
	cellSide   = 32 // the coarsest grid's
	maxSide    = 4096
	maxClasses = 10000
	usualSide  = 640
)

// InputSize is what a network's input is, from the shape that the model declares.
// Where that leaves the sides open, want counts, else the metadata, else it is
// 640x640. It fails for what no picture fits into, sides that are no multiples of
// 32, or over 4096.
func InputSize(shape []int64, meta map[string]string, want pixel.Size) (pixel.Size, error) {
	if len(shape) != 4 || shape[0] > 1 || shape[1] != 3 {
		return pixel.Size{}, fmt.Errorf("input of shape %v: want [1 3 height width], one picture of three colours", shape)
	}
	s := pixel.Size{Width: int(min(shape[3], maxSide+1)), Height: int(min(shape[2], maxSide+1))}
	if open := s.Width <= 0 || s.Height <= 0; open {
		guess := want
		if guess == (pixel.Size{}) {
			guess = noted(meta["imgsz"])
		}
		if s.Width <= 0 {
			s.Width = guess.Width
		}
		if s.Height <= 0 {
			s.Height = guess.Height
		}
	}
	if want != (pixel.Size{}) && want != s {
		return pixel.Size{}, fmt.Errorf("input of shape %v: the model takes no other size, and %s was asked for", shape, want)
	}
	for _, side := range []int{s.Width, s.Height} {
		if side < cellSide || side > maxSide || side%cellSide != 0 {
			return pixel.Size{}, fmt.Errorf("input of %s: want sides that are multiples of %d, up to %d", s, cellSide, maxSide)
		}
	}
	return s, nil
}

var imgsz = regexp.MustCompile(`^\[(\d{1,5}), (\d{1,5})\]$`)

// noted reads the size that an exporter noted, "[height, width]".
func noted(text string) pixel.Size {
	m := imgsz.FindStringSubmatch(text)
	if m == nil {
		return pixel.Size{Width: usualSide, Height: usualSide}
	}
	h, _ := strconv.Atoi(m[1]) // digits, by the expression
	w, _ := strconv.Atoi(m[2])
	return pixel.Size{Width: w, Height: h}
}

// Layout is how to read a network's output.
type Layout struct {
	Family  Family
	Size    pixel.Size // of the input
	Classes int
	Output  int // which of the network's outputs it is

	cells   int
	decoded bool // yolox: boxes are in pixels already
}

// Recognise tells the layout from the shapes of the outputs, as they are once the
// input has that size. family, unless it is Auto, is what it must be. It fails when
// no output is of a layout it knows, and when the metadata say that the network
// does something else than to find boxes.
func Recognise(family Family, size pixel.Size, outputs [][]int64, meta map[string]string) (Layout, error) {
	if task := meta["task"]; task != "" && task != "detect" {
		return Layout{}, fmt.Errorf("the model's task is %.40q: want detect", task)
	}
	for i, shape := range outputs {
		l, ok := recognise(size, shape)
		if ok && (family == Auto || family == "" || family == l.Family) {
			l.Output = i
			return l, nil
		}
	}
	n := cells(size)
	as := ""
	if family != Auto && family != "" {
		as = fmt.Sprintf(" as family %s", family)
	}
	return Layout{}, fmt.Errorf("outputs of shape %v%s: with an input of %s want [1 %d 5+classes] (yolox), [1 %d 5+classes] (yolov5) or [1 4+classes %d] (yolov8)",
		outputs, as, size, n, 3*n, n)
}

func cells(s pixel.Size) int {
	n := 0
	for _, side := range strides() {
		n += s.Width / side * (s.Height / side)
	}
	return n
}

func strides() [3]int { return [3]int{8, 16, 32} }

func recognise(size pixel.Size, shape []int64) (Layout, bool) {
	if len(shape) != 3 || shape[0] != 1 {
		return Layout{}, false
	}
	n, l := int64(cells(size)), Layout{Size: size}
	switch {
	case shape[1] == n && shape[2] > 5:
		l.Family, l.cells, l.Classes = YOLOX, int(n), int(shape[2])-5
	case shape[1] == 3*n && shape[2] > 5:
		l.Family, l.cells, l.Classes = YOLOv5, int(3*n), int(shape[2])-5
	case shape[2] == n && shape[1] > 4:
		l.Family, l.cells, l.Classes = YOLOv8, int(n), int(shape[1])-4
	}
	return l, l.Family != "" && l.Classes <= maxClasses
}

// Look settles by an output of any picture what shapes do not tell: whether a
// yolox network's boxes are decoded. Offsets from a cell are a few cells at most,
// places in the picture go all over it.
func (l *Layout) Look(out []float32) error {
	if len(out) != l.values() {
		return fmt.Errorf("look at output: %d values: want %d for %s", len(out), l.values(), l.Family)
	}
	if l.Family != YOLOX {
		return nil
	}
	farthest, row := float32(0), 5+l.Classes
	for i := 0; i < len(out); i += row {
		farthest = max(farthest, out[i], out[i+1])
	}
	l.decoded = farthest > float32(max(l.Size.Width, l.Size.Height)/2)
	return nil
}

func (l *Layout) values() int {
	if l.Family == YOLOv8 {
		return (4 + l.Classes) * l.cells
	}
	return (5 + l.Classes) * l.cells
}

// Input is how the family wants its pictures.
func (l *Layout) Input() Input {
	if l.Family == YOLOX {
		return Input{Size: l.Size, BGR: true, Scale: 1}
	}
	return Input{Size: l.Size, Scale: 1.0 / 255, Centred: true}
}

// Shape is the input's.
func Shape(s pixel.Size) []int64 { return []int64{1, 3, int64(s.Height), int64(s.Width)} }
