package yolo

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/perch-edge/perch/pkg/pixel"
)

// Tensor is one of a network's outputs.
type Tensor struct {
	Name     string
	Shape    []int64 // with an input of the model's size
	Open     bool    // the picture decides how many rows there are
	Integers bool
}

// Model is what is known of a network from its file and its first run.
type Model struct {
	Size    pixel.Size // of the input
	Input   string     // its name
	Outputs []Tensor
	Meta    map[string]string // what the exporter noted
	Names   int               // how many names the user gave the classes; 0 is none
	Told    bool              // the user set how the picture is to be given: scale, order and place
}

// form is how boxes stand in the outputs.
type form int

const (
	_            form = iota
	gridRows          // a row a cell: x, y, log w, log h in cells, object, classes
	objectRows        // a row a box: x, y, w, h, object, classes
	classRows         // a row a box: x, y, w, h, classes
	classColumns      // a column a box: x, y, w, h, classes
	finishedRows      // a row an object: x0, y0, x1, y1, score, class
	batchedRows       // a row an object: picture, x0, y0, x1, y1, class, score
	apart             // boxes, scores and classes in outputs of their own
	queries           // boxes x, y, w, h, and their class scores, in two outputs
)

// Layout is how to read a network's outputs.
type Layout struct {
	Family  Family
	Size    pixel.Size // of the input
	Classes int        // 0 where the outputs do not tell
	Outputs []int      // which of the network's outputs are read, and in which order

	form      form
	rows      int  // of boxes; 0 where each picture has another number
	fractions bool // boxes are parts of the input's sides, 0 to 1
	logits    bool // scores are to go through the logistic function
	settled   bool // fractions is known
	standard  bool // the names are those of YOLOX's own exporter
	told      bool
}

// SideInput is the value of an input beside the picture. It fails for those that
// nothing can be given to.
func SideInput(name string, size pixel.Size) ([]float32, error) {
	switch name {
	case "orig_target_sizes": // RT-DETR, D-FINE: boxes come in pixels of that size
		return []float32{float32(size.Width), float32(size.Height)}, nil
	case "im_shape", "scale_factor":
		return nil, fmt.Errorf("input %q: a PaddleDetection export, which wants pictures prepared in its own way: not supported", name)
	}
	return nil, fmt.Errorf("input %.40q: no value is known for it: export a model whose only input is the picture", name)
}

// Recognise tells the layout of a network's outputs. family, unless it is Auto, is
// what it must be. It fails when the outputs are of no layout it knows, naming what
// they seem to be and how to export the model.
func Recognise(family Family, m Model) (Layout, error) {
	if family == "" {
		family = Auto
	}
	if err := m.checkTask(); err != nil {
		return Layout{}, err
	}
	for _, find := range []func(Family, *Model) (Layout, bool){separate, single} {
		if l, ok := find(family, &m); ok {
			l.Size, l.told = m.Size, l.told || m.Told
			l.standard = m.Input == "images" && m.Outputs[l.Outputs[0]].Name == "output"
			return l, m.checkNames(l)
		}
	}
	return Layout{}, m.refuse(family)
}

// checkTask refuses networks that do something else than to find boxes.
func (m *Model) checkTask() error {
	task := m.Meta["task"]
	if task == "" && m.Meta["kpt_shape"] != "" {
		task = "pose"
	}
	for _, o := range m.Outputs { // masks' prototypes, at a quarter of the input's size
		if s := o.Shape; task == "" && len(s) == 4 && s[1] == 32 && s[2] == int64(m.Size.Height/4) && s[3] == int64(m.Size.Width/4) {
			task = "segment"
		}
	}
	what := map[string]string{"segment": "a segmentation model", "pose": "a pose model", "obb": "a model of rotated boxes (OBB)",
		"classify": "a classification model"}[task]
	switch {
	case task == "" || task == "detect":
		return nil
	case what == "":
		return fmt.Errorf("the model's task is %.40q: want detect", task)
	}
	return fmt.Errorf("%s (its task is %q): want one that detects objects, task detect", what, task)
}

// names is how many names the classes have, as far as that is known.
func (m *Model) names() int {
	if m.Names > 0 {
		return m.Names
	}
	n, err := ParseNames(m.Meta["names"])
	if err != nil {
		return 0
	}
	return len(n)
}

// checkNames refuses networks whose boxes have more numbers than names tell.
func (m *Model) checkNames(l Layout) error {
	names := m.names()
	more := l.Classes - names
	if l.form != classColumns && l.form != classRows || l.Family == RTDETR || more <= 0 || l.Classes == 0 {
		return nil
	}
	switch {
	case names == 0 && l.Classes == 52:
		return errors.New("56 numbers per box and no names: it seems to be a pose model (4, a score, and 17 points); if it is not, give labels for its 52 classes")
	case names == 0:
		return nil
	case more == 1:
		return fmt.Errorf("%d numbers per box for %d names: 4, the classes and one more: a model of rotated boxes (OBB): want one that detects objects, task detect", 4+l.Classes, names)
	case more == 32:
		return fmt.Errorf("%d numbers per box for %d names: 4, the classes and 32 more: a segmentation model: want one that detects objects, task detect", 4+l.Classes, names)
	case more == 51 || names == 1 && (more%3 == 0 || more%2 == 0):
		return fmt.Errorf("%d numbers per box for %d names: it seems to be a pose model: want one that detects objects, task detect", 4+l.Classes, names)
	}
	return nil // Labels says that they do not fit
}

// grids are the strides of the networks' outputs, finest first. A network has a
// box for each cell of all its grids, or three.
func grids() [][]int {
	return [][]int{{8, 16, 32}, {8, 16, 32, 64}, {4, 8, 16, 32}, {16, 32}}
}

func cells(s pixel.Size, strides []int) int {
	n := 0
	for _, side := range strides {
		n += s.Width / side * (s.Height / side)
	}
	return n
}

// isGrid says whether n is the number of cells of some grids, or `each` times that.
func (m *Model) isGrid(n int64, each int) bool {
	return slices.ContainsFunc(grids(), func(strides []int) bool { return n == int64(each*cells(m.Size, strides)) })
}

// suppressed says whether the exporter noted that it put the suppression in.
func (m *Model) suppressed() bool {
	args := strings.ReplaceAll(m.Meta["args"], `"`, "'")
	for _, text := range []string{m.Meta["end2end"], m.Meta["nms"]} {
		if strings.EqualFold(text, "true") {
			return true
		}
	}
	return strings.Contains(args, "'nms': True") || strings.Contains(args, "'nms': true")
}

// single finds the layout of a network that has all in one output. Further outputs,
// such as the feature maps of old YOLOv5 exports, are left alone.
func single(family Family, m *Model) (Layout, bool) {
	for i, o := range m.Outputs {
		list := m.candidates(o)
		if len(list) > 0 && list[0].Classes > 0 { // those come first that fit the names
			slices.SortStableFunc(list, func(a, b Layout) int { return m.misfit(a) - m.misfit(b) })
		}
		for _, l := range list {
			fits := family == Auto || family == l.Family || family == YOLOv6 && l.Family == YOLOX && l.form == objectRows
			unsure := family == Auto && l.Family == RTDETR && l.rows != 300 && l.Classes != m.names()
			if !fits || unsure || o.Integers || l.Classes > maxClasses {
				continue
			}
			l.Outputs = []int{i}
			if family != Auto {
				l.Family, l.told = family, true
				l.settled = l.settled || family == RTDETR
			}
			return l, true
		}
	}
	return Layout{}, false
}

func (m *Model) misfit(l Layout) int {
	own, _ := ParseNames(m.Meta["names"])
	if l.Classes == m.names() || l.Classes == len(own) || l.form == finishedRows {
		return 0
	}
	return 1
}

// candidates are the layouts that an output can have, the likeliest first.
func (m *Model) candidates(o Tensor) (list []Layout) {
	s := o.Shape
	if len(s) == 2 && s[1] == 7 && (o.Open || s[0] > 1) {
		return []Layout{{Family: EndToEnd, form: batchedRows}}
	}
	if len(s) != 3 || s[0] != 1 {
		return nil
	}
	add := func(f Family, how form, rows, classes int64) {
		if classes > 0 || how == finishedRows {
			list = append(list, Layout{Family: f, form: how, rows: int(rows), Classes: int(min(classes, maxClasses+1))})
		}
	}
	anchorFree := m.isGrid(s[1], 1)
	if s[2] == 6 && (m.suppressed() || !anchorFree && !m.isGrid(s[1], 3)) {
		if m.names() == 2 && !m.suppressed() && s[1] == 300 {
			list = append(list, Layout{Family: RTDETR, form: classRows, rows: 300, Classes: 2, fractions: true}) // Look tells it from the other
		}
		add(EndToEnd, finishedRows, 0, 0)
	}
	switch {
	case anchorFree && m.hasObjectness(s[2]):
		add(YOLOX, objectRows, s[1], s[2]-5)
		add(YOLOv8, classRows, s[1], s[2]-4)
	case anchorFree:
		add(YOLOv8, classRows, s[1], s[2]-4)
		add(YOLOX, objectRows, s[1], s[2]-5)
	case m.isGrid(s[1], 3):
		add(YOLOv5, objectRows, s[1], s[2]-5)
	}
	if m.isGrid(s[2], 1) {
		add(YOLOv8, classColumns, s[2], s[1]-4)
	}
	if !anchorFree && s[1] <= 1000 && s[2] > 4 && len(list) == 0 || s[2] == 6 && s[1] == 300 {
		list = append(list, Layout{Family: RTDETR, form: classRows, rows: int(s[1]), Classes: int(min(s[2]-4, maxClasses+1)), fractions: true, settled: true})
	}
	return list
}

// hasObjectness guesses whether rows of so many numbers have one for the object
// before those of the classes, as YOLOX and v6 have and v8 has not: by the names
// that there are, or by the 80 classes of COCO.
func (m *Model) hasObjectness(columns int64) bool {
	switch names := int64(m.names()); {
	case names > 0 && columns == 4+names:
		return false
	case names > 0 && columns == 5+names:
		return true
	case columns == 84 || columns == 5:
		return false
	case m.Meta["task"] == "detect": // only Ultralytics notes it
		return false
	}
	return true
}

// separate finds the layout of a network that has boxes, scores and classes in
// outputs of their own.
func separate(family Family, m *Model) (Layout, bool) {
	boxes := slices.IndexFunc(m.Outputs, func(o Tensor) bool {
		return len(o.Shape) == 3 && o.Shape[0] == 1 && o.Shape[2] == 4 && !o.Integers
	})
	if boxes < 0 || strings.HasPrefix(m.Outputs[boxes].Name, "detection_") {
		return Layout{}, false
	}
	n := m.Outputs[boxes].Shape[1]
	scores, classes, matrix, count := -1, -1, -1, -1
	for i, o := range m.Outputs {
		name := strings.ToLower(o.Name)
		switch s := o.Shape; {
		case i == boxes:
		case strings.HasPrefix(name, "num_"):
			count = i
		case len(s) == 2 && s[0] == 1 && s[1] == n && (o.Integers || strings.Contains(name, "class") || strings.Contains(name, "label")):
			classes = i
		case len(s) == 2 && s[0] == 1 && s[1] == n:
			scores = i
		case len(s) == 3 && s[0] == 1 && s[1] == n && s[2] > 1 && !o.Integers:
			matrix = i
		}
	}
	allowed := func(f Family) bool { return family == Auto || family == f }
	switch {
	case scores >= 0 && classes >= 0 && count >= 0 && allowed(EndToEnd):
		return Layout{Family: EndToEnd, form: apart, rows: int(n), Outputs: []int{boxes, scores, classes, count}}, true
	case scores >= 0 && classes >= 0 && count < 0 && allowed(RTDETR):
		return Layout{Family: RTDETR, form: apart, rows: int(n), Outputs: []int{boxes, scores, classes}}, true
	case matrix >= 0 && (family == RTDETR || family == Auto && n == 300 && m.Outputs[boxes].Name != "dets"):
		return Layout{Family: RTDETR, form: queries, rows: int(n), Classes: int(min(m.Outputs[matrix].Shape[2], maxClasses)), Outputs: []int{boxes, matrix},
			fractions: true, settled: true, logits: strings.Contains(m.Outputs[matrix].Name, "logits")}, true
	}
	return Layout{}, false
}

// refuse says what the outputs seem to be, and what can be done.
func (m *Model) refuse(family Family) error {
	var names []string
	var shapes [][]int64
	for _, o := range m.Outputs {
		names, shapes = append(names, o.Name), append(shapes, o.Shape)
	}
	has := func(name string) bool { return slices.Contains(names, name) }
	as := ""
	if family != Auto {
		as = fmt.Sprintf(" as family %s", family)
	}
	text := fmt.Sprintf("outputs %s of shape %v%s", strings.Join(names, ", "), shapes, as)
	rank := func(n int) bool {
		return !slices.ContainsFunc(shapes, func(s []int64) bool { return len(s) != n })
	}
	grid := slices.ContainsFunc(shapes, func(s []int64) bool { return len(s) == 3 && s[0] == 1 && s[2] == 4 && m.isGrid(s[1], 1) })
	switch {
	case has("detection_boxes"):
		return fmt.Errorf("%s: a model of TensorFlow's object detection: not supported", text)
	case has("dets") && has("labels"):
		return fmt.Errorf("%s: an RF-DETR model or one of MMDetection, which want pictures prepared in their own way: not supported", text)
	case has("pred_boxes"):
		return fmt.Errorf("%s: a DETR of Hugging Face; if it is an RT-DETR, set family = \"rtdetr\"; others are not supported", text)
	case grid:
		return fmt.Errorf("%s: separate outputs for boxes and scores, as YOLO-NAS and PP-YOLOE have them: not supported; export with the suppression in the network (one output [1 n 6])", text)
	case len(shapes) == 1 && rank(2) && shapes[0][1] == 6:
		return fmt.Errorf("%s: a PaddleDetection export: not supported", text)
	case rank(2) && len(shapes) == 1:
		return fmt.Errorf("%s: one number per class and no boxes: a classification model: want one that detects objects", text)
	case rank(5), rank(4) && len(shapes) > 1:
		return fmt.Errorf("%s: feature maps whose boxes are not decoded: export without --train (YOLOv5), with --grid (YOLOv7)", text)
	case slices.ContainsFunc(shapes, func(s []int64) bool { return len(s) > 1 && s[0] > 1 }):
		return fmt.Errorf("%s: more than one picture at once: export with batch=1", text)
	}
	n := cells(m.Size, grids()[0])
	return fmt.Errorf("%s: with an input of %s want [1 %d 5+classes] (yolox, yolov6), [1 %d 5+classes] (yolov5), [1 4+classes %d] (yolov8), [1 n 6] (end2end) or [1 300 4+classes] (rtdetr)",
		text, m.Size, n, 3*n, n)
}
