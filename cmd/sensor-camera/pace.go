package main

import "time"

// pacer chooses frames by their times, so that on average hz a second stay, each
// the one nearest to when it is due. It saves up for two frames, so that one
// which comes late does not cost the next. With hz 0 all stay.
type pacer struct {
	hz    float64
	saved float64 // frames that may be taken; below 0 where one was taken early
	last  time.Duration
	begun bool
}

const mostSaved = 2

// take says whether the frame of that moment stays.
func (p *pacer) take(at time.Duration) bool {
	if p.hz == 0 {
		return true
	}
	grown, early := 1.0, 0.0 // the first frame is due
	if p.begun {
		grown = max(at-p.last, 0).Seconds() * p.hz
		early = grown / 2 // the next one will be as far away as this one is from the last
	}
	p.begun, p.last = true, at
	p.saved = min(p.saved+grown, mostSaved)
	if p.saved+early < 1-1e-6 {
		return false
	}
	p.saved--
	return true
}

// rate measures how many frames come a second.
type rate struct {
	since  time.Duration
	frames int
}

// count counts a frame. Once a second it returns the rate of the last one.
func (r *rate) count(now time.Duration) (hz float64, ok bool) {
	if r.since == 0 {
		r.since = now
		return 0, false
	}
	r.frames++
	passed := now - r.since
	if passed < time.Second {
		return 0, false
	}
	hz = float64(r.frames) / passed.Seconds()
	r.since, r.frames = now, 0
	return hz, true
}
