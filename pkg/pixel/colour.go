package pixel

import (
	"fmt"
	"strings"
)

// Range is which values the samples of YCbCr take (ITU-R BT.601-7, section
// 2.5.3; ffmpeg's color_range). Empty is not known.
type Range string

// The ranges.
const (
	Limited Range = "limited" // Y 16..235, Cb and Cr 16..240; ffmpeg's "tv"
	Full    Range = "full"    // 0..255; ffmpeg's "pc"
)

// Matrix is how YCbCr was computed from RGB (ffmpeg's colorspace). Empty is not
// known.
type Matrix string

// The matrices.
const (
	BT601  Matrix = "bt601"  // ITU-R BT.601, SMPTE 170M and BT.470 B/G
	BT709  Matrix = "bt709"  // ITU-R BT.709
	BT2020 Matrix = "bt2020" // ITU-R BT.2020, non-constant luminance
)

// Colour is how the samples of a YCbCr format stand for colours. The zero value
// is not known: see Colour.Or.
type Colour struct {
	Range  Range
	Matrix Matrix
}

// DefaultColour is what frames are taken for that do not say: JPEG pictures are
// full-range BT.601 (JFIF 1.02, page 3), everything else in YCbCr is
// limited-range BT.601, as cameras deliver it. RGB has neither.
func DefaultColour(f Format) Colour {
	switch f {
	case RGB24:
		return Colour{}
	case MJPEG:
		return Colour{Full, BT601}
	}
	return Colour{Limited, BT601}
}

// VideoColour is what players take a video for that does not say: limited range,
// and BT.709 from 1280x720 up, upright or not.
func VideoColour(s Size) Colour {
	if max(s.Width, s.Height) >= 1280 || min(s.Width, s.Height) >= 720 {
		return Colour{Limited, BT709}
	}
	return Colour{Limited, BT601}
}

// Or replaces what is not known by what def says.
func (c Colour) Or(def Colour) Colour {
	if c.Range == "" {
		c.Range = def.Range
	}
	if c.Matrix == "" {
		c.Matrix = def.Matrix
	}
	return c
}

// Check reports a range or matrix that is none of the above; empty ones pass.
func (c Colour) Check() error {
	switch c.Range {
	case "", Limited, Full:
	default:
		return fmt.Errorf("colour range %.32q: want limited or full", string(c.Range))
	}
	switch c.Matrix {
	case "", BT601, BT709, BT2020:
	default:
		return fmt.Errorf("colour matrix %.32q: want bt601, bt709 or bt2020", string(c.Matrix))
	}
	return nil
}

// Weights are the shares of red and blue in luma, Kr and Kb; that of green is
// the rest (BT.601, BT.709 section 3.2, BT.2020 table 4). Unknown is BT.601.
func (m Matrix) Weights() (kr, kb float64) {
	switch m {
	case BT709:
		return 0.2126, 0.0722
	case BT2020:
		return 0.2627, 0.0593
	}
	return 0.299, 0.114
}

// String is the colour as the key "colour" of a topology has it: the matrix,
// with "-full" behind it for full range; "" where nothing is known.
func (c Colour) String() string {
	if c.Range == Full {
		return string(c.Matrix) + "-full"
	}
	return string(c.Matrix)
}

// UnmarshalText reads the value of the key "colour" (encoding.TextUnmarshaler):
// "auto", or a matrix, limited-range unless "-full" stands behind it.
func (c *Colour) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*c = Colour{}
		return nil
	}
	matrix, full := strings.CutSuffix(string(text), "-full")
	read := Colour{Limited, Matrix(matrix)}
	if full {
		read.Range = Full
	}
	if matrix == "" || read.Check() != nil {
		return fmt.Errorf("colour %.32q: want auto, bt601, bt709 or bt2020, with -full behind it for samples of 0..255", string(text))
	}
	*c = read
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (c Colour) MarshalText() ([]byte, error) {
	if c == (Colour{}) {
		return []byte("auto"), nil
	}
	return []byte(c.String()), nil
}
