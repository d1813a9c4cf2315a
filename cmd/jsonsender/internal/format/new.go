package format

import (
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/msg"
)

// Options are what formats are made from.
type Options struct {
	Node     string            // the box's name
	Site     string            // where it is, in words; "" where that is not known
	Software string            // this program and its version, for receivers that want to know
	User     string            // sensor.community: the name that the box is registered under
	Sensors  map[string]string // opensensemap: column to sensor id; sensor.community: stream to pin
	Position *Position         // where the box stands; nil where it is not known
	Home     HomeConfig        // homeassistant: what it is to know of the box
}

// Position is a place on earth, as WGS 84 has it.
type Position struct {
	Latitude, Longitude float64  // degrees, north and east positive
	Altitude            *float64 // metres; nil where it is not known
}

// Names are the formats that New makes.
func Names() []string {
	return []string{"plain", "cloudevents", "senml", "line", "homeassistant", "opensensemap", "sensor.community"}
}

// New makes a format. It fails when there is none of that name, or when the options lack what it needs.
func New(name string, o Options) (Format, error) {
	switch name {
	case "plain":
		return plain{}, nil
	case "cloudevents":
		return cloudEvents{}, nil
	case "senml":
		return newSenML(o), nil
	case "line":
		return newLine(o)
	case "homeassistant":
		return NewHome(o.Home)
	case "opensensemap":
		return newSenseMap(o)
	case "sensor.community":
		return newSensorCommunity(o)
	}
	return nil, unknown(name)
}

func unknown(name string) error {
	return fmt.Errorf("format %q: there is none of that name%s", name, nearest.Hint(name, Names()))
}

// Fits says why a format cannot be sent to an address of that scheme; nil: it can.
func Fits(name, scheme string) error {
	fit, why := schemes(name)
	switch {
	case !slices.Contains(Names(), name):
		return unknown(name)
	case fit == nil || slices.Contains(fit, scheme):
		return nil
	}
	return fmt.Errorf("format %s does not go to %s: %s", name, scheme, why)
}

// schemes are those that a format can be sent to, and what else to do; nil is all of them.
func schemes(name string) (fit []string, why string) {
	web := []string{"http", "https"}
	switch name {
	case "homeassistant":
		return []string{"mqtt", "mqtts"}, "Home Assistant reads it from an MQTT broker; want mqtts:// and the broker's address"
	case "opensensemap":
		return web, "it is the HTTP interface of one service; want https://api.opensensemap.org/boxes/ID/data"
	case "sensor.community":
		return web, "it is the HTTP interface of one service; want https://api.sensor.community/v1/push-sensor-data/"
	case "line":
		return append(web, "tcp", "tls", "unix", "mqtt", "mqtts", "nats"),
			"its readers take lines over http, tcp, unix, mqtt and nats; want one of these, or another format"
	}
	return nil, ""
}

// Identifies reports whether a receiver can tell a record's id from what it gets, which it must to
// acknowledge each record by it.
func Identifies(name string) bool { return name == "plain" || name == "cloudevents" }

// skip says why one record is not for the format.
func skip(why string) error { return fmt.Errorf("%w: %s", ErrSkip, why) }

// onlyReadings is why events are left out.
const onlyReadings = "it takes readings only"

// good are the columns of a reading that have a value which nobody doubts.
func good(r *msg.Reading) iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for i, column := range r.Columns {
			if _, bad := r.Bad[column]; bad || math.IsNaN(r.Values[i]) {
				continue
			}
			if !yield(column, r.Values[i]) {
				return
			}
		}
	}
}
