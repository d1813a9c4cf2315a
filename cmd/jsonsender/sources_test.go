package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/msg"
)

// Names in the settings must be those of the other entries.
func TestNamesOfOtherEntries(t *testing.T) {
	t.Parallel()
	const sensors = `[sensor.air]
program = "sensor-bme280"
[sensor.air.stream.environment]
columns = ["temperature_c", "pressure_pa"]
[sensor.usual]
program = "sensor-bme280"
[sensor.usual.stream.environment]
[worker.csv]
program = "csvwriter"
source = "air"
[worker.home]
program = "jsonsender"
to = "mqtt://127.0.0.1"
`
	for _, c := range []struct{ settings, want string }{
		{`source = "air"`, ""},
		{"source = \"air\"\nstreams = [\"air.environment\"]", ""},
		{"source = \"air\"\nstreams = [\"environment\", \"state\"]\nkinds = [\"reading\", \"state\"]", ""},
		{"source = \"air\"\nstreams = [\"enviroment\"]", `no source has the stream "enviroment"; did you mean "environment"?`},
		{"source = \"air\"\nstreams = [\"usual.environment\"]", `"usual" is not among the sources`},
		{"source = \"air\"\nstreams = [\"state\"]", `no source has the stream "state"`},
		{"source = \"air\"\ncolumns = [\"temperature_f\"]", `no source has the column "temperature_f"; did you mean "temperature_c"?`},
		{"source = \"usual\"\ncolumns = [\"temperature_f\"]", ""},  // its program knows its columns
		{"source = [\"air\", \"csv\"]\nstreams = [\"files\"]", ""}, // a worker's streams are not in the topology
		{"source = \"air\"\nformat = \"homeassistant\"\npicture = \"porch\"", `"porch": there is no worker of that name`},
	} {
		top, entry, cfg := load(t, sensors+c.settings+"\n")
		err := cfg.ValidateIn(top, entry)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("ValidateIn() = %v of\n%s\nwant %q", err, c.settings, c.want)
		}
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	if got, want := cfg.Reads(), []msg.Kind{msg.KindReading, msg.KindDetection, msg.KindFile}; !cmp.Equal(got, want) {
		t.Errorf("Reads() = %v by default; want %v", got, want)
	}
	cfg.Kinds = []msg.Kind{msg.KindState}
	if got := cfg.Reads(); !cmp.Equal(got, cfg.Kinds) {
		t.Errorf("Reads() = %v; want the chosen kinds, %v", got, cfg.Kinds)
	}
}
