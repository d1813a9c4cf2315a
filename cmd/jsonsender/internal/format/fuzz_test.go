package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

// legalNode is a text made into one that a node may have.
func legalNode(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return -1
		}
		return c
	}, text)
	for len(text) > 64 {
		_, n := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-n]
	}
	return text
}

// FuzzEncode writes legal readings and detections in every format, and reads them with libraries
// that are not ours: what comes back is what was sent, or the record was skipped.
func FuzzEncode(f *testing.F) {
	for _, node := range []string{"airpi-01", `C:\`, `C:\ x,y=z "q" 'é' 😀`, "-", "..", "/", ":", "\u0085\ufdd0", "%20", "a\u2028b", "#", " "} {
		f.Add(node, "person", 21.5, math.NaN(), int64(exampleNS), true, uint8(3))
	}
	for _, label := range []string{"per son", "a,b=c", `\`, "", "x\ny", "\x00", "😀", strings.Repeat("é", 32)} {
		f.Add("airpi-01", label, 1e308, -5e-324, int64(-1), false, uint8(255))
	}
	f.Add("airpi-01", "x", math.Copysign(0, -1), math.MaxFloat64, int64(45e9), false, uint8(0))
	f.Add("airpi-01", "x", 0.0, 1.0, int64(math.MaxInt64), true, uint8(1))
	f.Add("airpi-01", "x", 0.0, 1.0, int64(math.MinInt64), true, uint8(2))
	f.Fuzz(func(t *testing.T, node, label string, a, b float64, ns int64, synced bool, more uint8) {
		node = legalNode(node)
		if node == "" {
			return
		}
		reading, detection := aReading(), aDetection()
		reading.Values = msg.Values{a, b, a}
		for i := range min(int(more), 253) { // 256 columns at most
			reading.Columns = append(reading.Columns, fmt.Sprintf("c%d-x_", i))
			reading.Values = append(reading.Values, float64(i)*b)
		}
		for i, v := range reading.Values {
			if math.IsInf(v, 0) { // null on the bus
				reading.Values[i] = math.NaN()
			}
		}
		for _, h := range []*msg.Header{&reading.Header, &detection.Header} {
			h.Node, h.Synced, h.Time.Time = node, synced, time.Unix(0, ns).UTC()
		}
		o := options("plain")
		o.Node = node
		checkReading(t, o, of(t, reading), reading)
		if label != "" && len(label) <= 64 && utf8.ValidString(label) {
			detection.Objects[0].Label = label
			checkDetection(t, o, of(t, detection), label)
		}
	})
}

// tried is one record in one format; nil where it was skipped.
func tried(t *testing.T, name string, o Options, r *record.Record) []byte {
	t.Helper()
	o.Sensors = options(name).Sensors
	f, err := New(name, o)
	if name == "line" && tagError(o.Node) != nil {
		if err == nil {
			t.Fatalf("New(line) of node %q = nil; want an error", o.Node)
		}
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := f.Encode(r)
	if errors.Is(err, ErrSkip) {
		return nil
	}
	if err != nil {
		t.Fatalf("%s: Encode() = %v; want no error but ErrSkip", name, err)
	}
	return f.Batch().Join([][]byte{text})
}

func checkReading(t *testing.T, o Options, r *record.Record, want *msg.Reading) {
	t.Helper()
	values := map[string]float64{}
	for column, value := range good(want) {
		values[column] = value
	}
	same := func(what, column string, got any) {
		t.Helper()
		if v, ok := values[column]; !ok || math.Float64bits(v) != math.Float64bits(got.(float64)) {
			t.Errorf("%s: %s = %v; want %v", what, column, got, v)
		}
	}
	checkEvents(t, tried(t, "cloudevents", o, r), r)
	if text := tried(t, "line", o, r); text != nil {
		p := points(t, text)
		delete(p[0].Fields, "synced")
		if len(p) != 1 || p[0].Tags["node"] != r.Node || p[0].Time != r.Time.UnixNano() || len(p[0].Fields) != len(values) {
			t.Fatalf("line = %+v; want %d fields of %s", p, len(values), r.ID())
		}
		for column, value := range p[0].Fields {
			same("line", column, value)
		}
	}
	if text := tried(t, "senml", o, r); text != nil {
		count := 0
		for _, one := range resolve(t, text) {
			if _, flag := one.Value.(bool); !flag {
				count++
				same("senml", one.Name[strings.LastIndexByte(one.Name, '/')+1:], one.Value)
			}
		}
		if count != len(values) {
			t.Fatalf("senml has %d values; want %d", count, len(values))
		}
	}
	checkServices(t, o, r, same)
}

func checkServices(t *testing.T, o Options, r *record.Record, same func(what, column string, got any)) {
	t.Helper()
	number := func(text string) float64 {
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	var there []senseMapValue
	if text := tried(t, "opensensemap", o, r); text != nil {
		if err := json.Unmarshal(text, &there); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range there {
		same("opensensemap", map[string]string{"5e9f0c3a1b2c3d4e5f607182": "temperature_c", "5e9f0c3a1b2c3d4e5f607183": "pressure_pa"}[v.Sensor], number(v.Value))
	}
	var body communityBody
	if text := tried(t, "sensor.community", o, r); text != nil {
		if err := json.Unmarshal(text, &body); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range body.Values {
		same("sensor.community", map[string]string{"temperature": "temperature_c", "pressure": "pressure_pa"}[v.Type], number(v.Value))
	}
}

func checkEvents(t *testing.T, batch []byte, r *record.Record) {
	t.Helper()
	var events []json.RawMessage
	if err := json.Unmarshal(batch, &events); err != nil || len(events) != 1 {
		t.Fatalf("batch = %s, %v; want one event", batch, err)
	}
	e := anEvent(t, events[0])
	if r.Synced && !e.Time().Equal(r.Time.Time) {
		t.Errorf("event time = %v; want %v", e.Time(), r.Time)
	}
}

func checkDetection(t *testing.T, o Options, r *record.Record, label string) {
	t.Helper()
	checkEvents(t, tried(t, "cloudevents", o, r), r)
	if text := tried(t, "senml", o, r); text != nil {
		resolve(t, text)
	}
	if text := tried(t, "line", o, r); text != nil {
		p := points(t, text)
		if len(p) < 2 || p[1].Tags["label"] != label || p[1].Fields["score"].(float64) < 0.875 {
			t.Errorf("line = %+v; want the label %q second", p, label)
		}
	}
}
