package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// What ffmpeg reads is Matroska (RFC 9559, in EBML of RFC 8794) and not bare
// pixels: those have no times, and the time of their arrival is that of the
// pipe's jitter, of ffmpeg's start and of the wall clock's steps. In Matroska
// each picture has its own time and its own length, so that mjpeg goes the same
// way. The other container that holds raw video, NUT, has as little to write a
// picture, but checksums and a table of codes to write before it. Reading
// costs ffmpeg as much as bare pixels do.
//
//	EBML header, Segment of unknown size {
//	  Info { TimestampScale = 1000 ns }
//	  Tracks { one video track: V_UNCOMPRESSED or V_MJPEG, and its colours }
//	  for each frame: Cluster { Timestamp in microseconds, SimpleBlock { the frame's bytes } }
//	}
//
// All sizes of the frame's elements are 8 bytes long, so that its head is one
// array of fixed length.

// The elements' ids, RFC 9559 section 5.1.
const (
	idEBML               = 0x1A45DFA3
	idEBMLVersion        = 0x4286
	idEBMLReadVersion    = 0x42F7
	idEBMLMaxIDLength    = 0x42F2
	idEBMLMaxSizeLength  = 0x42F3
	idDocType            = 0x4282
	idDocTypeVersion     = 0x4287
	idDocTypeReadVersion = 0x4285
	idSegment            = 0x18538067
	idInfo               = 0x1549A966
	idTimestampScale     = 0x2AD7B1
	idTracks             = 0x1654AE6B
	idTrackEntry         = 0xAE
	idTrackNumber        = 0xD7
	idTrackUID           = 0x73C5
	idTrackType          = 0x83
	idFlagLacing         = 0x9C
	idCodecID            = 0x86
	idDefaultDuration    = 0x23E383
	idVideo              = 0xE0
	idPixelWidth         = 0xB0
	idPixelHeight        = 0xBA
	idUncompressedFourCC = 0x2EB524
	idColour             = 0x55B0
	idMatrixCoefficients = 0x55B1
	idRange              = 0x55B9
	idCluster            = 0x1F43B675
	idTimestamp          = 0xE7
	idSimpleBlock        = 0xA3
)

// element appends an element with its data.
func element(b []byte, id uint32, data []byte) []byte {
	return append(appendSize(appendID(b, id), uint64(len(data))), data...)
}

func number(b []byte, id uint32, n uint64) []byte {
	return element(b, id, binary.BigEndian.AppendUint64(nil, n))
}

// appendID appends an id, which has its length in its first byte already.
func appendID(b []byte, id uint32) []byte {
	for shift := 24; shift >= 0; shift -= 8 {
		if octet := byte(id >> shift); id>>shift != 0 {
			b = append(b, octet)
		}
	}
	return b
}

// appendSize appends a size in its longest form, 8 bytes.
func appendSize(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, 1<<56|n) }

// unknownSize is that of a Segment whose end is that of the stream.
const unknownSize = 1<<56 - 1

// streamHead is what comes before the first frame. It fails for a format that
// Matroska has no name for.
func streamHead(g msg.Geometry) ([]byte, error) {
	codec, fourCC := "V_UNCOMPRESSED", ""
	switch pixel.Format(g.Format) {
	case pixel.YUV420:
		fourCC = "I420"
	case pixel.NV12:
		fourCC = "NV12"
	case pixel.YUYV:
		fourCC = "YUY2"
	case pixel.RGB24:
		fourCC = "RGB\x18" // ffmpeg's own (libavcodec/raw.c): the registry of FourCCs has none for this order
	case pixel.MJPEG:
		codec = "V_MJPEG"
	default:
		return nil, fmt.Errorf("write matroska: format %.32q: want one of %v", g.Format, pixel.Formats())
	}
	head := number(nil, idEBMLVersion, 1)
	head = number(head, idEBMLReadVersion, 1)
	head = number(head, idEBMLMaxIDLength, 4)
	head = number(head, idEBMLMaxSizeLength, 8)
	head = element(head, idDocType, []byte("matroska"))
	head = number(head, idDocTypeVersion, 4)
	head = number(head, idDocTypeReadVersion, 2)

	video := number(number(nil, idPixelWidth, uint64(g.Width)), idPixelHeight, uint64(g.Height))
	if fourCC != "" {
		video = element(video, idUncompressedFourCC, []byte(fourCC))
	}
	if c := g.Colour(); c.Matrix != "" {
		colour := number(number(nil, idMatrixCoefficients, codes(c).matrix), idRange, map[pixel.Range]uint64{pixel.Limited: 1, pixel.Full: 2}[c.Range])
		video = element(video, idColour, colour)
	}
	track := number(number(nil, idTrackNumber, 1), idTrackUID, 1)
	track = number(number(track, idTrackType, 1), idFlagLacing, 0) // video, one frame a block
	track = element(track, idCodecID, []byte(codec))
	if g.Hz > 0 {
		track = number(track, idDefaultDuration, uint64(math.Round(1e9/g.Hz)))
	}
	track = element(track, idVideo, video)

	b := element(nil, idEBML, head)
	b = appendSize(appendID(b, idSegment), unknownSize)
	b = element(b, idInfo, number(nil, idTimestampScale, uint64(time.Microsecond)))
	return element(b, idTracks, element(nil, idTrackEntry, track)), nil
}

// frameHead appends what comes before the bytes of a frame: at is its time since
// the stream's beginning.
func frameHead(b []byte, at time.Duration, bytes int) []byte {
	const timestamp, block, blockHead = 1 + 8 + 8, 1 + 8, 4
	b = appendSize(appendID(b, idCluster), uint64(timestamp+block+blockHead+bytes))
	b = number(b, idTimestamp, uint64(at.Microseconds()))
	b = appendSize(appendID(b, idSimpleBlock), uint64(blockHead+bytes))
	return append(b, 0x81, 0, 0, 0x80) // track 1, at the cluster's time, a key frame
}

// parts are the bytes of a frame as ffmpeg wants them: tightly packed, in place.
func parts(f msg.Frame) (list [][]byte, bytes int, err error) {
	data := f.Bytes()
	if f.Format == string(pixel.MJPEG) {
		return [][]byte{data}, len(data), nil
	}
	planes, tight, err := pixel.Layout(pixel.Format(f.Format), pixel.Size{Width: f.Width, Height: f.Height})
	if err != nil {
		return nil, 0, err
	}
	img, err := f.Image()
	if err != nil {
		return nil, 0, err
	}
	packed := true
	for i, p := range planes {
		packed = packed && f.Planes[i].Offset == p.Offset && f.Planes[i].Stride == p.Stride
	}
	if packed {
		return [][]byte{data[:tight]}, tight, nil
	}
	for i := range planes {
		rows, err := img.Plane(i)
		if err != nil {
			return nil, 0, err
		}
		for y := range rows.Count {
			list = append(list, rows.Row(y))
		}
	}
	return list, tight, nil
}
