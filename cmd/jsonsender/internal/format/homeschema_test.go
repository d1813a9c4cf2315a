package format

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What Home Assistant takes: the keys of its MQTT integration's documentation, and the units and
// state classes that its sensors' device classes allow.

// keys are the documented keys, each with the kind of its value; "!" marks those that must be there.
func keys(platform string) map[string]string {
	entity := map[string]string{
		"platform": "text!", "unique_id": "text!", "name": "text", "availability": "availability", "availability_mode": "mode", "qos": "qos",
	}
	more := map[string]map[string]string{
		"device": {"identifiers": "texts!", "name": "text", "manufacturer": "text", "model": "text", "sw_version": "text", "suggested_area": "text"},
		"origin": {"name": "text!", "sw_version": "text", "support_url": "text"},
		"sensor": {
			"state_topic": "topic!", "value_template": "template", "unit_of_measurement": "text", "device_class": "text", "state_class": "text",
			"expire_after": "seconds",
		},
		"event": {"state_topic": "topic!", "event_types": "texts!"},
		"image": {"image_topic": "topic!", "content_type": "text"},
	}[platform]
	if platform != "device" && platform != "origin" {
		for key, kind := range entity {
			more[key] = kind
		}
	}
	return more
}

// allowed are units and state classes by device class.
func allowed() map[string][2][]string {
	m, speeds := []string{"measurement"}, []string{"ft/s", "in/s", "m/s", "mm/s", "km/h", "kn", "mph", "Beaufort"}
	energy, pressure := []string{"J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh", "GWh", "TWh", "cal", "kcal", "Mcal", "Gcal"},
		[]string{"Pa", "hPa", "kPa", "bar", "cbar", "mbar", "mmHg", "inHg", "psi"}
	total := []string{"total", "total_increasing"}
	any := append([]string{"measurement"}, total...)
	ug := []string{"\u00b5g/m³"}
	return map[string][2][]string{
		"atmospheric_pressure": {pressure, m}, "battery": {{"%"}, m}, "carbon_dioxide": {{"ppm"}, m}, "carbon_monoxide": {{"ppm"}, m},
		"current": {{"A", "mA"}, m}, "data_size": {{"bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB"}, any},
		"distance": {{"km", "m", "cm", "mm", "mi", "nmi", "yd", "in"}, any}, "duration": {{"d", "h", "min", "s", "ms"}, any},
		"energy": {energy, total}, "energy_storage": {energy, m}, "frequency": {{"Hz", "kHz", "MHz", "GHz"}, m}, "humidity": {{"%"}, m},
		"illuminance": {{"lx"}, m}, "irradiance": {{"W/m²", "BTU/(h⋅ft²)"}, m}, "moisture": {{"%"}, m}, "nitrogen_dioxide": {ug, m},
		"nitrogen_monoxide": {ug, m}, "nitrous_oxide": {ug, m}, "ozone": {ug, m}, "ph": {{""}, m}, "pm1": {ug, m}, "pm25": {ug, m}, "pm10": {ug, m},
		"power_factor": {{"%", ""}, m}, "power": {{"mW", "W", "kW", "MW", "GW", "TW"}, m}, "precipitation": {{"cm", "in", "mm"}, any},
		"pressure": {pressure, m}, "signal_strength": {{"dB", "dBm"}, m}, "sound_pressure": {{"dB", "dBA"}, m}, "speed": {speeds, m},
		"sulphur_dioxide": {ug, m}, "temperature": {{"°C", "°F", "K"}, m}, "volatile_organic_compounds": {ug, m},
		"volatile_organic_compounds_parts": {{"ppm", "ppb"}, m}, "voltage": {{"V", "mV", "µV", "kV", "MV"}, m},
		"volume_storage": {{"L", "mL", "gal", "fl. oz.", "m³", "ft³", "CCF"}, m}, "volume_flow_rate": {{"m³/h", "m³/s", "ft³/min", "L/h", "L/min", "L/s", "gal/min", "mL/s"}, m},
		"water": {{"L", "gal", "m³", "ft³", "CCF"}, total}, "weight": {{"kg", "g", "mg", "µg", "oz", "lb", "st"}, any}, "wind_direction": {{"°"}, nil}, "wind_speed": {speeds, m},
	}
}

// Since 2025.7 Home Assistant does not take a sensor whose unit does not fit its device class.
func TestUnitsFitHomeAssistantsDeviceClasses(t *testing.T) {
	t.Parallel()
	table := allowed()
	for _, u := range Units() {
		for _, c := range append([]Class{u.Class}, u.Named...) {
			if c.Device == "" {
				continue
			}
			may, known := table[c.Device]
			if !known || !slices.Contains(may[0], u.Display) {
				t.Errorf("%s: device class %s with the unit %q; want one of %q", u.Suffix, c.Device, u.Display, may[0])
			}
			if c.State != "" && !slices.Contains(may[1], c.State) {
				t.Errorf("%s: device class %s with the state class %q; want one of %q", u.Suffix, c.Device, c.State, may[1])
			}
		}
	}
}

// wantValid checks an announcement against the documentation.
func wantValid(t *testing.T, p Publication) {
	t.Helper()
	if !regexp.MustCompile(`^homeassistant/device/[a-zA-Z0-9_-]+/config$`).MatchString(p.Topic) || !p.Retain {
		t.Errorf("announcement on %s, retained %v; want homeassistant/device/<object id>/config, retained", p.Topic, p.Retain)
	}
	var all struct {
		Device     map[string]any            `json:"device"`
		Origin     map[string]any            `json:"origin"`
		Components map[string]map[string]any `json:"components"`
	}
	d := json.NewDecoder(strings.NewReader(string(p.Body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		t.Fatalf("announcement %s: %v", p.Body, err)
	}
	wantKeys(t, "device", all.Device, keys("device"))
	wantKeys(t, "origin", all.Origin, keys("origin"))
	ids := map[any]bool{}
	for key, c := range all.Components {
		if len(c) == 1 && c["platform"] != nil { // it is taken out
			continue
		}
		wantKeys(t, key, c, keys(fmt.Sprint(c["platform"])))
		if ids[c["unique_id"]] {
			t.Errorf("%s: unique_id %v comes twice", key, c["unique_id"])
		}
		ids[c["unique_id"]] = true
		if class, ok := c["device_class"].(string); ok {
			unit, _ := c["unit_of_measurement"].(string)
			if may := allowed()[class]; !slices.Contains(may[0], unit) {
				t.Errorf("%s: device class %s with the unit %q; want one of %q", key, class, unit, may[0])
			}
		}
	}
}

func wantKeys(t *testing.T, what string, got map[string]any, want map[string]string) {
	t.Helper()
	for key, value := range got {
		kind, known := want[key]
		if !known || !fits(strings.TrimSuffix(kind, "!"), value) {
			t.Errorf("%s: %s = %v; want a documented key, of kind %q", what, key, value, kind)
		}
	}
	for key, kind := range want {
		if strings.HasSuffix(kind, "!") && got[key] == nil {
			t.Errorf("%s has no %s, which must be there", what, key)
		}
	}
}

func fits(kind string, value any) bool {
	text, isText := value.(string)
	number, isNumber := value.(float64)
	list, isList := value.([]any)
	switch kind {
	case "text":
		return isText && text != ""
	case "topic": // valid_subscribe_topic
		return isText && text != "" && !strings.ContainsAny(text, "+#\x00") && len(text) < 65536
	case "template":
		return isText && strings.HasPrefix(text, "{{ ") && strings.HasSuffix(text, " }}")
	case "mode":
		return slices.Contains([]string{"all", "any", "latest"}, text)
	case "qos":
		return isNumber && slices.Contains([]float64{0, 1, 2}, number)
	case "seconds":
		return isNumber && number >= 0 && number == float64(int(number))
	case "texts":
		for _, one := range list {
			if s, ok := one.(string); !ok || s == "" {
				return false
			}
		}
		return isList && len(list) > 0
	case "availability":
		for _, one := range list {
			m, ok := one.(map[string]any)
			if !ok || len(m) != 1 || !fits("topic", m["topic"]) {
				return false
			}
		}
		return isList && len(list) > 0
	}
	return false
}
