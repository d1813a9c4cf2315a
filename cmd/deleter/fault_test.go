package main

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/gone"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
)

// A deleter whose disk fails at any call of its work, or that is killed there: no
// file is gone without what must be left of it, and no other file is touched.
func TestFaultAtEachCall(t *testing.T) {
	boxtest.Ordeal(t, 30, 4, func(t *testing.T) *boxtest.Trial {
		x, faults := faultyBox(t, "evict_unsent = true\n[worker.clean.disk]\nwhen = \"true\"\n")
		leave := &leaving{x: x, says: newMover(t, x), at: map[*sidecar.Sidecar]string{}}
		leave.goes(x.cache, spool.Dropped, ".mp4")
		leave.goes(x.store, spool.Sent, ".mp4")
		leave.goes(x.store, spool.Rejected, ".mp4")
		leave.goes(x.store, spool.Ready, ".csv")
		leave.stays(x.store, spool.Ready, ".jsonl")
		leave.stays(x.store, spool.Quarantine, ".mp4")
		return &boxtest.Trial{Box: x.Box, Faults: faults, Program: "deleter", Name: "clean",
			Counters: map[string]uint64{"deleted_files": 4, "lost_files": 2},
			Done:     leave.done, Whole: leave.whole, Settle: x.Recover, End: leave.end}
	})
}

// leaving is files of which some are to go.
type leaving struct {
	x     *testbox
	says  *mover
	polls int
	going []*sidecar.Sidecar
	at    map[*sidecar.Sidecar]string // place of each
}

func (l *leaving) stays(sp *spool.Spool, state spool.State, ext string) *sidecar.Sidecar {
	side := l.x.putSide(sp, state, ext, 100, time.Hour)
	l.at[side] = there(l.x.t, sp)[side.ID]
	return side
}

func (l *leaving) goes(sp *spool.Spool, state spool.State, ext string) {
	l.going = append(l.going, l.stays(sp, state, ext))
}

// done says whether all that are to go have gone. Meanwhile messages come, as they
// do on a busy box: on a quiet one what failed is tried again after ten seconds.
func (l *leaving) done() bool {
	if l.polls++; l.polls%10 == 0 {
		l.says.say(l.going[0].ID, "dropped")
	}
	return !slices.ContainsFunc(l.going, func(side *sidecar.Sidecar) bool { return l.x.Has(side, l.at[side]) })
}

// lost says whether a losses file must tell of one that is gone.
func (l *leaving) lost(side *sidecar.Sidecar) bool {
	return side.State() == string(spool.Rejected) || side.State() == string(spool.Ready)
}

// whole wants each file where it was, or its history in the log and, where nobody
// has it, a line in a losses file; and no line of any other.
func (l *leaving) whole(when string) {
	t := l.x.t
	t.Helper()
	told := lines(t, l.x.store.Dir())
	for side, place := range l.at {
		n := told[side.ID]
		delete(told, side.ID)
		switch got := l.x.Lies(side); {
		case len(got) == 1 && got[0] == place:
		case len(got) > 0 || !slices.Contains(l.going, side):
			t.Errorf("%s: %s is in %v; want it in %s", when, side.Name, got, place)
		default:
			if _, err := gone.Find(l.x.store.Dir()+"/gone", side.ID); err != nil {
				t.Errorf("%s: %s is gone, and its history too: %v", when, side.ID, err)
			}
			if l.lost(side) && n == 0 {
				t.Errorf("%s: %s is gone, and no losses file tells of it", when, side.ID)
			}
		}
		if n > 0 && !(l.lost(side) && slices.Contains(l.going, side)) {
			t.Errorf("%s: the losses files tell of %s, which is no loss", when, side.ID)
		}
	}
	if len(told) > 0 {
		t.Errorf("%s: the losses files tell of %v, which nobody made", when, told)
	}
}

// end wants just those files gone, and the losses files complete, in ready/.
func (l *leaving) end() {
	t := l.x.t
	t.Helper()
	var ids []sidecar.ID
	all := map[sidecar.ID]string{}
	for side, place := range l.at {
		all[side.ID] = place
	}
	for _, side := range l.going {
		ids = append(ids, side.ID)
	}
	l.x.wantGone(all, ids...)
	for id, place := range there(t, l.x.store) {
		if id.Worker() != "clean" {
			continue
		}
		side, err := l.x.store.Sidecar(spool.Ready, id)
		if err != nil || !l.x.Is(side, "store/ready") {
			t.Errorf("losses file %s is in %s (%v); want it in ready/, with its sidecar", id, place, err)
			continue
		}
		l.x.Lies(side)
		text, err := os.ReadFile(l.x.store.Path(spool.Ready, side.Name))
		if n := bytes.Count(text, []byte("\n")); err != nil || n == 0 || uint64(n) != side.Items {
			t.Errorf("losses file %s has %d lines (%v); want one or more, and as its sidecar tells: %d", id, n, err, side.Items)
		}
	}
}
