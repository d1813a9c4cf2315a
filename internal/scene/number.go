package scene

import (
	"encoding/binary"
	"fmt"

	"github.com/perch-edge/perch/pkg/pixel"
)

const (
	columns     = 8 // cells across: the bits of a byte
	rowsOfCells = 6 // marker, four bytes of number, CRC
	marker      = 0xB5
)

// cell is the side of a cell in pixels.
func cell(s pixel.Size) int { return 8 * max(1, min(s.Width/640, s.Height/360)) }

// code is the bytes that stand for a number, one a row of cells.
func code(number uint32) [rowsOfCells]byte {
	b := [rowsOfCells]byte{0: marker}
	binary.BigEndian.PutUint32(b[1:5], number)
	b[5] = crc8(b[1:5])
	return b
}

func crc8(data []byte) byte {
	crc := byte(0)
	for _, b := range data {
		crc ^= b
		for range 8 {
			carry := crc >> 7
			crc = crc<<1 ^ carry*0x07
		}
	}
	return crc
}

// ReadNumber reads the number that Draw wrote: the frame's, modulo 2^32. It fails
// for mjpeg, for an image that is not whole or under MinSide a side, and when
// there is no number (no marker) or a damaged one (wrong CRC).
func ReadNumber(img pixel.Image) (uint64, error) {
	if err := img.Check(); err != nil {
		return 0, fmt.Errorf("read frame number: %w", err)
	}
	if img.Format == pixel.MJPEG || min(img.Size.Width, img.Size.Height) < MinSide {
		return 0, fmt.Errorf("read frame number: %s %s: want a raw format of at least %d pixels a side", img.Format, img.Size, MinSide)
	}
	luma, err := img.Plane(0)
	if err != nil {
		return 0, fmt.Errorf("read frame number: %w", err)
	}
	step, first := 1, 0 // bytes from pixel to pixel, and to the first one's luma
	switch img.Format {
	case pixel.YUYV:
		step = 2
	case pixel.RGB24:
		step, first = 3, 1
	}
	var got [rowsOfCells]byte
	for j := range got {
		for i := range columns {
			got[j] = got[j]<<1 | bit(luma, cell(img.Size), i, j, step, first)
		}
	}
	number := binary.BigEndian.Uint32(got[1:5])
	if got[0] != marker {
		return 0, fmt.Errorf("read frame number: start marker %#02x: want %#02x", got[0], marker)
	}
	if want := code(number); got != want {
		return 0, fmt.Errorf("read frame number %d: CRC %#02x: want %#02x", number, got[5], want[5])
	}
	return uint64(number), nil
}

// bit is 1 when the middle half of the cell in column i, row j is light.
func bit(luma pixel.Rows, c, i, j, step, first int) byte {
	sum, n := 0, 0
	for y := j*c + c/4; y < j*c+3*c/4; y++ {
		row := luma.Row(y)
		for x := i*c + c/4; x < i*c+3*c/4; x++ {
			sum += int(row[x*step+first])
			n++
		}
	}
	if sum >= 128*n {
		return 1
	}
	return 0
}
