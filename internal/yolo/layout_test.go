package yolo

import (
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
		{[]int64{1, 416, 416, 3}, nil, none, "want [1 3 height width]"},
		{[]int64{8, 3, 416, 416}, nil, none, "want [1 3 height width]"},
		{[]int64{1, 3}, nil, none, "want [1 3 height width]"},
	} {
		s, err := InputSize(tt.shape, tt.meta, tt.want)
		if err == nil && s.String() != tt.got || err != nil && !strings.Contains(err.Error(), tt.got) {
			t.Errorf("InputSize(%v, %v, %s) = %s, %v; want %s", tt.shape, tt.meta, tt.want, s, err, tt.got)
		}
	}
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
		{Auto, [][]int64{{1, 1000}}, nil, "want [1 3549 5+classes] (yolox), [1 10647 5+classes] (yolov5) or [1 4+classes 3549] (yolov8)"},
		{Auto, [][]int64{{1, 3549, 5}}, nil, "outputs of shape [[1 3549 5]]"},
		{Auto, [][]int64{{1, 3549, 1 << 40}}, nil, "outputs of shape"},
		{Auto, [][]int64{{2, 3549, 85}}, nil, "outputs of shape"},
		{YOLOv8, x, nil, "as family yolov8"},
		{Auto, x, map[string]string{"task": "segment"}, `task is "segment": want detect`},
	} {
		if l, err := Recognise(tt.family, size, tt.outputs, tt.meta); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Recognise(%s, %v, %v) = %+v, %v; want an error with %q", tt.family, tt.outputs, tt.meta, l, err, tt.want)
		}
	}
}

func TestLookTellsDecodedBoxes(t *testing.T) {
	l, err := Recognise(YOLOX, pixel.Size{Width: 96, Height: 64}, [][]int64{{1, 126, 8}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, 126*8)
	out[8*50] = 3 // cells
	if err := l.Look(out); err != nil || l.decoded {
		t.Errorf("Look(offsets) = %v, decoded %v; want not decoded", err, l.decoded)
	}
	out[8*50] = 88 // pixels
	if err := l.Look(out); err != nil || !l.decoded {
		t.Errorf("Look(places) = %v, decoded %v; want decoded", err, l.decoded)
	}
	if err := l.Look(out[1:]); err == nil {
		t.Error("Look(too short) = nil; want an error")
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
	for _, bad := range []string{"", "{", "{}", "['a']", "{1: 'a'}", "{0: 'a', 0: 'b'}", "{0: 'a'", "{0: 'a'} x", "{0: a}", `{0: 'a\`, "{0: 'a',"} {
		if got, err := ParseNames(bad); err == nil {
			t.Errorf("ParseNames(%q) = %q; want an error", bad, got)
		}
	}
}

func FuzzParseNames(f *testing.F) {
	f.Add(`{0: 'a', 1: "b"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if names, err := ParseNames(text); err == nil && (len(names) == 0 || len(names) > len(text)) {
			t.Errorf("ParseNames(%q) = %q; want some names, or an error", text, names)
		}
	})
}
