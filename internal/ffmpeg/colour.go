package ffmpeg

import (
	"slices"
	"strings"

	"github.com/perch-edge/perch/pkg/pixel"
)

// colourOf reads ffprobe's pix_fmt, color_range and color_space (the names of
// libavutil/pixdesc.c). What the input does not say is left empty. RGB has
// neither, though ffprobe calls its range "pc" and its space "gbr".
func colourOf(pixFmt, colourRange, space string) pixel.Colour {
	rgb := []string{"rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "x2rgb", "x2bgr", "pal8", "mono", "bayer"}
	if slices.ContainsFunc(rgb, func(begin string) bool { return strings.HasPrefix(pixFmt, begin) }) {
		return pixel.Colour{}
	}
	var c pixel.Colour
	switch {
	case colourRange == "pc", strings.HasPrefix(pixFmt, "yuvj"): // JPEG, and H.264 of full range
		c.Range = pixel.Full
	case colourRange == "tv":
		c.Range = pixel.Limited
	}
	switch space {
	case "smpte170m", "bt470bg", "fcc": // FCC's shares are those of BT.601 to a hundredth
		c.Matrix = pixel.BT601
	case "bt709", "smpte240m": // and SMPTE 240M's those of BT.709, to 0.015
		c.Matrix = pixel.BT709
	case "bt2020nc", "bt2020c":
		c.Matrix = pixel.BT2020
	}
	return c
}

// RangeName and MatrixName are ffmpeg's names of a range and a matrix, for the
// options in_range and in_color_matrix of its filter scale and their like;
// "auto" where it is not known.
func RangeName(r pixel.Range) string {
	switch r {
	case pixel.Limited:
		return "tv"
	case pixel.Full:
		return "pc"
	}
	return "auto"
}

// MatrixName is as RangeName says.
func MatrixName(m pixel.Matrix) string {
	if m == "" {
		return "auto"
	}
	return string(m)
}
