package simbme280

import (
	"math"
	"testing"
	"time"
)

func TestWeatherIsPlausible(t *testing.T) {
	start := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	for seed := range uint64(20) {
		air := WeatherOf(seed)
		for d := 0; d < 366*24; d++ {
			now := start.Add(time.Duration(d) * time.Hour)
			temp, press, hum := air(now)
			if !(temp > -8 && temp < 30 && press > 99000 && press < 104000 && hum > 30 && hum < 98) {
				t.Fatalf("WeatherOf(%d)(%s) = %v °C, %v Pa, %v %%; want it within the bounds of its doc", seed, now, temp, press, hum)
			}
		}
	}
}

func TestWeatherOfADay(t *testing.T) {
	day := time.Date(2025, 6, 20, 0, 0, 0, 0, time.UTC)
	var warmest, coldest time.Time
	high, low := math.Inf(-1), math.Inf(1)
	var temps, hums []float64
	last := math.NaN()
	for i := range 24 * 60 {
		now := day.Add(time.Duration(i) * time.Minute)
		temp, _, hum := Weather(now)
		if temp > high {
			high, warmest = temp, now
		}
		if temp < low {
			low, coldest = temp, now
		}
		if math.Abs(temp-last) > 0.05 {
			t.Errorf("temperature at %s moved by %v °C in a minute; want a smooth curve", now, temp-last)
		}
		temps, hums, last = append(temps, temp), append(hums, hum), temp
	}
	if h := warmest.Hour(); h < 12 || h > 17 {
		t.Errorf("warmest at %s; want the afternoon", warmest)
	}
	if h := coldest.Hour(); h < 3 || h > 7 {
		t.Errorf("coldest at %s; want around sunrise", coldest)
	}
	if high-low < 6 || high-low > 16 {
		t.Errorf("the day spans %v °C; want 6..16", high-low)
	}
	if r := correlation(temps, hums); r > -0.9 {
		t.Errorf("correlation of temperature and humidity = %v; want less than -0.9", r)
	}
}

func TestPressureTideHasTwoMaximaADay(t *testing.T) {
	// The drift is some hundred Pa a day: 3,000 days averaged by the hour leave the tide.
	var hourly [24]float64
	start := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	for i := range 24 * 3000 {
		_, p, _ := Weather(start.Add(time.Duration(i) * time.Hour))
		hourly[i%24] += p / 3000
	}
	for _, h := range []int{10, 22} {
		if before, after := hourly[(h+18)%24], hourly[(h+6)%24]; hourly[h]-before < 60 || hourly[h]-after < 60 {
			t.Errorf("mean pressure at %d h = %.1f Pa, six hours around it %.1f and %.1f; want a maximum", h, hourly[h], before, after)
		}
	}
}

func TestWeatherIsAFunctionOfTheInstant(t *testing.T) {
	now := time.Date(2025, 6, 20, 15, 30, 0, 123456789, time.UTC)
	t1, p1, h1 := Weather(now)
	t2, p2, h2 := WeatherOf(0)(now.In(time.FixedZone("elsewhere", 7*3600)))
	if t1 != t2 || p1 != p2 || h1 != h2 {
		t.Errorf("Weather(%s) = %v, %v, %v here and %v, %v, %v elsewhere; want the same", now, t1, p1, h1, t2, p2, h2)
	}
	if t3, _, _ := WeatherOf(3)(now); t3 == t1 {
		t.Errorf("WeatherOf(3) = %v °C as of seed 0; want another", t3)
	}
}

func correlation(a, b []float64) float64 {
	var ma, mb, ab, aa, bb float64
	for i := range a {
		ma, mb = ma+a[i]/float64(len(a)), mb+b[i]/float64(len(b))
	}
	for i := range a {
		ab, aa, bb = ab+(a[i]-ma)*(b[i]-mb), aa+(a[i]-ma)*(a[i]-ma), bb+(b[i]-mb)*(b[i]-mb)
	}
	return ab / math.Sqrt(aa*bb)
}
