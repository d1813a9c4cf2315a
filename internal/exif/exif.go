// Package exif writes into a JPEG picture when, where and by what it was taken.
//
//	Info --Segment--> APP1          SOI, APP1, the rest of the JPEG --Write--> file
//
// The tags are those of Exif 2.32 (CIPA DC-008-2019), the container is TIFF 6.0,
// big-endian. Beside the tags that the standard demands of every JPEG:
//
//	DateTime, DateTimeOriginal, DateTimeDigitized   Info.Time in UTC, "2006:01:02 15:04:05"
//	SubSecTime, …Original, …Digitized               its nine digits of nanoseconds
//	OffsetTime, …Original, …Digitized               "+00:00"
//	Make, Model                                     of the camera, absent where not known
//	Software                                        of perch, "perch <version>"
//	HostComputer                                    the node's name
//	GPSLatitude, GPSLongitude, …Ref, GPSMapDatum    Info.Position: where the box stands, "WGS-84"
//	GPSAltitude, GPSAltitudeRef                     its height, ref 1 below sea level
//	UserComment                                     which frame it is, see below
//
// HostComputer (0x013C) is TIFF's own tag for the computer that made the picture
// (TIFF 6.0, section 8). DC-008 does not list it but has no tag for that, and its 0th
// IFD is a TIFF IFD, in which readers know it. UserComment (DC-008, 4.6.5), of
// character code ASCII, has this form, words apart by one space, in this order:
//
//	source=<source> stream=<stream> epoch=<epoch> seq=<seq> synced=<true or false>
//
// where source, stream, epoch and seq are those of the frame's message on the bus,
// and synced tells whether the clock behind Info.Time was disciplined.
//
// Exif text is 7-bit ASCII: other characters become "?", and a text ends after 255.
// So nothing fails here but Write, for what is no JPEG or when writing fails.
package exif

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
)

// Info is what is known of a picture. Empty texts, a zero Time, a zero Size and no
// Position, or one that is nowhere on Earth, leave their tags out.
type Info struct {
	Time     time.Time // of capture
	Synced   bool      // the wall clock was disciplined then
	Size     pixel.Size
	Node     string
	Position *topology.Position // of the node
	Make     string
	Model    string
	// Software is the program and its version, "perch 1.2.0".
	Software string
	Source   string
	Stream   string
	Epoch    string
	Seq      uint64
}

// Write writes a JPEG picture with its Exif segment, which must be the first one
// (DC-008, 4.5.4), to w. The picture is not copied. It is not searched for an Exif
// segment of its own: readers take the first, which is ours.
func Write(w io.Writer, jpeg []byte, info Info) error {
	if len(jpeg) < 2 || jpeg[0] != 0xff || jpeg[1] != 0xd8 {
		return fmt.Errorf("write picture: first bytes % x: want ff d8, as of a JPEG", jpeg[:min(len(jpeg), 2)])
	}
	for _, part := range [][]byte{jpeg[:2], Segment(info), jpeg[2:]} {
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("write picture: %w", err)
		}
	}
	return nil
}

// Segment is the APP1 segment, marker and length included, to stand right behind
// SOI. It is under 4 KiB.
func Segment(info Info) []byte {
	const header = 8 // of TIFF, from which offsets are counted
	// The 0th IFD tells where the others begin: behind itself. To know its length it
	// is made with any places first.
	gps := position(info.Position)
	second := header + len(directory(header, primary(info, header, len(gps))))
	behind, third := directory(second, private(info)), 0
	if len(gps) > 0 {
		third = second + len(behind)
		behind = append(behind, directory(third, gps)...)
	}
	tiff := []byte{'M', 'M', 0, 42, 0, 0, 0, header}
	tiff = append(tiff, directory(header, primary(info, second, third))...)
	tiff = append(tiff, behind...)

	segment := []byte{0xff, 0xe1}
	segment = binary.BigEndian.AppendUint16(segment, uint16(2+6+len(tiff)))
	segment = append(segment, "Exif\x00\x00"...)
	return append(segment, tiff...)
}

// primary is the 0th IFD (DC-008, 4.6.4), in ascending order of tags. A gpsIFD of 0
// is none.
func primary(info Info, exifIFD, gpsIFD int) []field {
	dateTime, _, _ := timeTexts(info.Time)
	return []field{
		text(0x010F, info.Make),
		text(0x0110, info.Model),
		rationals(0x011A, ratio{72, 1}), // XResolution: 72 where not known
		rationals(0x011B, ratio{72, 1}), // YResolution
		short(0x0128, 2),                // ResolutionUnit: inch
		text(0x0131, info.Software),
		text(0x0132, dateTime),
		text(0x013C, info.Node), // HostComputer
		short(0x0213, 1),        // YCbCrPositioning: centred, as in JFIF
		long(0x8769, exifIFD),   // ExifIFD
		long(0x8825, gpsIFD),    // GPS IFD
	}
}

// private is the Exif IFD (DC-008, 4.6.5), in ascending order of tags.
func private(info Info) []field {
	dateTime, fraction, zone := timeTexts(info.Time)
	return []field{
		undefined(0x9000, "0232"),             // ExifVersion
		text(0x9003, dateTime),                // DateTimeOriginal
		text(0x9004, dateTime),                // DateTimeDigitized
		text(0x9010, zone),                    // OffsetTime
		text(0x9011, zone),                    // OffsetTimeOriginal
		text(0x9012, zone),                    // OffsetTimeDigitized
		undefined(0x9101, "\x01\x02\x03\x00"), // ComponentsConfiguration: Y Cb Cr
		undefined(0x9286, "ASCII\x00\x00\x00"+comment(info)),
		text(0x9290, fraction),         // SubSecTime
		text(0x9291, fraction),         // SubSecTimeOriginal
		text(0x9292, fraction),         // SubSecTimeDigitized
		undefined(0xA000, "0100"),      // FlashpixVersion
		short(0xA001, 1),               // ColorSpace: sRGB
		long(0xA002, info.Size.Width),  // PixelXDimension
		long(0xA003, info.Size.Height), // PixelYDimension
	}
}

// timeTexts are empty for a time that four digits of a year cannot tell.
func timeTexts(t time.Time) (dateTime, fraction, zone string) {
	t = t.UTC()
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return "", "", ""
	}
	return t.Format("2006:01:02 15:04:05"), fmt.Sprintf("%09d", t.Nanosecond()), "+00:00"
}

func comment(info Info) string {
	word := func(s string) string { return strings.ReplaceAll(ascii(s), " ", "?") }
	return fmt.Sprintf("source=%s stream=%s epoch=%s seq=%d synced=%t",
		word(info.Source), word(info.Stream), word(info.Epoch), info.Seq, info.Synced)
}
