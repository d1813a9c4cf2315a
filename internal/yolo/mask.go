package yolo

import (
	"errors"
	"fmt"
	"slices"
)

var errPolygons = errors.New("want a list of polygons, each a list of three or more corners [x, y], fractions of the frame from 0 to 1")

// Polygon is an area of a frame: its corners, each x and y as fractions of the
// frame's width and height, 0 to 1.
type Polygon [][2]float64

// UnmarshalTOML reads a list of at least three corners, each [x, y].
func (p *Polygon) UnmarshalTOML(v any) error {
	list, ok := v.([]any)
	if !ok || len(list) < 3 || len(list) > 1000 {
		return errPolygons
	}
	*p = nil
	for _, item := range list {
		pair, _ := item.([]any)
		var corner [2]float64
		for i := range corner {
			if len(pair) != 2 || !fractionOf(pair[i], &corner[i]) {
				return fmt.Errorf("corner %v: want [x, y], fractions of the frame's width and height from 0 to 1", item)
			}
		}
		*p = append(*p, corner)
	}
	return nil
}

func fractionOf(v any, to *float64) bool {
	switch v := v.(type) {
	case float64:
		*to = v
	case int64:
		*to = float64(v)
	default:
		return false
	}
	return *to >= 0 && *to <= 1
}

// Contains says whether a point is inside: an odd number of sides is to its right.
func (p Polygon) Contains(x, y float64) bool {
	in := false
	for i, a := range p {
		b := p[(i+1)%len(p)]
		if (a[1] > y) != (b[1] > y) && x < a[0]+(y-a[1])/(b[1]-a[1])*(b[0]-a[0]) {
			in = !in
		}
	}
	return in
}

// Mask is areas of a frame that do not count.
type Mask []Polygon

// UnmarshalTOML reads a list of polygons.
func (m *Mask) UnmarshalTOML(v any) error {
	list, ok := v.([]any)
	if !ok {
		return errPolygons
	}
	*m = nil
	for _, item := range list {
		var p Polygon
		if err := p.UnmarshalTOML(item); err != nil {
			return err
		}
		*m = append(*m, p)
	}
	return nil
}

// Covers says whether a point is in one of the areas.
func (m Mask) Covers(x, y float64) bool {
	return slices.ContainsFunc(m, func(p Polygon) bool { return p.Contains(x, y) })
}
