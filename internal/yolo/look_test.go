package yolo

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/perch-edge/perch/pkg/pixel"
)

// rowsOf is an output of a row [x y w h object class] for each cell of a 96x64 input.
func rowsOf(object float32, box func(i int) [4]float32) []float32 {
	var out []float32
	for i := range 126 {
		b := box(i)
		out = append(out, b[0], b[1], b[2], b[3], object, 0.1)
	}
	return out
}

func TestLookTellsWhatResemblesYOLOX(t *testing.T) {
	l := Layout{Family: YOLOX, Size: pixel.Size{Width: 96, Height: 64}}
	pixels := func(i int) [4]float32 { // all over the picture
		l.rows = 126
		x, y, s := l.cell(i)
		return [4]float32{(x + 0.5) * s, (y + 0.5) * s, 20, 30}
	}
	fractions := func(i int) [4]float32 {
		b := pixels(i)
		return [4]float32{b[0] / 96, b[1] / 64, b[2] / 96, b[3] / 64}
	}
	offsets := func(i int) [4]float32 { return [4]float32{0.4, 0.6, -0.7, 1.1} }
	for name, tt := range map[string]struct {
		family    Family
		out       []float32
		input     string // names of input and output
		output    string
		told      bool
		want      Family // empty where it has to be told
		form      form
		fractions bool
	}{
		"offsets":                     {Auto, rowsOf(0.01, offsets), "in", "out", false, YOLOX, gridRows, false},
		"object 1":                    {Auto, rowsOf(1, pixels), "images", "output", false, YOLOv6, objectRows, false},
		"object 1, parts":             {Auto, rowsOf(1, fractions), "images", "outputs", false, YOLOv6, objectRows, true},
		"decoded, YOLOX's names":      {Auto, rowsOf(0.01, pixels), "images", "output", false, YOLOX, objectRows, false},
		"decoded, other names":        {Auto, rowsOf(0.01, pixels), "images", "outputs", false, "", 0, false},
		"decoded, parts, other names": {Auto, rowsOf(0.01, fractions), "images", "outputs", false, "", 0, false},
		"decoded, told by keys":       {Auto, rowsOf(0.01, pixels), "images", "outputs", true, YOLOX, objectRows, false},
		"decoded, told v6":            {YOLOv6, rowsOf(0.01, pixels), "images", "outputs", false, YOLOv6, objectRows, false},
		"decoded, told x":             {YOLOX, rowsOf(1, pixels), "images", "outputs", false, YOLOX, objectRows, false},
	} {
		m := Model{Size: l.Size, Input: tt.input, Told: tt.told, Names: 1, Outputs: []Tensor{{Name: tt.output, Shape: []int64{1, 126, 6}}}}
		got, err := Recognise(tt.family, m)
		if err == nil {
			err = got.Look([][]float32{tt.out})
		}
		if tt.want == "" {
			if !errors.Is(err, ErrTell) {
				t.Errorf("%s: Look() = %v, %+v; want that it has to be told", name, err, got)
			}
			continue
		}
		if err != nil || got.Family != tt.want || got.form != tt.form || got.fractions != tt.fractions {
			t.Errorf("%s: Look() = %v, %+v; want %s, form %d, fractions %v", name, err, got, tt.want, tt.form, tt.fractions)
		}
	}
}

func TestLookRefuses(t *testing.T) {
	m := Model{Size: pixel.Size{Width: 96, Height: 64}, Names: 1, Outputs: []Tensor{{Name: "output0", Shape: []int64{1, 5, 126}}}}
	for _, tt := range []struct {
		score float32
		want  string
	}{{-3, "logits"}, {1.5, "logits"}, {float32(math.NaN()), "are not numbers"}, {float32(math.Inf(1)), "are not numbers"}} {
		l, err := Recognise(Auto, m)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]float32, 5*126)
		out[4*126+7] = tt.score
		if err := l.Look([][]float32{out}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Look(a score of %g) = %v; want an error with %q", tt.score, err, tt.want)
		}
		if err := l.Look([][]float32{out[1:]}); err == nil {
			t.Error("Look(a short output) = nil; want an error")
		}
	}
}

// What the network's own suppression left is read in either unit, also when the
// first pictures have nothing in them.
func TestFinishedObjects(t *testing.T) {
	frame := pixel.Size{Width: 192, Height: 128} // twice the input
	want := Object{1, 0.9, Box{20, 40, 60, 80}}
	for unit, row := range map[string][]float32{"pixels": {10, 20, 30, 40, 0.9, 1}, "parts": {10. / 96, 20. / 64, 30. / 96, 40. / 64, 0.9, 1}} {
		m := Model{Size: pixel.Size{Width: 96, Height: 64}, Outputs: []Tensor{{Name: "o", Shape: []int64{1, 300, 6}}}, Meta: map[string]string{"end2end": "True"}}
		l, err := Recognise(Auto, m)
		if err != nil {
			t.Fatal(err)
		}
		empty, full := make([]float32, 300*6), make([]float32, 300*6)
		copy(full, row)
		if err := l.Look([][]float32{empty}); err != nil {
			t.Fatal(err)
		}
		f := Filter{Scores: []float32{0.3, 0.3}, NMS: 0.45}
		if got := decode(t, l, f, frame, empty); len(got) > 0 {
			t.Errorf("%s: Decode(nothing) = %v", unit, got)
		}
		if got := decode(t, l, f, frame, full); !slices.EqualFunc(got, []Object{want}, func(a, b Object) bool { return a.Class == b.Class && a.Box.IoU(b.Box) > 0.99 }) {
			t.Errorf("%s: Decode() = %v; want %v", unit, got, want)
		}
	}
}

func TestSeen(t *testing.T) {
	m := Model{Size: pixel.Size{Width: 96, Height: 64}, Names: 2, Outputs: []Tensor{{Name: "o", Shape: []int64{1, 300, 6}}}, Meta: map[string]string{"nms": "True"}}
	l, err := Recognise(Auto, m)
	if err != nil {
		t.Fatal(err)
	}
	nan := float32(math.NaN())
	for want, row := range map[string][]float32{
		"":                    {10, 20, 30, 40, 0.9, 1},
		"class 7":             {10, 20, 30, 40, 0.9, 7},
		"scores up to 3":      {10, 20, 30, 40, 3, 1},
		"1 scores or boxes":   {10, 20, 30, 40, nan, 1},
		"1 scores or boxes t": {nan, 20, 30, 40, 0.9, 1},
	} {
		d, err := NewDecoder(l, Filter{Scores: []float32{0.3, 0.3}})
		if err != nil {
			t.Fatal(err)
		}
		box, err := NewLetterbox(pixel.RGB24, l.Size, pixel.Colour{}, l.Input(), make([]float32, 3*96*64))
		if err != nil {
			t.Fatal(err)
		}
		out := make([]float32, 300*6)
		copy(out, row)
		if _, err := d.Decode([][]float32{out}, box); err != nil {
			t.Fatal(err)
		}
		if err := d.Seen().Err(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Seen().Err() of %v = %v; want %q", row, err, want)
		}
		if want == "" && (d.Seen().Best != 0.9 || d.Seen().Class != 1) {
			t.Errorf("Seen() of %v = %+v; want 0.9 of class 1", row, d.Seen())
		}
	}
}

// A stretched picture fills the input, whatever its shape.
func TestStretched(t *testing.T) {
	in := RTDETR.input(pixel.Size{Width: 64, Height: 64})
	got := fill(t, flat(t, 76, 85, 255), pixel.Colour{Range: pixel.Full, Matrix: pixel.BT601}, in) // red, 64x32
	for _, at := range []int{0, 63, 32*64 + 20, 64*64 - 1} {
		if got[at] < 0.98 || got[2*64*64+at] != 0 {
			t.Errorf("pixel %d: red %g, blue %g; want 1, 0: the picture everywhere", at, got[at], got[2*64*64+at])
		}
	}
}
