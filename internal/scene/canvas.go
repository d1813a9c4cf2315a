package scene

import (
	"image"

	"github.com/perch-edge/perch/pkg/pixel"
)

// canvas paints rectangles of one colour into frames of one format and size.
type canvas struct {
	format pixel.Format
	size   pixel.Size
	planes []pixel.Plane
}

// fill paints a rectangle within the frame, whose corners are even or at the
// frame's edge.
func (c canvas) fill(dst []byte, box image.Rectangle, colour yuv) {
	for i, plane := range c.planes {
		pattern, n := c.pair(i, colour)
		pair := pattern[:n]
		rowsPer := c.size.Height / plane.Rows
		from, to := box.Min.X*len(pair)/2, box.Max.X*len(pair)/2
		first := dst[plane.Offset+box.Min.Y/rowsPer*plane.Stride:][from:to]
		for x := range first {
			first[x] = pair[x%len(pair)]
		}
		for y := box.Min.Y/rowsPer + 1; y < box.Max.Y/rowsPer; y++ {
			copy(dst[plane.Offset+y*plane.Stride+from:], first)
		}
	}
}

// pair is the n bytes of plane i for two pixels beside each other.
func (c canvas) pair(i int, colour yuv) (pattern [6]byte, n int) {
	y, cb, cr := byte(colour.y), byte(colour.cb), byte(colour.cr)
	switch {
	case c.format == pixel.RGB24:
		r, g, b := colour.rgb()
		return [6]byte{r, g, b, r, g, b}, 6
	case c.format == pixel.YUYV:
		return [6]byte{y, cb, y, cr}, 4
	case i == 0:
		return [6]byte{y, y}, 2
	case c.format == pixel.NV12:
		return [6]byte{cb, cr}, 2
	case i == 1:
		return [6]byte{cb}, 1
	}
	return [6]byte{cr}, 1
}

// rgb converts by JFIF 1.02, page 3, in thousandths.
func (c yuv) rgb() (r, g, b byte) {
	clamp := func(thousandths int) byte { return byte(min(max(thousandths/1000, 0), 255)) }
	y, cb, cr := 1000*c.y, c.cb-128, c.cr-128
	return clamp(y + 1402*cr), clamp(y - 344*cb - 714*cr), clamp(y + 1772*cb)
}

// background paints a landscape in soft colours: a sky that gets lighter towards
// the horizon, a row of hills of different heights, and ground with furrows.
func (c canvas) background(dst []byte) {
	const bands = 12
	w, h := c.size.Width, c.size.Height
	horizon := h * 2 / 3
	for i := range bands {
		c.band(dst, 0, w, horizon*i/bands, horizon*(i+1)/bands, yuv{120 + 6*i, 140 - i/2, 120})
		c.band(dst, 0, w, horizon+(h-horizon)*i/bands, horizon+(h-horizon)*(i+1)/bands, yuv{84 - 3*(i%4), 118, 124})
	}
	for i := range bands {
		height := h / 6 * (3 + i*5%7) / 9
		c.band(dst, w*i/bands, w*(i+1)/bands, horizon-height, horizon, yuv{98 + i*3%8, 122, 118 + i%3})
	}
}

// band is fill with the corners brought to even pixels, but for the frame's edges.
func (c canvas) band(dst []byte, x0, x1, y0, y1 int, colour yuv) {
	even := func(v, edge int) int {
		if v == edge {
			return v
		}
		return v &^ 1
	}
	c.fill(dst, image.Rect(even(x0, 0), even(y0, 0), even(x1, c.size.Width), even(y1, c.size.Height)), colour)
}
