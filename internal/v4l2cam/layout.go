package v4l2cam

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vladimirvivien/go4vl/v4l2"
)

const mjpg = "MJPG"

// formats are the FourCC names that can be captured; all but MJPG are raw.
func formats() []string { return []string{"YU12", "NV12", "YUYV", "RGB3", mjpg} }

// plane is one plane of a raw picture in the driver's buffer: rows of rowBytes
// pixels' bytes, each row stride bytes after the one before.
type plane struct{ rowBytes, rows, stride int }

// layout tells where in the driver's buffer the bytes of a frame are.
type layout struct {
	planes     []plane // none for MJPG, which is copied as it is
	frameBytes int     // the most that copy writes
	bufferUsed int     // what a whole raw frame occupies in the buffer, without the padding of its last line
	padded     bool
}

// newLayout works out the layout of a single-planar format: colour planes
// follow the first one with its stride, halved for YU12
// (https://docs.kernel.org/userspace-api/media/v4l/pixfmt-yuv-planar.html).
func newLayout(pix v4l2.PixFormat) (layout, error) {
	w, h, stride := int(pix.Width), int(pix.Height), int(pix.BytesPerLine)
	var l layout
	switch fourCCName(pix.PixelFormat) {
	case mjpg:
		if pix.SizeImage == 0 {
			return l, errors.New("driver gives no size for a frame of MJPG (sizeimage 0)")
		}
		return layout{frameBytes: int(pix.SizeImage)}, nil
	case "YUYV":
		l.planes = []plane{{2 * w, h, stride}}
	case "RGB3":
		l.planes = []plane{{3 * w, h, stride}}
	case "NV12":
		l.planes = []plane{{w, h, stride}, {w, h / 2, stride}}
	case "YU12":
		l.planes = []plane{{w, h, stride}, {w / 2, h / 2, stride / 2}, {w / 2, h / 2, stride / 2}}
	default:
		return l, fmt.Errorf("format %s has no layout here", fourCCName(pix.PixelFormat))
	}
	return l, l.measure(pix)
}

// measure sums up the planes, and refuses what the driver's numbers cannot hold.
func (l *layout) measure(pix v4l2.PixFormat) error {
	for i := range l.planes {
		p := &l.planes[i]
		if pix.BytesPerLine == 0 { // left to us by the driver
			p.stride = p.rowBytes
		}
		if p.stride < p.rowBytes {
			return fmt.Errorf("driver's lines are too short: %d bytes; want at least %d", p.stride, p.rowBytes)
		}
		l.padded = l.padded || p.stride > p.rowBytes
		l.frameBytes += p.rowBytes * p.rows
		l.bufferUsed += p.stride * p.rows
	}
	last := l.planes[len(l.planes)-1]
	l.bufferUsed -= last.stride - last.rowBytes
	if int(pix.SizeImage) < l.bufferUsed {
		return fmt.Errorf("driver's frames are too small: sizeimage %d; want at least %d for %dx%d %s with lines of %d bytes",
			pix.SizeImage, l.bufferUsed, pix.Width, pix.Height, fourCCName(pix.PixelFormat), pix.BytesPerLine)
	}
	return nil
}

// copy copies the frame in src, the used part of a driver's buffer, to dst,
// which has frameBytes, and returns its length. The error says what is wrong
// with the frame.
func (l *layout) copy(dst, src []byte) (int, error) {
	if l.planes == nil {
		return l.copyJPEG(dst, src)
	}
	if len(src) < l.bufferUsed {
		return 0, fmt.Errorf("cut short: %d of %d bytes", len(src), l.bufferUsed)
	}
	if !l.padded {
		return copy(dst, src[:l.frameBytes]), nil
	}
	n := 0
	for _, p := range l.planes {
		for range p.rows {
			n += copy(dst[n:], src[:p.rowBytes])
			src = src[min(p.stride, len(src)):]
		}
	}
	return n, nil
}

// copyJPEG copies a frame of MJPG: USB cameras deliver pieces of frames after a
// lost packet, and those do not begin with a start-of-image marker.
func (l *layout) copyJPEG(dst, src []byte) (int, error) {
	if len(src) > l.frameBytes {
		return 0, fmt.Errorf("too long: %d bytes; want at most %d", len(src), l.frameBytes)
	}
	if !bytes.HasPrefix(src, []byte{0xff, 0xd8}) {
		return 0, fmt.Errorf("no JPEG: %d bytes that start with % x", len(src), src[:min(2, len(src))])
	}
	return copy(dst, src), nil
}
