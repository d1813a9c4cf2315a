package pixel

import (
	"fmt"
	"strconv"
	"strings"
)

// MinSide and MaxSide bound the width and the height of a frame in pixels. At
// the upper bound a frame is 768 MiB of rgb24, so that no product of two sides
// overflows an int, also where that has 32 bits.
const (
	MinSide = 16
	MaxSide = 16384
)

// Size is the size of a frame in pixels. The zero value is no size and is
// refused everywhere.
type Size struct{ Width, Height int }

// ParseSize reads "1920x1080": width, x, height, in plain decimal digits.
func ParseSize(text string) (Size, error) {
	w, h, _ := strings.Cut(text, "x")
	var s Size
	s.Width, _ = strconv.Atoi(w)
	s.Height, _ = strconv.Atoi(h)
	// Only what prints back as it was written is taken: no sign, space or leading zero.
	if s.String() != text {
		return Size{}, fmt.Errorf("parse size %.32q: want WIDTHxHEIGHT in pixels, such as 1280x720", text)
	}
	if err := s.check(); err != nil {
		return Size{}, fmt.Errorf("parse %w", err)
	}
	return s, nil
}

func (s Size) String() string { return fmt.Sprintf("%dx%d", s.Width, s.Height) }

// MarshalText is the form that ParseSize reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText makes a Size a value of TOML and JSON (encoding.TextUnmarshaler).
func (s *Size) UnmarshalText(text []byte) error {
	parsed, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

func (s Size) check() error {
	if min(s.Width, s.Height) < MinSide || max(s.Width, s.Height) > MaxSide {
		return fmt.Errorf("size %s: want sides of %d to %d pixels", s, MinSide, MaxSide)
	}
	return nil
}
