package v4l2cam

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vladimirvivien/go4vl/v4l2"
)

func pixFormat(width, height int, format string, bytesPerLine, sizeImage int) v4l2.PixFormat {
	return v4l2.PixFormat{
		Width: uint32(width), Height: uint32(height), PixelFormat: fourCC(format),
		BytesPerLine: uint32(bytesPerLine), SizeImage: uint32(sizeImage),
	}
}

func TestLayoutLeavesPaddingOut(t *testing.T) {
	for _, c := range []struct {
		name string
		pix  v4l2.PixFormat
		src  string // '.' is padding
		want string
	}{
		{"tight", pixFormat(2, 2, "YUYV", 4, 8), "abcdefgh", "abcdefgh"},
		{"stride 0 is tight", pixFormat(2, 2, "YUYV", 0, 8), "abcdefgh", "abcdefgh"},
		{"page after the frame", pixFormat(2, 2, "YUYV", 4, 8), "abcdefgh....", "abcdefgh"},
		{"YUYV", pixFormat(2, 2, "YUYV", 6, 12), "abcd..efgh..", "abcdefgh"},
		{"last line without padding", pixFormat(2, 2, "YUYV", 6, 10), "abcd..efgh", "abcdefgh"},
		{"RGB3", pixFormat(2, 2, "RGB3", 8, 16), "abcdef..ghijkl..", "abcdefghijkl"},
		{"NV12", pixFormat(2, 2, "NV12", 4, 12), "ab..cd..uv..", "abcduv"},
		{"YU12", pixFormat(2, 2, "YU12", 4, 12), "ab..cd..u.v.", "abcduv"},
	} {
		l, err := newLayout(c.pix)
		if err != nil {
			t.Errorf("%s: newLayout(%+v) = %v", c.name, c.pix, err)
			continue
		}
		dst := make([]byte, l.frameBytes)
		n, err := l.copy(dst, []byte(c.src))
		if diff := cmp.Diff(c.want, string(dst[:n])); diff != "" || err != nil {
			t.Errorf("%s: copy(%q) = %v (-want +got):\n%s", c.name, c.src, err, diff)
		}
		if n, err := l.copy(dst, []byte(c.src)[:l.bufferUsed-1]); err == nil || n != 0 {
			t.Errorf("%s: copy of a frame cut short = %d, %v; want 0 and an error", c.name, n, err)
		}
	}
}

func TestLayoutRefusesWhatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name string
		pix  v4l2.PixFormat
	}{
		{"line shorter than the picture", pixFormat(64, 48, "YUYV", 127, 1<<20)},
		{"chroma line shorter", pixFormat(64, 48, "YU12", 63, 1<<20)},
		{"sizeimage too small", pixFormat(64, 48, "NV12", 64, 64*48*3/2-1)},
		{"MJPG without a size", pixFormat(64, 48, "MJPG", 0, 0)},
		{"unknown format", pixFormat(64, 48, "H264", 0, 1<<20)},
	} {
		if l, err := newLayout(c.pix); err == nil {
			t.Errorf("%s: newLayout(%+v) = %+v; want an error", c.name, c.pix, l)
		}
	}
}

func TestLayoutCopiesJPEGAsItIs(t *testing.T) {
	l, err := newLayout(pixFormat(64, 48, "MJPG", 0, 8))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		src  string
		want int
	}{
		{"\xff\xd8abcd", 6},
		{"\xff\xd8abcdef", 8},
		{"\xff\xd8abcdefg", 0}, // longer than the driver said a frame can be
		{"abcd\xff\xd9", 0},    // the second half of a frame
		{"", 0},
	} {
		n, err := l.copy(make([]byte, 8), []byte(c.src))
		if n != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("copy(%q) = %d, %v; want %d", c.src, n, err, c.want)
		}
	}
}

// FuzzLayout feeds in what a driver may answer: whatever the numbers are, a
// layout that is accepted stays within its source and its destination.
func FuzzLayout(f *testing.F) {
	f.Add(uint16(64), uint16(48), uint8(0), uint32(64), uint32(64*48*3/2), uint32(64*48*3/2))
	f.Add(uint16(2), uint16(2), uint8(2), uint32(6), uint32(10), uint32(10))
	f.Add(uint16(640), uint16(480), uint8(4), uint32(0), uint32(1000), uint32(900))
	f.Fuzz(func(t *testing.T, width, height uint16, format uint8, bytesPerLine, sizeImage, used uint32) {
		const limit = 1 << 20
		w, h := 2*(1+int(width)%512), 2*(1+int(height)%512)
		l, err := newLayout(pixFormat(w, h, formats()[int(format)%len(formats())], int(bytesPerLine%limit), int(sizeImage%limit)))
		if err != nil {
			return
		}
		src := bytes.Repeat([]byte{0xff}, int(used%limit))
		dst := make([]byte, l.frameBytes)
		n, err := l.copy(dst, src)
		if n > l.frameBytes || err != nil && n != 0 || err == nil && l.planes != nil && n != l.frameBytes {
			t.Errorf("%+v.copy(%d bytes) = %d, %v; want a whole frame of at most %d, or 0 and an error", l, len(src), n, err, l.frameBytes)
		}
	})
}
