package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// colourOf is what decoded pictures of a video are taken for: what the key
// colour says, then what the video says, then what players assume.
func colourOf(v ffmpeg.Video, key pixel.Colour) pixel.Colour {
	return key.Or(v.Colour).Or(pixel.VideoColour(v.Size))
}

// commandColour is what the frames of a command are taken for that cannot be
// asked.
//
// Rpicam-vid sets the colours of JPEG, which are full-range BT.601, for the
// codecs yuv420 and mjpeg (get_colourspace_flags of rpicam_vid.cpp), and for
// others BT.709 from 1280x720 up and BT.601 below, both of limited range
// (ConfigureVideo of rpicam_app.cpp). Its old name is libcamera-vid. Ffmpeg's
// formats yuvj420p and so on are of full range. Everything else is taken for what
// cameras deliver: limited-range BT.601.
func commandColour(argv []string, s StreamConfig) pixel.Colour {
	c := s.Colour
	rpicam := slices.ContainsFunc(argv, func(word string) bool {
		// A shell's -c has the whole command in one word.
		return slices.ContainsFunc(strings.Fields(word), func(w string) bool {
			name := filepath.Base(w)
			return name == "rpicam-vid" || name == "libcamera-vid"
		})
	})
	words := strings.Fields(strings.NewReplacer("=", " ", "'", " ", `"`, " ").Replace(strings.Join(argv, " ")))
	if codec := after(words, "--codec"); rpicam && codec != "yuv420" && codec != "mjpeg" {
		c = c.Or(pixel.VideoColour(s.Size))
	} else if rpicam || slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "yuvj4") }) {
		c = c.Or(pixel.Colour{Range: pixel.Full})
	}
	return c.Or(pixel.DefaultColour(s.Format))
}

// after is the word that stands behind the option.
func after(words []string, option string) string {
	if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// setColour notes what the frames' samples stand for; RGB needs no such note.
func (s *settled) setColour(c pixel.Colour) {
	if s.Format != string(pixel.RGB24) {
		s.ColourRange, s.ColourMatrix = c.Range, c.Matrix
	}
}

// frameColour is what ffmpeg is to make of pictures of that colour: the same, and
// of JPEG what JFIF 1.02 wants.
func frameColour(f pixel.Format, c pixel.Colour) pixel.Colour {
	if f == pixel.RGB24 || f == pixel.MJPEG {
		return pixel.DefaultColour(f)
	}
	return c
}

// scaled are the filters of ffmpeg that give pictures the stream's size and
// format. They name the range and the matrix on both sides: left to itself ffmpeg
// makes full range limited, takes every video that does not say for BT.601, and
// makes JPEG pictures of BT.709. Frames keep the source's colours. Where the
// source's range is not known beforehand, ffmpeg goes by the pictures' own, and
// makes it limited.
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
	if s.Format == pixel.RGB24 || to.Matrix != s.Colour.Matrix { // named without need it costs a copy of each picture
		scale += fmt.Sprintf(":in_color_matrix=%s:out_color_matrix=%s", ffmpeg.MatrixName(s.Colour.Matrix), ffmpeg.MatrixName(to.Matrix))
	}
	if s.Format == pixel.RGB24 { // else RGB of scaled pictures is up to three levels too dark
		scale += ":flags=bicubic+full_chroma_int"
	}
	return []string{scale, "format=" + name}
}

// checkColour refuses the key where nothing could go by it.
func (c *Config) checkColour(s StreamConfig) error {
	switch decoded := c.Input.Scheme == File || c.Input.Scheme == RTSP; {
	case s.Colour == (pixel.Colour{}) || decoded: // there it says what the source is
		return nil
	case c.Input.Scheme == Sim:
		return errors.New("the simulated scene has colours of its own; leave it out")
	case s.Format == pixel.RGB24:
		return errors.New("rgb24 has no YCbCr; leave it out")
	}
	return nil
}
