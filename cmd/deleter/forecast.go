package main

import (
	"fmt"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// forecast is how fast a place fills.
type forecast struct {
	perSecond float64 // bytes
	over      time.Duration
}

const (
	// rateOver is how far back files count for the present rate.
	rateOver = 24 * time.Hour
	// rateLeast is how long they must have come for it to be one.
	rateLeast = time.Minute
)

// forecastOf reckons the rate at which files came, from those that are still
// there and whose age is known. It is not known where there are too few.
func forecastOf(s *shelf, now msg.Stamp, bootID string) (forecast, bool) {
	var total, first int64
	var oldest time.Duration
	for _, f := range s.files {
		age, known := f.end.Age(now, bootID)
		if !known || age > rateOver {
			continue
		}
		total += f.bytes
		if age >= oldest {
			oldest, first = age, f.bytes
		}
	}
	total -= first // it was made before that time
	if oldest < rateLeast || total <= 0 {
		return forecast{}, false
	}
	return forecast{float64(total) / oldest.Seconds(), oldest}, true
}

// in is how long it takes for that many bytes to come.
func (f forecast) in(bytes int64) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	seconds := float64(max(bytes, 0)) / f.perSecond
	if seconds > most.Seconds() {
		return most
	}
	return time.Duration(seconds * float64(time.Second))
}

// ageText is a length of time in one unit, as coarse as it may be.
func ageText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 100*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
