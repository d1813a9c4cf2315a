package turbojpeg

import (
	"errors"
	"fmt"

	"github.com/perch-edge/perch/pkg/pixel"
)

// Decoder makes frames of JPEG pictures. Close it when done.
type Decoder struct {
	h       handle
	limit   pixel.Size
	scratch []byte // chroma before it is brought to 4:2:0
}

// NewDecoder starts a decoder of pictures that are not wider or higher than
// limit. It fails only when the library has no memory.
func NewDecoder(limit pixel.Size) (*Decoder, error) {
	h, err := newDecompressor()
	if err != nil {
		return nil, err
	}
	return &Decoder{h: h, limit: limit}, nil
}

// Close frees the library's memory.
func (d *Decoder) Close() error { return d.h.close() }

// Header is what a picture says of itself before its pixels.
type Header struct {
	Size        pixel.Size
	Subsampling Subsampling
}

// Header reads the header alone, which takes microseconds. It fails for what is
// no JPEG, over the limit, or of a kind that Decode does not take: colour spaces
// other than YCbCr and grey, and 4:1:1.
func (d *Decoder) Header(jpeg []byte) (Header, error) {
	if d.h.tj == nil {
		return Header{}, fmt.Errorf("read picture header: %w", ErrClosed)
	}
	if len(jpeg) == 0 {
		return Header{}, errors.New("read picture header: no bytes: want a JPEG picture")
	}
	size, sub, yCbCr, err := d.h.header(jpeg)
	if err != nil {
		return Header{}, fmt.Errorf("read picture header: corrupted: %w", errors.Join(err, d.h.restart()))
	}
	if size.Width == 0 { // the library calls tables alone, for pictures to come, a success
		return Header{}, errors.New("read picture header: corrupted: tables and no picture")
	}
	if size.Width > d.limit.Width || size.Height > d.limit.Height {
		return Header{}, fmt.Errorf("read picture header: size %s: the limit is %s", size, d.limit)
	}
	if !yCbCr || sub == S411 {
		return Header{}, fmt.Errorf("read picture header: colours (%s): want YCbCr of 4:4:4, 4:2:2, 4:4:0 or 4:2:0, or grey", sub)
	}
	return Header{size, sub}, nil
}

// even is a size with odd sides made longer, as JPEG's 4:2:0 stores them, or
// shorter.
func even(s pixel.Size, longer bool) pixel.Size {
	if longer {
		return pixel.Size{Width: s.Width + s.Width%2, Height: s.Height + s.Height%2}
	}
	return pixel.Size{Width: s.Width - s.Width%2, Height: s.Height - s.Height%2}
}

// DecodedBytes is how long Decode's dst must be for a picture of that size; 0 for
// one that is out of pixel's bounds.
func DecodedBytes(s pixel.Size) int {
	_, n, err := pixel.Layout(pixel.YUV420, even(s, true))
	if err != nil {
		return 0
	}
	return n
}

// Decode decodes a picture into dst as a yuv420 frame, and returns that view of
// dst. The view is tightly packed if both sides are even. It lacks the last column
// or row of an odd side, since yuv420 has no odd sides. Luma and 4:2:0 chroma are
// decoded straight into dst. Chroma of 4:2:2, 4:4:0 and 4:4:4 becomes 4:2:0 by the
// mean of the two or four samples, rounded half up; grey gets chroma 128. Samples
// are not converted: the frame's colour is JFIF's, full-range BT.601.
//
// It fails where Header does, when a side is out of pixel's bounds, when dst is
// shorter than DecodedBytes, and when the picture is corrupted or cut short; dst
// is then undefined.
func (d *Decoder) Decode(jpeg, dst []byte) (pixel.Image, error) {
	head, err := d.Header(jpeg)
	if err != nil {
		return pixel.Image{}, err
	}
	img, err := pixel.NewImage(pixel.YUV420, even(head.Size, true), dst)
	if err != nil {
		return pixel.Image{}, fmt.Errorf("decode picture: %w", err)
	}
	img.Colour = jfif()
	if err := d.decode(jpeg, head, img); err != nil {
		return pixel.Image{}, fmt.Errorf("decode picture of %s, %d bytes: corrupted: %w", head.Size, len(jpeg), errors.Join(err, d.h.restart()))
	}
	img.Size = even(head.Size, false)
	if err := img.Check(); err != nil { // one row or column alone
		return pixel.Image{}, fmt.Errorf("decode picture: %w", err)
	}
	return img, nil
}

func (d *Decoder) decode(jpeg []byte, head Header, img pixel.Image) error {
	var dst planar
	for i := range dst {
		dst[i], _ = img.Plane(i) // of NewImage: all there
	}
	across, down := 1, 1 // chroma samples of the picture for each of 4:2:0
	switch head.Subsampling {
	case S444:
		across, down = 2, 2
	case S422:
		down = 2
	case S440:
		across = 2
	case Grey:
		fill(dst[1].Pix, 128)
		fill(dst[2].Pix, 128)
	}
	src := dst
	if across*down > 1 {
		src[1] = rows(across*dst[1].Width, down*dst[1].Count)
		src[2] = src[1]
		d.scratch = take(d.scratch, &src[1], &src[2])
	}
	if err := d.h.decompressYUV(jpeg, head.Size, src); err != nil {
		return err
	}
	if across*down > 1 {
		for i := 1; i < len(dst); i++ { // only what the picture has samples for
			dst[i].Width, dst[i].Count = head.Size.Width/2, head.Size.Height/2
			shrink(dst[i], src[i], across, down)
		}
	}
	return nil
}

// shrink writes to dst the means of across x down samples of src each.
func shrink(dst, src pixel.Rows, across, down int) {
	for y := range dst.Count {
		to, upper, lower := dst.Row(y), src.Row(y*down), src.Row(y*down+down-1)
		for x := range to {
			l, r := x*across, x*across+across-1
			to[x] = byte((int(upper[l]) + int(upper[r]) + int(lower[l]) + int(lower[r]) + 2) / 4)
		}
	}
}

func fill(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}
