package exif

import (
	"math"

	"github.com/perch-edge/perch/pkg/topology"
)

// position is the GPS IFD (DC-008, 4.6.6), in ascending order of tags; nil where
// there is no such place.
func position(p *topology.Position) []field {
	if p == nil || !p.Latitude.Valid() || !p.Longitude.Valid() {
		return nil
	}
	fields := []field{
		octets(0x0000, 2, 3, 0, 0),                             // GPSVersionID
		text(0x0001, direction(float64(p.Latitude), "N", "S")), // GPSLatitudeRef
		rationals(0x0002, sexagesimal(float64(p.Latitude))...), // GPSLatitude
		text(0x0003, direction(float64(p.Longitude), "E", "W")),
		rationals(0x0004, sexagesimal(float64(p.Longitude))...),
	}
	if h := p.HeightM; h != nil && math.Abs(*h) < 1e6 { // the unit of 1 mm has no room for more
		below := byte(0)
		if *h < 0 {
			below = 1
		}
		fields = append(fields,
			octets(0x0005, below), // GPSAltitudeRef: 1 is below sea level
			rationals(0x0006, ratio{uint32(math.Round(math.Abs(*h) * 1000)), 1000}))
	}
	return append(fields, text(0x0012, "WGS-84")) // GPSMapDatum
}

func direction(v float64, positive, negative string) string {
	if v < 0 {
		return negative
	}
	return positive
}

// sexagesimal is an angle without its sign as degrees, minutes and seconds. Seconds
// are in units of 1e-7, some micrometres: all its numbers stay below 2^31, since
// some readers take them as signed.
func sexagesimal(v float64) []ratio {
	const unit = 10_000_000
	all := uint64(math.Round(math.Abs(v) * 3600 * unit)) // 60 seconds are a minute, also when rounded up
	return []ratio{{uint32(all / (3600 * unit)), 1}, {uint32(all / (60 * unit) % 60), 1}, {uint32(all % (60 * unit)), unit}}
}
