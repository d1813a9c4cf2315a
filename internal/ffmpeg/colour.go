package ffmpeg

import (
	"slices"
	"strings"

	"github.com/perch-edge/perch/pkg/pixel"
)

// colourOf reads ffprobe's pix_fmt, color_range and color_space (the names of
// libavutil/pixdesc.c). What the input does not declare stays empty. RGB has
// neither, although ffprobe calls its range "pc" and its space "gbr".
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
	case "smpte170m", "bt470bg", "fcc": // FCC's weights differ from BT.601's by less than 0.01
		c.Matrix = pixel.BT601
	case "bt709", "smpte240m": // SMPTE 240M's weights differ from BT.709's by less than 0.015
		c.Matrix = pixel.BT709
	case "bt2020nc", "bt2020c":
		c.Matrix = pixel.BT2020
	}
	return c
}

// RangeName is ffmpeg's name of a range, for options such as in_range of its filter
// scale; "auto" if it is unknown.
func RangeName(r pixel.Range) string {
	switch r {
	case pixel.Limited:
		return "tv"
	case pixel.Full:
		return "pc"
	}
	return "auto"
}

// MatrixName is ffmpeg's name of a matrix, for options such as in_color_matrix of
// its filter scale; "auto" if it is unknown.
func MatrixName(m pixel.Matrix) string {
	if m == "" {
		return "auto"
	}
	return string(m)
}
