package exif

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
)

func example() Info {
	zone := time.FixedZone("CEST", 2*3600)
	return Info{
		Time:     time.Date(2026, 7, 1, 1, 2, 3, 45006007, zone),
		Synced:   true,
		Size:     pixel.Size{Width: 48, Height: 32},
		Node:     "airpi-01",
		Make:     "Raspberry Pi",
		Model:    "imx708",
		Software: "perch 0.1.0",
		Source:   "porch",
		Stream:   "video",
		Position: place(-33.8568, 151.2153, 4.5),
		Epoch:    "00f3a1b2c3d4e5f6",
		Seq:      math.MaxUint64,
	}
}

// place is a position, with a height or without one.
func place(lat topology.Latitude, lon topology.Longitude, height ...float64) *topology.Position {
	p := &topology.Position{Latitude: lat, Longitude: lon}
	for _, h := range height {
		p.HeightM = &h
	}
	return p
}

func picture(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewYCbCr(image.Rect(0, 0, 48, 32), image.YCbCrSubsampleRatio420), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// parse reads an APP1 segment by the standards, sharing nothing with the writer:
// each field as its text, by "<IFD> <tag>".
func parse(segment []byte) (map[string]string, error) {
	be := binary.BigEndian
	if len(segment) < 18 || string(segment[:2]) != "\xff\xe1" || int(be.Uint16(segment[2:])) != len(segment)-2 || string(segment[4:10]) != "Exif\x00\x00" {
		return nil, fmt.Errorf("no APP1 of its own length: % x", segment[:min(len(segment), 18)])
	}
	tiff := segment[10:]
	if string(tiff[:4]) != "MM\x00\x2a" {
		return nil, fmt.Errorf("TIFF header % x", tiff[:4])
	}
	fields := map[string]string{}
	ends := map[int]int{} // where values begin and end: they may not overlap
	var walk func(name string, at int) error
	walk = func(name string, at int) error {
		n, last := int(be.Uint16(tiff[at:])), -1
		ends[at] = at + 2 + 12*n + 4
		if next := be.Uint32(tiff[at+2+12*n:]); next != 0 || at%2 != 0 {
			return fmt.Errorf("%s at %d: next IFD %d", name, at, next)
		}
		for i := range n {
			f := tiff[at+2+12*i:]
			tag, kind, count := int(be.Uint16(f)), be.Uint16(f[2:]), int(be.Uint32(f[4:]))
			if tag <= last {
				return fmt.Errorf("%s: tag %#x after %#x", name, tag, last)
			}
			last = tag
			value, size := f[8:], count*map[uint16]int{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}[kind]
			if size > 4 {
				start := int(be.Uint32(f[8:]))
				value, ends[start] = tiff[start:], start+size
				if start%2 != 0 {
					return fmt.Errorf("%s %#x: value at odd byte %d", name, tag, start)
				}
			}
			value = value[:size]
			key, text := fmt.Sprintf("%s %04x", name, tag), string(value)
			switch {
			case kind == 2 && (count < 2 || strings.IndexByte(text, 0) != count-1):
				return fmt.Errorf("%s: text %q does not end with its only NUL", key, text)
			case kind == 2:
				text = text[:count-1]
			case kind == 3 && count == 1:
				text = fmt.Sprint(be.Uint16(value))
			case kind == 4 && count == 1:
				text = fmt.Sprint(be.Uint32(value))
			case kind == 1:
				text = fmt.Sprint(value)
			case kind == 5:
				text = ""
				for ; len(value) > 0; value = value[8:] {
					text += fmt.Sprintf(" %d/%d", be.Uint32(value), be.Uint32(value[4:]))
				}
				text = text[1:]
			}
			fields[key] = text
			if sub := map[int]string{0x8769: "exif", 0x8825: "gps"}[tag]; sub != "" {
				delete(fields, key)
				if err := walk(sub, int(be.Uint32(value))); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk("0th", int(be.Uint32(tiff[4:]))); err != nil {
		return nil, err
	}
	for at := 8; at < len(tiff); { // all bytes are someone's, but for padding to even ones
		end, ok := ends[at]
		if !ok {
			return nil, fmt.Errorf("byte %d of %d belongs to no field", at, len(tiff))
		}
		at = end + end%2
	}
	return fields, nil
}

func TestSegment(t *testing.T) {
	got, err := parse(Segment(example()))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"0th 010f": "Raspberry Pi",
		"0th 0110": "imx708",
		"0th 011a": "72/1", "0th 011b": "72/1", "0th 0128": "2", "0th 0213": "1",
		"0th 0131":  "perch 0.1.0",
		"0th 0132":  "2026:06:30 23:02:03",
		"0th 013c":  "airpi-01",
		"exif 9000": "0232",
		"exif 9003": "2026:06:30 23:02:03", "exif 9004": "2026:06:30 23:02:03",
		"exif 9010": "+00:00", "exif 9011": "+00:00", "exif 9012": "+00:00",
		"exif 9101": "\x01\x02\x03\x00",
		"exif 9286": "ASCII\x00\x00\x00source=porch stream=video epoch=00f3a1b2c3d4e5f6 seq=18446744073709551615 synced=true",
		"exif 9290": "045006007", "exif 9291": "045006007", "exif 9292": "045006007",
		"exif a000": "0100", "exif a001": "1", "exif a002": "48", "exif a003": "32",
		"gps 0000": "[2 3 0 0]", "gps 0001": "S", "gps 0002": "33/1 51/1 244800000/10000000",
		"gps 0003": "E", "gps 0004": "151/1 12/1 550800000/10000000", "gps 0005": "[0]", "gps 0006": "4500/1000", "gps 0012": "WGS-84",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Segment() fields (-want +got):\n%s", diff)
	}
}

func TestSegmentOfLittle(t *testing.T) {
	got, err := parse(Segment(Info{}))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"0th 011a": "72/1", "0th 011b": "72/1", "0th 0128": "2", "0th 0213": "1",
		"exif 9000": "0232", "exif 9101": "\x01\x02\x03\x00", "exif a000": "0100", "exif a001": "1",
		"exif 9286": "ASCII\x00\x00\x00source= stream= epoch= seq=0 synced=false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Segment(Info{}) fields (-want +got):\n%s", diff)
	}
	if got, want := Segment(Info{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}), Segment(Info{}); !bytes.Equal(got, want) {
		t.Errorf("Segment(year 10000) = %q; want it without time, %q", got, want)
	}
}

func TestTextIsShortASCII(t *testing.T) {
	long := strings.Repeat("x", 70000)
	info := Info{Node: "Müller\n\x00", Make: "abc", Model: long, Software: long, Source: "a b=c\xff", Stream: long, Epoch: long}
	segment := Segment(info)
	got, err := parse(segment)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"0th 013c":  "M?ller??",
		"0th 010f":  "abc", // four bytes with its NUL: stands in the field itself
		"0th 0110":  long[:255],
		"exif 9286": "ASCII\x00\x00\x00source=a?b=c? stream=" + long[:255] + " epoch=" + long[:255] + " seq=0 synced=false",
	} {
		if got[key] != want {
			t.Errorf("field %s = %q; want %q", key, got[key], want)
		}
	}
	if len(segment) > 4096 {
		t.Errorf("Segment() has %d bytes; want 4096 at most", len(segment))
	}
}

func TestWrite(t *testing.T) {
	plain := picture(t)
	var out bytes.Buffer
	if err := Write(&out, plain, example()); err != nil {
		t.Fatal(err)
	}
	want := bytes.Join([][]byte{plain[:2], Segment(example()), plain[2:]}, nil)
	if !bytes.Equal(out.Bytes(), want) {
		t.Error("Write() is not SOI, the segment, and the rest")
	}
	img, err := jpeg.Decode(&out)
	if err != nil || img.Bounds() != image.Rect(0, 0, 48, 32) {
		t.Errorf("jpeg.Decode() = %v, %v; want 48x32", img, err)
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errDiskFull
	}
	return len(p), nil
}

var errDiskFull = errors.New("disk full")

func TestWriteFails(t *testing.T) {
	for _, bad := range [][]byte{nil, {0xff}, []byte("GIF89a"), {0xd8, 0xff}} {
		var out bytes.Buffer
		if err := Write(&out, bad, Info{}); err == nil || out.Len() != 0 {
			t.Errorf("Write(% x) error = %v, %d bytes written; want an error and none", bad, err, out.Len())
		}
	}
	for n := range 3 {
		if err := Write(&failing{n}, picture(t), Info{}); !errors.Is(err, errDiskFull) {
			t.Errorf("Write() with part %d failing: error = %v; want %v", n, err, errDiskFull)
		}
	}
}

func TestExiftoolReadsIt(t *testing.T) {
	exiftool, err := exec.LookPath("exiftool")
	if err != nil {
		t.Skip("exiftool is not installed")
	}
	var out bytes.Buffer
	if err := Write(&out, picture(t), example()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exiftool, "-json", "-G1", "-struct", "-a", "-validate", "-warning", "-error", "-all", "-")
	cmd.Stdin = &out
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("exiftool: %v: %s", err, text)
	}
	var read []map[string]any
	if err := json.Unmarshal(text, &read); err != nil || len(read) != 1 {
		t.Fatalf("exiftool printed %s: %v", text, err)
	}
	for key, want := range map[string]string{
		"IFD0:Make":                        "Raspberry Pi",
		"IFD0:Model":                       "imx708",
		"IFD0:Software":                    "perch 0.1.0",
		"IFD0:HostComputer":                "airpi-01",
		"IFD0:ModifyDate":                  "2026:06:30 23:02:03",
		"ExifIFD:DateTimeOriginal":         "2026:06:30 23:02:03",
		"ExifIFD:CreateDate":               "2026:06:30 23:02:03",
		"ExifIFD:OffsetTime":               "+00:00",
		"ExifIFD:OffsetTimeOriginal":       "+00:00",
		"ExifIFD:OffsetTimeDigitized":      "+00:00",
		"ExifIFD:SubSecTime":               "045006007",
		"ExifIFD:SubSecTimeOriginal":       "045006007",
		"ExifIFD:SubSecTimeDigitized":      "045006007",
		"Composite:SubSecDateTimeOriginal": "2026:06:30 23:02:03.045006007+00:00",
		"ExifIFD:UserComment":              "source=porch stream=video epoch=00f3a1b2c3d4e5f6 seq=18446744073709551615 synced=true",
		"ExifIFD:ExifImageWidth":           "48",
		"ExifIFD:ExifImageHeight":          "32",
		"GPS:GPSVersionID":                 "2.3.0.0",
		"GPS:GPSLatitudeRef":               "South",
		"GPS:GPSLatitude":                  "33 deg 51' 24.48\"",
		"GPS:GPSLongitudeRef":              "East",
		"GPS:GPSLongitude":                 "151 deg 12' 55.08\"",
		"GPS:GPSAltitudeRef":               "Above Sea Level",
		"GPS:GPSAltitude":                  "4.5 m",
		"GPS:GPSMapDatum":                  "WGS-84",
		"ExifTool:Validate":                "OK",
		"ExifTool:Warning":                 "<nil>",
	} {
		if got := fmt.Sprint(read[0][key]); got != want {
			t.Errorf("exiftool: %s = %s; want %s", key, got, want)
		}
	}
	if t.Failed() {
		t.Logf("exiftool printed %s", text)
	}
}
