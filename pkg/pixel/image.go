package pixel

import "fmt"

// Plane says where a plane lies in a frame's bytes.
type Plane struct {
	Offset int `json:"offset"` // of the first row's first byte, from the start of the frame
	Stride int `json:"stride"` // bytes from the start of one row to the start of the next
	Rows   int `json:"rows"`
}

// mjpegHead is room for the segments of a JPEG picture beside its pixels:
// quantisation and Huffman tables take about 600 bytes, and a camera may put one
// APPn segment of its own there, which is 64 KiB at most (ISO/IEC 10918-1, B.2.4.6).
const mjpegHead = 64 << 10

// Layout is how a frame of that format and size lies in memory, tightly packed:
// its planes in order, and its length in bytes. It fails when the format is
// unknown, a side is out of MinSide..MaxSide, or a side is odd where the
// format shares chroma between two pixels along it.
//
// For mjpeg there are no planes, and bytes is an upper bound of one picture: two
// bytes a pixel, and 64 KiB for tables and metadata. JPEG itself has no such
// bound, since a block may grow beyond its raw size. But two bytes a pixel is what
// the same picture takes in yuyv, which a camera would otherwise send, and even
// pure noise stays under it up to quality 95 (1.46 bytes a pixel in 4:2:0, 1.91 in
// 4:2:2, measured in internal/turbojpeg's test; ordinary scenes take 0.1 to 0.5).
// Only noise at quality 100 goes beyond, to 3.1. Drop and count a larger picture.
func Layout(f Format, s Size) (planes []Plane, bytes int, err error) {
	sp, err := checked(f, s)
	if err != nil {
		return nil, 0, fmt.Errorf("lay out frame: %w", err)
	}
	if f == MJPEG {
		return nil, 2*s.Width*s.Height + mjpegHead, nil
	}
	for _, sh := range sp.shapes[:sp.planes] {
		p := Plane{Offset: bytes, Stride: sh.rowBytes(s), Rows: sh.rows(s)}
		planes = append(planes, p)
		bytes += p.Stride * p.Rows
	}
	return planes, bytes, nil
}

func checked(f Format, s Size) (spec, error) {
	sp, err := f.spec()
	if err != nil {
		return spec{}, err
	}
	if err := s.check(); err != nil {
		return spec{}, err
	}
	if sp.evenW && s.Width%2 != 0 {
		return spec{}, fmt.Errorf("size %s: %s wants an even width", s, f)
	}
	if sp.evenH && s.Height%2 != 0 {
		return spec{}, fmt.Errorf("size %s: %s wants an even height", s, f)
	}
	return sp, nil
}

func (sh shape) rowBytes(s Size) int { return s.Width * sh.pairBytes / 2 }
func (sh shape) rows(s Size) int     { return s.Height / sh.rowsPer }

// Image is a view of a frame's bytes: Data is not copied, and is valid as long
// as its owner says (a lease on a ring's slot, for one).
type Image struct {
	Format Format
	Size   Size
	Planes []Plane
	Data   []byte
	Colour Colour // zero: not known, see Colour.Or
}

// NewImage is a view of data as a tightly packed frame; data may be longer than
// that. For mjpeg data is the whole picture and its length is not checked here.
func NewImage(f Format, s Size, data []byte) (Image, error) {
	planes, bytes, err := Layout(f, s)
	if err != nil {
		return Image{}, err
	}
	if f == MJPEG {
		return Image{Format: f, Size: s, Data: data}, nil
	}
	if len(data) < bytes {
		return Image{}, fmt.Errorf("view frame: %d bytes: want %d for %s %s", len(data), bytes, f, s)
	}
	return Image{Format: f, Size: s, Planes: planes, Data: data[:bytes]}, nil
}

// Check reports whether all of the picture is there: a format and size that
// Layout takes, and that format's planes, each within Data. An Image from
// NewImage passes; one made from a message's fields may not.
func (m Image) Check() error {
	sp, err := checked(m.Format, m.Size)
	if err != nil {
		return fmt.Errorf("view frame: %w", err)
	}
	if len(m.Planes) != sp.planes {
		return fmt.Errorf("view frame: %d planes: want %d for %s", len(m.Planes), sp.planes, m.Format)
	}
	for i := range m.Planes {
		if _, err := m.Plane(i); err != nil {
			return err
		}
	}
	return nil
}

// Rows is a plane in place: row y begins at byte y*Stride of Pix, and Width
// bytes of it are pixels. Pix ends with the last row's last pixel.
type Rows struct {
	Pix    []byte
	Stride int // bytes
	Width  int // bytes
	Count  int
}

// Row is the bytes of row y, 0 <= y < Count.
func (r Rows) Row(y int) []byte {
	start := y * r.Stride
	return r.Pix[start : start+r.Width : start+r.Width]
}

// Plane is plane i (numbered as in the package comment), after it was checked to
// have every row of the picture within Data. Rows may be longer than the
// picture is wide, and there may be more of them; the surplus is left out.
func (m Image) Plane(i int) (Rows, error) {
	sp, err := checked(m.Format, m.Size)
	if err != nil {
		return Rows{}, fmt.Errorf("view plane %d: %w", i, err)
	}
	if i < 0 || i >= sp.planes || i >= len(m.Planes) {
		return Rows{}, fmt.Errorf("view plane %d: %s has %d planes, this frame %d", i, m.Format, sp.planes, len(m.Planes))
	}
	p, width, rows := m.Planes[i], sp.shapes[i].rowBytes(m.Size), sp.shapes[i].rows(m.Size)
	if p.Stride < width || p.Rows < rows {
		return Rows{}, fmt.Errorf("view plane %d: %d rows of %d bytes: want %d of %d for %s %s", i, p.Rows, p.Stride, rows, width, m.Format, m.Size)
	}
	// Each term is bounded by len(Data) before it is added or multiplied: the
	// fields may come from a message, and must not overflow.
	room := len(m.Data) - width
	if p.Offset < 0 || p.Offset > room || p.Stride > (room-p.Offset)/(rows-1) {
		return Rows{}, fmt.Errorf("view plane %d: %d rows of %d bytes from byte %d: the frame has %d bytes", i, rows, p.Stride, p.Offset, len(m.Data))
	}
	pix := m.Data[p.Offset : p.Offset+(rows-1)*p.Stride+width]
	return Rows{Pix: pix, Stride: p.Stride, Width: width, Count: rows}, nil
}
