package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
)

// A fragmented MP4 has neither a duration nor an index, and phones (Android's
// ExoPlayer) do not seek in one. ffmpeg could add both at its end (global_sidx),
// but moves all of the file for it: killed meanwhile, it would leave nothing. So
// the room for them is there from the beginning, as a long comment at the end of
// the moov box, and they take its place when the segment is filed:
//
//	as ffmpeg writes it:  ftyp  moov { mvhd trak mvex { trex } udta { the comment } }  moof mdat …
//	as it is filed:       ftyp  moov { mvhd trak mvex { mehd trex } }  free  sidx      moof mdat …  free
//
// No byte behind them moves. The new header stands in the journal before it is
// written, so that a crash in between is mended by writing it again.
//
// An entry of the index leads to a key frame, since phones drop what comes before
// one: it has several fragments. ffmpeg's own reader, which is in browsers and in
// most players, takes an index that reaches to the end of the file for a list of
// all fragments, and skips some of them after a seek (tried with 5.1). The empty
// box at the end keeps it from that: it then looks for the fragments itself.

// roomArgs have ffmpeg leave the room for the index of a segment.
func roomArgs(segment time.Duration) []string {
	room := 64 + sidxEntry*(int(keyFrameParts(segment))+spareEntries)
	return []string{"-metadata", "comment=" + strings.Repeat(".", room)}
}

const (
	sidxHead  = 8 + 4 + 4 + 4 + 4 + 4 + 2 + 2 // ISO/IEC 14496-12, 8.16.3, version 0
	sidxEntry = 12
	// spareEntries are for key frames that the encoder adds by itself.
	spareEntries = 16
)

// lastBox is the empty box at the end of a file that has an index.
func lastBox() []byte { return appendBox(nil, "free", nil) }

// headerOf is a file's header with its time of creation, if that is known, its
// duration, and an index of its fragments, where there is room. It is exactly as
// long as the one that is there.
func headerOf(f io.ReaderAt, m film, created time.Time) (header []byte, indexed bool, err error) {
	if m.header <= m.moov || m.header-m.moov > maxBox || len(m.fragments) == 0 {
		return nil, false, fmt.Errorf("%w: no header to put an index in", errNoFilm)
	}
	old := make([]byte, m.header)
	if _, err := f.ReadAt(old, 0); err != nil {
		return nil, false, fmt.Errorf("read header: %w", err)
	}
	moov, err := rebuilt(old[m.moov+8:], m, created)
	if err != nil {
		return nil, false, err
	}
	head := appendBox(append([]byte(nil), old[:m.moov]...), "moov", moov)
	room := len(old) - len(head)
	index := sidx(m, room)
	if fill := room - len(index); fill != 0 && fill < 8 {
		return nil, false, fmt.Errorf("%w: a header with %d bytes of room", errNoFilm, room)
	} else if fill > 0 {
		head = appendBox(head, "free", make([]byte, fill-8))
	}
	return append(head, index...), len(index) > 0, nil
}

func appendBox(b []byte, kind string, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(8+len(body)))
	return append(append(b, kind...), body...)
}

// boxes calls do for each box in the body of another.
func boxes(body []byte, do func(kind string, body []byte) error) error {
	for len(body) > 0 {
		if len(body) < 8 {
			return fmt.Errorf("%w: %d bytes behind a box", errNoFilm, len(body))
		}
		length := binary.BigEndian.Uint32(body)
		if length < 8 || uint64(length) > uint64(len(body)) {
			return fmt.Errorf("%w: a box of %d bytes in %d", errNoFilm, length, len(body))
		}
		if err := do(string(body[4:8]), body[8:length]); err != nil {
			return err
		}
		body = body[length:]
	}
	return nil
}

// rebuilt is a moov box without its comment, with the times.
func rebuilt(moov []byte, m film, created time.Time) (out []byte, err error) {
	movie := uint32(0) // ticks a second of the movie's own times
	err = boxes(moov, func(kind string, body []byte) error {
		var err error
		switch kind {
		case "udta":
			return nil
		case "mvhd":
			if movie = timescale32(body); movie == 0 {
				return fmt.Errorf("%w: no timescale in mvhd", errNoFilm)
			}
			body = createdAt(body, created)
		case "trak", "mdia":
			body, err = rebuiltTrack(body, created)
		case "mvex":
			body, err = withDuration(body, m, movie)
		}
		out = appendBox(out, kind, body)
		return err
	})
	return out, err
}

func rebuiltTrack(track []byte, created time.Time) (out []byte, err error) {
	err = boxes(track, func(kind string, body []byte) error {
		var err error
		switch kind {
		case "tkhd", "mdhd":
			body = createdAt(body, created)
		case "mdia":
			body, err = rebuiltTrack(body, created)
		}
		out = appendBox(out, kind, body)
		return err
	})
	return out, err
}

// epoch1904 is where the times of MP4 begin, in Unix seconds.
const epoch1904 = -2082844800

// createdAt sets the times of creation and of modification in a box that begins
// with them. An unknown one stays 0, and so does one that 32 bits do not hold,
// from the year 2040 on, where the box has no more.
func createdAt(body []byte, created time.Time) []byte {
	seconds := uint64(created.Unix() - epoch1904)
	body = append([]byte(nil), body...)
	switch {
	case created.IsZero():
	case len(body) >= 20 && body[0] == 1:
		binary.BigEndian.PutUint64(body[4:], seconds)
		binary.BigEndian.PutUint64(body[12:], seconds)
	case len(body) >= 12 && body[0] == 0 && seconds <= 0xffffffff:
		binary.BigEndian.PutUint32(body[4:], uint32(seconds))
		binary.BigEndian.PutUint32(body[8:], uint32(seconds))
	}
	return body
}

// timescale32 is that of an mvhd or mdhd box; 0 where it has none.
func timescale32(body []byte) uint32 {
	at := 12 // after version, flags, and two times of 4 bytes
	if len(body) > 0 && body[0] == 1 {
		at = 20
	}
	if len(body) < at+4 {
		return 0
	}
	return binary.BigEndian.Uint32(body[at:])
}

// withDuration is an mvex box with the duration of all fragments (8.8.2).
func withDuration(mvex []byte, m film, movie uint32) (out []byte, err error) {
	first, last := m.fragments[0].first, m.fragments[len(m.fragments)-1].last
	length := ticks(last-min(first, last), m.scale).Seconds() * float64(movie)
	if movie > 0 && length < 1<<32-1 {
		out = appendBox(out, "mehd", binary.BigEndian.AppendUint32(make([]byte, 4), uint32(length+0.5)))
	}
	err = boxes(mvex, func(kind string, body []byte) error {
		if kind != "mehd" {
			out = appendBox(out, kind, body)
		}
		return nil
	})
	return out, err
}

// sidx is an index of a file's fragments from key frame to key frame, in no more
// than room bytes, or nothing. What it lists begins right behind it.
func sidx(m film, room int) []byte {
	var starts []int // the fragments that an entry begins with
	for i, f := range m.fragments {
		if i == 0 || f.key {
			starts = append(starts, i)
		}
	}
	most := min((room-sidxHead)/sidxEntry, 1<<16-1)
	if most < 1 {
		return nil
	}
	if len(starts) > most {
		starts = starts[:most] // the last entry has all of the rest
	}
	// What is left over must be nothing, or enough for a box.
	if fill := room - sidxHead - sidxEntry*len(starts); fill > 0 && fill < 8 {
		if len(starts) == 1 {
			return nil
		}
		starts = starts[:len(starts)-1]
	}
	b := make([]byte, 4, room) // version and flags
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, m.scale)
	b = binary.BigEndian.AppendUint32(b, uint32(m.fragments[0].first))
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(starts))) // 16 reserved bits, and the count
	for i, n := range starts {
		begin, end := m.fragments[n], m.fragments[len(m.fragments)-1]
		bytes, ticks := m.whole-begin.begin, end.last-begin.first
		if i+1 < len(starts) {
			next := m.fragments[starts[i+1]]
			bytes, ticks = next.begin-begin.begin, next.first-begin.first
		}
		if bytes <= 0 || bytes >= 1<<31 || ticks >= 1<<32 || begin.first >= 1<<32 {
			return nil
		}
		b = binary.BigEndian.AppendUint32(b, uint32(bytes))
		b = binary.BigEndian.AppendUint32(b, uint32(ticks))
		sap := uint32(0)
		if begin.key {
			sap = 1<<31 | 1<<28 // begins with a key frame that decoding can begin at (SAP type 1)
		}
		b = binary.BigEndian.AppendUint32(b, sap)
	}
	return appendBox(nil, "sidx", b)
}
