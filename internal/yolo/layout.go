package yolo

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/perch-edge/perch/pkg/pixel"
)

// Family is how a network's tensors are laid out; the zero value is Auto.
type Family string

// The families.
const (
	Auto     Family = "auto"
	YOLOX    Family = "yolox"
	YOLOv5   Family = "yolov5"  // also v3, v7, and MegaDetector v5
	YOLOv6   Family = "yolov6"  // also others whose boxes are decoded and that want R G B from 0 to 1
	YOLOv8   Family = "yolov8"  // also v9, v11, v12
	EndToEnd Family = "end2end" // suppression in the network: v10, v26, exports with nms=True or --end2end
	RTDETR   Family = "rtdetr"  // also D-FINE and DEIM
)

func families() []Family {
	return []Family{Auto, YOLOX, YOLOv5, YOLOv6, YOLOv8, EndToEnd, RTDETR}
}

// UnmarshalText makes a Family a value of a topology.
func (f *Family) UnmarshalText(text []byte) error {
	if !slices.Contains(families(), Family(text)) {
		return fmt.Errorf("family %.20q: want auto, yolox, yolov5 (also v3, v7), yolov6, yolov8 (also v9, v11, v12), end2end (v10, v26, nms=True) or rtdetr", text)
	}
	*f = Family(text)
	return nil
}

// input is how the family wants its pictures.
func (f Family) input(s pixel.Size) Input {
	switch f {
	case YOLOX:
		return Input{Size: s, BGR: true, Scale: 1}
	case RTDETR:
		return Input{Size: s, Scale: 1.0 / 255, Stretched: true}
	}
	return Input{Size: s, Scale: 1.0 / 255, Centred: true}
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
	if err := picture(shape); err != nil {
		return pixel.Size{}, fmt.Errorf("input of shape %v: %w", shape, err)
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

// picture checks that an input is one picture of three colours. A side that the
// model leaves open is -1.
func picture(shape []int64) error {
	switch {
	case len(shape) != 4:
	case shape[0] > 1:
		return fmt.Errorf("%d pictures at once: export with batch=1", shape[0])
	case shape[1] == 1:
		return errors.New("grey pictures: want a model that takes colours, [1 3 height width]")
	case shape[1] == 4:
		return errors.New("four channels: want a model that takes red, green and blue, [1 3 height width]")
	case shape[1] == 3 || shape[1] < 0 && shape[3] != 3:
		return nil
	}
	return errors.New("want [1 3 height width], one picture of three colours")
}

// LastChannels says whether a network wants the three colours of a pixel beside
// each other, [1 height width 3], as TensorFlow has them, and returns the shape as
// other networks have it.
func LastChannels(shape []int64) (planar []int64, last bool) {
	if len(shape) != 4 || shape[3] != 3 || shape[1] == 3 {
		return shape, false
	}
	return []int64{shape[0], 3, shape[1], shape[2]}, true
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

// Shape is the input's.
func Shape(s pixel.Size) []int64 { return []int64{1, 3, int64(s.Height), int64(s.Width)} }
