package ffmpeg

import (
	"encoding/binary"
	"time"
)

// IVF writes the container of Units: access units of a video, each with its
// timestamp. It is the simplest one that ffmpeg reads unit by unit, whatever the
// codec: a header of 32 bytes, and 12 bytes before each unit
// (https://wiki.multimedia.cx/index.php/Duck_IVF). FourCC is the codec's, as in
// AVI; H.264 and H.265 are in Annex B form.
type IVF struct {
	FourCC        string
	Width, Height int

	begun bool
}

const ivfHeader = 32 // bytes

// Append appends the header of a unit of that many bytes to b. pts must not be
// negative.
func (v *IVF) Append(b []byte, bytes int, pts time.Duration) []byte {
	if !v.begun {
		v.begun = true
		b = append(b, "DKIF"...)
		b = binary.LittleEndian.AppendUint16(b, 0) // version
		b = binary.LittleEndian.AppendUint16(b, ivfHeader)
		b = append(b, (v.FourCC + "    ")[:4]...)
		b = binary.LittleEndian.AppendUint16(b, uint16(v.Width))
		b = binary.LittleEndian.AppendUint16(b, uint16(v.Height))
		b = binary.LittleEndian.AppendUint32(b, 1e6) // units of time a second
		b = binary.LittleEndian.AppendUint32(b, 1)
		b = binary.LittleEndian.AppendUint64(b, 0) // number of units, which is not known, and 4 unused bytes
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(bytes))
	return binary.LittleEndian.AppendUint64(b, uint64(pts.Microseconds()))
}
