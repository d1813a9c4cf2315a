package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/perch-edge/perch/internal/ffmpeg"
)

// film is what stands in a fragmented MP4 file (ISO/IEC 14496-12): which of its
// fragments are whole, and when each of their pictures is shown.
type film struct {
	whole     int64           // bytes up to the end of the last whole fragment
	end       int64           // bytes up to the end of the last whole box: all of a file that is closed
	shown     []time.Duration // since the beginning of the file, ascending
	moov      int64           // where the box is that describes the fragments
	header    int64           // where that ends, and the fragments begin
	scale     uint32          // ticks a second
	fragments []fragment
}

// fragment is one moof box with its mdat.
type fragment struct {
	begin    int64 // in the file
	bytes    int64 // where it ends
	pictures int   // up to its end
	first    uint64
	last     uint64 // when its first picture is shown, and its last is over, in ticks
	key      bool   // it begins with a key frame
}

// drop forgets the last fragment, and reports whether there is one before it.
func (m *film) drop() bool {
	n := len(m.fragments) - 1
	if n < 1 {
		m.shown = nil
		return false
	}
	m.fragments = m.fragments[:n]
	m.whole, m.shown = m.fragments[n-1].bytes, m.shown[:m.fragments[n-1].pictures]
	return true
}

// Limits on what is believed of a file.
const (
	maxBox     = 16 << 20 // bytes of a moov or moof
	maxSamples = 1 << 22  // more than an hour at 1000 Hz
)

var errNoFilm = errors.New("not a fragmented MP4")

// readFilm reads the boxes of a file up to the first one that is not whole. It
// fails when it is no fragmented MP4 with one track of ours; a file without a
// whole fragment has no pictures.
func readFilm(f io.ReaderAt, size int64) (film, error) {
	var m film
	pending, next := []time.Duration(nil), fragment{}
	for at := int64(0); ; {
		kind, head, length, err := boxAt(f, at, size)
		if err != nil || length == 0 {
			return m, err
		}
		switch kind {
		case "moov", "moof":
			if length > maxBox {
				return m, fmt.Errorf("%w: %s of %d bytes", errNoFilm, kind, length)
			}
			body := make([]byte, length-head)
			if _, err := f.ReadAt(body, at+head); err != nil {
				return m, fmt.Errorf("read %s: %w", kind, err)
			}
			if kind == "moov" {
				m.moov, m.header = at, at+length
				m.scale, err = timescaleOf(body)
			} else {
				pending, next, err = samplesOf(body, m.scale)
				next.begin = at
			}
			if err != nil {
				return m, err
			}
		case "mdat":
			m.shown, pending = append(m.shown, pending...), nil
			m.whole = at + length
			next.bytes, next.pictures = m.whole, len(m.shown)
			m.fragments = append(m.fragments, next)
			if len(m.shown) > maxSamples {
				return m, fmt.Errorf("%w: more than %d pictures", errNoFilm, maxSamples)
			}
		}
		at += length
		m.end = at
	}
}

// boxAt reads the head of the box at an offset. Its length is 0 where the file
// ends before the box does.
func boxAt(f io.ReaderAt, at, size int64) (kind string, head, length int64, err error) {
	var b [16]byte
	head = 8
	if size-at < head {
		return "", 0, 0, nil
	}
	if _, err := f.ReadAt(b[:8], at); err != nil {
		return "", 0, 0, fmt.Errorf("read box: %w", err)
	}
	length, kind = int64(binary.BigEndian.Uint32(b[:])), string(b[4:8])
	if length == 1 {
		head = 16
		if size-at < head {
			return "", 0, 0, nil
		}
		if _, err := f.ReadAt(b[8:], at+8); err != nil {
			return "", 0, 0, fmt.Errorf("read box: %w", err)
		}
		length = int64(binary.BigEndian.Uint64(b[8:]))
	}
	if length < head {
		if at == 0 {
			return "", 0, 0, fmt.Errorf("%w: a box of %d bytes", errNoFilm, length)
		}
		return "", 0, 0, nil // zeros: what a power cut leaves of a file's end
	}
	if length > size-at {
		return "", 0, 0, nil
	}
	return kind, head, length, nil
}

// child finds a box within the body of another.
func child(body []byte, kind string) []byte {
	for len(body) >= 8 {
		length := binary.BigEndian.Uint32(body)
		if length < 8 || int(length) > len(body) {
			return nil
		}
		if string(body[4:8]) == kind {
			return body[8:length]
		}
		body = body[length:]
	}
	return nil
}

// timescaleOf is how many ticks a second the film's one track has (8.4.2, mdhd).
func timescaleOf(moov []byte) (uint32, error) {
	scale := timescale32(child(child(child(moov, "trak"), "mdia"), "mdhd"))
	if scale == 0 {
		return 0, fmt.Errorf("%w: no timescale in mdhd", errNoFilm)
	}
	return scale, nil
}

// The flags of tfhd and trun that say which fields there are (8.8.7, 8.8.8).
const (
	tfhdBase, tfhdDescription, tfhdDuration = 0x1, 0x2, 0x8
	tfhdSize, tfhdFlags                     = 0x10, 0x20
	trunOffset, trunFirst, trunDuration     = 0x1, 0x4, 0x100
	trunSize, trunFlags, trunComposition    = 0x200, 0x400, 0x800
)

// nonSync is the flag of a sample that is no key frame (8.8.3.1).
const nonSync = 0x10000

// samplesOf are the decoding times of a fragment's samples, which are those of
// showing: the encoders here make no B pictures.
func samplesOf(moof []byte, scale uint32) ([]time.Duration, fragment, error) {
	traf := child(moof, "traf")
	tfhd, tfdt, trun := child(traf, "tfhd"), child(traf, "tfdt"), child(traf, "trun")
	if scale == 0 || len(tfhd) < 8 || len(tfdt) < 8 || len(trun) < 8 {
		return nil, fragment{}, fmt.Errorf("%w: a fragment without its boxes", errNoFilm)
	}
	now := uint64(binary.BigEndian.Uint32(tfdt[4:]))
	if tfdt[0] == 1 && len(tfdt) >= 12 {
		now = binary.BigEndian.Uint64(tfdt[4:])
	}
	begin, usual, sampleFlags := now, tfhdDefault(tfhd, tfhdDuration), tfhdDefault(tfhd, tfhdFlags)
	flags, count := binary.BigEndian.Uint32(trun)&0xffffff, binary.BigEndian.Uint32(trun[4:])
	rows, stride := trun[8:], 0
	for _, field := range []uint32{trunDuration, trunSize, trunFlags, trunComposition} {
		if flags&field != 0 {
			stride += 4
		}
	}
	if flags&trunOffset != 0 && len(rows) >= 4 {
		rows = rows[4:]
	}
	if flags&trunFirst != 0 && len(rows) >= 4 {
		sampleFlags, rows = binary.BigEndian.Uint32(rows), rows[4:]
	}
	if count > maxSamples || int(count)*stride > len(rows) {
		return nil, fragment{}, fmt.Errorf("%w: a fragment of %d samples in %d bytes", errNoFilm, count, len(rows))
	}
	times := make([]time.Duration, count)
	for i := range times {
		times[i] = ticks(now, scale)
		if flags&trunDuration != 0 {
			now += uint64(binary.BigEndian.Uint32(rows[i*stride:]))
		} else {
			now += uint64(usual)
		}
	}
	if flags&trunFlags != 0 && count > 0 {
		at := 0
		for _, field := range []uint32{trunDuration, trunSize} {
			if flags&field != 0 {
				at += 4
			}
		}
		sampleFlags = binary.BigEndian.Uint32(rows[at:])
	}
	return times, fragment{first: begin, last: now, key: sampleFlags&nonSync == 0}, nil
}

// tfhdDefault is one of the values that hold for all samples of a fragment; 0
// where it is not there.
func tfhdDefault(tfhd []byte, want uint32) uint32 {
	flags, rest := binary.BigEndian.Uint32(tfhd)&0xffffff, tfhd[8:]
	if flags&tfhdBase != 0 && len(rest) >= 8 {
		rest = rest[8:]
	}
	for _, field := range []uint32{tfhdDescription, tfhdDuration, tfhdSize, tfhdFlags} {
		if flags&field == 0 || len(rest) < 4 {
			continue
		}
		if field == want {
			return binary.BigEndian.Uint32(rest)
		}
		rest = rest[4:]
	}
	return 0
}

// ticks is a number of them as time, without overflow for any that is sane.
func ticks(n uint64, scale uint32) time.Duration {
	whole, part := n/uint64(scale), n%uint64(scale)
	return time.Duration(whole)*time.Second + time.Duration(part*uint64(time.Second)/uint64(scale))
}

// playPatience is how long the decoding of a segment may take.
const playPatience = 5 * time.Minute

// plays decodes a file and returns why it does not play (ffmpeg.ErrBroken), or why
// that is not known.
func plays(ctx context.Context, path string, pictures int) error {
	ctx, cancel := context.WithTimeout(ctx, playPatience)
	defer cancel()
	n, err := ffmpeg.CountFrames(ctx, ffmpeg.File(path))
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, context.DeadlineExceeded):
		// No ffprobe, or no end of it: its boxes are right, and that is all we know.
		return nil
	case err == nil && n != pictures:
		return fmt.Errorf("%w: it has %d pictures and shows %d", ffmpeg.ErrBroken, pictures, n)
	}
	return err
}
