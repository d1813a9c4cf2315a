package topology

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// UnmarshalTOML reads a number.
func (l *Latitude) UnmarshalTOML(v any) (err error) {
	*l, err = degrees[Latitude](v, "degrees north, south negative", "NS")
	return err
}

// UnmarshalTOML reads a number.
func (l *Longitude) UnmarshalTOML(v any) (err error) {
	*l, err = degrees[Longitude](v, "degrees east, west negative", "EW")
	return err
}

// UnmarshalTOML reads a number.
func (m *metres) UnmarshalTOML(v any) error {
	if n, ok := number(v); ok {
		*m = metres(n)
		return nil
	}
	return fmt.Errorf("want metres above mean sea level as a number without unit and quotes, as 519.0")
}

// degrees reads decimal degrees. Its error tells who wrote them in another way,
// or as a text, how to write the same ones; positive and negative are the
// letters of the two directions.
func degrees[D ~float64](v any, want, letters string) (D, error) {
	if n, ok := number(v); ok {
		return D(n), nil
	}
	example := "as 48.1372 or -33.8568"
	if text, ok := v.(string); ok {
		if n, ok := meant(text, letters); ok {
			example = "as " + shortDegrees(n)
		}
	}
	return 0, fmt.Errorf("want decimal %s: a number with a decimal point and without quotes, %s", want, example)
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n + 0, true // no -0
	case int64:
		return float64(n), true
	}
	return 0, false
}

// angleRE is an angle as people and maps write it: 48,1372 or N 48° 8.23' or
// 48°08'13.9"N or -48:8:13.9.
var angleRE = regexp.MustCompile(`^([NSEW+−-]?)\s*(\d{1,3}(?:[.,]\d+)?)` +
	`(?:\s*[°º:\s]\s*(\d{1,2}(?:[.,]\d+)?)(?:\s*['′’:\s]\s*(\d{1,2}(?:[.,]\d+)?)\s*(?:"|″|”|''|′′)?|\s*['′’])?|\s*[°º])?\s*([NSEW]?)$`)

// meant is the angle that a text means, if it is one of that axis.
func meant(text, letters string) (angle float64, ok bool) {
	m := angleRE.FindStringSubmatch(strings.ToUpper(strings.TrimSpace(text)))
	if m == nil || m[1] != "" && m[5] != "" {
		return 0, false
	}
	scale := 1.0
	for i, part := range m[2:5] {
		if part == "" {
			break
		}
		n, err := strconv.ParseFloat(strings.ReplaceAll(part, ",", "."), 64)
		if err != nil || i > 0 && n >= 60 {
			return 0, false
		}
		angle += n / scale
		scale *= 60
	}
	switch sign := m[1] + m[5]; {
	case sign == "" || sign == "+" || sign == letters[:1]:
		return angle, true
	case sign == "-" || sign == "−" || sign == letters[1:]:
		return -angle, true
	}
	return 0, false // a letter of the other axis
}

// shortDegrees writes degrees to about a centimetre.
func shortDegrees(v float64) string {
	text := strconv.FormatFloat(v, 'f', 7, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}
