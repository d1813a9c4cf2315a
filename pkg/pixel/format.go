// Package pixel says how the pixels of a frame lie in memory: which format,
// which size, and at which byte each plane and each row begins.
//
//	Format + Size --Layout--> planes, bytes --NewImage(data)--> Image --Plane--> rows, in place
//
// Five formats cross the bus (names of the kernel's V4L2 guide, "Image
// Formats", and of ffmpeg in Format.FourCC and Format.FFmpeg):
//
//	yuv420  three planes: Y of w x h bytes, then Cb and Cr of w/2 x h/2 bytes (I420)
//	nv12    two planes: Y of w x h bytes, then Cb and Cr in turn, h/2 rows of w bytes
//	yuyv    one plane: Y Cb Y Cr for each two pixels of a row, 2w bytes a row
//	rgb24   one plane: R G B for each pixel, 3w bytes a row
//	mjpeg   no planes: one JPEG picture (baseline or progressive), its length varies
//
// Y is brightness ("luma"), Cb and Cr are colour ("chroma", 128 is grey). One
// chroma sample of yuv420 and nv12 stands for 2 x 2 pixels, one of yuyv for
// 2 x 1. Colour tells which colours the samples stand for; nothing here converts them.
//
// Sizes and planes may come from a message of another process, so that each is
// checked before a byte is touched. Everything fails with an error that names
// what was found and what is allowed; nothing panics on bad values.
package pixel

import (
	"fmt"
	"strings"

	"github.com/perch-edge/perch/internal/nearest"
)

// Format is how the pixels of a frame lie in memory. The zero value is no
// format and is refused everywhere.
type Format string

// The formats of frames, named as in a topology and in frame messages.
const (
	YUV420 Format = "yuv420"
	NV12   Format = "nv12"
	YUYV   Format = "yuyv"
	RGB24  Format = "rgb24"
	MJPEG  Format = "mjpeg"
)

// Formats are all formats, in the order of the package comment.
func Formats() [5]Format { return [...]Format{YUV420, NV12, YUYV, RGB24, MJPEG} }

// shape is one plane of a format: how many bytes each two pixels of a row take,
// and how many rows of the picture share a row of the plane.
type shape struct{ pairBytes, rowsPer int }

// spec is everything that is particular to one format. It has no slices, so
// that looking at a frame allocates nothing.
type spec struct {
	fourCC, ffmpeg string
	evenW, evenH   bool
	planes         int
	shapes         [3]shape
}

func (f Format) spec() (spec, error) {
	switch f {
	case YUV420:
		return spec{"YU12", "yuv420p", true, true, 3, [3]shape{{2, 1}, {1, 2}, {1, 2}}}, nil
	case NV12:
		return spec{"NV12", "nv12", true, true, 2, [3]shape{{2, 1}, {2, 2}}}, nil
	case YUYV:
		return spec{"YUYV", "yuyv422", true, false, 1, [3]shape{{4, 1}}}, nil
	case RGB24:
		return spec{"RGB3", "rgb24", false, false, 1, [3]shape{{6, 1}}}, nil
	case MJPEG:
		return spec{fourCC: "MJPG"}, nil
	}
	return spec{}, fmt.Errorf("format %.32q: want %s", string(f), list())
}

// ParseFormat reads a format's name. The error lists all names and says which one
// may have been meant; the names of V4L2 and ffmpeg are recognised for that only.
func ParseFormat(s string) (Format, error) {
	if _, err := Format(s).spec(); err != nil {
		return "", fmt.Errorf("parse %w%s", err, meant(s))
	}
	return Format(s), nil
}

// UnmarshalText makes a Format a value of TOML and JSON (encoding.TextUnmarshaler).
func (f *Format) UnmarshalText(text []byte) error {
	parsed, err := ParseFormat(string(text))
	if err != nil {
		return err
	}
	*f = parsed
	return nil
}

// FourCC is V4L2's four letters for the format (videodev2.h, V4L2_PIX_FMT_*),
// and empty for an unknown format.
func (f Format) FourCC() string {
	s, _ := f.spec()
	return s.fourCC
}

// FFmpeg is ffmpeg's name for the format (-pix_fmt). It is empty for an unknown
// format and for mjpeg, which is a codec to ffmpeg: "-f mjpeg", not a -pix_fmt.
func (f Format) FFmpeg() string {
	s, _ := f.spec()
	return s.ffmpeg
}

func list() string {
	var names []string
	for _, f := range Formats() {
		names = append(names, string(f))
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// meant is a question about the format whose name, V4L2's and ffmpeg's included,
// is near to s; it is empty where none is.
func meant(s string) string {
	of := map[string]Format{}
	var known []string
	for _, f := range Formats() {
		for _, name := range []string{string(f), strings.ToLower(f.FourCC()), f.FFmpeg()} {
			of[name], known = f, append(known, name)
		}
	}
	best, ok := nearest.Word(strings.ToLower(s[:min(len(s), 32)]), known)
	if !ok || best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", of[best])
}
