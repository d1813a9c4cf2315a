package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// colourOf is the colour of a video's decoded pictures: by the key colour, else
// by the video itself, else as players assume.
func colourOf(v ffmpeg.Video, key pixel.Colour) pixel.Colour {
	return key.Or(v.Colour).Or(pixel.VideoColour(v.Size))
}

// commandColour is the colour of a command's frames, which only its arguments
// can tell.
//
// rpicam-vid, formerly libcamera-vid, sets full-range BT.601 (JPEG) for the codecs
// yuv420 and mjpeg (get_colourspace_flags of rpicam_vid.cpp). For the others it
// sets limited range, with BT.709 from 1280x720 up and BT.601 below
// (ConfigureVideo of rpicam_app.cpp). ffmpeg's yuvj formats have full range. The
// default is limited-range BT.601, as cameras deliver it.
func commandColour(argv []string, s StreamConfig) pixel.Colour {
	c, rpicam := s.Colour, runsRpicam(argv)
	words := strings.Fields(strings.NewReplacer("=", " ", "'", " ", `"`, " ").Replace(strings.Join(argv, " ")))
	if codec := after(words, "--codec"); rpicam && codec != "yuv420" && codec != "mjpeg" {
		c = c.Or(pixel.VideoColour(s.Size))
	} else if rpicam || slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "yuvj4") }) {
		c = c.Or(pixel.Colour{Range: pixel.Full})
	}
	return c.Or(pixel.DefaultColour(s.Format))
}

// after is the word that follows an option.
func after(words []string, option string) string {
	if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// setColour sets the colour of the frames' header; RGB has none.
func (s *settled) setColour(c pixel.Colour) {
	if s.Format != string(pixel.RGB24) {
		s.ColourRange, s.ColourMatrix = c.Range, c.Matrix
	}
}

// frameColour is the colour of the frames that ffmpeg makes of such pictures: the
// same, except for JPEG, where JFIF 1.02 sets it.
func frameColour(f pixel.Format, c pixel.Colour) pixel.Colour {
	if f == pixel.RGB24 || f == pixel.MJPEG {
		return pixel.DefaultColour(f)
	}
	return c
}

// scaled are the filters of ffmpeg that give pictures the stream's size and
// format. They name the range and the matrix on both sides, since ffmpeg by itself
// makes full range limited, assumes BT.601 for every video without a matrix, and
// makes JPEG pictures of BT.709. Frames keep the source's colours. If the source's
// range is not known, ffmpeg converts the pictures' own to limited range.
func scaled(s StreamConfig, size pixel.Size) []string {
	to, name := frameColour(s.Format, s.Colour), s.Format.FFmpeg()
	switch s.Format {
	case pixel.RGB24:
		to = pixel.Colour{Range: pixel.Full, Matrix: s.Colour.Matrix}
	case pixel.MJPEG:
		name = "yuvj420p"
	}
	if to.Range == "" {
		to.Range = pixel.Limited
	}
	scale := fmt.Sprintf("scale=%d:%d:in_range=%s:out_range=%s", size.Width, size.Height, ffmpeg.RangeName(s.Colour.Range), ffmpeg.RangeName(to.Range))
	if s.Format == pixel.RGB24 || to.Matrix != s.Colour.Matrix { // without need it would cost a copy of each picture
		scale += fmt.Sprintf(":in_color_matrix=%s:out_color_matrix=%s", ffmpeg.MatrixName(s.Colour.Matrix), ffmpeg.MatrixName(to.Matrix))
	}
	if s.Format == pixel.RGB24 { // else RGB of scaled pictures is up to three levels too dark
		scale += ":flags=bicubic+full_chroma_int"
	}
	return []string{scale, "format=" + name}
}

// checkColour refuses the key where it would have no effect.
func (c *Config) checkColour(s StreamConfig) error {
	switch decoded := c.Input.Scheme == File || c.Input.Scheme == RTSP; {
	case s.Colour == (pixel.Colour{}) || decoded: // there it overrides what the source states
		return nil
	case c.Input.Scheme == Sim:
		return errors.New("the simulated scene has colours of its own; leave it out")
	case s.Format == pixel.RGB24:
		return errors.New("rgb24 has no YCbCr; leave it out")
	}
	return nil
}
