package format

import (
	"slices"
	"strings"
)

// Unit is what the end of a column's name means: temperature_c is in degrees Celsius.
type Unit struct {
	Suffix string // of the column's name, after an underscore
	Name   string // in words
	// SenML is the unit in the registry of RFC 8428 section 12.1, where RFC 8798 section 2 added
	// some; a value there is Scale times the column's, plus Offset.
	SenML         string
	Scale, Offset float64
	// Display is the unit of measurement that Home Assistant shows; "" is none.
	Display string
	Class   Class   // of columns whose names say no more
	Named   []Class // of columns whose names have one of a class's words
}

// Class is what kind of quantity Home Assistant shows: a device class of its sensors, and its
// state class. A device class of "" is a number with a unit; a state class of "" keeps no
// statistics.
type Class struct {
	Device, State string
	Words         []string // parts of a column's name before the suffix
	Names         []string // all of it
	SenML         string   // where it has a unit of its own there, on the scale of the column
}

// State classes of Home Assistant.
const (
	measurement = "measurement"
	increasing  = "total_increasing"
)

// now is a class whose values stand for this moment.
func now(device string, words ...string) Class {
	return Class{Device: device, State: measurement, Words: words}
}

// meter is a class whose values only grow, but for a new start from zero.
func meter(device string, words ...string) Class {
	return Class{Device: device, State: increasing, Words: words}
}

// Units are all that columns may have. Device classes go with the units that Home Assistant's
// table of them allows, and with the state classes that its recorder expects of them.
func Units() []Unit {
	var units []Unit
	for _, group := range [][]Unit{climate(), lengths(), electric(), air(), amounts()} {
		units = append(units, group...)
	}
	return units
}

func climate() []Unit {
	percent := []Class{
		{Device: "humidity", State: measurement, Words: []string{"humidity", "rh"}, SenML: "%RH"},
		{Device: "battery", State: measurement, Words: []string{"battery", "soc"}, SenML: "%EL"},
		now("moisture", "moisture", "soil"), now("power_factor", "power_factor"),
	}
	barometer := []Class{{Device: "atmospheric_pressure", State: measurement,
		Words: []string{"atmospheric", "barometric", "barometer"}, Names: []string{"pressure", "air_pressure"}}}
	return []Unit{
		{"c", "degrees Celsius", "Cel", 1, 0, "°C", now("temperature"), nil},
		{"k", "kelvins", "K", 1, 0, "K", now("temperature"), nil},
		{"f", "degrees Fahrenheit", "Cel", 5.0 / 9, -160.0 / 9, "°F", now("temperature"), nil},
		{"pa", "pascals", "Pa", 1, 0, "Pa", now("pressure"), barometer},
		{"hpa", "hectopascals", "Pa", 100, 0, "hPa", now("pressure"), barometer},
		{"kpa", "kilopascals", "Pa", 1000, 0, "kPa", now("pressure"), barometer},
		{"bar", "bars", "Pa", 1e5, 0, "bar", now("pressure"), barometer},
		{"pct", "percent", "/", 0.01, 0, "%", now(""), percent},
		{"lux", "lux", "lx", 1, 0, "lx", now("illuminance"), nil},
		{"lx", "lux", "lx", 1, 0, "lx", now("illuminance"), nil},
		{"w_m2", "watts per square metre", "W/m2", 1, 0, "W/m²", now("irradiance"), nil},
	}
}

func lengths() []Unit {
	rain := []Class{now("precipitation", "rain", "rainfall", "precipitation", "snow")}
	wind := []Class{now("wind_speed", "wind", "gust")}
	direction := []Class{{Device: "wind_direction", Words: []string{"wind"}}} // averages of angles mean nothing
	return []Unit{
		{"mm", "millimetres", "m", 0.001, 0, "mm", now("distance"), rain},
		{"cm", "centimetres", "m", 0.01, 0, "cm", now("distance"), rain},
		{"m", "metres", "m", 1, 0, "m", now("distance"), nil},
		{"km", "kilometres", "m", 1000, 0, "km", now("distance"), nil},
		{"m_s", "metres per second", "m/s", 1, 0, "m/s", now("speed"), wind},
		{"km_h", "kilometres per hour", "m/s", 1 / 3.6, 0, "km/h", now("speed"), wind},
		{"deg", "degrees", "deg", 1, 0, "°", now(""), direction},
	}
}

func electric() []Unit {
	store := []Class{now("energy_storage", "battery", "stored")}
	return []Unit{
		{"v", "volts", "V", 1, 0, "V", now("voltage"), nil},
		{"mv", "millivolts", "V", 0.001, 0, "mV", now("voltage"), nil},
		{"a", "amperes", "A", 1, 0, "A", now("current"), nil},
		{"ma", "milliamperes", "A", 0.001, 0, "mA", now("current"), nil},
		{"w", "watts", "W", 1, 0, "W", now("power"), nil},
		{"kw", "kilowatts", "W", 1000, 0, "kW", now("power"), nil},
		{"wh", "watt hours", "J", 3600, 0, "Wh", meter("energy"), store},
		{"kwh", "kilowatt hours", "J", 3.6e6, 0, "kWh", meter("energy"), store},
		{"j", "joules", "J", 1, 0, "J", now(""), nil}, // an energy of Home Assistant's since 2024.10 only
		{"hz", "hertz", "Hz", 1, 0, "Hz", now("frequency"), nil},
		{"db", "decibels", "dB", 1, 0, "dB", now(""), []Class{
			now("signal_strength", "rssi", "signal", "snr"), now("sound_pressure", "sound", "noise", "spl"),
		}},
	}
}

func air() []Unit {
	voc := now("volatile_organic_compounds_parts", "voc", "tvoc")
	return []Unit{
		{"ppm", "parts per million", "/", 1e-6, 0, "ppm", now(""), []Class{
			now("carbon_dioxide", "co2"), now("carbon_monoxide", "co"), voc,
		}},
		{"ppb", "parts per billion", "/", 1e-9, 0, "ppb", now(""), []Class{voc}},
		// The micro sign, U+00B5: Home Assistant takes the Greek letter only since 2025.
		{"ug_m3", "micrograms per cubic metre", "kg/m3", 1e-9, 0, "\u00b5g/m³", now(""), []Class{
			now("pm1", "pm1", "pm1_0"), now("pm25", "pm25", "pm2_5"), now("pm10", "pm10"),
			now("nitrogen_dioxide", "no2"), now("nitrogen_monoxide", "no"), now("nitrous_oxide", "n2o"),
			now("ozone", "o3", "ozone"), now("sulphur_dioxide", "so2"),
			now("volatile_organic_compounds", "voc", "tvoc"),
		}},
		{"ph", "pH", "pH", 1, 0, "", now("ph"), nil},
	}
}

func amounts() []Unit {
	return []Unit{
		{"s", "seconds", "s", 1, 0, "s", now("duration"), nil},
		{"ms", "milliseconds", "s", 0.001, 0, "ms", now("duration"), nil},
		{"bytes", "bytes", "B", 1, 0, "B", now("data_size"), nil},
		{"g", "grams", "kg", 0.001, 0, "g", now("weight"), nil},
		{"kg", "kilograms", "kg", 1, 0, "kg", now("weight"), nil},
		{"l", "litres", "m3", 0.001, 0, "L", now(""), []Class{
			now("volume_storage", "tank", "level", "stored"), meter("water", "water"),
		}},
		{"l_min", "litres per minute", "m3/s", 1.0 / 60000, 0, "L/min", now("volume_flow_rate"), nil},
		{"count", "a number of things", "count", 1, 0, "", now(""), nil},
		{"rpm", "turns per minute", "1/s", 1.0 / 60, 0, "rpm", now(""), nil},
	}
}

// Quantity is what a column's name says of its values.
type Quantity struct {
	Name  string // without the suffix, as "soil_moisture" of soil_moisture_pct; the whole name where it is all suffix
	Unit  Unit   // its zero value where the name ends in none
	Class Class
	// SenML is the unit there, and Scale and Offset lead to it from the column's value.
	SenML         string
	Scale, Offset float64
}

// QuantityOf reads a column's name: its longest suffix counts, so that wind_m_s is a speed and no
// time. A name that is one suffix alone has that unit where it is a word, as in "count".
func QuantityOf(column string) Quantity {
	column = strings.ToLower(column)
	q := Quantity{Name: column, Class: now(""), Scale: 1}
	for _, u := range Units() {
		name, found := strings.CutSuffix(column, "_"+u.Suffix)
		if column == u.Suffix && len(column) > 1 {
			name, found = column, true
		}
		if found && name != "" && len(u.Suffix) > len(q.Unit.Suffix) {
			q = Quantity{name, u, u.Class, u.SenML, u.Scale, u.Offset}
		}
	}
	for _, c := range q.Unit.Named {
		if hasWord(q.Name, c.Words) || slices.Contains(c.Names, q.Name) {
			q.Class = c
			break
		}
	}
	if q.Class.SenML != "" {
		q.SenML, q.Scale, q.Offset = q.Class.SenML, 1, 0
	}
	return q
}

// hasWord reports whether a name has one of the words as a part of it.
func hasWord(name string, words []string) bool {
	for _, w := range words {
		if strings.Contains("_"+name+"_", "_"+w+"_") {
			return true
		}
	}
	return false
}
