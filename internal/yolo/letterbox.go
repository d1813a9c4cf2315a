package yolo

import (
	"fmt"

	"github.com/perch-edge/perch/pkg/pixel"
)

// Input is how a network wants its picture: planes of float32, one a colour.
type Input struct {
	Size      pixel.Size
	BGR       bool    // blue first; else red
	Scale     float32 // of a value 0..255
	Centred   bool    // the picture in the middle; else at the top left
	Stretched bool    // the picture fills all, its sides' ratio not kept
}

func (in Input) String() string {
	order, values, place := "rgb", "0-1", "topleft"
	if in.BGR {
		order = "bgr"
	}
	if in.Scale == 1 {
		values = "0-255"
	}
	switch {
	case in.Stretched:
		place = "stretch"
	case in.Centred:
		place = "centre"
	}
	return fmt.Sprintf("%s %s %s %s", in.Size, order, values, place)
}

const (
	grey     = 114
	fraction = 8  // bits of a weight
	sampled  = 12 // bits of a scaled sample: 8 and 4 of fraction
	product  = 17 // bits of fraction of a sample times the matrix: 4 and 13
	below    = 320
)

// Letterbox scales frames of one format and size into one tensor, their sides'
// ratio kept. It is for one goroutine.
type Letterbox struct {
	format pixel.Format
	size   pixel.Size
	in     Input
	matrix matrix
	scaleX float64 // tensor pixels a frame pixel
	scaleY float64
	area   pixel.Size // of the picture in the tensor
	x, y   int        // where it begins
	dst    [3][]float32
	chans  [3]channel
	level  [1024]float32 // of a value from -below: cut to 0..255, scaled
}

// channel is one kind of sample of a frame: Y, Cb, Cr, or R, G, B.
type channel struct {
	plane  int
	first  int // byte of a row's first sample
	step   int // bytes from sample to sample
	across []tap
	down   []tap
	row    []int32 // of scaled samples: 8 bits and 4 of fraction
}

// tap is where an output sample comes from: a mean of two input samples.
type tap struct {
	at     uint32 // the first; the other follows
	weight uint32 // of the other, of 256
}

// taps are those of n output samples from m input samples.
func taps(n, m int) []tap {
	list := make([]tap, n)
	for i := range list {
		// The middle of output sample i lies at (2i+1)*m/2n - 1/2 input samples.
		at := (2*i+1)*m - n
		whole, rest := at/(2*n), at%(2*n)
		t := tap{uint32(max(whole, 0)), uint32((max(rest, 0)<<fraction + n) / (2 * n))}
		switch {
		case at < 0:
			t = tap{0, 0}
		case whole >= m-1:
			t = tap{uint32(m - 2), 1 << fraction}
		}
		list[i] = t
	}
	return list
}

// share makes taps of pixels those of samples of which each stands for two: there
// are m of them.
func share(list []tap, m int) {
	for i, t := range list {
		first, second := t.at/2, (t.at+1)/2
		switch {
		case int(first) >= m-1: // the last one, from the side
			t = tap{uint32(m - 2), 1 << fraction}
		case first == second:
			t = tap{first, 0}
		default:
			t.at = first
		}
		list[i] = t
	}
}

// NewLetterbox prepares for frames of that format, size and colour; what is not
// known of the colour is pixel.DefaultColour's. dst, of three planes
// of the input's size, is filled with grey. It fails for mjpeg, for sizes that
// pixel.Layout refuses, and when dst has another length.
func NewLetterbox(f pixel.Format, s pixel.Size, c pixel.Colour, in Input, dst []float32) (*Letterbox, error) {
	planes, _, err := pixel.Layout(f, s)
	if err != nil {
		return nil, fmt.Errorf("prepare letterbox: %w", err)
	}
	n := in.Size.Width * in.Size.Height
	if len(planes) == 0 || len(dst) != 3*n {
		return nil, fmt.Errorf("prepare letterbox: %s into %d values: want a raw format, and %d values for %s", f, len(dst), 3*n, in.Size)
	}
	l := &Letterbox{format: f, size: s, in: in, matrix: newMatrix(c.Or(pixel.DefaultColour(f))), dst: [3][]float32{dst[:n], dst[n : 2*n], dst[2*n:]}}
	if in.BGR {
		l.dst[0], l.dst[2] = l.dst[2], l.dst[0]
	}
	l.place()
	for i := range l.level {
		l.level[i] = float32(min(max(i-below, 0), 255)) * in.Scale
	}
	for i := range dst {
		dst[i] = l.level[below+grey]
	}
	for i, ch := range channels(f) {
		ch.across, ch.down = taps(l.area.Width, s.Width), taps(l.area.Height, s.Height)
		if ch.plane > 0 || f == pixel.YUYV && i > 0 {
			share(ch.across, s.Width/2)
		}
		if ch.plane > 0 {
			share(ch.down, s.Height/2)
		}
		for j := range ch.across {
			ch.across[j].at = ch.across[j].at*uint32(ch.step) + uint32(ch.first)
		}
		ch.row = make([]int32, l.area.Width)
		l.chans[i] = ch
	}
	return l, nil
}

// channels say where a format's samples are.
func channels(f pixel.Format) [3]channel {
	switch f {
	case pixel.NV12:
		return [3]channel{{step: 1}, {plane: 1, step: 2}, {plane: 1, first: 1, step: 2}}
	case pixel.YUYV:
		return [3]channel{{step: 2}, {first: 1, step: 4}, {first: 3, step: 4}}
	case pixel.RGB24:
		return [3]channel{{step: 3}, {first: 1, step: 3}, {first: 2, step: 3}}
	default:
		return [3]channel{{step: 1}, {plane: 1, step: 1}, {plane: 2, step: 1}}
	}
}

// place settles where the picture lies. Sizes are rounded as each family's own
// program does it.
func (l *Letterbox) place() {
	w, h := l.in.Size.Width, l.in.Size.Height
	l.scaleX, l.scaleY = float64(w)/float64(l.size.Width), float64(h)/float64(l.size.Height)
	if l.in.Stretched {
		l.area = l.in.Size
		return
	}
	l.scaleX = min(l.scaleX, l.scaleY)
	l.scaleY = l.scaleX
	round := 0.0
	if l.in.Centred {
		round = 0.5
	}
	side := func(n, most int) int { return min(max(int(float64(n)*l.scaleX+round), 1), most) }
	l.area = pixel.Size{Width: side(l.size.Width, w), Height: side(l.size.Height, h)}
	if l.in.Centred {
		l.x, l.y = (w-l.area.Width)/2, (h-l.area.Height)/2
	}
}

// Fill brings a frame into the tensor. It fails when the frame is not of the
// letterbox's format and size, or not whole.
func (l *Letterbox) Fill(img pixel.Image) error {
	if img.Format != l.format || img.Size != l.size {
		return fmt.Errorf("fill tensor: frame of %s %s: want %s %s", img.Format, img.Size, l.format, l.size)
	}
	if err := img.Check(); err != nil {
		return fmt.Errorf("fill tensor: %w", err)
	}
	var planes [3]pixel.Rows
	for i := range img.Planes {
		planes[i], _ = img.Plane(i) // checked above
	}
	for y := range l.area.Height {
		var rows [3][]int32
		for i := range l.chans {
			c := &l.chans[i]
			c.scale(planes[c.plane], y)
			rows[i] = c.row
		}
		at := (l.y+y)*l.in.Size.Width + l.x
		r, g, b := l.dst[0][at:at+l.area.Width], l.dst[1][at:at+l.area.Width], l.dst[2][at:at+l.area.Width]
		if l.format == pixel.RGB24 {
			for i, d := range [3][]float32{r, g, b} {
				l.copyRow(rows[i], d)
			}
		} else {
			l.matrix.convert(rows, r, g, b, &l.level)
		}
	}
	return nil
}

// Interleave copies planes, one a colour, to pixels of three colours each.
func Interleave(planes, pixels []float32) {
	n := len(planes) / 3
	r, g, b := planes[:n], planes[n:2*n], planes[2*n:3*n]
	pixels = pixels[:3*n]
	for i := range r {
		pixels[3*i], pixels[3*i+1], pixels[3*i+2] = r[i], g[i], b[i]
	}
}

// scale makes the samples of output row y. A pair of samples lies in one number of
// 32 bits, the left one below, so that both are blended with the pair of the other
// row at once.
func (c *channel) scale(plane pixel.Rows, y int) {
	t := c.down[y]
	upper, lower := plane.Row(int(t.at)), plane.Row(int(t.at)+1)
	dst := c.row[:len(c.across)]
	const half = 1 << (15 - sampled + fraction)
	above, under := 1<<fraction-t.weight, t.weight
	for i, t := range c.across {
		next := int(t.at) + c.step
		pair := (uint32(upper[t.at])|uint32(upper[next])<<16)*above + (uint32(lower[t.at])|uint32(lower[next])<<16)*under
		left := pair & 0xffff
		dst[i] = int32((left<<fraction + (pair>>16-left)*t.weight + half) >> (16 + fraction - sampled))
	}
}

func (l *Letterbox) copyRow(in []int32, dst []float32) {
	in = in[:len(dst)]
	for i := range dst {
		dst[i] = l.level[((in[i]+8)>>4+below)&1023]
	}
}

// matrix converts YCbCr to RGB, in 1/8192ths: ITU-R BT.601, BT.709 and
// BT.2020, sections "digital representation"; full range as JFIF 1.02, page 3.
//
// JPEG decoders round the sum to the nearest level. What decodes video rounds each
// product down before it adds them: so does swscale's conversion for x86 (pmulhw of
// 8.3 bits by 3.13, three products for green), with which ffmpeg and OpenCV make
// pictures of videos, for references and for networks. On frames without scaling
// this one gives the same bytes as it (TestVideoIsConvertedAsFFmpegDoes). To round to
// the nearest here makes a picture lighter by a level, which decides near a
// threshold.
type matrix struct {
	y, rCr, gCb, gCr, bCb int32
	zero                  int32 // of luma, with 4 bits of fraction
	keep                  int32 // the bits of a product that count
	half                  int32 // what is added to the sum
}

func newMatrix(c pixel.Colour) matrix {
	kr, kb := c.Matrix.Weights()
	luma, chroma, zero := 255.0/219, 255.0/224, int32(16)
	keep, half := int32(-1)<<product, int32(0)
	if c.Range == pixel.Full {
		luma, chroma, zero = 1, 1, 0
		keep, half = -1, 1<<(product-1)
	}
	kg := 1 - kr - kb
	fix := func(v float64) int32 { return int32(v*8192 + 0.5) }
	return matrix{y: fix(luma), rCr: fix(2 * (1 - kr) * chroma), bCb: fix(2 * (1 - kb) * chroma),
		gCb: fix(2 * (1 - kb) * kb / kg * chroma), gCr: fix(2 * (1 - kr) * kr / kg * chroma), zero: zero << 4, keep: keep, half: half}
}

func (m *matrix) convert(in [3][]int32, r, g, b []float32, level *[1024]float32) {
	n := len(r)
	g, b = g[:n], b[:n]
	ys, us, vs := in[0][:n], in[1][:n], in[2][:n]
	keep, offset := m.keep, m.half+below<<product
	for i := range n {
		y, u, v := (ys[i]-m.zero)*m.y&keep+offset, us[i]-128<<4, vs[i]-128<<4
		r[i] = level[(y+v*m.rCr&keep)>>product&1023]
		g[i] = level[(y+-u*m.gCb&keep+-v*m.gCr&keep)>>product&1023]
		b[i] = level[(y+u*m.bCb&keep)>>product&1023]
	}
}
