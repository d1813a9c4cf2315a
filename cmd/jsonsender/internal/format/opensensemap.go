package format

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/names"
	"github.com/perch-edge/perch/pkg/msg"
)

// senseMap writes what POST /boxes/:senseBoxId/data of openSenseMap takes: an array of values, each
// with the sensor's id there. Readings only, and only those whose time is true.
type senseMap struct {
	sensors map[string]string // column, or SOURCE.STREAM.column, to id
}

// senseMapMost is how many values one request may have; more are refused together.
const senseMapMost = 2500

// senseMapValue is one value of one sensor.
type senseMapValue struct {
	Sensor string `json:"sensor"`
	Value  string `json:"value"`
	At     string `json:"createdAt"` // RFC 3339, milliseconds
}

var sensorID = regexp.MustCompile(`^[0-9a-f]{24}$`)

func newSenseMap(o Options) (Format, error) {
	if len(o.Sensors) == 0 {
		return nil, fmt.Errorf("sensors: want the id of each column, such as { temperature_c = %q }", "5e9f0c3a1b2c3d4e5f607182")
	}
	owner := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(o.Sensors)) {
		id := o.Sensors[key]
		if !isColumn(key) {
			return nil, fmt.Errorf("sensors: %q: want a column, or SOURCE.STREAM.column", key)
		}
		if !sensorID.MatchString(id) {
			return nil, fmt.Errorf("sensors: id %q of %s: want 24 of 0-9 and a-f, as the box's page there shows it", id, key)
		}
		if other, twice := owner[id]; twice {
			return nil, fmt.Errorf("sensors: %s and %s have the same id: want one of their own for each", other, key)
		}
		owner[id] = key
	}
	return &senseMap{o.Sensors}, nil
}

// isColumn reports whether a key can name a column: column or SOURCE.STREAM.column.
func isColumn(key string) bool {
	words := strings.Split(key, ".")
	last := len(words) - 1
	return (last == 0 || last == 2 && names.Worker(words[0]) == nil && names.Stream(words[1]) == nil) && names.Stream(words[last]) == nil
}

// Encode returns an array of the reading's values.
func (f *senseMap) Encode(r *record.Record) ([]byte, error) {
	if r.Kind != msg.KindReading {
		return nil, skip(onlyReadings)
	}
	if !r.Synced {
		return nil, skip("the clock was not synchronised when it was measured")
	}
	reading, err := r.Reading()
	if err != nil {
		return nil, err
	}
	var values []senseMapValue
	at := r.Time.UTC().Format("2006-01-02T15:04:05.000Z")
	for column, value := range good(&reading) {
		if id := f.id(r, column); id != "" {
			values = append(values, senseMapValue{id, strconv.FormatFloat(value, 'g', -1, 64), at})
		}
	}
	if len(values) == 0 {
		return nil, skip("no column of sensors has a good value")
	}
	return json.Marshal(values)
}

// id is the sensor of a column; "" where there is none.
func (f *senseMap) id(r *record.Record, column string) string {
	if id, ok := f.sensors[string(r.Source)+"."+string(r.Stream)+"."+column]; ok {
		return id
	}
	return f.sensors[column]
}

// Batch is one array. A record has one value of each sensor at most.
func (f *senseMap) Batch() Batch {
	return Batch{
		MediaType: "application/json", Open: "[", Separator: ",", Close: "]", Strip: 1,
		Most: max(1, senseMapMost/len(f.sensors)), BareToken: true,
	}
}
