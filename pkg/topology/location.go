package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a zone's name is right or wrong on every box alike, with or without a tz database of its own
	"unicode"
)

// Location is where a box stands, as far as its topology says. The zero value
// says nothing. As JSON it is one object: latitude, longitude, height_m,
// timezone and site, each absent where it is not given.
type Location struct {
	Position *Position // nil where it is not given: 0, 0 is a place, too
	Timezone string    // a name of the IANA tz database, as Europe/Berlin
	Site     string    // free text
}

// Position is a point on the Earth, WGS 84.
type Position struct {
	Latitude  Latitude
	Longitude Longitude
	HeightM   *float64 // metres above mean sea level; nil where it is not given
}

// Latitude is decimal degrees north of the equator, from -90 to 90.
type Latitude float64

// Longitude is decimal degrees east of Greenwich, from -180 to 180.
type Longitude float64

// Valid reports whether there is such a latitude.
func (l Latitude) Valid() bool { return l >= -90 && l <= 90 }

// Valid reports whether there is such a longitude.
func (l Longitude) Valid() bool { return l >= -180 && l <= 180 }

const (
	minHeightM = -500 // the lowest shore is at -430 m
	maxHeightM = 9000 // the highest mountain has 8849 m
	maxSite    = 64   // bytes
)

// locationKeys are the keys of a Location: in [node], and in JSON. nil is a key
// that is not given.
type locationKeys struct {
	Latitude  *Latitude  `toml:"latitude" json:"latitude,omitempty" example:"48.1372" doc:"where the box stands: decimal degrees north (WGS 84), south negative; in every sidecar and picture"`
	Longitude *Longitude `toml:"longitude" json:"longitude,omitempty" example:"11.5755" doc:"decimal degrees east, west negative"`
	HeightM   *metres    `toml:"height_m" json:"height_m,omitempty" example:"519.0" doc:"metres above mean sea level"`
	Timezone  *string    `toml:"timezone" json:"timezone,omitempty" example:"\"Europe/Berlin\"" doc:"time zone of the place, a name of the IANA tz database, for whoever reads the data: the times in it are UTC"`
	Site      *string    `toml:"site" json:"site,omitempty" example:"\"weir, left bank\"" doc:"the place in words, 64 bytes at most"`
}

type metres float64

// Validate checks what the types cannot. What is missing is a problem of the
// missing key, so that it is no second one where that key stands but is wrong.
func (k *locationKeys) Validate() error {
	var errs []error
	switch lat, lon := k.Latitude, k.Longitude; {
	case lat != nil && lon == nil:
		errs = append(errs, Bad("longitude", "it is missing beside latitude = %v: want both or neither", *lat))
	case lat == nil && lon != nil:
		errs = append(errs, Bad("latitude", "it is missing beside longitude = %v: want both or neither", *lon))
	case lat == nil && k.HeightM != nil:
		errs = append(errs, Bad("latitude", "it is missing beside height_m = %v: a height needs latitude and longitude", *k.HeightM))
	}
	errs = append(errs, k.checkPosition()...)
	if h := k.HeightM; h != nil && !(*h >= minHeightM && *h <= maxHeightM) {
		errs = append(errs, Bad("height_m", "want metres above mean sea level between %d and %d", minHeightM, maxHeightM))
	}
	if k.Timezone != nil {
		if err := checkZone(*k.Timezone); err != nil {
			errs = append(errs, Bad("timezone", "%w", err))
		}
	}
	if s := k.Site; s != nil && (*s == "" || len(*s) > maxSite || strings.ContainsFunc(*s, unicode.IsControl)) {
		errs = append(errs, Bad("site", "want 1 to %d bytes without control characters, in one line", maxSite))
	}
	return errors.Join(errs...)
}

func (k *locationKeys) checkPosition() (errs []error) {
	if lat := k.Latitude; lat != nil && !lat.Valid() {
		hint := ""
		if lon := k.Longitude; lon != nil && Latitude(*lon).Valid() && Longitude(*lat).Valid() {
			hint = "; are latitude and longitude swapped?"
		}
		errs = append(errs, Bad("latitude", "want degrees north between -90 and 90%s", hint))
	}
	if lon := k.Longitude; lon != nil && !lon.Valid() {
		hint := ""
		if *lon > 180 && *lon < 360 {
			hint = fmt.Sprintf("; is it %s, west of Greenwich?", shortDegrees(float64(*lon)-360))
		}
		errs = append(errs, Bad("longitude", "want degrees east between -180 and 180%s", hint))
	}
	return errs
}

// checkZone asks the tz database, of which a box may hold files beside the
// zones: those of one machine only are not a place's.
func checkZone(name string) error {
	const want = `want a name of the IANA tz database such as "Europe/Berlin" (timedatectl list-timezones prints them)`
	if isZone(name) {
		return nil
	}
	if offset := strings.TrimLeft(strings.ToUpper(name), "UTCGMZ "); offset != "" && strings.Trim(offset, "+-0123456789:") == "" {
		return fmt.Errorf("%s, not an offset, which may change with the season", want)
	}
	if len(name) >= 3 && len(name) <= 5 && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		return fmt.Errorf("%s, not an abbreviation, which several zones may share", want)
	}
	for _, near := range []string{strings.ToUpper(name), capitalised(name)} {
		if isZone(near) {
			return fmt.Errorf("%s; did you mean %q?", want, near)
		}
	}
	return errors.New(want)
}

func isZone(name string) bool {
	switch name {
	case "", "Local", "Factory", "localtime", "posixrules":
		return false
	}
	if strings.HasPrefix(name, "posix/") || strings.HasPrefix(name, "right/") {
		return false
	}
	_, err := time.LoadLocation(name)
	return err == nil
}

// capitalised is a name as the database writes most: America/New_York.
func capitalised(name string) string {
	last := '/'
	return strings.Map(func(r rune) rune {
		if r == ' ' {
			r = '_'
		}
		if last == '/' || last == '_' {
			r = unicode.ToUpper(r)
		} else {
			r = unicode.ToLower(r)
		}
		last = r
		return r
	}, name)
}

// location is what the keys say, once they are valid.
func (k *locationKeys) location() (l Location) {
	if k.Latitude != nil && k.Longitude != nil {
		l.Position = &Position{Latitude: *k.Latitude, Longitude: *k.Longitude, HeightM: (*float64)(k.HeightM)}
	}
	if k.Timezone != nil {
		l.Timezone = *k.Timezone
	}
	if k.Site != nil {
		l.Site = *k.Site
	}
	return l
}

// MarshalJSON writes what is given.
func (l Location) MarshalJSON() ([]byte, error) {
	var k locationKeys
	if p := l.Position; p != nil {
		k.Latitude, k.Longitude, k.HeightM = &p.Latitude, &p.Longitude, (*metres)(p.HeightM)
	}
	if l.Timezone != "" {
		k.Timezone = &l.Timezone
	}
	if l.Site != "" {
		k.Site = &l.Site
	}
	return json.Marshal(k)
}

// UnmarshalJSON reads what MarshalJSON wrote. Half a position is an error;
// values out of their range are not, so that the rest can still be read.
func (l *Location) UnmarshalJSON(text []byte) error {
	var k locationKeys
	if err := json.Unmarshal(text, &k); err != nil {
		return err
	}
	if (k.Latitude == nil) != (k.Longitude == nil) || k.Latitude == nil && k.HeightM != nil {
		return fmt.Errorf("location %.200s: want both latitude and longitude, or neither and no height_m", text)
	}
	*l = k.location()
	return nil
}
