package format

import (
	"encoding/json"
	"math"
	"sort"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mainflux/senml"

	"github.com/perch-edge/perch/pkg/msg"
)

// resolved is a SenML record as another library resolves it (RFC 8428 section 4.6).
type resolved struct {
	Name, Unit string
	Time       float64
	Value      any
}

func resolve(t testing.TB, pack []byte) (all []resolved) {
	t.Helper()
	p, err := senml.Decode(pack, senml.JSON)
	if err == nil {
		p, err = senml.Normalize(p)
	}
	if err != nil {
		t.Fatalf("the library resolves %s: %v", pack, err)
	}
	for _, r := range p.Records {
		one := resolved{Name: r.Name, Unit: r.Unit, Time: r.Time}
		switch {
		case r.Value != nil:
			one.Value = *r.Value
		case r.BoolValue != nil:
			one.Value = *r.BoolValue
		}
		all = append(all, one)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Name < all[j].Name }) // the library sorts by time, not stably
	return all
}

const exampleTime = 1779010867.25

func TestPacks(t *testing.T) {
	altitude := 34.5
	place := options("senml")
	place.Position = &Position{Latitude: 52.5, Longitude: -13.25, Altitude: &altitude}
	unsynced := aReading()
	unsynced.Synced = false
	unsynced.Columns, unsynced.Values, unsynced.Bad = []string{"air_hpa", "soil_moisture_pct", "humidity_pct", "synced"}, msg.Values{1013.25, 40, 50, 1}, nil
	air, porch := "airpi-01/air/environment/", "airpi-01/porch-objects/objects/"
	for _, c := range []struct {
		what string
		o    Options
		of   interface{ Topic() msg.Topic }
		want []resolved
	}{
		{"a reading", options("senml"), aReading(), []resolved{
			{air + "pressure_pa", "Pa", exampleTime, 100653.25}, {air + "temperature_c", "Cel", exampleTime, 21.484375},
		}},
		{"units that are not in the registry", options("senml"), unsynced, []resolved{
			{air + "air_hpa", "", exampleTime, 1013.25}, {air + "clock:synced", "", exampleTime, false},
			{air + "humidity_pct", "%RH", exampleTime, 50.0}, {air + "soil_moisture_pct", "", exampleTime, 40.0}, {air + "synced", "", exampleTime, 1.0},
		}},
		{"a place", place, aReading(), []resolved{
			{air + "pressure_pa", "Pa", exampleTime, 100653.25}, {air + "temperature_c", "Cel", exampleTime, 21.484375},
			{"airpi-01/altitude", "m", exampleTime, 34.5}, {"airpi-01/latitude", "lat", exampleTime, 52.5}, {"airpi-01/longitude", "lon", exampleTime, -13.25},
		}},
		{"a detection", options("senml"), aDetection(), []resolved{
			{porch + "objects", "count", exampleTime, 3.0}, {porch + "objects/dog", "/", exampleTime, 0.5}, {porch + "objects/person", "/", exampleTime, 0.9375},
		}},
	} {
		f := newFormat(t, "senml", c.o)
		if diff := cmp.Diff(c.want, resolve(t, encode(t, f, of(t, c.of)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

// Base fields last: what is joined must resolve to what its parts resolve to, in any order.
func TestJoinedPacksResolveAsTheirParts(t *testing.T) {
	o := options("senml")
	o.Position = &Position{Latitude: 52.5}
	f := newFormat(t, "senml", o)
	other := aReading()
	other.Source, other.Time.Time, other.Synced = "cellar", other.Time.Add(-time.Hour-time.Nanosecond), false
	messages := []interface{ Topic() msg.Topic }{aReading(), other, aDetection()}
	for first := range messages {
		var parts [][]byte
		var want []resolved
		for i := range messages {
			parts = append(parts, encode(t, f, of(t, messages[(first+i)%3])))
			want = append(want, resolve(t, parts[i])...)
		}
		got := resolve(t, f.Batch().Join(parts))
		for _, all := range [][]resolved{want, got} {
			sort.Slice(all, func(i, j int) bool {
				return all[i].Name < all[j].Name || all[i].Name == all[j].Name && all[i].Time < all[j].Time
			})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("from record %d on (-parts +joined):\n%s", first, diff)
		}
	}
}

func TestRecordsThatAreNoPack(t *testing.T) {
	f := newFormat(t, "senml", options("senml"))
	early, null := aReading(), aReading()
	early.Time.Time = time.Unix(firstTime-1, 999_999_999)
	null.Values = msg.Values{math.NaN(), math.NaN(), math.NaN()}
	wantSkip(t, f, of(t, early), "relative to now")
	wantSkip(t, f, of(t, null), "no column has a good value")
	wantSkip(t, f, of(t, aFile()), "readings and detections only")
}

func TestUnixSecondsAreExact(t *testing.T) {
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{time.Unix(1779010867, 0), "1779010867"}, {time.Unix(1779010867, 250_000_000), "1779010867.25"},
		{time.Unix(1779010867, 1), "1779010867.000000001"}, {time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), "253402300799.999999999"},
	} {
		if got := unixSeconds(msg.Time{Time: c.at}); got != json.Number(c.want) {
			t.Errorf("unixSeconds(%v) = %s; want %s", c.at, got, c.want)
		}
	}
}

func TestSenMLNamesStayDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{"a", "A", "a b", "a:20b", "a/b", "a-b", "-a", ".a", "_a", ":a", "0:-a", "0-a", "0:2Da", "ä", "€", "0€", "0:€", "😀", "0", "0:", "0:3A", " "} {
		name := senMLName(text)
		if other, twice := seen[name]; twice {
			t.Errorf("senMLName(%q) = %s = senMLName(%q); want names of their own", text, name, other)
		}
		seen[name] = text
	}
}
