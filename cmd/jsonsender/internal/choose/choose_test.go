package choose

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

func header(kind msg.Kind, source msg.Source, stream msg.Stream) msg.Header {
	return msg.Header{
		Version: msg.Version, Kind: kind, Node: "airpi-01", Source: source, Stream: stream, Epoch: 7, BootID: "b",
		Time: msg.Time{Time: time.Date(2026, 5, 17, 9, 41, 7, 0, time.UTC)},
	}
}

func TestWants(t *testing.T) {
	for _, c := range []struct {
		kinds   []msg.Kind
		streams []string
		h       msg.Header
		want    bool
	}{
		{nil, nil, header(msg.KindReading, "air", "environment"), true},
		{nil, nil, header(msg.KindFile, "clips", "files"), true},
		{nil, nil, header(msg.KindState, "air", "state"), false},
		{[]msg.Kind{msg.KindState}, nil, header(msg.KindState, "air", "state"), true},
		{[]msg.Kind{msg.KindState}, nil, header(msg.KindReading, "air", "environment"), false},
		{nil, []string{"environment"}, header(msg.KindReading, "air", "environment"), true},
		{nil, []string{"environment"}, header(msg.KindReading, "cellar", "environment"), true},
		{nil, []string{"air.environment"}, header(msg.KindReading, "cellar", "environment"), false},
		{nil, []string{"other", "air.environment"}, header(msg.KindReading, "air", "environment"), true},
		{nil, []string{"air"}, header(msg.KindReading, "air", "environment"), false},
	} {
		choice, err := New(c.kinds, c.streams, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := choice.Wants(&c.h); got != c.want {
			t.Errorf("New(%v, %v).Wants(%s) = %v; want %v", c.kinds, c.streams, c.h.Topic(), got, c.want)
		}
	}
}

// message is one of a reading, with a key that this version does not know.
func message(t *testing.T) msg.Message {
	t.Helper()
	text, err := json.Marshal(msg.Reading{
		Header: header(msg.KindReading, "air", "environment"), Columns: []string{"temperature_c", "pressure_pa", "humidity_pct"},
		Values: msg.Values{21.5, 1e5, math.NaN()}, Bad: map[string]string{"humidity_pct": "sensor says 0", "temperature_c": "jumped"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Parse("reading/air/environment", []byte(strings.Replace(string(text), `"values"`, `"news":1,"values"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	return r.Message
}

func TestColumns(t *testing.T) {
	for _, c := range []struct {
		columns []string
		want    *msg.Reading // nil: left out
		whole   bool
	}{
		{nil, nil, true},
		{[]string{"humidity_pct", "pressure_pa", "temperature_c", "co2_ppm"}, nil, true},
		{[]string{"co2_ppm"}, nil, false},
		{[]string{"pressure_pa"}, &msg.Reading{Columns: []string{"pressure_pa"}, Values: msg.Values{1e5}}, false},
		{[]string{"humidity_pct", "temperature_c"}, &msg.Reading{
			Columns: []string{"temperature_c", "humidity_pct"}, Values: msg.Values{21.5, math.NaN()},
			Bad: map[string]string{"humidity_pct": "sensor says 0", "temperature_c": "jumped"},
		}, false},
	} {
		choice, err := New(nil, nil, c.columns, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := message(t)
		r, ok, err := choice.Of(m)
		if err != nil || ok != (c.whole || c.want != nil) {
			t.Errorf("Of() with columns %v = %v, %v; want %v", c.columns, ok, err, c.want)
			continue
		}
		if c.whole && string(r.Raw()) != string(m.Raw()) {
			t.Errorf("Of() with columns %v = %s; want %s", c.columns, r.Raw(), m.Raw())
		}
		if c.want == nil {
			continue
		}
		c.want.Header = m.Header
		got, err := r.Reading()
		if diff := cmp.Diff(*c.want, got, cmpopts.EquateNaNs()); err != nil || diff != "" {
			t.Errorf("Of() with columns %v: %v (-want +got):\n%s", c.columns, err, diff)
		}
		if strings.Contains(string(r.Raw()), "window") {
			t.Errorf("Of() = %s; want no window", r.Raw())
		}
	}
}

func TestNewNamesTheNearest(t *testing.T) {
	sources := []msg.Source{"air", "porch-objects"}
	for _, c := range []struct {
		kinds            []msg.Kind
		streams, columns []string
		want             string
	}{
		{[]msg.Kind{"readings"}, nil, nil, `kinds: "readings" cannot be sent; did you mean "reading"?`},
		{[]msg.Kind{msg.KindFrame}, nil, nil, `kinds: "frame" cannot be sent`},
		{nil, []string{"airs.environment"}, nil, `"airs" is not among the sources; did you mean "air"?`},
		{nil, []string{"Environment"}, nil, "streams:"},
		{nil, []string{"a.b.c"}, nil, "streams:"},
		{nil, nil, []string{"air.temperature_c"}, "columns:"},
		{[]msg.Kind{msg.KindFile}, nil, []string{"temperature_c"}, "kinds has no reading"},
	} {
		if _, err := New(c.kinds, c.streams, c.columns, sources); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%v, %v, %v) = %v; want an error with %q", c.kinds, c.streams, c.columns, err, c.want)
		}
	}
	if _, err := New(nil, []string{"air.environment", "objects"}, nil, sources); err != nil {
		t.Errorf("New() = %v; want no error for a source that is there", err)
	}
}
