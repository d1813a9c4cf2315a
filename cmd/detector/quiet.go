package main

import (
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/yolo"
)

const (
	// quietFor is how long a model may find nothing before that is reported, and
	// quietMoves in how many frames something must have moved meanwhile: in an empty
	// street at night there is nothing to find.
	quietFor   = 3 * time.Minute
	quietMoves = 30
)

// quiet watches whether a model finds anything at all. A model whose input is prepared
// differently than in its training does not fail: it just never finds anything.
type quiet struct {
	begun    bool
	since    time.Duration // boot time of the first frame
	looks    int
	moves    int
	best     float32 // the highest score so far, and its class
	class    int
	found    bool // it found something, even if the settings filtered it out
	reported bool
}

// watching says whether it still matters that something moves.
func (q *quiet) watching() bool { return !q.found && !q.reported }

// add records the result for one frame, and whether something moved in it. It returns
// whether it is time to report, which is so once at most.
func (q *quiet) add(at time.Duration, moved bool, objects int, least float64, seen yolo.Seen) bool {
	if !q.begun || at < q.since {
		q.begun, q.since = true, at
	}
	q.looks++
	if moved {
		q.moves++
	}
	if seen.Best > q.best {
		q.best, q.class = seen.Best, seen.Class
	}
	q.found = q.found || objects > 0 || seen.Filtered > 0 || seen.Class >= 0 && float64(seen.Best) >= least
	due := !q.found && !q.reported && at-q.since >= quietFor && q.moves >= quietMoves
	q.reported = q.reported || due
	return due
}

// report says in plain words what may be wrong.
func (q *quiet) report(n *network, least float64) string {
	best := "no class had any score"
	if q.best > 0 {
		best = fmt.Sprintf("the highest score was %.2g", q.best)
	}
	if q.best > 0 && q.class >= 0 {
		best += " (" + n.labels[q.class] + ")"
	}
	return fmt.Sprintf("the model has found nothing since it began, %s and %d frames ago, although something moved in %d of them; %s. "+
		"If there was something to find: min_score (%g) may be too high; or the model expects another input than it gets (%s, as family %s): see scale, order, place and family; "+
		"or it was not trained for what is here", quietFor, q.looks, q.moves, best, least, n.in, n.layout.Family)
}
