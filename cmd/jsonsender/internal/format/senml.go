package format

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

// senML writes packs of RFC 8428 in JSON. A record is a pack of its own; several are joined to one.
// Base fields last until the next record that has them, so that the first entry of each record sets
// both of them that are used, bn and bt, again.
//
// Values go as they were measured. A unit goes along where the registry has the very unit that the
// column's name ends in. Secondary units (RFC 8798) would need bver 26 (RFC 9100), which a receiver
// of RFC 8428 must refuse: such a column has no unit but its name, which says it.
type senML struct {
	position *Position
	units    map[string]string // by column: found once
}

// mostUnits bounds what is remembered, should a publisher invent columns.
const mostUnits = 4096

func newSenML(o Options) Format { return &senML{o.Position, map[string]string{}} }

// entry is one SenML record (RFC 8428 section 4), called entry to keep it apart from ours.
type entry struct {
	BaseName  string      `json:"bn,omitempty"`
	BaseTime  json.Number `json:"bt,omitempty"` // Unix seconds, all digits
	Name      string      `json:"n"`
	Unit      string      `json:"u,omitempty"`
	Value     *float64    `json:"v,omitempty"`
	BoolValue *bool       `json:"vb,omitempty"`
}

// Encode returns a pack. Readings have an entry for each good column; detections one with the number
// of objects, and for each label one with its best score.
func (f *senML) Encode(r *record.Record) ([]byte, error) {
	if r.Time.Unix() < firstTime {
		return nil, skip("its time would be read as one relative to now: want 1978 or later")
	}
	entries, err := f.entries(r)
	if err != nil {
		return nil, err
	}
	entries[0].BaseName = senMLName(r.Node) + "/" + string(r.Source) + "/" + string(r.Stream) + "/"
	entries[0].BaseTime = unixSeconds(r.Time)
	if !r.Synced {
		no := false
		entries = append(entries, entry{Name: "clock:synced", BoolValue: &no})
	}
	text, err := json.Marshal(append(entries, f.place(r.Node)...))
	if err != nil {
		return nil, fmt.Errorf("encode pack of %s: %w", r.ID(), err)
	}
	return text, nil
}

// Batch is one pack (RFC 8428 section 12.3.1 has its media type).
func (f *senML) Batch() Batch {
	return Batch{MediaType: "application/senml+json", Open: "[", Separator: ",", Close: "]", Strip: 1}
}

// entries are one or more.
func (f *senML) entries(r *record.Record) ([]entry, error) {
	switch r.Kind {
	case msg.KindReading:
		return f.reading(r)
	case msg.KindDetection:
		return detectionEntries(r)
	}
	return nil, skip("it takes readings and detections only")
}

func (f *senML) reading(r *record.Record) (entries []entry, err error) {
	reading, err := r.Reading()
	if err != nil {
		return nil, err
	}
	for column, value := range good(&reading) {
		entries = append(entries, entry{Name: column, Unit: f.unit(column), Value: &value})
	}
	if len(entries) == 0 {
		return nil, skip("no column has a good value")
	}
	return entries, nil
}

// unit is the registered unit of a column's values as they are; "" where there is none.
func (f *senML) unit(column string) string {
	unit, known := f.units[column]
	if known {
		return unit
	}
	if q := QuantityOf(column); q.Scale == 1 && q.Offset == 0 {
		unit = q.SenML
	}
	if len(f.units) < mostUnits {
		f.units[column] = unit
	}
	return unit
}

func detectionEntries(r *record.Record) ([]entry, error) {
	d, err := r.Detection()
	if err != nil {
		return nil, err
	}
	count := float64(len(d.Objects))
	entries := []entry{{Name: "objects", Unit: "count", Value: &count}}
	at := map[string]int{}
	for _, o := range d.Objects {
		i, seen := at[o.Label]
		if !seen {
			i = len(entries)
			at[o.Label] = i
			entries = append(entries, entry{Name: "objects/" + senMLName(o.Label), Unit: "/", Value: new(float64)})
		}
		*entries[i].Value = max(*entries[i].Value, o.Score)
	}
	return entries, nil
}

// place is where the box stands, under the name of the box; the time is still the record's.
func (f *senML) place(node string) []entry {
	if f.position == nil {
		return nil
	}
	p := *f.position
	entries := []entry{{Name: "latitude", Unit: "lat", Value: &p.Latitude}, {Name: "longitude", Unit: "lon", Value: &p.Longitude}}
	if p.Altitude != nil {
		entries = append(entries, entry{Name: "altitude", Unit: "m", Value: p.Altitude})
	}
	entries[0].BaseName = senMLName(node) + "/"
	return entries
}

// unixSeconds is a time with its nanoseconds, as far as they are not zeros.
func unixSeconds(t msg.Time) json.Number {
	text := strconv.FormatInt(t.Unix(), 10)
	if ns := t.Nanosecond(); ns != 0 {
		text += "." + strings.TrimRight(fmt.Sprintf("%09d", ns), "0")
	}
	return json.Number(text)
}

// senMLName is a text as part of a name, which has letters, digits and - : . / _ and begins with a
// letter or digit (RFC 8428 section 4.5.1). Any other byte, and : and / themselves, become : and
// two hexadecimal digits; "0:" stands before what would begin with another character. So
// different texts have different names.
func senMLName(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !plain && b.Len() == 0 {
			b.WriteString("0:")
		}
		if plain || c == '-' || c == '.' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, ":%02X", c)
		}
	}
	return b.String()
}
