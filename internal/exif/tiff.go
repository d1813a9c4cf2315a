package exif

import (
	"encoding/binary"
	"strings"
)

// maxText is how many characters of a text are kept.
const maxText = 255

// field is one field of an IFD (TIFF 6.0, section 2). One of count 0 is left out.
type field struct {
	tag   uint16
	kind  uint16
	count int // of values, not bytes
	value []byte
}

// Kinds of values (TIFF 6.0, section 2).
const (
	kindByte      = 1
	kindASCII     = 2
	kindShort     = 3
	kindLong      = 4
	kindRational  = 5
	kindUndefined = 7
)

// text is absent where s is empty.
func text(tag uint16, s string) field {
	if s == "" {
		return field{}
	}
	value := append([]byte(ascii(s)), 0)
	return field{tag, kindASCII, len(value), value}
}

func short(tag uint16, v uint16) field {
	return field{tag, kindShort, 1, binary.BigEndian.AppendUint16(nil, v)}
}

// long is absent where v is 0: no tag here has that value.
func long(tag uint16, v int) field {
	if v == 0 {
		return field{}
	}
	return field{tag, kindLong, 1, binary.BigEndian.AppendUint32(nil, uint32(v))}
}

// ratio is an unsigned fraction.
type ratio struct{ num, den uint32 }

func rationals(tag uint16, list ...ratio) field {
	var value []byte
	for _, r := range list {
		value = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(value, r.num), r.den)
	}
	return field{tag, kindRational, len(list), value}
}

func octets(tag uint16, values ...byte) field { return field{tag, kindByte, len(values), values} }

func undefined(tag uint16, value string) field {
	return field{tag, kindUndefined, len(value), []byte(value)}
}

// ascii replaces what is not printable ASCII and cuts what is too long.
func ascii(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxText)]
}

// directory is an IFD that begins at a byte of the TIFF data: its fields, then the
// values that take more than the four bytes that a field has for them.
func directory(at int, fields []field) []byte {
	n := 0
	for _, f := range fields {
		n += min(f.count, 1)
	}
	ifd := binary.BigEndian.AppendUint16(nil, uint16(n))
	var behind []byte
	start := at + 2 + 12*n + 4
	for _, f := range fields {
		if f.count == 0 {
			continue
		}
		ifd = binary.BigEndian.AppendUint16(ifd, f.tag)
		ifd = binary.BigEndian.AppendUint16(ifd, f.kind)
		ifd = binary.BigEndian.AppendUint32(ifd, uint32(f.count))
		if len(f.value) <= 4 {
			ifd = append(ifd, f.value...)
			ifd = append(ifd, make([]byte, 4-len(f.value))...)
			continue
		}
		ifd = binary.BigEndian.AppendUint32(ifd, uint32(start+len(behind)))
		behind = append(behind, f.value...)
		behind = append(behind, make([]byte, len(f.value)%2)...) // values begin at even bytes
	}
	ifd = append(ifd, 0, 0, 0, 0) // no IFD follows
	return append(ifd, behind...)
}
