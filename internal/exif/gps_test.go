package exif

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/topology"
)

func TestPosition(t *testing.T) {
	for _, tt := range []struct {
		at                                *topology.Position
		south, lat, west, lon, below, alt string
	}{
		{place(0, 0), "N", "0/1 0/1 0/10000000", "E", "0/1 0/1 0/10000000", "", ""},
		{place(0, 0, 0), "N", "0/1 0/1 0/10000000", "E", "0/1 0/1 0/10000000", "[0]", "0/1000"},
		{place(-90, -180, -430.5), "S", "90/1 0/1 0/10000000", "W", "180/1 0/1 0/10000000", "[1]", "430500/1000"},
		{place(1e-7, -1e-7, 8848.86), "N", "0/1 0/1 3600/10000000", "W", "0/1 0/1 3600/10000000", "[0]", "8848860/1000"},
		{place(0.0166666666666666, 59.9999999999999), "N", "0/1 1/1 0/10000000", "E", "60/1 0/1 0/10000000", "", ""}, // no 60 seconds
		{place(0, 0, math.NaN()), "N", "0/1 0/1 0/10000000", "E", "0/1 0/1 0/10000000", "", ""},
	} {
		got, err := parse(Segment(Info{Position: tt.at}))
		if err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{"gps 0000": "[2 3 0 0]", "gps 0001": tt.south, "gps 0002": tt.lat, "gps 0003": tt.west,
			"gps 0004": tt.lon, "gps 0005": tt.below, "gps 0006": tt.alt, "gps 0012": "WGS-84"} {
			if got[key] != want {
				t.Errorf("field %s of %v = %q; want %q", key, *tt.at, got[key], want)
			}
		}
	}
}

// A place that is none leaves all its tags out.
func TestPositionThatIsNowhere(t *testing.T) {
	want, err := parse(Segment(Info{}))
	if err != nil {
		t.Fatal(err)
	}
	nan := math.NaN()
	for _, at := range []*topology.Position{place(90.1, 0), place(0, -180.1), place(topology.Latitude(nan), 0), place(0, topology.Longitude(math.Inf(1)), 3)} {
		got, err := parse(Segment(Info{Position: at}))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("Segment() at %v (-want +got), %v:\n%s", *at, err, diff)
		}
	}
}

// What another program reads back is the same place to 1e-7 degrees, about a
// centimetre, and the same height to a millimetre.
func TestExiftoolFindsThePlace(t *testing.T) {
	exiftool, err := exec.LookPath("exiftool")
	if err != nil {
		t.Skip("exiftool is not installed")
	}
	places := []*topology.Position{place(0, 0, 0), place(90, 180, 9000), place(-90, -180, -500), place(1e-7, -1e-7, -0.001),
		place(-1e-7, 1e-7, 0.001), place(59.9999999, -179.9999999, 8848.86), place(48.1372222, 11.5755, 519)}
	random := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		in := func(limit float64) float64 { return math.Round((2*random.Float64()-1)*limit*1e7) / 1e7 }
		places = append(places, place(topology.Latitude(in(90)), topology.Longitude(in(180)), math.Round(in(500)*1000)/1000))
	}
	args := []string{"-n", "-json", "-validate", "-Composite:GPSLatitude", "-Composite:GPSLongitude", "-Composite:GPSAltitude"}
	dir := t.TempDir()
	for i, at := range places {
		info := example()
		info.Position = at
		path := filepath.Join(dir, fmt.Sprintf("%02d.jpg", i))
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(f, picture(t), info); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	text, err := exec.Command(exiftool, args...).Output()
	if err != nil {
		t.Fatalf("exiftool: %v: %s", err, text)
	}
	var read []struct {
		GPSLatitude, GPSLongitude, GPSAltitude *float64
		Validate                               string
	}
	if err := json.Unmarshal(text, &read); err != nil || len(read) != len(places) {
		t.Fatalf("exiftool read %d of %d pictures, %v: %s", len(read), len(places), err, text)
	}
	for i, at := range places {
		got := read[i]
		if got.GPSLatitude == nil || got.GPSLongitude == nil || got.GPSAltitude == nil {
			t.Errorf("exiftool finds no place in picture %d at %v: %s", i, *at, text)
			continue
		}
		if math.Abs(*got.GPSLatitude-float64(at.Latitude)) > 1e-9 || math.Abs(*got.GPSLongitude-float64(at.Longitude)) > 1e-9 ||
			math.Abs(*got.GPSAltitude-*at.HeightM) > 1e-6 || got.Validate != "0 0 0" {
			t.Errorf("exiftool reads %.9f, %.9f, %v m, %s; want %v, %v, %v m", *got.GPSLatitude, *got.GPSLongitude, *got.GPSAltitude, got.Validate,
				at.Latitude, at.Longitude, *at.HeightM)
		}
	}
}
