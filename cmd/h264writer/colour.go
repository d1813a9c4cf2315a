package main

import (
	"fmt"
	"strings"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// videoColour is the colour of a video: that of the frames, and for rgb24, which has
// to be converted, the one that players assume.
//
// Full range is kept and declared, not converted to limited range: browsers, VLC,
// mpv and ffmpeg support it, network cameras record it too, and the conversion would
// cost a copy of each frame and a tenth of the levels. A player that ignores the
// declaration shows dark parts too dark and light ones too light.
func videoColour(g msg.Geometry) pixel.Colour {
	return g.Colour().Or(pixel.VideoColour(pixel.Size{Width: g.Width, Height: g.Height}))
}

// tags are a colour's names and numbers in H.264 (ITU-T H.264, tables E-3 to E-5),
// in MP4's colr box (ISO/IEC 14496-12, 12.1.5) and in Matroska (RFC 9559,
// 5.1.4.1.28.16 and on), which are the same.
type tags struct {
	matrixName, primariesName, transferName string
	matrix, primaries, transfer             uint64
}

// codes are the tags of a colour. A frame does not declare its primaries, so BT.601
// gets those of sRGB (BT.709): V4L2's default for cameras, and what viewers assume
// for JPEG. Videos and pictures of a camera then look alike.
func codes(c pixel.Colour) tags {
	switch c.Matrix {
	case pixel.BT709:
		return tags{"bt709", "bt709", "bt709", 1, 1, 1}
	case pixel.BT2020:
		return tags{"bt2020nc", "bt2020", "bt2020-10", 9, 9, 14}
	}
	return tags{"smpte170m", "bt709", "bt709", 6, 1, 1}
}

// colourArgs are the arguments with which ffmpeg gives the encoder pictures in
// yuv420p with even sides, and declares their colour in the video. Range and matrix
// are named on both sides of a conversion, since ffmpeg by itself converts full
// range to limited and RGB to BT.601.
func colourArgs(encoder string, g msg.Geometry) []string {
	c := videoColour(g)
	t, samples := codes(c), ffmpeg.RangeName(c.Range)
	var filters []string
	if g.Width%2 != 0 || g.Height%2 != 0 { // H.264 in 4:2:0 has no odd sides
		filters = append(filters, "crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0")
	}
	switch pixel.Format(g.Format) {
	case pixel.RGB24:
		filters = append(filters, fmt.Sprintf("scale=out_range=%s:out_color_matrix=%s", samples, ffmpeg.MatrixName(c.Matrix)))
	case pixel.MJPEG: // called full range whatever the frames declare, so that samples stay unchanged
		filters = append(filters, "scale=in_range=pc:out_range=pc")
	default:
		filters = append(filters, fmt.Sprintf("scale=in_range=%s:out_range=%[1]s", samples))
	}
	filters = append(filters, "format=yuv420p", fmt.Sprintf("setparams=range=%s:colorspace=%s:color_primaries=%s:color_trc=%s",
		samples, t.matrixName, t.primariesName, t.transferName))
	args := []string{"-vf", strings.Join(filters, ","), "-color_range", samples, "-colorspace", t.matrixName,
		"-color_primaries", t.primariesName, "-color_trc", t.transferName}
	if encoder == "h264_v4l2m2m" { // ffmpeg does not pass the colour to this encoder
		full := 0
		if c.Range == pixel.Full {
			full = 1
		}
		args = append(args, "-bsf:v", fmt.Sprintf("h264_metadata=video_full_range_flag=%d:matrix_coefficients=%d:colour_primaries=%d:transfer_characteristics=%d",
			full, t.matrix, t.primaries, t.transfer))
	}
	return args
}
