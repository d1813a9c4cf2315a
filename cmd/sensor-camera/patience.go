package main

import (
	"errors"
	"fmt"
	"time"
)

// patient learns how slow a command is, so that one with a frame every ten seconds
// is not restarted as silent forever. It may be nil.
type patient struct {
	usual time.Duration // how long it may be silent by its settings
	hint  bool          // capture_hz is not set: the error mentions it

	frames int // of this run
	last   time.Time
	known  time.Duration // how long it may be silent, as observed; 0 is unknown
}

// mostPatience bounds what is learned from silence alone: a command that always
// hangs after its first frame looks like a slow one.
const mostPatience = time.Minute

func newPatient(hint bool, usual time.Duration) *patient { return &patient{usual: usual, hint: hint} }

func (p *patient) start() {
	if p != nil {
		p.frames = 0
	}
}

// frame learns from the time between two frames.
func (p *patient) frame(now time.Time) {
	if p == nil {
		return
	}
	if p.frames++; p.frames > 1 {
		if apart := now.Sub(p.last); 2*apart > p.usual {
			p.known = max(p.known, p.usual+2*apart)
		}
	}
	p.last = now
}

// wait is how long the command may be silent; 0 is not learned yet.
func (p *patient) wait() time.Duration {
	if p == nil {
		return 0
	}
	return p.known
}

// failed learns from silence: a command that gave one frame and then none may be
// slower than the patience with it, which is doubled for the next time.
func (p *patient) failed(err error) error {
	if p == nil || p.frames > 1 || !errors.Is(err, errSilent) {
		return err
	}
	if p.frames == 1 {
		p.known = min(2*max(p.usual, p.known), max(mostPatience, p.usual))
	}
	if !p.hint {
		return err
	}
	return fmt.Errorf("%w; if the command is slower than that, set capture_hz (0.1 for a frame in 10 s) or a longer stall_after", err)
}

// trial holds frames back for a while after the source was out of step, since it
// may be so again.
type trial struct {
	begun time.Time
	why   *alignError // of the last run that was out of step
	least int         // frames that the next run has to give before they are believed
	left  int         // of them
	seen  int         // frames of this run
}

const (
	leastTrial = 18
	mostTrial  = 576
	forgotten  = time.Minute // a run of this length clears the record
)

func (t *trial) start(now time.Time) { t.begun, t.left, t.seen = now, t.least, 0 }

// frame returns why a frame is not to be published yet.
func (t *trial) frame() error {
	t.seen++
	if t.left == 0 {
		return nil
	}
	t.left--
	return fmt.Errorf("held back (%d more will be): before the restart, %w", t.left, t.why)
}

// failed notes how a run ended.
func (t *trial) failed(err error, now time.Time) {
	if why := (*alignError)(nil); errors.As(err, &why) {
		switch {
		case t.least == 0 || now.Sub(t.begun) > forgotten:
			t.least = leastTrial
		default: // as long as it took to notice
			t.least = min(max(2*t.least, t.seen), mostTrial)
		}
		t.why = why
		return
	}
	if t.left == 0 { // it gave good frames, and ended for another reason
		t.least = 0
	}
}
