package fakev4l2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/jpeg"
)

// A patterned frame is a sequence of little-endian 64-bit words (the last one
// may be cut short): magic | seq<<32, the length of the frame, then
// word(seq, i) for i = 2, 3, ...
const (
	magic      = 0x68637270 // "prch"
	headerSize = 16
)

// word is the i-th word of frame seq: no two frames and no two places of a
// frame have the same, so that a stale, torn or shifted one is found out.
func word(seq uint32, i int) uint64 {
	return (uint64(seq)<<32 | uint64(uint32(i))) * 0x9e3779b97f4a7c15
}

// Fill writes the pattern of frame seq over the whole of dst, which must have
// at least 16 bytes.
func Fill(seq uint32, dst []byte) {
	binary.LittleEndian.PutUint64(dst, uint64(seq)<<32|magic)
	binary.LittleEndian.PutUint64(dst[8:], uint64(len(dst)))
	i, n := headerSize, len(dst)
	for ; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], word(seq, i/8))
	}
	if i < n {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], word(seq, i/8))
		copy(dst[i:], last[:])
	}
}

// Check verifies every byte of a frame of the fake camera and returns its
// sequence number. A frame of a raw format is as Fill made it, without padding
// at the ends of lines; a JPEG carries the pattern in a comment.
func Check(frame []byte) (seq uint32, err error) {
	if bytes.HasPrefix(frame, []byte(jpegStart[:2])) {
		return checkJPEG(frame)
	}
	return checkPattern(frame)
}

func checkPattern(frame []byte) (seq uint32, err error) {
	if len(frame) < headerSize {
		return 0, fmt.Errorf("check frame: %d bytes; want at least %d", len(frame), headerSize)
	}
	first := binary.LittleEndian.Uint64(frame)
	if uint32(first) != magic {
		return 0, fmt.Errorf("check frame: starts with %#x; want %#x", uint32(first), magic)
	}
	seq = uint32(first >> 32)
	if n := binary.LittleEndian.Uint64(frame[8:]); n != uint64(len(frame)) {
		return seq, fmt.Errorf("check frame %d: %d bytes; want %d", seq, len(frame), n)
	}
	i, n := headerSize, len(frame)
	for ; i+8 <= n; i += 8 {
		if got, want := binary.LittleEndian.Uint64(frame[i:]), word(seq, i/8); got != want {
			return seq, fmt.Errorf("check frame %d: %#016x at byte %d of %d; want %#016x", seq, got, i, n, want)
		}
	}
	var last [8]byte
	binary.LittleEndian.PutUint64(last[:], word(seq, i/8))
	if !bytes.Equal(frame[i:], last[:n-i]) {
		return seq, fmt.Errorf("check frame %d: last %d bytes are %x; want %x", seq, n-i, frame[i:], last[:n-i])
	}
	return seq, nil
}

// A JPEG of the camera is a grey picture that any decoder opens, with one
// comment segment (ITU-T T.81, B.2.4.5) right after its start: a pattern, then
// the CRC-32 of everything that follows the comment.
const jpegStart = "\xff\xd8\xff\xfe" // start of image, comment

// jpegBody returns a grey picture without its start-of-image marker.
func jpegBody(width, height int) ([]byte, error) {
	grey := image.NewGray(image.Rect(0, 0, width, height))
	for i := range grey.Pix {
		grey.Pix[i] = 0x80
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, grey, nil); err != nil {
		return nil, fmt.Errorf("encode picture: %w", err)
	}
	return out.Bytes()[2:], nil
}

// maxComment is the most that putJPEG adds to a body.
const maxComment = len(jpegStart) + 2 + headerSize + 1000 + crc32.Size

// putJPEG writes frame seq into dst and returns its length, which differs from
// frame to frame as a real camera's does.
func putJPEG(seq uint32, body, dst []byte) int {
	pattern := headerSize + int(seq*37%1000)
	copy(dst, jpegStart)
	binary.BigEndian.PutUint16(dst[4:], uint16(2+pattern+crc32.Size))
	Fill(seq, dst[6:6+pattern])
	binary.LittleEndian.PutUint32(dst[6+pattern:], crc32.ChecksumIEEE(body))
	return 6 + pattern + crc32.Size + copy(dst[6+pattern+crc32.Size:], body)
}

func checkJPEG(frame []byte) (seq uint32, err error) {
	if len(frame) < 6 || !bytes.HasPrefix(frame, []byte(jpegStart)) {
		return 0, errors.New("check frame: a JPEG without the fake camera's comment")
	}
	comment := int(binary.BigEndian.Uint16(frame[4:])) - 2
	if comment < crc32.Size || len(frame) < 6+comment {
		return 0, fmt.Errorf("check frame: a JPEG of %d bytes with a comment of %d", len(frame), comment)
	}
	sum := 6 + comment - crc32.Size
	if seq, err = checkPattern(frame[6:sum]); err != nil {
		return seq, err
	}
	if got, want := crc32.ChecksumIEEE(frame[6+comment:]), binary.LittleEndian.Uint32(frame[sum:]); got != want {
		return seq, fmt.Errorf("check frame %d: picture has CRC %#08x; want %#08x", seq, got, want)
	}
	return seq, nil
}
