package rtspcam

import (
	"bytes"
	"errors"
	"fmt"
	"image/jpeg"
	"slices"
	"strings"

	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpav1"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpfragmented"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph264"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph265"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmjpeg"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmpeg1video"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpvp8"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpvp9"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/vp8"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/vp9"
	"github.com/pion/rtp"

	"github.com/perch-edge/perch/pkg/pixel"
)

// Shape describes a stream's pictures, by its parameter sets.
type Shape struct {
	Size   pixel.Size   // of decoded pictures; zero is not known
	Pixel  [2]int       // width and height of a pixel; zero is square
	Hz     float64      // 0 is not known
	Colour pixel.Colour // empty if the stream does not declare it
}

// JPEG is the FourCC of JPEG pictures, each of which is a file of its own.
const JPEG = "MJPG"

// codec takes the pictures of one format out of RTP packets.
type codec struct {
	name   string // for people
	fourCC string // as in AVI and IVF
	whole  bool   // packet returns whole units: the marker bit is not for us

	restart func() error                                // after a loss
	packet  func(*rtp.Packet) (parts [][]byte, _ error) // errMore: no part is complete
	look    func(unit [][]byte) contents
	join    func(unit [][]byte) []byte
}

// contents is what a unit consists of.
type contents struct {
	picture bool
	first   bool   // the picture's beginning is there
	key     bool   // decoding can begin here, if what it takes is known
	shape   *Shape // by its parameter sets; nil is unknown
	params  bool   // it has its own parameter sets
	hidden  bool   // it is not to be shown: later pictures refer to it
}

var errMore = errors.New("more packets are needed")

// more returns errMore for errors that only mean that a unit is not complete.
func more(err error) error {
	switch {
	case err == nil:
		return nil
	case slices.ContainsFunc([]error{rtph264.ErrMorePacketsNeeded, rtph264.ErrNonStartingPacketAndNoPrevious, rtph265.ErrMorePacketsNeeded,
		rtph265.ErrNonStartingPacketAndNoPrevious, rtpvp8.ErrMorePacketsNeeded, rtpvp8.ErrNonStartingPacketAndNoPrevious, rtpvp9.ErrMorePacketsNeeded,
		rtpvp9.ErrNonStartingPacketAndNoPrevious, rtpav1.ErrMorePacketsNeeded, rtpav1.ErrNonStartingPacketAndNoPrevious, rtpmjpeg.ErrMorePacketsNeeded,
		rtpmjpeg.ErrNonStartingPacketAndNoPrevious, rtpmpeg1video.ErrMorePacketsNeeded, rtpmpeg1video.ErrNonStartingPacketAndNoPrevious,
		rtpfragmented.ErrMorePacketsNeeded}, func(usual error) bool { return errors.Is(err, usual) }):
		return errMore
	}
	return err
}

// choose finds the video of a description that can be read.
func choose(desc *description.Session) (*description.Media, format.Format, *codec, error) {
	var offered, videos []string
	var found *codec
	var foundMedia *description.Media
	var foundFormat format.Format
	for _, m := range desc.Medias {
		for _, f := range m.Formats {
			name := fmt.Sprintf("%s (%s)", m.Type, codecName(f))
			if m.IsBackChannel {
				name += " to the camera"
			}
			offered = append(offered, name)
			if m.Type != description.MediaTypeVideo || m.IsBackChannel {
				continue
			}
			videos = append(videos, codecName(f))
			if c := newCodec(f); c != nil && found == nil {
				found, foundMedia, foundFormat = c, m, f
			}
		}
	}
	switch {
	case found != nil:
		return foundMedia, foundFormat, found, nil
	case len(videos) > 0:
		return nil, nil, nil, fmt.Errorf("its video is %s, which is not supported: want H264, H265, M-JPEG, MPEG-4 Video, MPEG-1/2 Video, VP8, VP9 or AV1; choose another codec in the camera's settings", strings.Join(videos, ", "))
	case len(offered) > 0:
		return nil, nil, nil, fmt.Errorf("no video in it, only %s: want the path of a stream with video", strings.Join(offered, ", "))
	}
	return nil, nil, nil, errors.New("nothing in it: no video and no other stream; want the path of a stream with video")
}

// codecName names a format for people: by its type in the library.
func codecName(f format.Format) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", f), "*format.")
}

func newCodec(f format.Format) *codec {
	c := &codec{name: codecName(f), whole: true}
	switch f := f.(type) {
	case *format.H264:
		h264Codec(c, f)
	case *format.H265:
		h265Codec(c, f)
	case *format.MJPEG:
		c.fourCC = JPEG
		whole(c, f.CreateDecoder, (*rtpmjpeg.Decoder).Decode, func(b []byte) contents {
			shape := &Shape{Colour: pixel.DefaultColour(pixel.MJPEG)}
			head, err := jpeg.DecodeConfig(bytes.NewReader(b))
			if err == nil {
				shape.Size = pixel.Size{Width: head.Width, Height: head.Height}
			}
			return contents{picture: true, first: true, key: err == nil, shape: shape}
		})
	case *format.VP8:
		c.fourCC = "VP80"
		whole(c, f.CreateDecoder, (*rtpvp8.Decoder).Decode, func(b []byte) contents {
			has := contents{picture: true, first: true, key: vp8.IsRandomAccess(b), hidden: b[0]&0x10 == 0}
			if has.key && len(b) >= 10 { // RFC 6386, 9.1: two numbers of 14 bits
				has.shape = &Shape{Size: pixel.Size{Width: (int(b[7])<<8 | int(b[6])) & 0x3fff, Height: (int(b[9])<<8 | int(b[8])) & 0x3fff}}
			}
			return has
		})
	case *format.VP9:
		c.fourCC = "VP90"
		whole(c, f.CreateDecoder, (*rtpvp9.Decoder).Decode, func(b []byte) contents {
			var head vp9.Header
			has := contents{picture: true, first: true}
			err := head.Unmarshal(b)
			has.hidden = err == nil && !head.ShowFrame && !head.ShowExistingFrame
			if err == nil && head.FrameSize != nil && !head.NonKeyFrame && !head.ShowExistingFrame {
				has.key, has.shape = true, &Shape{Size: pixel.Size{Width: head.Width(), Height: head.Height()}}
			}
			return has
		})
	case *format.MPEG4Video:
		c.fourCC = "MP4V"
		config := f.Config
		whole(c, f.CreateDecoder, (*rtpfragmented.Decoder).Decode, mpeg4Contents)
		c.join = func(unit [][]byte) []byte {
			if b := unit[0]; mpeg4Contents(b).key && !bytes.HasPrefix(b, config) {
				return append(bytes.Clone(config), b...)
			}
			return unit[0]
		}
	case *format.MPEG1Video:
		c.fourCC = "mpg2"
		whole(c, f.CreateDecoder, (*rtpmpeg1video.Decoder).Decode, mpeg2Contents)
	case *format.AV1:
		av1Codec(c, f)
	default:
		return nil
	}
	if err := c.restart(); err != nil {
		return nil
	}
	return c
}

// whole fills in a codec whose depacketizer returns units.
func whole[D any](c *codec, create func() (D, error), decode func(D, *rtp.Packet) ([]byte, error), look func([]byte) contents) {
	var dec D
	c.restart = func() (err error) { dec, err = create(); return err }
	c.packet = func(pkt *rtp.Packet) ([][]byte, error) {
		unit, err := decode(dec, pkt)
		if err != nil {
			return nil, more(err)
		}
		return [][]byte{unit}, nil
	}
	c.look = func(unit [][]byte) contents { return look(unit[0]) }
	c.join = func(unit [][]byte) []byte { return unit[0] }
}

func av1Codec(c *codec, f *format.AV1) {
	c.fourCC = "AV01"
	var dec *rtpav1.Decoder
	c.restart = func() (err error) { dec, err = f.CreateDecoder(); return err }
	c.packet = func(pkt *rtp.Packet) ([][]byte, error) {
		unit, err := dec.Decode(pkt)
		return unit, more(err)
	}
	c.look = func(unit [][]byte) contents {
		has := contents{picture: true, first: true}
		for _, obu := range unit {
			var head av1.SequenceHeader
			if len(obu) > 0 && av1.OBUType(obu[0]>>3&0xf) == av1.OBUTypeSequenceHeader && head.Unmarshal(obu) == nil {
				has.key = true
				has.shape = &Shape{Size: pixel.Size{Width: head.Width(), Height: head.Height()}}
			}
		}
		return has
	}
	c.join = func(unit [][]byte) []byte {
		b, err := av1.Bitstream(unit).Marshal()
		if err != nil {
			return nil
		}
		return append([]byte{0x12, 0}, b...) // a temporal delimiter, AV1 section 7.5
	}
}

// mpeg4Contents looks for the start codes of ISO/IEC 14496-2.
func mpeg4Contents(b []byte) contents {
	i := bytes.Index(b, []byte{0, 0, 1, 0xb6})
	if i < 0 || i+4 >= len(b) {
		return contents{}
	}
	return contents{picture: true, first: true, key: b[i+4]>>6 == 0}
}

// mpeg2Contents looks for the start codes of ISO/IEC 13818-2.
func mpeg2Contents(b []byte) contents {
	var has contents
	if i := bytes.Index(b, []byte{0, 0, 1, 0}); i >= 0 && i+5 < len(b) {
		has = contents{picture: true, first: true}
	}
	if i := bytes.Index(b, []byte{0, 0, 1, 0xb3}); i >= 0 && i+7 < len(b) {
		has.key = has.picture
		has.shape = &Shape{Size: pixel.Size{Width: int(b[i+4])<<4 | int(b[i+5])>>4, Height: int(b[i+5]&0xf)<<8 | int(b[i+6])}}
	}
	return has
}

// annexB fills in the depacketizer and the form of H.264 and H.265. Both
// depacketizers are asked for each packet's NAL units at once: units are put
// together here, where it is known when the first packet of one came.
func annexB[D any](c *codec, create func() (D, error), decode func(D, *rtp.Packet) ([][]byte, error), params func() [][]byte) {
	var dec D
	c.whole = false
	c.restart = func() (err error) { dec, err = create(); return err }
	c.packet = func(pkt *rtp.Packet) ([][]byte, error) {
		last := *pkt
		last.Marker = true
		nalus, err := decode(dec, &last)
		return nalus, more(err)
	}
	c.join = func(unit [][]byte) []byte {
		if has := c.look(unit); has.key && !has.params {
			unit = append(params(), unit...)
		}
		n := 0
		for _, nalu := range unit {
			n += 4 + len(nalu)
		}
		b := make([]byte, 0, n)
		for _, nalu := range unit {
			b = append(append(b, 0, 0, 0, 1), nalu...)
		}
		return b
	}
}

// pictureSets are the picture parameter sets of a stream, the newest last: a
// decoder that is given all of them keeps the newest of each number.
type pictureSets [][]byte

const mostPictureSets = 16

func (p *pictureSets) add(nalu []byte) {
	if len(nalu) == 0 {
		return
	}
	list := slices.DeleteFunc(*p, func(known []byte) bool { return bytes.Equal(known, nalu) })
	list = append(list, bytes.Clone(nalu))
	*p = list[max(0, len(list)-mostPictureSets):]
}

func h264Codec(c *codec, f *format.H264) {
	c.fourCC = "H264"
	sps, first := f.SPS, f.PPS
	var pps pictureSets
	pps.add(first)
	annexB(c, f.CreateDecoder, (*rtph264.Decoder).Decode, func() [][]byte { return append([][]byte{sps}, pps...) })
	shape := h264Shape(sps)
	c.look = func(unit [][]byte) (has contents) {
		for _, nalu := range unit {
			if len(nalu) < 2 {
				continue
			}
			switch h264.NALUType(nalu[0] & 0x1f) {
			case h264.NALUTypeSPS:
				if !bytes.Equal(sps, nalu) {
					sps, shape = bytes.Clone(nalu), h264Shape(nalu)
				}
				has.params = true
			case h264.NALUTypePPS:
				pps.add(nalu)
			case h264.NALUTypeIDR:
				has.key = true
				fallthrough
			case h264.NALUTypeNonIDR, h264.NALUTypeDataPartitionA:
				has.first = has.first || !has.picture && nalu[1]&0x80 != 0 // first_mb_in_slice is 0
				has.picture = true
			case h264.NALUTypeSEI:
				has.key = has.key || nalu[1] == 6 // recovery point: where there is no IDR
			}
		}
		has.key = has.key && has.picture && shape != nil && len(pps) > 0
		has.shape = shape
		return has
	}
}

func h264Shape(nalu []byte) *Shape {
	var sps h264.SPS
	if nalu == nil || sps.Unmarshal(nalu) != nil || sps.Width() <= 0 || sps.Height() <= 0 {
		return nil
	}
	s := &Shape{Size: pixel.Size{Width: sps.Width(), Height: sps.Height()}}
	if v := sps.VUI; v != nil {
		s.Colour = vuiColour(v.VideoSignalTypePresentFlag, v.VideoFullRangeFlag, v.ColourDescriptionPresentFlag, v.MatrixCoefficients)
		s.Pixel = vuiPixel(v.AspectRatioInfoPresentFlag, v.AspectRatioIdc, v.SarWidth, v.SarHeight)
		if t := v.TimingInfo; t != nil && t.NumUnitsInTick > 0 {
			s.Hz = plausible(sps.FPS())
		}
	}
	return s
}

func h265Codec(c *codec, f *format.H265) {
	c.fourCC = "HEVC"
	vps, sps, first := f.VPS, f.SPS, f.PPS
	var pps pictureSets
	pps.add(first)
	annexB(c, f.CreateDecoder, (*rtph265.Decoder).Decode, func() [][]byte { return append([][]byte{vps, sps}, pps...) })
	shape := h265Shape(sps)
	c.look = func(unit [][]byte) (has contents) {
		for _, nalu := range unit {
			if len(nalu) < 3 {
				continue
			}
			switch typ := h265.NALUType(nalu[0] >> 1 & 0x3f); {
			case typ == h265.NALUType_VPS_NUT:
				vps = bytes.Clone(nalu)
			case typ == h265.NALUType_SPS_NUT:
				if !bytes.Equal(sps, nalu) {
					sps, shape = bytes.Clone(nalu), h265Shape(nalu)
				}
				has.params = true
			case typ == h265.NALUType_PPS_NUT:
				pps.add(nalu)
			case typ < h265.NALUType_VPS_NUT: // coded slices
				has.key = has.key || 16 <= typ && typ <= 23 // IRAP
				has.first = has.first || !has.picture && nalu[2]&0x80 != 0
				has.picture = true
			}
		}
		has.key = has.key && shape != nil && vps != nil && len(pps) > 0
		has.shape = shape
		return has
	}
}

func h265Shape(nalu []byte) *Shape {
	var sps h265.SPS
	if nalu == nil || sps.Unmarshal(nalu) != nil || sps.Width() <= 0 || sps.Height() <= 0 {
		return nil
	}
	s := &Shape{Size: pixel.Size{Width: sps.Width(), Height: sps.Height()}}
	if v := sps.VUI; v != nil {
		s.Colour = vuiColour(v.VideoSignalTypePresentFlag, v.VideoFullRangeFlag, v.ColourDescriptionPresentFlag, v.MatrixCoefficients)
		s.Pixel = vuiPixel(v.AspectRatioInfoPresentFlag, v.AspectRatioIdc, v.SarWidth, v.SarHeight)
		if t := v.TimingInfo; t != nil && t.NumUnitsInTick > 0 {
			s.Hz = plausible(sps.FPS())
		}
	}
	return s
}

// vuiColour reads the same fields of H.264 (E.2.1) and H.265 (E.3.1).
func vuiColour(present, full, described bool, matrix uint8) (c pixel.Colour) {
	if !present {
		return c
	}
	c.Range = pixel.Limited
	if full {
		c.Range = pixel.Full
	}
	if described {
		switch matrix {
		case 1:
			c.Matrix = pixel.BT709
		case 5, 6:
			c.Matrix = pixel.BT601
		case 9, 10:
			c.Matrix = pixel.BT2020
		}
	}
	return c
}

// vuiPixel is the shape of a pixel, table E-1 of both.
func vuiPixel(present bool, idc uint8, width, height uint16) [2]int {
	table := [...][2]int{{0, 0}, {1, 1}, {12, 11}, {10, 11}, {16, 11}, {40, 33}, {24, 11}, {20, 11}, {32, 11}, {80, 33}, {18, 11}, {15, 11}, {64, 33},
		{160, 99}, {4, 3}, {3, 2}, {2, 1}}
	switch {
	case !present:
	case idc == 255 && width > 0 && height > 0:
		return [2]int{int(width), int(height)}
	case int(idc) < len(table):
		return table[idc]
	}
	return [2]int{}
}

// plausible refuses what is a clock and not a rate.
func plausible(hz float64) float64 {
	if !(hz > 0 && hz <= 1000) {
		return 0
	}
	return hz
}
