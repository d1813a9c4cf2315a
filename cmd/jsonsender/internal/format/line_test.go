package format

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"github.com/perch-edge/perch/pkg/msg"
)

// point is a line as InfluxData's own library reads it.
type point struct {
	Measurement string
	Tags        map[string]string
	Fields      map[string]any
	Time        int64
}

func points(t testing.TB, text []byte) (all []point) {
	t.Helper()
	d := lineprotocol.NewDecoderWithBytes(text)
	for d.Next() {
		name, err := d.Measurement()
		p := point{string(name), map[string]string{}, map[string]any{}, 0}
		for err == nil {
			var key, value []byte
			if key, value, err = d.NextTag(); key == nil {
				break
			}
			p.Tags[string(key)] = string(value)
		}
		for err == nil {
			var key []byte
			var value lineprotocol.Value
			if key, value, err = d.NextField(); key == nil {
				break
			}
			p.Fields[string(key)] = value.Interface()
		}
		var at time.Time
		if err == nil {
			at, err = d.Time(lineprotocol.Nanosecond, time.Time{})
		}
		if err != nil {
			t.Fatalf("the library reads %s: %v", text, err)
		}
		p.Time = at.UnixNano()
		all = append(all, p)
	}
	return all
}

const exampleNS = 1779010867250000000

func TestLinesOfRecords(t *testing.T) {
	reading := aReading()
	reading.Columns = []string{"temperature_c", "time", "node", "humidity_pct"}
	reading.Values = msg.Values{math.Copysign(0, -1), 1e308, 5e-324, 50}
	reading.Synced = false
	doubted := reading.Header
	doubted.Stream = "state"
	state := *reading
	state.Header = doubted
	quiet := aDetection()
	quiet.Objects = nil
	quiet.Objects = []msg.Object{}
	camera := map[string]string{"node": "airpi-01", "source": "porch-objects", "stream": "objects", "frame_source": "porch"}
	labelled := func(label string) map[string]string {
		return map[string]string{"node": "airpi-01", "source": "porch-objects", "stream": "objects", "frame_source": "porch", "label": label}
	}
	air := map[string]string{"node": "airpi-01", "source": "air"}
	odd := map[string]any{"temperature_c": math.Copysign(0, -1), "time.value": 1e308, "node.value": 5e-324, "synced": false}
	for _, c := range []struct {
		what string
		of   interface{ Topic() msg.Topic }
		want []point
	}{
		{"a reading", aReading(), []point{{"environment", air, map[string]any{"temperature_c": 21.484375, "pressure_pa": 100653.25}, exampleNS}}},
		{"odd columns", reading, []point{{"environment", air, odd, exampleNS}}},
		{"a stream with the name of a kind", &state, []point{{"state.readings", air, odd, exampleNS}}},
		{"a state", aState(), []point{{"state", map[string]string{"node": "airpi-01", "source": "air-csv", "program": "csvwriter"},
			map[string]any{"ready": 1.0, "rows": 86400.0, "free_bytes": 11811160064.0, "time.value": 2.0}, exampleNS}}},
		{"a detection of nothing", quiet, []point{{"detection", camera, map[string]any{"objects": 0.0}, exampleNS}}},
		{"a detection", aDetection(), []point{
			{"detection", camera, map[string]any{"objects": 3.0}, exampleNS},
			{"detection", labelled("person"), map[string]any{"objects": 2.0, "score": 0.9375}, exampleNS},
			{"detection", labelled("dog"), map[string]any{"objects": 1.0, "score": 0.5}, exampleNS},
		}},
	} {
		f := newFormat(t, "line", options("line"))
		got := points(t, f.Batch().Join([][]byte{encode(t, f, of(t, c.of))}))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

func TestLineHasTheSite(t *testing.T) {
	o := options("line")
	o.Site = "Hof 3, Süd"
	f := newFormat(t, "line", o)
	for _, m := range []interface{ Topic() msg.Topic }{aReading(), aDetection()} {
		for _, p := range points(t, encode(t, f, of(t, m))) {
			if p.Tags["site"] != o.Site {
				t.Errorf("tags = %v; want the site", p.Tags)
			}
		}
	}
}

func TestRecordsThatAreNoLine(t *testing.T) {
	f := newFormat(t, "line", options("line"))
	reading, early, late, feed, slash := aReading(), aReading(), aReading(), aDetection(), aDetection()
	reading.Values = msg.Values{math.NaN(), math.NaN(), math.NaN()}
	early.Time.Time = time.Unix(45, 0)
	late.Time.Time = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)
	feed.Objects[0].Label = "per\nson"
	slash.Objects[0].Label = `person\`
	wantSkip(t, f, of(t, reading), "no column has a good value")
	wantSkip(t, f, of(t, early), "want 1978 to 2262")
	wantSkip(t, f, of(t, late), "want 1978 to 2262")
	wantSkip(t, f, of(t, feed), "no line feeds")
	wantSkip(t, f, of(t, slash), `no \ before`)
	state := aState()
	state.Program = "a\nb"
	wantSkip(t, f, of(t, state), "no line feeds")
	wantSkip(t, f, of(t, aFile()), "readings, detections and states only")
}

// Every text that is accepted as a tag comes back as it was, also as the last one of a line, before
// a further tag, and with what stands behind it. The others have one of the known faults.
func TestTagsComeBack(t *testing.T) {
	signs := []string{`\`, ",", "=", " ", `"`, "'", "a", "é", "😀", "#", "\t"}
	refused := 0
	for _, a := range signs {
		for _, b := range signs {
			for _, c := range signs {
				text := "x" + a + b + c
				if tagError(text) != nil {
					refused++
					if !strings.ContainsAny(text, "\\\t") {
						t.Errorf("tagError(%q) refuses a text without a backslash and a tab", text)
					}
					continue
				}
				line := appendTags([]byte("m"), "k", text, "l", text)
				got := points(t, fmt.Appendf(line, " f=1 1\n"))
				if len(got) != 1 || got[0].Tags["k"] != text || got[0].Tags["l"] != text {
					t.Errorf("tag %q = %+v; want it as it was", text, got)
				}
			}
		}
	}
	if refused == 0 || refused > 600 {
		t.Errorf("%d texts of 1331 are refused; want some", refused)
	}
}
