// Package mjpeg reads the structure of JPEG pictures that follow each other in a
// stream, and makes each one a file that any program opens.
//
//	bytes --Scanner.Find--> where a picture ends --Complete--> SOI ... DHT SOS ... EOI
//
// It looks at markers and segments (ITU-T T.81, annex B) and decodes no pixels.
// Cameras leave out what a JPEG file must have: the Huffman tables, which the
// USB Video Class allows (Motion-JPEG payload 1.1, section 3.3), and the end
// marker. libjpeg and ffmpeg forgive both; Go's image/jpeg, macOS and iOS do not.
package mjpeg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// JPEG markers, T.81 table B.1; each stands behind a byte 0xff.
const (
	markTEM  = 0x01
	markSOF0 = 0xc0 // no marker in use is below, but for TEM
	markSOF1 = 0xc1
	markDHT  = 0xc4
	markRST0 = 0xd0
	markRST7 = 0xd7
	markSOI  = 0xd8
	markEOI  = 0xd9
	markSOS  = 0xda
)

// Start is a picture's first marker and the first byte of its second.
const Start = "\xff\xd8\xff"

// ErrNext is the error of Scanner.Find when another picture begins where this
// one's end should be.
var ErrNext = errors.New("another picture begins before its end")

// Scanner finds where a picture ends. It follows the segments, so that
// thumbnails within them, stuffed bytes and restart markers do not mislead it.
// The zero value is ready for a picture.
type Scanner struct {
	pos   int  // the picture was looked at up to here
	seen  int  // bytes there were to look at
	coded bool // in the entropy-coded data of a scan, or before it in the scan's head
}

// Pos is how far the picture was scanned; after an error, where it is wrong.
func (s *Scanner) Pos() int { return s.pos }

// InScan reports whether the header is complete and pixels are being read. A
// picture that stops here may lack nothing but its end marker.
func (s *Scanner) InScan() bool { return s.coded && s.pos <= s.seen }

// Find looks at the bytes of a picture that have come so far, from its first
// one on, and returns its length, or 0 when its end has yet to come.
func (s *Scanner) Find(b []byte) (length int, err error) {
	s.seen = len(b)
	for s.pos < len(b) {
		if s.coded {
			next := bytes.IndexByte(b[s.pos:], 0xff)
			if next < 0 {
				s.pos = len(b)
				return 0, nil
			}
			s.pos += next
		} else if b[s.pos] != 0xff {
			return 0, fmt.Errorf("byte %#02x at %d, where a marker should be", b[s.pos], s.pos)
		}
		at := s.pos + 1
		for at < len(b) && b[at] == 0xff { // fill bytes, B.1.1.2
			at++
		}
		if at == len(b) {
			return 0, nil
		}
		done, err := s.marker(b, at)
		switch {
		case err != nil:
			return 0, err
		case done:
			return at + 1, nil
		case s.pos < at: // the rest of the marker has yet to come
			return 0, nil
		}
	}
	return 0, nil
}

// marker steps over the marker whose code is at b[at], with its segment.
func (s *Scanner) marker(b []byte, at int) (done bool, err error) {
	switch code := b[at]; {
	case code == markSOI && s.pos == 0:
		s.pos = at + 1
	case s.pos == 0:
		return false, fmt.Errorf("starts with marker %#02x", code)
	case code == markSOI:
		s.pos = at - 1
		return false, ErrNext
	case code == markEOI:
		return true, nil
	case code == markTEM, s.coded && (code == 0 || markRST0 <= code && code <= markRST7):
		s.pos = at + 1
	case code < markSOF0, markRST0 <= code && code <= markRST7:
		return false, fmt.Errorf("marker %#02x at %d", code, s.pos)
	case at+2 < len(b):
		length := int(binary.BigEndian.Uint16(b[at+1:])) // counts itself
		if length < 2 {
			return false, fmt.Errorf("segment %#02x at %d of %d bytes", code, s.pos, length)
		}
		s.pos, s.coded = at+1+length, code == markSOS
	}
	return false, nil
}

// MostAdded is the most that Complete makes a picture longer.
const MostAdded = tablesBytes + 2

// Complete makes the picture in buf[:n] a complete file. It appends an end marker
// if there is none (ended is false), and inserts the standard Huffman tables that
// are missing. buf needs MostAdded bytes of room after n. It returns the new length.
func Complete(buf []byte, n int, ended bool) (int, error) {
	if !ended {
		n = trim(buf[:n])
		if len(buf)-n < 2 {
			return 0, fmt.Errorf("no room for an end marker: %d of %d bytes taken", n, len(buf))
		}
		n += copy(buf[n:], "\xff\xd9")
		if whole, ended, err := Length(buf[:n]); err != nil || whole != n || !ended {
			return 0, fmt.Errorf("cut short at %d bytes, within a marker's segment", n-2)
		}
	}
	missing, at := Tables(buf[:n])
	if len(missing) == 0 {
		return n, nil
	}
	if len(buf)-n < len(missing) {
		return 0, fmt.Errorf("no room for Huffman tables: %d of %d bytes taken", n, len(buf))
	}
	copy(buf[at+len(missing):], buf[at:n])
	copy(buf[at:], missing)
	return n + len(missing), nil
}

// leastPadding is how many zeros are padding: pixels end with no more than two.
const leastPadding = 8

// trim is the length of a picture without an end marker, and without what follows
// its pixels: the head of the next part of a multipart stream, or padding.
func trim(b []byte) int {
	const head = 1024 // the longest head of a part that is looked for
	whole := len(b)
	from := max(0, len(b)-head)
	if i := bytes.LastIndex(b[from:], []byte("\r\n--")); i >= 0 && printable(b[from+i:]) {
		b = b[:from+i]
	}
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	if len(b)-n < leastPadding { // of the pixels
		n = len(b)
	}
	if n < len(b) && n > 0 && b[n-1] == 0xff { // a stuffed byte, 0xff00
		n++
	}
	var s Scanner
	if _, err := s.Find(b[:n]); err != nil || !s.InScan() { // no pixels at all: those bytes are of the header
		return whole
	}
	return n
}

func printable(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\r' && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// Length is the length of the picture at the beginning of b, without the padding
// that cameras add. A picture whose pixels have begun and that has no end marker
// reaches to the end of b; ended is then false.
func Length(b []byte) (n int, ended bool, err error) {
	var s Scanner
	n, err = s.Find(b)
	switch {
	case errors.Is(err, ErrNext) && s.InScan():
		return s.Pos(), false, nil
	case err != nil:
		return 0, false, err
	case n > 0:
		return n, true, nil
	case s.InScan():
		return len(b), false, nil
	}
	return 0, false, fmt.Errorf("cut short at %d bytes", len(b))
}
