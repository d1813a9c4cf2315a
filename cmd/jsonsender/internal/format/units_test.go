package format

import (
	"math"
	"testing"
)

func TestQuantityOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		column, name, display, device, state, senml string
	}{
		{"temperature_c", "temperature", "°C", "temperature", "measurement", "Cel"},
		{"t_c", "t", "°C", "temperature", "measurement", "Cel"},
		{"pressure_pa", "pressure", "Pa", "atmospheric_pressure", "measurement", "Pa"},
		{"water_pressure_kpa", "water_pressure", "kPa", "pressure", "measurement", "Pa"},
		{"air_pressure_hpa", "air_pressure", "hPa", "atmospheric_pressure", "measurement", "Pa"},
		{"pump_kpa", "pump", "kPa", "pressure", "measurement", "Pa"},
		{"humidity_pct", "humidity", "%", "humidity", "measurement", "%RH"},
		{"battery_pct", "battery", "%", "battery", "measurement", "%EL"},
		{"soil_moisture_pct", "soil_moisture", "%", "moisture", "measurement", "/"},
		{"cpu_pct", "cpu", "%", "", "measurement", "/"},
		{"wind_m_s", "wind", "m/s", "wind_speed", "measurement", "m/s"},
		{"wind_deg", "wind", "°", "wind_direction", "", "deg"},
		{"rain_mm", "rain", "mm", "precipitation", "measurement", "m"},
		{"meter_kwh", "meter", "kWh", "energy", "total_increasing", "J"},
		{"pm2_5_ug_m3", "pm2_5", "\u00b5g/m³", "pm25", "measurement", "kg/m3"},
		{"co2_ppm", "co2", "ppm", "carbon_dioxide", "measurement", "/"},
		{"water_ph", "water", "", "ph", "measurement", "pH"},
		{"solar_w_m2", "solar", "W/m²", "irradiance", "measurement", "W/m2"},
		{"lux", "lux", "lx", "illuminance", "measurement", "lx"},
		{"bird_count", "bird", "", "", "measurement", "count"},
		{"Temperature_C", "temperature", "°C", "temperature", "measurement", "Cel"},
		{"c", "c", "", "", "measurement", ""},
		{"_c", "_c", "", "", "measurement", ""},
		{"music", "music", "", "", "measurement", ""},
		{"", "", "", "", "measurement", ""},
	} {
		q := QuantityOf(c.column)
		if q.Name != c.name || q.Unit.Display != c.display || q.Class.Device != c.device || q.Class.State != c.state || q.SenML != c.senml {
			t.Errorf("QuantityOf(%q) = %q, %q, %q, %q, %q; want %q, %q, %q, %q, %q", c.column,
				q.Name, q.Unit.Display, q.Class.Device, q.Class.State, q.SenML, c.name, c.display, c.device, c.state, c.senml)
		}
	}
}

func TestScales(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		column      string
		value, want float64
	}{
		{"t_f", 212, 100}, {"t_f", -40, -40}, {"p_hpa", 1013.25, 101325}, {"v_km_h", 36, 10}, {"e_kwh", 1, 3.6e6},
		{"flow_l_min", 60, 0.001}, {"humidity_pct", 41.5, 41.5}, {"cpu_pct", 50, 0.5}, {"fan_rpm", 1200, 20},
	} {
		q := QuantityOf(c.column)
		if got := q.Scale*c.value + q.Offset; math.Abs(got-c.want) > 1e-9*math.Abs(c.want) {
			t.Errorf("%g of %s = %g %s; want %g", c.value, c.column, got, q.SenML, c.want)
		}
	}
}
