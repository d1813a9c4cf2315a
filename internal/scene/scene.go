// Package scene draws the simulated camera's pictures: a calm background, a target
// at a known place, and the frame's number in the pixels.
//
//	frame number --Draw--> pixels --(ring, JPEG, H.264, a client)--ReadNumber--> frame number
//	frame number --Target--> where a detector must find the target
//
// All of it is a pure function of the frame number, the format and the size, so
// that any reader can verify what it got from the number alone. The smallest
// frame is 64 x 64 pixels; New refuses a smaller one, and mjpeg, which is not
// drawn. A frame costs one copy of the prepared background and a few rectangles.
//
// # The frame number in the pixels
//
// At the top left corner of the frame stands a block of 8 x 6 square cells. With
// the frame's width and height in pixels, and divisions that drop the remainder, a
// cell has
//
//	c = 8 * max(1, min(width/640, height/360))
//
// pixels a side: 8 for every frame below 1280x720, 16 for that one, 24 for
// 1920x1080, 48 for 3840x2160. The cell in column i (0 to 7 from the left) and row
// j (0 to 5 from the top) covers the pixels i*c <= x < (i+1)*c, j*c <= y < (j+1)*c.
//
// Each cell is one bit: black (luma Y = 16) is 0, white (Y = 235) is 1; Cb and Cr
// are 128, and in rgb24 R, G and B are all 16 or all 235. Each row of cells is one
// byte, its most significant bit at the left:
//
//	row 0    0xB5, the start marker
//	row 1-4  the frame number modulo 2^32, its most significant byte first
//	row 5    CRC-8 of the four bytes of rows 1 to 4 in that order: polynomial
//	         0x07 (x^8 + x^2 + x + 1), initial value 0, not reflected, no final
//	         XOR. The CRC of the ASCII text "123456789" is 0xF4.
//
// To read a bit, take the mean luma of the pixels of the cell's middle half,
// i*c + c/4 <= x < i*c + 3*c/4, and y likewise; the bit is 1 when it is 128 or
// more. Luma is Y of yuv420 and nv12 (the first plane) and yuyv (every second byte
// of a row, from byte 0), and G of rgb24. A frame has a number when row 0 is the
// marker and row 5 is the CRC. Cells are whole 8 x 8 blocks of one colour, so that
// JPEG at quality 50, H.264 and conversions of range do not change a bit.
//
// Example: frame 1000 has the rows B5, 00, 00, 03, E8, A9.
//
// # The target
//
// The target is a square of one colour, Y 105, Cb 212, Cr 234 (magenta; R 253,
// G 0, B 254). It alone is saturated: a pixel is the target's when both Cb and Cr
// are 180 or more, and everything else has both in 112..144. It is 1/8 of the
// frame's shorter side, rounded down to an even number of pixels, wide and high,
// and is cut at even pixels, so that chroma samples of yuv420, nv12 and yuyv are
// wholly its own or not at all.
//
// It moves in a cycle of 360 frames (12 s at 30 Hz), and is absent in the last 120 of
// each. In the first 240 it goes from the left edge to the right one and back,
// while it swings between the number's lower edge and the bottom with a period of
// 160 frames. Its place is given by Target, in whole numbers, in these steps: with
//
//	p = frame modulo 360                       absent for p >= 240
//	side = min(width, height) / 8, made even by dropping the last bit
//	sweep(p, half, span): u = p modulo 2*half; u = 2*half - u where u > half;
//	    span * u*u * (3*half - 2*u) / half^3, made even by dropping the last bit
//
// the box is
//
//	x0 = sweep(p, 120, width - side)           x1 = x0 + side
//	y0 = 6*c + sweep(p, 80, height - 6*c - side)    y1 = y0 + side
//
// with x0 and y0 the first pixel inside and x1 and y1 the first outside.
package scene

import (
	"fmt"
	"image"

	"github.com/perch-edge/perch/pkg/pixel"
)

// The target's cycle in frames: it is to be seen in the first Visible of each Cycle.
const (
	Cycle   = 360
	Visible = 240
)

// MinSide is the least width and height of a scene in pixels.
const MinSide = 64

// Colour is how the samples of a scene in YCbCr stand for colours.
func Colour() pixel.Colour { return pixel.Colour{Range: pixel.Full, Matrix: pixel.BT601} }

// yuv is a colour: Y, Cb, Cr, each 0 to 255, as Colour says.
type yuv struct{ y, cb, cr int }

func black() yuv   { return yuv{16, 128, 128} }
func white() yuv   { return yuv{235, 128, 128} }
func magenta() yuv { return yuv{105, 212, 234} }

// Scene draws frames of one format and size. It is not changed by drawing, so
// that several goroutines may use one.
type Scene struct {
	canvas     canvas
	background []byte
}

// New prepares a scene. It fails for mjpeg, for a size that pixel.Layout refuses,
// and for a side under MinSide.
func New(f pixel.Format, s pixel.Size) (*Scene, error) {
	planes, bytes, err := pixel.Layout(f, s)
	if err != nil {
		return nil, fmt.Errorf("prepare scene: %w", err)
	}
	if f == pixel.MJPEG {
		return nil, fmt.Errorf("prepare scene: format %s: want a raw format", f)
	}
	if min(s.Width, s.Height) < MinSide {
		return nil, fmt.Errorf("prepare scene: size %s: want at least %d pixels a side", s, MinSide)
	}
	scene := &Scene{canvas{f, s, planes}, make([]byte, bytes)}
	scene.canvas.background(scene.background)
	return scene, nil
}

// Bytes is the length of a frame.
func (s *Scene) Bytes() int { return len(s.background) }

// Draw fills dst, of Bytes() exactly, with a frame, tightly packed. It fails when
// dst is of another length.
func (s *Scene) Draw(frame uint64, dst []byte) error {
	if len(dst) != len(s.background) {
		return fmt.Errorf("draw frame %d: %d bytes: want %d for %s %s", frame, len(dst), len(s.background), s.canvas.format, s.canvas.size)
	}
	copy(dst, s.background)
	if box, visible := Target(frame, s.canvas.size); visible {
		s.canvas.fill(dst, box, magenta())
	}
	s.drawNumber(frame, dst)
	return nil
}

func (s *Scene) drawNumber(frame uint64, dst []byte) {
	c := cell(s.canvas.size)
	for j, b := range code(uint32(frame)) { // modulo 2^32, as documented
		for i := range columns {
			colour := black()
			if b>>(columns-1-i)&1 == 1 {
				colour = white()
			}
			s.canvas.fill(dst, image.Rect(i*c, j*c, (i+1)*c, (j+1)*c), colour)
		}
	}
}

// Target is where the target is in a frame of that size, of MinSide a side at
// least: Min is the first pixel inside, Max the first outside, all even. Where it
// is not visible the box is empty.
func Target(frame uint64, s pixel.Size) (box image.Rectangle, visible bool) {
	p := int(frame % Cycle)
	if p >= Visible {
		return image.Rectangle{}, false
	}
	side := min(s.Width, s.Height) / 8 &^ 1
	top := rowsOfCells * cell(s)
	x := sweep(p, 120, s.Width-side)
	y := top + sweep(p, 80, s.Height-top-side)
	return image.Rect(x, y, x+side, y+side), true
}

// sweep goes from 0 to span and back in 2*half frames, slowly at both ends. In
// whole numbers, so that it is the same on every machine.
func sweep(p, half, span int) int {
	u := p % (2 * half)
	if u > half {
		u = 2*half - u
	}
	eased := int64(span) * int64(u*u*(3*half-2*u)) / int64(half*half*half)
	return int(eased) &^ 1
}
