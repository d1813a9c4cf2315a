package yolo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/perch-edge/perch/pkg/pixel"
)

// outputOf makes an output of a family with boxes of 40 x 20 around places, each
// with a class and a score, from how the family's exporter would have it.
func outputOf(t *testing.T, l Layout, boxes ...Object) []float32 {
	t.Helper()
	out := make([]float32, l.rows*l.columns())
	for i, o := range boxes {
		x, y, w, h := (o.Box[0]+o.Box[2])/2, (o.Box[1]+o.Box[3])/2, o.Box[2]-o.Box[0], o.Box[3]-o.Box[1]
		cell := 10 * i
		if l.fractions {
			x, y, w, h = x/float32(l.Size.Width), y/float32(l.Size.Height), w/float32(l.Size.Width), h/float32(l.Size.Height)
		}
		if l.form == classColumns {
			for j, v := range []float32{x, y, w, h} {
				out[j*l.rows+cell] = v
			}
			out[(4+o.Class)*l.rows+cell] = o.Score
			continue
		}
		if l.form == classRows {
			row := out[cell*(4+l.Classes):]
			copy(row, []float32{x, y, w, h})
			row[4+o.Class] = o.Score
			continue
		}
		row := out[cell*(5+l.Classes):]
		if l.form == gridRows {
			cx, cy, s := l.cell(cell)
			x, y = x/s-cx, y/s-cy
			w, h = float32(math.Log(float64(w/s))), float32(math.Log(float64(h/s)))
		}
		copy(row, []float32{x, y, w, h, 0.5})
		row[5+o.Class] = o.Score * 2
	}
	return out
}

func layouts(t *testing.T) []Layout {
	t.Helper()
	size := pixel.Size{Width: 96, Height: 64}
	n := int64(8*12 + 4*6 + 2*3)
	var list []Layout
	for family, shape := range map[Family][]int64{YOLOX: {1, n, 5 + 3}, YOLOv5: {1, 3 * n, 5 + 3}, YOLOv8: {1, 4 + 3, n}, RTDETR: {1, 300, 4 + 3}} {
		m := model(size, [][]int64{{1, 7, 9, 9}, shape}, map[string]string{"names": "['a', 'b', 'c']"})
		l, err := Recognise(Auto, m)
		if err != nil || l.Family != family || l.Classes != 3 || !slices.Equal(l.Outputs, []int{1}) {
			t.Fatalf("Recognise(%v) = %+v, %v; want %s of 3 classes", shape, l, err, family)
		}
		list = append(list, l)
		if family == YOLOX {
			l.form = gridRows
			list = append(list, l)
		}
		if family == YOLOv8 {
			l.fractions = true
			list = append(list, l)
			l.form = classRows
			list = append(list, l)
		}
	}
	return list
}

func decode(t *testing.T, l Layout, f Filter, frame pixel.Size, out []float32) []Object {
	t.Helper()
	in := l.Input()
	box, err := NewLetterbox(pixel.YUV420, frame, pixel.Colour{}, in, make([]float32, 3*in.Size.Width*in.Size.Height))
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(l, f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Decode([][]float32{out}, box)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(got)
}

func TestDecode(t *testing.T) {
	nan := float32(math.NaN())
	for _, l := range layouts(t) {
		in := []Object{
			{0, 0.40, Box{10, 10, 50, 30}},
			{0, 0.45, Box{12, 10, 52, 30}},  // overlaps the one before, and is better
			{1, 0.30, Box{12, 11, 52, 31}},  // overlaps both, and is another class
			{2, 0.45, Box{60, 20, 70, 40}},  // under its class's threshold
			{1, 0.35, Box{60, 40, 100, 60}}, // cut at the edge
			{0, 0.35, Box{nan, 1, 3, 4}},
			{1, nan, Box{1, 1, 3, 4}},
			{0, 0.36, Box{20, 40, 23, 43}}, // too small
			{0, 0.36, Box{70, 4, 90, 12}},  // masked
		}
		f := Filter{Scores: []float32{0.25, 0.25, 0.48}, NMS: 0.45, MinWidth: 8, MinHeight: 5,
			Mask: Mask{{{0.7, 0}, {1, 0}, {1, 0.2}, {0.7, 0.2}}}}
		frame := pixel.Size{Width: 192, Height: 128} // twice the input
		want := []Object{{0, 0.45, Box{24, 20, 104, 60}}, {1, 0.35, Box{120, 80, 192, 120}}, {1, 0.30, Box{24, 22, 104, 62}}}
		got := decode(t, l, f, frame, outputOf(t, l, in...))
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 0.01)); diff != "" {
			t.Errorf("%s, form %v: Decode() (-want +got):\n%s", l.Family, l.form, diff)
		}
	}
}

// Boxes come back to where they were in the frame, whatever the frame's shape.
func TestBoxesComeBack(t *testing.T) {
	for _, l := range layouts(t) {
		for _, text := range []string{"640x480", "480x640", "1920x1080", "64x64", "16384x16"} {
			frame, _ := pixel.ParseSize(text)
			in := l.Input()
			box, err := NewLetterbox(pixel.RGB24, frame, pixel.Colour{}, in, make([]float32, 3*in.Size.Width*in.Size.Height))
			if err != nil {
				t.Fatal(err)
			}
			w, h := float32(frame.Width), float32(frame.Height)
			want := Box{w / 4, h / 4, w * 3 / 4, h / 2}
			sx, sy := float32(box.scaleX), float32(box.scaleY)
			x, y := float32(box.x), float32(box.y)
			inside := Box{want[0]*sx + x, want[1]*sy + y, want[2]*sx + x, want[3]*sy + y}
			got := decode(t, l, Filter{Scores: []float32{0.1, 0.1, 0.1}, NMS: 0.5}, frame, outputOf(t, l, Object{2, 0.4, inside}))
			if len(got) != 1 || got[0].Class != 2 || got[0].Box.IoU(want) < 0.99 {
				t.Errorf("%s, %s: Decode() = %v; want %v", l.Family, text, got, want)
			}
		}
	}
}

func TestDecodeRefusesAnotherLength(t *testing.T) {
	for _, l := range layouts(t) {
		d, err := NewDecoder(l, Filter{Scores: make([]float32, 3)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Decode([][]float32{make([]float32, 7)}, nil); err == nil {
			t.Errorf("%s: Decode(7 values) = nil; want an error", l.Family)
		}
		if _, err := NewDecoder(l, Filter{Scores: make([]float32, 2)}); err == nil {
			t.Errorf("%s: NewDecoder(2 least scores for 3 classes) = nil; want an error", l.Family)
		}
	}
}

// A network may say anything: what is returned keeps its promises.
func FuzzDecode(f *testing.F) {
	f.Add(uint64(1), uint8(0))
	f.Fuzz(func(t *testing.T, seed uint64, which uint8) {
		all := layouts(t)
		slices.SortFunc(all, func(a, b Layout) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		l := all[int(which)%len(all)]
		r := rand.New(rand.NewPCG(seed, 1))
		out := make([]float32, l.rows*l.columns())
		for i := range out {
			if out[i] = math.Float32frombits(r.Uint32()); r.IntN(2) == 0 {
				out[i] = r.Float32() * 100
			}
		}
		frame := pixel.Size{Width: 640, Height: 480}
		got := decode(t, l, Filter{Scores: []float32{0.1, 0.2, 0.3}, NMS: 0.5}, frame, out)
		if len(got) > MaxObjects {
			t.Errorf("Decode() = %d objects; want %d at most", len(got), MaxObjects)
		}
		for i, o := range got {
			b := o.Box
			if !(o.Score > 0 && o.Score <= 1) || o.Class < 0 || o.Class > 2 || !(b[0] >= 0 && b[0] < b[2] && b[2] <= 640 && b[1] >= 0 && b[1] < b[3] && b[3] <= 480) {
				t.Errorf("object %d = %v; want a score of 0 to 1 and a box within the frame", i, o)
			}
			if i > 0 && got[i-1].Score < o.Score {
				t.Errorf("object %d is better than the one before", i)
			}
		}
	})
}

func TestPolygonContains(t *testing.T) {
	var l Polygon // an L, whose corner is at the top left
	if err := l.UnmarshalTOML([]any{[]any{int64(0), int64(0)}, []any{1.0, 0.0}, []any{1.0, 0.5}, []any{0.5, 0.5}, []any{0.5, 1.0}, []any{0.0, 1.0}}); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[[2]float64]bool{{0.25, 0.25}: true, {0.75, 0.25}: true, {0.25, 0.75}: true, {0.75, 0.75}: false, {-0.1, 0.5}: false} {
		if got := l.Contains(p[0], p[1]); got != want {
			t.Errorf("Contains(%v) = %v; want %v", p, got, want)
		}
	}
	var m Mask
	if err := m.UnmarshalTOML([]any{[]any{[]any{0.0, 0.0}, []any{0.5, 0.0}, []any{0.0, 0.5}}}); err != nil || !m.Covers(0.1, 0.1) || m.Covers(0.9, 0.9) {
		t.Errorf("Mask.UnmarshalTOML() = %v, %v; want one triangle at the top left", m, err)
	}
	for _, bad := range []any{"all", []any{"all"}} {
		if err := m.UnmarshalTOML(bad); err == nil {
			t.Errorf("Mask.UnmarshalTOML(%v) = nil; want an error", bad)
		}
	}
	for _, bad := range []any{"all", []any{}, []any{1.0, 2.0, 3.0}, []any{[]any{0.0, 0.0}, []any{1.0, 1.0}, []any{0.0, 1.5}}, []any{[]any{0.0, "a"}, []any{1.0, 1.0}, []any{0.0, 1.0}}} {
		if err := new(Polygon).UnmarshalTOML(bad); err == nil {
			t.Errorf("UnmarshalTOML(%v) = nil; want an error", bad)
		}
	}
}
