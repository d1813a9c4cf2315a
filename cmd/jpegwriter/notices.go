package main

import (
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
)

// notices are the pictures that are there and that the bus has not heard of.
type notices struct {
	announce func(*sidecar.Sidecar) error
	waiting  []*sidecar.Sidecar
}

const (
	mostNotices = 256 // as many as the history of file events keeps
	tellAgain   = time.Second
)

// tell announces what is waiting, the oldest first. What cannot be announced
// waits for the next time; of too many the oldest are given up.
func (n *notices) tell() (givenUp int, err error) {
	var left []*sidecar.Sidecar
	var errs []error
	for _, side := range n.waiting {
		if err := n.announce(side); err != nil {
			left, errs = append(left, side), append(errs, err)
		}
	}
	givenUp = max(len(left)-mostNotices, 0)
	n.waiting = left[givenUp:]
	if len(errs) == 0 {
		return 0, nil
	}
	return givenUp, fmt.Errorf("%d pictures are there and not announced: %w", len(n.waiting), errs[len(errs)-1])
}

// tell announces the new pictures. What keeps them from it is trouble, beside
// that of the last tick.
func (a *album) tell(trouble error) {
	a.trouble = trouble
	givenUp, err := a.notices.tell()
	a.w.Counter("unannounced_files").Add(givenUp)
	switch {
	case err == nil:
		err = trouble
	case trouble != nil:
		err = fmt.Errorf("%w; and %w", trouble, err)
	}
	a.w.Trouble(err)
}

// tellLast is for the end: what cannot be announced now stays so. The pictures
// are there, so that is no failure of the worker.
func (a *album) tellLast() {
	if givenUp, err := a.notices.tell(); err != nil {
		a.w.Counter("unannounced_files").Add(givenUp + len(a.notices.waiting))
		a.w.Log.Error("end", "err", err)
	}
}
