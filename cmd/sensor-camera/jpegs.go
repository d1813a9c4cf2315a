package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// JPEG markers, ITU-T T.81 table B.1; each stands behind a byte 0xff.
const (
	markTEM  = 0x01
	markSOF0 = 0xc0 // no marker in use is below, but for TEM
	markRST0 = 0xd0
	markRST7 = 0xd7
	markSOI  = 0xd8
	markEOI  = 0xd9
	markSOS  = 0xda
)

// jpegScanner finds where a picture ends, from the markers that build it
// (T.81 annex B), so that pictures within segments (thumbnails), stuffed bytes
// and restart markers do not mislead it.
type jpegScanner struct {
	pos   int  // the picture was looked at up to here
	coded bool // in the entropy-coded data of a scan
}

var errBegins = errors.New("another picture begins before its end")

// find looks at the bytes of a picture that have come so far, from its first
// one on, and returns its length, or 0 when its end has yet to come. After an
// error pos is where it stopped to be a picture.
func (s *jpegScanner) find(b []byte) (length int, err error) {
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
func (s *jpegScanner) marker(b []byte, at int) (done bool, err error) {
	switch code := b[at]; {
	case code == markSOI && s.pos == 0:
		s.pos = at + 1
	case s.pos == 0:
		return false, fmt.Errorf("starts with marker %#02x", code)
	case code == markSOI:
		s.pos = at - 1
		return false, errBegins
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

// wholeJPEG is the length of the picture at the beginning of b; what cameras
// pad it with does not count.
func wholeJPEG(b []byte) (int, error) {
	var s jpegScanner
	length, err := s.find(b)
	if err == nil && length == 0 {
		err = fmt.Errorf("cut short at %d bytes", len(b))
	}
	return length, err
}

// jpegFrames splits a stream of JPEG pictures. What it read behind a picture's
// end is copied to the beginning of the next slot; all else goes from the pipe
// to the slot.
type jpegFrames struct {
	source
	rest    []byte // read, and not part of a picture yet
	arrived msg.Stamp
	lost    bool // what comes before the next picture has been counted
	over    error
}

func (j *jpegFrames) next(ctx context.Context, slot []byte) (shot, error) {
	have := copy(slot, j.rest)
	j.rest = j.rest[:0]
	var got shot
	var scan jpegScanner
	for begun := false; ; {
		if !begun {
			var refused error
			if have, refused = j.seek(slot, have); refused != nil {
				j.rest = append(j.rest, slot[:have]...)
				return shot{corrupt: refused}, nil
			}
			begun = have >= len(startOfPicture)
			got.stamp = j.arrived
		}
		if begun {
			length, err := scan.find(slot[:have])
			if err == nil && length == 0 && have == len(slot) {
				err, scan.pos = fmt.Errorf("longer than the %d bytes there are for one", len(slot)), have
			}
			if err != nil {
				j.rest, j.lost = append(j.rest, slot[min(max(scan.pos, 1), have):have]...), true
				return shot{corrupt: err}, nil
			}
			if length > 0 {
				j.rest, got.bytes = append(j.rest, slot[length:have]...), length
				return got, nil
			}
		}
		more, err := j.more(ctx, slot[have:])
		if err != nil && begun && ctx.Err() == nil && j.over == nil {
			j.over = err
			return shot{corrupt: fmt.Errorf("cut short at %d bytes", have)}, nil
		}
		if err != nil {
			return shot{}, err
		}
		have += more
	}
}

func (j *jpegFrames) more(ctx context.Context, dst []byte) (int, error) {
	if j.over != nil {
		return 0, j.over
	}
	n, err := j.read(ctx, dst)
	if err == nil {
		j.arrived = j.now()
	}
	return n, err
}

// startOfPicture is a picture's first marker and the first byte of its second.
const startOfPicture = "\xff\xd8\xff"

// seek moves the beginning of the next picture to the beginning of the slot,
// and returns how many bytes are left. What stood before it is refused, once,
// unless it is padding.
func (j *jpegFrames) seek(slot []byte, have int) (left int, refused error) {
	cut := bytes.Index(slot[:have], []byte(startOfPicture))
	if cut < 0 { // the last bytes may be the first ones of a picture
		cut = have - min(have, len(startOfPicture)-1)
	}
	if !j.lost && slices.ContainsFunc(slot[:cut], func(b byte) bool { return b != 0 && b != 0xff }) {
		refused, j.lost = fmt.Errorf("%d bytes that belong to no picture", cut), true
	}
	left = copy(slot, slot[cut:have])
	if bytes.HasPrefix(slot[:left], []byte(startOfPicture)) {
		j.lost = false
	}
	return left, refused
}

// jpegCheck refuses pictures that are not what the stream says: libjpeg-turbo
// reads their header, which takes microseconds, and not their pixels.
type jpegCheck struct {
	dec  *turbojpeg.Decoder
	size pixel.Size
}

func newJPEGCheck(size pixel.Size) (*jpegCheck, error) {
	dec, err := turbojpeg.NewDecoder(size)
	if err != nil {
		return nil, err
	}
	return &jpegCheck{dec, size}, nil
}

func (c *jpegCheck) check(picture []byte) error {
	head, err := c.dec.Header(picture)
	if err == nil && head.Size != c.size {
		err = fmt.Errorf("size %s: want %s", head.Size, c.size)
	}
	return err
}

func (c *jpegCheck) close() error { return c.dec.Close() }
