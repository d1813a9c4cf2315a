package topology

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// located is a topology with these lines in [node], from line 4 on.
func located(lines string) string {
	return strings.Replace(good, "name = \"box\"\n", "name = \"box\"\n"+lines+"\n", 1)
}

func at(lat Latitude, lon Longitude) *Position { return &Position{Latitude: lat, Longitude: lon} }

func high(p *Position, metres float64) *Position {
	p.HeightM = &metres
	return p
}

// What is not given is told from what is 0.
func TestLocation(t *testing.T) {
	for _, tt := range []struct {
		lines, json string
		want        Location
	}{
		{"", `{}`, Location{}},
		{"latitude = 0\nlongitude = 0", `{"latitude":0,"longitude":0}`, Location{Position: at(0, 0)}},
		{"latitude = -0.0\nlongitude = -0.0\nheight_m = 0", `{"latitude":0,"longitude":0,"height_m":0}`, Location{Position: high(at(0, 0), 0)}},
		{"latitude = 48.1372\nlongitude = 11.5755\nheight_m = 519\ntimezone = \"Europe/Berlin\"\nsite = \"Wehr, linkes Ufer, Säule 3\"",
			`{"latitude":48.1372,"longitude":11.5755,"height_m":519,"timezone":"Europe/Berlin","site":"Wehr, linkes Ufer, Säule 3"}`,
			Location{Position: high(at(48.1372, 11.5755), 519), Timezone: "Europe/Berlin", Site: "Wehr, linkes Ufer, Säule 3"}},
		{"latitude = -90\nlongitude = -180\nheight_m = -430.5", `{"latitude":-90,"longitude":-180,"height_m":-430.5}`,
			Location{Position: high(at(-90, -180), -430.5)}},
		{"latitude = 90\nlongitude = 180\nheight_m = 9e3", `{"latitude":90,"longitude":180,"height_m":9000}`, Location{Position: high(at(90, 180), 9000)}},
		{"latitude = 1e-7\nlongitude = -1e-7", `{"latitude":1e-7,"longitude":-1e-7}`, Location{Position: at(1e-7, -1e-7)}},
		{"timezone = \"America/Argentina/Buenos_Aires\"", `{"timezone":"America/Argentina/Buenos_Aires"}`, Location{Timezone: "America/Argentina/Buenos_Aires"}},
		{"timezone = \"US/Pacific\"", `{"timezone":"US/Pacific"}`, Location{Timezone: "US/Pacific"}}, // some systems have no such old names
		{"site = \"-\"", `{"site":"-"}`, Location{Site: "-"}},
		{"site = \"" + strings.Repeat("ä", 32) + "\"", `{"site":"` + strings.Repeat("ä", 32) + `"}`, Location{Site: strings.Repeat("ä", 32)}},
	} {
		top, err := load(t, located(tt.lines))
		if err != nil {
			t.Errorf("Load() with %q = %v; want nil", tt.lines, err)
			continue
		}
		if diff := cmp.Diff(tt.want, top.Node.Location); diff != "" {
			t.Errorf("Location of %q (-want +got):\n%s", tt.lines, diff)
		}
		text, err := json.Marshal(top.Node.Location)
		if string(text) != tt.json || err != nil {
			t.Errorf("JSON of %q = %s, %v; want %s", tt.lines, text, err, tt.json)
		}
		var back Location
		if err := json.Unmarshal(text, &back); err != nil || !cmp.Equal(back, tt.want) {
			t.Errorf("Unmarshal(%s) = %+v, %v; want %+v", text, back, err, tt.want)
		}
		if p := top.Node.Location.Position; p != nil && (math.Signbit(float64(p.Latitude)) && p.Latitude == 0) {
			t.Errorf("latitude of %q is -0; want 0", tt.lines)
		}
	}
}

// Each mistake that people make here, with what they are told.
func TestLocationRefuses(t *testing.T) {
	const north, east = "want decimal degrees north, south negative: a number with a decimal point and without quotes, as ",
		"want decimal degrees east, west negative: a number with a decimal point and without quotes, as "
	const zone = `want a name of the IANA tz database such as "Europe/Berlin" (timedatectl list-timezones prints them)`
	for _, tt := range []struct{ lines, want string }{
		{"latitude = 451.2\nlongitude = 1", `:4: node.latitude = 451.2: want degrees north between -90 and 90`},
		{"longitude = -200\nlatitude = 1", `:4: node.longitude = -200: want degrees east between -180 and 180`},
		{"longitude = 348.5\nlatitude = 1", `:4: node.longitude = 348.5: want degrees east between -180 and 180; is it -11.5, west of Greenwich?`},
		{"latitude = 139.69\nlongitude = 35.68", `:4: node.latitude = 139.69: want degrees north between -90 and 90; are latitude and longitude swapped?`},
		{"latitude = 139.69\nlongitude = 135.68", `:4: node.latitude = 139.69: want degrees north between -90 and 90`},
		{"latitude = nan\nlongitude = 0", `:4: node.latitude = NaN: want degrees north between -90 and 90`},
		{"latitude = 0\nlongitude = inf", `:5: node.longitude = +Inf: want degrees east between -180 and 180`},
		{"latitude = \"48,1\"\nlongitude = 1", `:4: node.latitude = "48,1": ` + north + `48.1`},
		{"latitude = 48,1\nlongitude = 1", `, but got ',' instead; a number has a decimal point, as 48.1`},
		{"latitude = \"-33.8568\"\nlongitude = 1", `:4: node.latitude = "-33.8568": ` + north + `-33.8568`},
		{"latitude = \"48° 8′ 13.92″ N\"\nlongitude = 1", `:4: node.latitude = "48° 8′ 13.92″ N": ` + north + `48.1372`},
		{"latitude = 1\nlongitude = \"11°34'31.8\\\"W\"", `:5: node.longitude = "11°34'31.8\"W": ` + east + `-11.5755`},
		{"latitude = \"S 33 51.408\"\nlongitude = 1", `:4: node.latitude = "S 33 51.408": ` + north + `-33.8568`},
		{"latitude = \"48:08:13,92\"\nlongitude = 1", `:4: node.latitude = "48:08:13,92": ` + north + `48.1372`},
		{"latitude = \"48.1372° N\"\nlongitude = 1", `:4: node.latitude = "48.1372° N": ` + north + `48.1372`},
		{"latitude = \"11.5 E\"\nlongitude = 1", `:4: node.latitude = "11.5 E": ` + north + `48.1372 or -33.8568`},
		{"latitude = \"48.1372, 11.5755\"\nlongitude = 1", `:4: node.latitude = "48.1372, 11.5755": ` + north + `48.1372 or -33.8568`},
		{"latitude = \"48 70 0\"\nlongitude = 1", `:4: node.latitude = "48 70 0": ` + north + `48.1372 or -33.8568`},
		{"latitude = [48, 8]\nlongitude = 1", `:4: node.latitude = [48, 8]: ` + north + `48.1372 or -33.8568`},
		{"latitude = 48.1", `:2: node.longitude: it is missing beside latitude = 48.1: want both or neither`},
		{"longitude = 11.5\nheight_m = 3", `:2: node.latitude: it is missing beside longitude = 11.5: want both or neither`},
		{"height_m = 519", `:2: node.latitude: it is missing beside height_m = 519: a height needs latitude and longitude`},
		{"latitude = 1\nlongitude = 1\nheight_m = 29032", `:6: node.height_m = 29032: want metres above mean sea level between -500 and 9000`},
		{"latitude = 1\nlongitude = 1\nheight_m = nan", `:6: node.height_m = NaN: want metres above mean sea level between -500 and 9000`},
		{"latitude = 1\nlongitude = 1\nheight_m = \"519 m\"", `:6: node.height_m = "519 m": want metres above mean sea level as a number without unit and quotes, as 519.0`},
		{"timezone = \"CEST\"", `:4: node.timezone = "CEST": ` + zone + `, not an abbreviation, which several zones may share`},
		{"timezone = \"UTC+2\"", `:4: node.timezone = "UTC+2": ` + zone + `, not an offset, which may change with the season`},
		{"timezone = \"+02:00\"", `:4: node.timezone = "+02:00": ` + zone + `, not an offset, which may change with the season`},
		{"timezone = 2", `:4: node.timezone = 2: want a string in quotes`},
		{"timezone = \"\"", `:4: node.timezone = "": ` + zone},
		{"timezone = \"Local\"", `:4: node.timezone = "Local": ` + zone},
		{"timezone = \"europe/berlin\"", `:4: node.timezone = "europe/berlin": ` + zone + `; did you mean "Europe/Berlin"?`},
		{"timezone = \"America/New York\"", `:4: node.timezone = "America/New York": ` + zone + `; did you mean "America/New_York"?`},
		{"timezone = \"utc\"", `:4: node.timezone = "utc": ` + zone + `; did you mean "UTC"?`},
		{"timezone = \"Europe\"", `:4: node.timezone = "Europe": ` + zone},
		{"timezone = \"W. Europe Standard Time\"", `:4: node.timezone = "W. Europe Standard Time": ` + zone},
		{"timezone = \"posix/Europe/Berlin\"", `:4: node.timezone = "posix/Europe/Berlin": ` + zone},
		{"timezone = \"../Europe/Berlin\"", `:4: node.timezone = "../Europe/Berlin": ` + zone},
		{"timezone = \"/etc/localtime\"", `:4: node.timezone = "/etc/localtime": ` + zone},
		{"site = \"\"", `:4: node.site = "": want 1 to 64 bytes without control characters, in one line`},
		{"site = \"a\\tb\"", `:4: node.site = "a\tb": want 1 to 64 bytes without control characters, in one line`},
		{"site = \"" + strings.Repeat("ä", 32) + "x\"", `x": want 1 to 64 bytes without control characters, in one line`},
		{"latitud = 3", `:4: node.latitud = 3: unknown key; did you mean "latitude"?`},
	} {
		_, err := load(t, located(tt.lines))
		if ps := ProblemsOf(err); len(ps) != 1 || !strings.HasSuffix(ps[0].Error(), tt.want) {
			t.Errorf("Load() with %q = %v; want …%s and no more", tt.lines, err, tt.want)
		}
	}
}

// Two wrong keys are two problems, whichever they are.
func TestLocationRefusesAllAtOnce(t *testing.T) {
	_, err := load(t, located("latitude = \"N\"\nlongitude = 181\nheight_m = -501\ntimezone = \"x\"\nsite = \"\""))
	if got := len(ProblemsOf(err)); got != 5 {
		t.Errorf("Load() = %v; want five problems", err)
	}
}

func TestLocationOnTheCommandLine(t *testing.T) {
	settings := []string{"node.latitude=-33.8568", "node.longitude=151.2153", "node.timezone=Australia/Sydney", "node.site=on the roof"}
	want := Location{Position: at(-33.8568, 151.2153), Timezone: "Australia/Sydney", Site: "on the roof"}
	top, err := ByHand(Sensor, "air", "sensor-bme280", nil, settings)
	if err != nil || !cmp.Equal(top.Node.Location, want) {
		t.Errorf("ByHand(%q) = %+v, %v; want %+v", settings, top, err, want)
	}
	want.Position.HeightM = new(float64)
	top, err = load(t, located("height_m = 0"), settings...)
	if err != nil || !cmp.Equal(top.Node.Location, want) {
		t.Errorf("Load() with --set %q = %+v, %v; want %+v", settings, top, err, want)
	}
	for value, want := range map[string]string{"48,1": "as 48.1", "48.1N": "as 48.1", `48°8'13.92"S`: "as -48.1372"} {
		_, err := ByHand(Sensor, "air", "sensor-bme280", nil, []string{"node.latitude=" + value, "node.longitude=1"})
		if got := fmt.Sprint(err); !strings.HasPrefix(got, "--set node.latitude="+value+": node.latitude = ") || !strings.HasSuffix(got, want) {
			t.Errorf("ByHand() with --set node.latitude=%s = %v; want …%s", value, err, want)
		}
	}
}

// Half a position, of some other program, is none of its half.
func TestLocationOfHalfAPosition(t *testing.T) {
	for _, text := range []string{`{"latitude":1}`, `{"longitude":1}`, `{"height_m":1}`, `{"latitude":"1","longitude":1}`, `[]`} {
		var l Location
		if err := json.Unmarshal([]byte(text), &l); err == nil || l != (Location{}) {
			t.Errorf("Unmarshal(%s) = %+v, %v; want none and an error", text, l, err)
		}
	}
}

func TestExampleNodeCanBeLoaded(t *testing.T) {
	text := regexp.MustCompile(`(?m)^# ((latitude|longitude|height_m|timezone|site) = )`).ReplaceAllString(ExampleNode(), "$1")
	top, err := load(t, text+"[sensor.s]\nprogram = \"s\"\n")
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	want := Location{Position: high(at(48.1372, 11.5755), 519), Timezone: "Europe/Berlin", Site: "weir, left bank"}
	if diff := cmp.Diff(want, top.Node.Location); diff != "" {
		t.Errorf("Location of the example (-want +got):\n%s", diff)
	}
}

// An angle that is offered to somebody is one that the key takes.
func FuzzMeant(f *testing.F) {
	for _, seed := range []string{"48,1", "N 48° 8.23'", "48°08'13.9\"N", "-48:8:13.9", "48 8", "+1''", "NS1", "1E999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		angle, ok := meant(text, "NS")
		if _, again := meant(shortDegrees(angle), "NS"); ok && (!again || !(math.Abs(angle) < 1001)) {
			t.Errorf("meant(%q) = %v; want a plain number of three digits", text, angle)
		}
	})
}
