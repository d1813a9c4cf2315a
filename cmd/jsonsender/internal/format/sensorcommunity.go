package format

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/names"
	"github.com/perch-edge/perch/pkg/msg"
)

// sensorCommunity writes what sensor.community takes, one reading a request. The service stamps
// values when they arrive, so that a late one would be stored at a wrong time: see Late.
type sensorCommunity struct {
	software string
	sensor   string // the registered name of the box
	pin      string // which of its sensors; one for the whole worker
	streams  []string
}

// lateAfter is how old a value may be when it arrives: their own stations send every 145 s.
const lateAfter = 3 * time.Minute

var (
	registered = regexp.MustCompile(`^[A-Za-z0-9]+-[A-Za-z0-9_-]+$`)
	pinName    = regexp.MustCompile(`^[0-9]{1,10}$`)
)

// communityType is the service's name for a column, in the unit that it wants; "" where it has none.
func communityType(column string) string {
	switch column {
	case "temperature_c":
		return "temperature"
	case "humidity_pct":
		return "humidity"
	case "pressure_pa":
		return "pressure"
	case "pm1_ug_m3", "pm1_0_ug_m3":
		return "P0"
	case "pm10_ug_m3":
		return "P1"
	case "pm2_5_ug_m3", "pm25_ug_m3":
		return "P2"
	case "pm4_ug_m3":
		return "P4"
	}
	return ""
}

func newSensorCommunity(o Options) (Format, error) {
	if !registered.MatchString(o.User) {
		return nil, fmt.Errorf("user %q: want the name that the box is registered under, such as raspi-00000000a1b2c3d4", o.User)
	}
	f := &sensorCommunity{software: o.Software, sensor: o.User}
	for _, stream := range slices.Sorted(maps.Keys(o.Sensors)) {
		pin := o.Sensors[stream]
		source, name, both := strings.Cut(stream, ".")
		if !both {
			name = source
		}
		switch {
		case names.Stream(name) != nil || both && names.Worker(source) != nil:
			return nil, fmt.Errorf("sensors: %q: want a stream, or SOURCE.STREAM", stream)
		case !pinName.MatchString(pin):
			return nil, fmt.Errorf("sensors: pin %q of %s: want the number of the kind of sensor, such as 11 (BME280) or 1 (SDS011)", pin, stream)
		case f.pin != "" && pin != f.pin:
			return nil, fmt.Errorf("sensors: pins %s and %s: want one; a sensor with another pin needs a worker of its own", f.pin, pin)
		}
		f.pin = pin
		f.streams = append(f.streams, stream)
	}
	if f.pin == "" {
		return nil, fmt.Errorf("sensors: want the pin of the stream that is sent, such as { environment = %q } of a BME280", "11")
	}
	return f, nil
}

// communityBody is one request.
type communityBody struct {
	Software string           `json:"software_version"`
	Values   []communityValue `json:"sensordatavalues"`
}

type communityValue struct {
	Type  string `json:"value_type"`
	Value string `json:"value"`
}

// Encode returns the body of one request.
func (f *sensorCommunity) Encode(r *record.Record) ([]byte, error) {
	if r.Kind != msg.KindReading {
		return nil, skip(onlyReadings)
	}
	if !slices.Contains(f.streams, string(r.Stream)) && !slices.Contains(f.streams, string(r.Source)+"."+string(r.Stream)) {
		return nil, skip("its stream has no pin in sensors")
	}
	reading, err := r.Reading()
	if err != nil {
		return nil, err
	}
	body := communityBody{Software: f.software}
	for column, value := range good(&reading) {
		if name := communityType(column); name != "" {
			body.Values = append(body.Values, communityValue{name, strconv.FormatFloat(value, 'f', -1, 64)})
		}
	}
	if len(body.Values) == 0 {
		return nil, skip("no column that it knows has a good value")
	}
	return json.Marshal(body)
}

// Late reports whether a record is too old for a receiver that stamps it at its arrival. One from a
// clock that ran ahead is late as well: how old it is is not known.
func (f *sensorCommunity) Late(r *record.Record, now time.Time) bool {
	return now.Sub(r.Time.Time).Abs() > lateAfter
}

// Batch is one record, with the fields that say whose it is.
func (f *sensorCommunity) Batch() Batch {
	return Batch{MediaType: "application/json", Most: 1, Header: map[string]string{"X-Sensor": f.sensor, "X-Pin": f.pin}}
}
