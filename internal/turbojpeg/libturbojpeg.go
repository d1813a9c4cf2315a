package turbojpeg

/*
#cgo pkg-config: libturbojpeg
#include <turbojpeg.h>

// Arrays of pointers into Go memory may not be made in Go (cgo's rules), so they
// are made here.
static int compress_yuv(tjhandle h, const unsigned char *y, const unsigned char *cb, const unsigned char *cr,
		int ystride, int cbstride, int crstride, int width, int height, int subsamp, int quality,
		unsigned char *dst, unsigned long *n) {
	const unsigned char *planes[3] = {y, cb, cr};
	int strides[3] = {ystride, cbstride, crstride};
	return tjCompressFromYUVPlanes(h, planes, width, strides, height, subsamp, &dst, n, quality, TJFLAG_NOREALLOC);
}

static int compress_rgb(tjhandle h, const unsigned char *rgb, int stride, int width, int height, int subsamp,
		int quality, unsigned char *dst, unsigned long *n) {
	return tjCompress2(h, rgb, width, stride, height, TJPF_RGB, &dst, n, subsamp, quality, TJFLAG_NOREALLOC);
}

static int decompress_yuv(tjhandle h, const unsigned char *jpeg, unsigned long n, unsigned char *y, unsigned char *cb, unsigned char *cr,
		int ystride, int cbstride, int crstride, int width, int height) {
	unsigned char *planes[3] = {y, cb, cr};
	int strides[3] = {ystride, cbstride, crstride};
	return tjDecompressToYUVPlanes(h, jpeg, n, planes, width, strides, height, TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/perch-edge/perch/pkg/pixel"
)

// ErrClosed is returned by every use of an Encoder or a Decoder after Close, and
// of one that New did not make.
var ErrClosed = errors.New("turbojpeg is closed")

// Subsampling says how many pixels share one chroma sample in a JPEG picture.
type Subsampling int

// The kinds of subsampling, with pixels across x down for each chroma sample.
const (
	S444 Subsampling = C.TJSAMP_444  // 1x1
	S422 Subsampling = C.TJSAMP_422  // 2x1
	S420 Subsampling = C.TJSAMP_420  // 2x2
	Grey Subsampling = C.TJSAMP_GRAY // no chroma
	S440 Subsampling = C.TJSAMP_440  // 1x2
	S411 Subsampling = C.TJSAMP_411  // 4x1
)

func (s Subsampling) String() string {
	names := map[Subsampling]string{S444: "4:4:4", S422: "4:2:2", S420: "4:2:0", Grey: "grey", S440: "4:4:0", S411: "4:1:1"}
	if name, ok := names[s]; ok {
		return name
	}
	return fmt.Sprintf("Subsampling(%d)", int(s))
}

// planar is a picture's Y, Cb and Cr. Whoever fills it in has checked that the rows
// are there: C does not. Of a grey picture Cb and Cr are not touched.
type planar [3]pixel.Rows

// handle is one of the library's compressors or decompressors; nil after close.
type handle struct{ tj C.tjhandle }

func newCompressor() (handle, error)   { return opened(C.tjInitCompress()) }
func newDecompressor() (handle, error) { return opened(C.tjInitDecompress()) }

func opened(tj C.tjhandle) (handle, error) {
	if tj == nil {
		return handle{}, fmt.Errorf("start libturbojpeg: %s", C.GoString(C.tjGetErrorStr2(nil)))
	}
	return handle{tj}, nil
}

func (h *handle) close() error {
	if h.tj == nil {
		return ErrClosed
	}
	C.tjDestroy(h.tj)
	h.tj = nil
	return nil
}

// restart replaces a decompressor after it failed. Version 2.1 may be left inside
// the bad picture, and would read the next one as that picture's continuation.
func (h *handle) restart() (err error) {
	if err = h.close(); err == nil {
		*h, err = newDecompressor()
	}
	return err
}

// check turns the library's result into an error with the library's own words.
func (h *handle) check(result C.int) error {
	if result == 0 {
		return nil
	}
	return errors.New(C.GoString(C.tjGetErrorStr2(h.tj)))
}

// worstBytes is the most that a picture of that size can become.
func worstBytes(s pixel.Size, sub Subsampling) int {
	return int(C.tjBufSize(C.int(s.Width), C.int(s.Height), C.int(sub)))
}

// compressYUV writes a picture to dst, of worstBytes at least, and returns its length.
func (h *handle) compressYUV(src planar, s pixel.Size, sub Subsampling, quality int, dst []byte) (int, error) {
	n := C.ulong(len(dst))
	err := h.check(C.compress_yuv(h.tj, ptr(src[0].Pix), ptr(src[1].Pix), ptr(src[2].Pix),
		C.int(src[0].Stride), C.int(src[1].Stride), C.int(src[2].Stride), C.int(s.Width), C.int(s.Height), C.int(sub), C.int(quality), ptr(dst), &n))
	return int(n), err
}

// compressRGB is compressYUV for rows of R, G, B, to 4:2:0.
func (h *handle) compressRGB(src pixel.Rows, s pixel.Size, quality int, dst []byte) (int, error) {
	n := C.ulong(len(dst))
	err := h.check(C.compress_rgb(h.tj, ptr(src.Pix), C.int(src.Stride), C.int(s.Width), C.int(s.Height), C.TJSAMP_420,
		C.int(quality), ptr(dst), &n))
	return int(n), err
}

// decompressYUV writes planes in the picture's own subsampling. The size must be
// the picture's: for another the library would scale.
func (h *handle) decompressYUV(jpeg []byte, s pixel.Size, dst planar) error {
	return h.check(C.decompress_yuv(h.tj, ptr(jpeg), C.ulong(len(jpeg)), ptr(dst[0].Pix), ptr(dst[1].Pix), ptr(dst[2].Pix),
		C.int(dst[0].Stride), C.int(dst[1].Stride), C.int(dst[2].Stride), C.int(s.Width), C.int(s.Height)))
}

// header reads a picture's size and kind; yCbCr is false for the colour spaces
// RGB, CMYK and YCCK.
func (h *handle) header(jpeg []byte) (s pixel.Size, sub Subsampling, yCbCr bool, err error) {
	var width, height, subsamp, space C.int
	err = h.check(C.tjDecompressHeader3(h.tj, ptr(jpeg), C.ulong(len(jpeg)), &width, &height, &subsamp, &space))
	yCbCr = space == C.TJCS_YCbCr || space == C.TJCS_GRAY
	return pixel.Size{Width: int(width), Height: int(height)}, Subsampling(subsamp), yCbCr, err
}

// ptr is the address of b's first byte, for the length of one call into C.
func ptr(b []byte) *C.uchar { return (*C.uchar)(unsafe.SliceData(b)) }
