package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

// header is a header of one kind, as docs/PROTOCOL.md has it in its examples.
func header(kind msg.Kind, source msg.Source, stream msg.Stream) msg.Header {
	return msg.Header{
		Version: msg.Version, Kind: kind, Node: "airpi-01", Source: source, Stream: stream, Epoch: 0x283baec0033c3,
		BootID: "5f0c8f2e-6d0a-4c51-9d3c-0f4f6f0f9a11", Seq: 1342, BootNS: 43223250000000, Synced: true,
		Time: msg.Time{Time: time.Date(2026, 5, 17, 9, 41, 7, 250_000_000, time.UTC)},
	}
}

// aReading is one with a column that is null.
func aReading() *msg.Reading {
	return &msg.Reading{
		Header:  header(msg.KindReading, "air", "environment"),
		Columns: []string{"temperature_c", "pressure_pa", "humidity_pct"},
		Values:  msg.Values{21.484375, 100653.25, math.NaN()},
		Bad:     map[string]string{"humidity_pct": "sensor says 0"},
	}
}

func aDetection() *msg.Detection {
	return &msg.Detection{
		Header:      header(msg.KindDetection, "porch-objects", "objects"),
		FrameSource: "porch", FrameEpoch: 0x282fe18281a71, FrameSeq: 1290, CoveredUntil: 43223250000000,
		FrameTime: header("", "", "").Time, FrameBootNS: 43223250000000,
		Objects: []msg.Object{
			{Label: "person", Score: 0.875, Box: [4]float64{212, 96.5, 301, 402}},
			{Label: "dog", Score: 0.5, Box: [4]float64{10, 300, 90, 380}},
			{Label: "person", Score: 0.9375, Box: [4]float64{400, 90, 480, 402}},
		},
	}
}

func aFile() *msg.File {
	return &msg.File{
		Header: header(msg.KindFile, "porch-clips", "files"), ID: "porch-clips_20260517T094057Z_000283baec0033c3-000012", State: "ready",
		Sidecar: json.RawMessage(`{"v":1,"media":"video/mp4","bytes":1482112}`),
	}
}

// aState has names that are twice there, and one that no worker would give.
func aState() *msg.State {
	return &msg.State{
		Header: header(msg.KindState, "air-csv", "state"), Program: "csvwriter", PID: 4711, Ready: true, Status: "writing air-csv.csv",
		Counters: map[string]uint64{"rows": 86400, "free_bytes": 1, "ready": 7, "program": 7, "a, b=c": 1},
		Gauges:   map[string]float64{"free_bytes": 11811160064, "time": 2},
	}
}

// of makes a record of a message.
func of(t testing.TB, m interface{ Topic() msg.Topic }) *record.Record {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Parse(m.Topic(), text)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

// options are such that every format can be made.
func options(name string) Options {
	o := Options{Node: "airpi-01", Software: "perch 0.1.0", User: "raspi-00000000a1b2c3d4"}
	switch name {
	case "opensensemap":
		o.Sensors = map[string]string{"temperature_c": "5e9f0c3a1b2c3d4e5f607182", "air.environment.pressure_pa": "5e9f0c3a1b2c3d4e5f607183"}
	case "sensor.community":
		o.Sensors = map[string]string{"environment": "11"}
	}
	return o
}

func newFormat(t testing.TB, name string, o Options) Format {
	t.Helper()
	f, err := New(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func encode(t testing.TB, f Format, r *record.Record) []byte {
	t.Helper()
	text, err := f.Encode(r)
	if err != nil {
		t.Fatalf("Encode(%s) = %v; want no error", r.ID(), err)
	}
	return text
}

// wantSkip wants a record left out, for a reason that has these words.
func wantSkip(t *testing.T, f Format, r *record.Record, words string) {
	t.Helper()
	text, err := f.Encode(r)
	if !errors.Is(err, ErrSkip) || !strings.Contains(err.Error(), words) {
		t.Errorf("Encode(%s) = %s, %v; want ErrSkip with %q", r.ID(), text, err, words)
	}
}

// written are the formats of this file's helpers: those that are no dialogue with a broker.
func written() []string {
	return []string{"plain", "cloudevents", "senml", "line", "opensensemap", "sensor.community"}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"senm", Options{}, `did you mean "senml"?`},
		{"line", Options{Node: `C:\`}, "use another format, or another name"},
		{"line", Options{Node: "n", Site: "x\ty"}, "use another format, or other words"},
		{"opensensemap", Options{}, "sensors: want the id of each column"},
		{"opensensemap", Options{Sensors: map[string]string{"temperature_c": "5E9F"}}, "want 24 of 0-9 and a-f"},
		{"opensensemap", Options{Sensors: map[string]string{"air.temperature_c": "5e9f0c3a1b2c3d4e5f607182"}}, "want a column, or SOURCE.STREAM.column"},
		{"opensensemap", Options{Sensors: map[string]string{"a_c": "5e9f0c3a1b2c3d4e5f607182", "b_c": "5e9f0c3a1b2c3d4e5f607182"}}, "a_c and b_c have the same id"},
		{"sensor.community", Options{}, "want the name that the box is registered under"},
		{"sensor.community", Options{User: "raspi-1\r\nX: y"}, "want the name that the box is registered under"},
		{"sensor.community", Options{User: "raspi-1"}, "want the pin of the stream"},
		{"sensor.community", Options{User: "raspi-1", Sensors: map[string]string{"environment": "eleven"}}, "want the number of the kind of sensor"},
		{"sensor.community", Options{User: "raspi-1", Sensors: map[string]string{"environment": "11", "dust": "1"}}, "needs a worker of its own"},
		{"sensor.community", Options{User: "raspi-1", Sensors: map[string]string{"a.b.c": "11"}}, "want a stream, or SOURCE.STREAM"},
	} {
		if f, err := New(c.name, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%q, %+v) = %v, %v; want an error with %q", c.name, c.o, f, err, c.want)
		}
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct{ name, scheme, want string }{
		{"plain", "zmq+tcp", ""}, {"cloudevents", "wss", ""}, {"senml", "nats", ""}, {"line", "unix", ""}, {"homeassistant", "mqtts", ""},
		{"opensensemap", "https", ""}, {"sensor.community", "http", ""},
		{"homeassistant", "https", "want mqtts://"},
		{"opensensemap", "mqtt", "want https://api.opensensemap.org"},
		{"sensor.community", "tcp", "want https://api.sensor.community"},
		{"line", "wss", "want one of these"},
		{"lines", "tcp", `did you mean "line"?`},
	} {
		err := Fits(c.name, c.scheme)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("Fits(%s, %s) = %v; want an error with %q", c.name, c.scheme, err, c.want)
		}
	}
}

func TestJoin(t *testing.T) {
	parts := [][]byte{[]byte("[1,2]"), []byte("[3]")}
	for _, c := range []struct {
		b    Batch
		want string
	}{
		{Batch{Open: "<", Separator: "|", Close: ">"}, "<[1,2]|[3]>"},
		{Batch{Open: "[", Separator: ",", Close: "]", Strip: 1}, "[1,2,3]"},
	} {
		if got := string(c.b.Join(parts)); got != c.want {
			t.Errorf("Join() = %s; want %s", got, c.want)
		}
	}
	if got := string(plain{}.Batch().Join(nil)); got != "[]" {
		t.Errorf("Join(nil) = %s; want []", got)
	}
}

func TestOne(t *testing.T) {
	for _, c := range []struct{ name, media, body string }{
		{"cloudevents", "application/cloudevents+json; charset=utf-8", "x"},
		{"plain", "application/json", "[x]"},
	} {
		b := newFormat(t, c.name, options(c.name)).Batch().One()
		if body := string(b.Join([][]byte{[]byte("x")})); b.MediaType != c.media || body != c.body || b.Most != 1 {
			t.Errorf("%s: One() = %+v, body %s; want one record, %s, %s", c.name, b, body, c.media, c.body)
		}
	}
}

// A record alone is what its media type says, and so are several together.
func TestBodiesAreJSON(t *testing.T) {
	for _, name := range written() {
		f := newFormat(t, name, options(name))
		b := f.Batch()
		if !strings.Contains(b.MediaType, "json") {
			continue
		}
		one := encode(t, f, of(t, aReading()))
		if !json.Valid(one) || bytes.ContainsAny(one, "\r\n") {
			t.Errorf("%s: Encode() = %s; want JSON in one line", name, one)
		}
		if body := b.Join([][]byte{one, one, one}); b.Most != 1 && !json.Valid(body) {
			t.Errorf("%s: Join() = %s; want JSON", name, body)
		}
	}
}
