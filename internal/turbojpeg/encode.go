package turbojpeg

import (
	"errors"
	"fmt"

	"github.com/perch-edge/perch/pkg/pixel"
)

// Encoder makes JPEG pictures. Close it when done.
type Encoder struct {
	h       handle
	out     []byte // the last picture
	scratch []byte // planes of nv12 and yuyv frames, and of converted ones
}

// NewEncoder starts an encoder. It fails only when the library has no memory.
func NewEncoder() (*Encoder, error) {
	h, err := newCompressor()
	if err != nil {
		return nil, err
	}
	return &Encoder{h: h}, nil
}

// Close frees the library's memory. Pictures returned before stay readable.
func (e *Encoder) Close() error { return e.h.close() }

// Encode compresses a frame at quality 1 (smallest) to 100 (best) to a baseline
// JPEG: 4:2:0, or 4:2:2 for yuyv. Samples that are not full-range BT.601
// (img.Colour) are converted first. The result is the encoder's own memory, valid
// until the next Encode. A frame of format mjpeg is refused: it is a picture already.
func (e *Encoder) Encode(img pixel.Image, quality int) ([]byte, error) {
	if e.h.tj == nil {
		return nil, fmt.Errorf("encode picture: %w", ErrClosed)
	}
	if quality < 1 || quality > 100 {
		return nil, fmt.Errorf("encode picture: quality %d: want 1 to 100", quality)
	}
	if err := img.Check(); err != nil {
		return nil, fmt.Errorf("encode picture: %w", err)
	}
	n, err := e.compress(img, quality)
	if err != nil {
		return nil, fmt.Errorf("encode picture of %s %s: %w", img.Format, img.Size, err)
	}
	return e.out[:n], nil
}

// compress has an Image that passed Check, whose planes are therefore all there.
func (e *Encoder) compress(img pixel.Image, quality int) (int, error) {
	sub := S420
	if img.Format == pixel.YUYV {
		sub = S422
	}
	e.out = grow(e.out, worstBytes(img.Size, sub))
	switch img.Format {
	case pixel.RGB24:
		rows, _ := img.Plane(0)
		return e.h.compressRGB(rows, img.Size, quality, e.out)
	case pixel.MJPEG:
		return 0, errors.New("want a raw format: this is a picture already")
	}
	if err := img.Colour.Check(); err != nil {
		return 0, err
	}
	return e.h.compressYUV(e.planes(img), img.Size, sub, quality, e.out)
}

// planes are the three planes that the library wants, with JFIF's colours: the
// frame's own planes if nothing has to be converted.
func (e *Encoder) planes(img pixel.Image) planar {
	colour := img.Colour.Or(pixel.DefaultColour(img.Format))
	same := colour == jfif()
	var p planar
	for i := range img.Planes {
		p[i], _ = img.Plane(i)
	}
	switch {
	case img.Format == pixel.YUYV:
		p = e.splitAll(p[0])
		if !same {
			convert(p, p, colour, 1)
		}
	case img.Format == pixel.NV12 && same:
		p[1], p[2] = e.splitChroma(p[1], nil)
	case img.Format == pixel.NV12:
		luma := rows(p[0].Width, p[0].Count)
		p[1], p[2] = e.splitChroma(p[1], &luma)
		convert(planar{luma, p[1], p[2]}, p, colour, 2)
		p[0] = luma
	case !same:
		dst := planar{rows(p[0].Width, p[0].Count), rows(p[1].Width, p[1].Count), rows(p[2].Width, p[2].Count)}
		e.scratch = take(e.scratch, &dst[0], &dst[1], &dst[2])
		convert(dst, p, colour, 2)
		p = dst
	}
	return p
}

// splitChroma sorts the chroma of nv12 into two planes. If luma is not nil, it is
// given memory too.
func (e *Encoder) splitChroma(packed pixel.Rows, luma *pixel.Rows) (cb, cr pixel.Rows) {
	cb = rows(packed.Width/2, packed.Count)
	cr = cb
	if luma == nil {
		luma = new(pixel.Rows)
	}
	e.scratch = take(e.scratch, luma, &cb, &cr)
	for y := range packed.Count {
		src, u, v := packed.Row(y), cb.Row(y), cr.Row(y)
		for i := range u {
			pair := src[2*i : 2*i+2]
			u[i], v[i] = pair[0], pair[1]
		}
	}
	return cb, cr
}

// splitAll sorts yuyv into three planes.
func (e *Encoder) splitAll(packed pixel.Rows) planar {
	p := planar{rows(packed.Width/2, packed.Count), rows(packed.Width/4, packed.Count), rows(packed.Width/4, packed.Count)}
	e.scratch = take(e.scratch, &p[0], &p[1], &p[2])
	for y := range packed.Count {
		src, luma, u, v := packed.Row(y), p[0].Row(y), p[1].Row(y), p[2].Row(y)
		for i := range u {
			four := src[4*i : 4*i+4]
			luma[2*i], u[i], luma[2*i+1], v[i] = four[0], four[1], four[2], four[3]
		}
	}
	return p
}

// rows is a tightly packed plane that take is to give memory.
func rows(width, count int) pixel.Rows {
	return pixel.Rows{Stride: width, Width: width, Count: count}
}

// take gives each plane its part of scratch, which is made longer where it must
// be and returned. What stood in scratch is not kept.
func take(scratch []byte, planes ...*pixel.Rows) []byte {
	n := 0
	for _, p := range planes {
		n += p.Stride * p.Count
	}
	scratch = grow(scratch, n)
	rest := scratch
	for _, p := range planes {
		p.Pix, rest = rest[:p.Stride*p.Count], rest[p.Stride*p.Count:]
	}
	return scratch
}

// grow is a slice of at least n bytes, b itself where it is long enough.
func grow(b []byte, n int) []byte {
	if len(b) >= n {
		return b
	}
	return make([]byte, n)
}
