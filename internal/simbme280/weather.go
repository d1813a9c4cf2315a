package simbme280

import (
	"math"
	"math/rand/v2"
	"time"
)

// Truth is the air around the chip at a time: temperature in °C, pressure in Pa, relative humidity in %.
// It must be a pure function of now.
type Truth func(now time.Time) (tempC, pressurePa, humidityPct float64)

// Weather is the default Truth, [WeatherOf] seed 0.
func Weather(now time.Time) (tempC, pressurePa, humidityPct float64) { return WeatherOf(0)(now) }

// WeatherOf returns mild weather at sea level in the northern middle latitudes, smooth, and the same for the same
// seed and instant on every machine. UTC is taken as local solar time.
//
//   - temperature: a season, a day with its minimum near sunrise and its maximum in the afternoon, a slow drift
//   - pressure: the semidiurnal tide (maxima near 10 and 22 h, about 60 Pa at 50° N) on a drift of days
//   - humidity: from a dew point that follows the drift but not the day, so it falls while the day warms
//     (Magnus formula, constants of Alduchov and Eskridge, J. Appl. Meteor. 35, 1996)
//
// The seed moves the phases of the drifts. Values stay within -8..30 °C, 99..104 kPa and 30..98 %.
func WeatherOf(seed uint64) Truth {
	phases := rand.New(rand.NewPCG(seed, 0))
	warm := drift(phases, 3.7, 6.1, 11.3)
	high := drift(phases, 4.3, 7.9, 13.7)
	dry := drift(phases, 2.9, 5.3, 9.7)
	return func(now time.Time) (tempC, pressurePa, humidityPct float64) {
		days := float64(now.Unix())/86400 + float64(now.Nanosecond())/86400e9
		hour := 24 * (days - math.Floor(days))

		// 15 January 1970 is day 14: the coldest time of the year.
		base := 11 - 8*turn(days-14, 365.2425) + 4*warm(days)
		tempC = base + 4.8*turn(hour-15.3, 24) + 0.9*turn(hour-2.2, 12)

		pressurePa = 101325 + 1300*high(days) + 60*turn(hour-10, 12) + 20*turn(hour-6, 24)

		dew := base - 7.2 - 0.9*dry(days)
		humidityPct = 100 * math.Exp(magnus(dew)-magnus(tempC))
		return tempC, pressurePa, humidityPct
	}
}

// turn is a cosine with the given period, one at x = 0.
func turn(x, period float64) float64 { return math.Cos(2 * math.Pi * x / period) }

// magnus is the logarithm of the vapour pressure of water, but for a constant.
func magnus(tempC float64) float64 { return 17.625 * tempC / (243.04 + tempC) }

// drift returns a slow function of the day within -1..1: three waves with periods in days that share no
// multiple soon.
func drift(phases *rand.Rand, a, b, c float64) func(days float64) float64 {
	pa, pb, pc := phases.Float64()*a, phases.Float64()*b, phases.Float64()*c
	return func(days float64) float64 {
		return 0.5*turn(days-pa, a) + 0.3*turn(days-pb, b) + 0.2*turn(days-pc, c)
	}
}
