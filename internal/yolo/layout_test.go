package yolo

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/pixel"
)

func TestInputSize(t *testing.T) {
	none := pixel.Size{}
	sized := map[string]string{"imgsz": "[320, 416]"}
	for _, tt := range []struct {
		shape []int64
		meta  map[string]string
		want  pixel.Size
		got   string // a part of the error, or the size
	}{
		{[]int64{1, 3, 416, 416}, nil, none, "416x416"},
		{[]int64{1, 3, 416, 416}, sized, none, "416x416"},
		{[]int64{-1, 3, -1, -1}, nil, none, "640x640"},
		{[]int64{-1, 3, -1, -1}, sized, none, "416x320"},
		{[]int64{1, 3, -1, -1}, sized, pixel.Size{Width: 960, Height: 544}, "960x544"},
		{[]int64{1, 3, -1, -1}, map[string]string{"imgsz": "[huge]"}, none, "640x640"},
		{[]int64{1, 3, 416, 416}, nil, pixel.Size{Width: 640, Height: 640}, "takes no other size"},
		{[]int64{1, 3, 417, 416}, nil, none, "multiples of 32"},
		{[]int64{1, 3, 1 << 40, 416}, nil, none, "multiples of 32"},
		{[]int64{-1, -1, -1, -1}, sized, none, "416x320"},
		{[]int64{1, 416, 416, 3}, nil, none, "want [1 3 height width]"},
		{[]int64{8, 3, 416, 416}, nil, none, "export with batch=1"},
		{[]int64{1, 1, 416, 416}, nil, none, "grey pictures"},
		{[]int64{1, 4, 416, 416}, nil, none, "four channels"},
		{[]int64{1, 3}, nil, none, "want [1 3 height width]"},
	} {
		s, err := InputSize(tt.shape, tt.meta, tt.want)
		if err == nil && s.String() != tt.got || err != nil && !strings.Contains(err.Error(), tt.got) {
			t.Errorf("InputSize(%v, %v, %s) = %s, %v; want %s", tt.shape, tt.meta, tt.want, s, err, tt.got)
		}
	}
}

// model has outputs of these shapes, and nothing else that is known.
func model(size pixel.Size, shapes [][]int64, meta map[string]string) Model {
	m := Model{Size: size, Meta: meta}
	for i, s := range shapes {
		m.Outputs = append(m.Outputs, Tensor{Name: fmt.Sprintf("output%d", i), Shape: s})
	}
	return m
}

func TestRecogniseRefuses(t *testing.T) {
	size := pixel.Size{Width: 416, Height: 416}
	x := [][]int64{{1, 3549, 85}}
	for _, tt := range []struct {
		family  Family
		outputs [][]int64
		meta    map[string]string
		want    string
	}{
		{Auto, [][]int64{{1, 1000, 1000}, {1, 5}}, nil, "want [1 3549 5+classes] (yolox, yolov6), [1 10647 5+classes] (yolov5), [1 4+classes 3549] (yolov8), [1 n 6] (end2end) or [1 300 4+classes] (rtdetr)"},
		{Auto, [][]int64{{1, 1000}}, nil, "a classification model"},
		{Auto, [][]int64{{1, 3549, 4}}, nil, "YOLO-NAS"},
		{Auto, [][]int64{{1, 3549, 1 << 40}}, nil, "of shape [[1 3549 1099511627776]]"},
		{Auto, [][]int64{{2, 3549, 85}}, nil, "export with batch=1"},
		{YOLOv5, x, nil, "as family yolov5"},
		{Auto, [][]int64{{1, 3, 52, 52, 85}, {1, 3, 26, 26, 85}, {1, 3, 13, 13, 85}}, nil, "export without --train"},
		{Auto, [][]int64{{1, 255, 52, 52}, {1, 255, 26, 26}, {1, 255, 13, 13}}, nil, "feature maps"},
		{Auto, [][]int64{{50, 6}}, nil, "PaddleDetection"},
		{Auto, [][]int64{{1, 116, 3549}, {1, 32, 104, 104}}, nil, "a segmentation model"},
		{Auto, [][]int64{{1, 56, 3549}}, map[string]string{"names": "{0: 'person'}"}, "a pose model"},
		{Auto, [][]int64{{1, 56, 3549}}, map[string]string{"kpt_shape": "[17, 3]"}, "a pose model"},
		{Auto, [][]int64{{1, 56, 3549}}, nil, "a pose model"},
		{Auto, [][]int64{{1, 7, 3549}}, map[string]string{"names": "{0: 'ship', 1: 'plane'}"}, "a model of rotated boxes"},
		{Auto, x, map[string]string{"task": "segment"}, "a segmentation model"},
		{Auto, x, map[string]string{"task": "pose"}, "a pose model"},
		{Auto, x, map[string]string{"task": "obb"}, "a model of rotated boxes (OBB)"},
		{Auto, x, map[string]string{"task": "classify"}, "a classification model"},
		{Auto, x, map[string]string{"task": "dream"}, `task is "dream": want detect`},
	} {
		if l, err := Recognise(tt.family, model(size, tt.outputs, tt.meta)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Recognise(%s, %v, %v) = %+v, %v; want an error with %q", tt.family, tt.outputs, tt.meta, l, err, tt.want)
		}
	}
}

func TestLabels(t *testing.T) {
	if n := len(COCO()); n != 80 {
		t.Errorf("COCO() has %d labels; want 80", n)
	}
	own := map[string]string{"names": "{0: 'cat', 1: \"dog's\"}"}
	for _, tt := range []struct {
		given   []string
		meta    map[string]string
		classes int
		want    string // labels, or a part of the error
	}{
		{[]string{"a", "b"}, own, 2, "a b"},
		{nil, own, 2, "cat dog's"},
		{nil, nil, 80, strings.Join(COCO(), " ")},
		{nil, nil, 2, "the model has 2 classes and no names for them: give labels"},
		{[]string{"a"}, nil, 2, "labels: 1: want one for each of the model's 2 classes"},
		{nil, own, 80, "the model's own names: 2: want one for each"},
		{nil, map[string]string{"names": "cat"}, 1, "want {0: 'name'"},
		{nil, map[string]string{"names": "{1: 'cat'}"}, 1, "count from 1"},
		{nil, map[string]string{"names": "{0: 'cat', 2: ''}"}, 3, "cat class 1 class 2"},
		{nil, map[string]string{"names": "{0: 'a\\nb" + strings.Repeat("\u72d0", 30) + "'}"}, 1, "a b" + strings.Repeat("\u72d0", 20)},
		{nil, own, 0, "cat dog's"},
		{nil, nil, 0, `labels = "coco"`},
		{[]string{"a", ""}, nil, 2, "class 1 is \"\": want 1 to 64 bytes"},
		{[]string{"a", strings.Repeat("b", 65)}, nil, 2, "want 1 to 64 bytes"},
	} {
		got, err := Labels(tt.given, tt.meta, tt.classes)
		if err == nil && strings.Join(got, " ") != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Labels(%v, %v, %d) = %v, %v; want %s", tt.given, tt.meta, tt.classes, got, err, tt.want)
		}
	}
}

func TestParseNames(t *testing.T) {
	got, err := ParseNames(`{0: 'a', 1: "b, 2: 'c'}", 2:'it\'s' }`)
	if want := []string{"a", "b, 2: 'c'}", "it's"}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("ParseNames() = %q, %v; want %q", got, err, want)
	}
	for text, want := range map[string][]string{
		`['a', "b's"]`:                         {"a", "b's"},
		`["a","b"]`:                            {"a", "b"},
		`{"0": "a", "1": "b"}`:                 {"a", "b"},
		`{0: 'a',}`:                            {"a"},
		"{\n  1: 'b',\n  0: 'a'\n}":            {"a", "b"},
		`{0: 'a', 2: 'c'}`:                     {"a", "", "c"},
		`{0: 'F\xfcchse \u72d0 \ud83e\udd8a'}`: {"F\u00fcchse \u72d0 \U0001f98a"},
		`{0: 'F\u00fcchse 狐'}`:                 {"Füchse 狐"},
	} {
		if got, err := ParseNames(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("ParseNames(%s) = %q, %v; want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "{", "{}", "[]", "[a]", "['a' 'b']", "{-1: 'a'}", "{9999: 'a'}", "{0: 'a', 0: 'b'}", "{0: 'a'", "{0: 'a'} x", "{0: a}", `{0: 'a\`, "{0: 'a',"} {
		if got, err := ParseNames(bad); err == nil {
			t.Errorf("ParseNames(%q) = %q; want an error", bad, got)
		}
	}
}

func FuzzParseNames(f *testing.F) {
	f.Add(`{0: 'a', 1: "b"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if names, err := ParseNames(text); err == nil && (len(names) == 0 || len(names) > 2*len(text)+100) {
			t.Errorf("ParseNames(%q) = %q; want some names, or an error", text, names)
		}
	})
}
