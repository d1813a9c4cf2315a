package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/perch-edge/perch/internal/mjpeg"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// jpegFrames splits a stream of JPEG pictures. What it read behind a picture's
// end is copied to the beginning of the next slot; all else goes from the pipe
// to the slot.
//
// A picture without an end marker reaches to where the next one begins, so it is
// published when that comes, with the time of its own first byte.
type jpegFrames struct {
	source
	gap     gap
	rest    []byte // read, and not part of a picture yet
	arrived msg.Stamp
	lost    bool // what comes before the next picture has been counted
	over    error
}

func (j *jpegFrames) next(ctx context.Context, slot []byte) (shot, error) {
	have := copy(slot, j.rest)
	j.rest = j.rest[:0]
	var got shot
	var scan mjpeg.Scanner
	for begun := false; ; {
		if !begun {
			var refused error
			if have, refused = j.seek(slot, have); refused != nil {
				j.rest = append(j.rest, slot[:have]...)
				return shot{corrupt: refused}, nil
			}
			begun = have >= len(mjpeg.Start)
			got.stamp = j.arrived
		}
		if begun {
			length, err := scan.Find(slot[:have])
			if errors.Is(err, mjpeg.ErrNext) && scan.InScan() {
				return j.picture(slot, got, scan.Pos(), have, false), nil
			}
			if err == nil && length == 0 && have == len(slot) {
				err = fmt.Errorf("longer than the %d bytes there are for one", len(slot))
				j.rest, j.lost = j.rest[:0], true
				return shot{corrupt: err}, nil
			}
			if err != nil {
				j.rest, j.lost = append(j.rest, slot[min(max(scan.Pos(), 1), have):have]...), true
				return shot{corrupt: err}, nil
			}
			if length > 0 {
				return j.picture(slot, got, length, have, true), nil
			}
		}
		more, err := j.more(ctx, slot[have:])
		if err != nil && begun && ctx.Err() == nil && j.over == nil {
			j.over = err
			if scan.InScan() {
				return j.picture(slot, got, have, have, false), nil
			}
			return shot{corrupt: fmt.Errorf("cut short at %d bytes", have)}, nil
		}
		if err != nil {
			return shot{}, err
		}
		have += more
	}
}

// picture is the picture in slot[:n], made complete; what was read behind it is
// kept for the next one.
func (j *jpegFrames) picture(slot []byte, got shot, n, have int, ended bool) shot {
	j.rest = append(j.rest, slot[n:have]...)
	return complete(got, slot, n, ended)
}

// complete makes the picture in slot[:n] one that any program opens.
func complete(got shot, slot []byte, n int, ended bool) shot {
	got.unended = !ended
	got.bytes, got.corrupt = mjpeg.Complete(slot, n, ended)
	return got
}

// buffered is the picture in a driver's buffer that was copied to slot[:n]; what
// drivers pad it with does not count.
func buffered(got shot, slot []byte, n int) shot {
	length, ended, err := mjpeg.Length(slot[:n])
	if err != nil {
		got.corrupt = err
		return got
	}
	return complete(got, slot, length, ended)
}

func (j *jpegFrames) more(ctx context.Context, dst []byte) (int, error) {
	if j.over != nil {
		return 0, j.over
	}
	n, err := j.read(ctx, dst)
	if err == nil {
		j.arrived = j.now()
	} else if len(j.gap.line) > 0 { // its last line, which has no end
		j.gap.endLine()
	}
	return n, err
}

// seek moves the beginning of the next picture to the beginning of the slot,
// and returns how many bytes are left. Garbage before it is refused, once.
func (j *jpegFrames) seek(slot []byte, have int) (left int, refused error) {
	cut := bytes.Index(slot[:have], []byte(mjpeg.Start))
	if cut < 0 { // the last bytes may be the first ones of a picture
		for cut = have - min(have, len(mjpeg.Start)-1); !strings.HasPrefix(mjpeg.Start, string(slot[cut:have])); {
			cut++
		}
	}
	garbage, said := j.gap.read(slot[:cut])
	switch {
	case garbage && !j.lost:
		refused, j.lost = fmt.Errorf("%d bytes that belong to no picture", cut), true
	case said && !j.lost:
		refused = &textError{j.gap.said}
	}
	left = copy(slot, slot[cut:have])
	if bytes.HasPrefix(slot[:left], []byte(mjpeg.Start)) {
		j.lost = false
		j.gap.line = j.gap.line[:0]
	}
	return left, refused
}

// jpegCheck refuses pictures that are not what the stream says: libjpeg-turbo
// reads their header, which takes microseconds, and not their pixels. Only of a
// picture that came without its end marker it decodes the pixels, since nothing
// else tells it from one that was cut short.
type jpegCheck struct {
	dec    *turbojpeg.Decoder
	size   pixel.Size
	pixels []byte // of a picture without an end marker
}

func newJPEGCheck(size pixel.Size) (*jpegCheck, error) {
	dec, err := turbojpeg.NewDecoder(size)
	if err != nil {
		return nil, err
	}
	return &jpegCheck{dec: dec, size: size}, nil
}

func (c *jpegCheck) check(picture []byte, unended bool) error {
	head, err := c.dec.Header(picture)
	if err == nil && head.Size != c.size {
		err = fmt.Errorf("size %s: want %s", head.Size, c.size)
	}
	if err != nil || !unended {
		return err
	}
	if c.pixels == nil {
		c.pixels = make([]byte, turbojpeg.DecodedBytes(c.size))
	}
	if _, err := c.dec.Decode(picture, c.pixels); err != nil {
		return fmt.Errorf("cut short: no end marker at %d bytes, and %w", len(picture)-2, err)
	}
	return nil
}

func (c *jpegCheck) close() error { return c.dec.Close() }
