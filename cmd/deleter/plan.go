package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// cause is what a file goes by.
type cause string

// The causes, in the order in which they are looked at.
const (
	byDrop     cause = "dropped"
	byWhen     cause = "when"
	byMaxAge   cause = "max_age"
	byMaxBytes cause = "max_bytes"
	byMinFree  cause = "min_free"
)

// doomed is a file that goes.
type doomed struct {
	*file
	by     cause
	reason string // for its history
}

// lost says whether it is gone for everybody, and by no mover's rule.
func (d doomed) lost() bool { return !d.sent() && d.state != spool.Dropped }

// urgent says whether it must go to keep to a budget.
func (d doomed) urgent() bool { return d.by == byMaxBytes || d.by == byMinFree }

// short is a budget that cannot be kept to.
type short struct {
	At      place `json:"at"`
	Budget  cause `json:"budget"`
	Setting int64 `json:"setting_bytes"`
	Missing int64 `json:"missing_bytes"`
	Unsent  int   `json:"unsent_files"` // there that could go, were they sent
	Evict   bool  `json:"evict_unsent"`
}

func (s short) Error() string {
	text := fmt.Sprintf("%s: %s = %s needs %s more", s.At, s.Budget, topology.Bytes(s.Setting), topology.Bytes(s.Missing))
	switch s.Unsent {
	case 0:
		return text + ", and nothing is left that may be deleted"
	case 1:
		text += ": 1 unsent file is not deleted"
	default:
		text += fmt.Sprintf(": %d unsent files are not deleted", s.Unsent)
	}
	if s.Budget == byMinFree && !s.Evict {
		text += " (evict_unsent = false)"
	}
	return text
}

// plan is what goes, in order, and what is wrong with that.
type plan struct {
	goes  []doomed
	short []short
	rules error // why when could not be applied to a file
}

// planner decides. It looks at nothing but what it is given.
type planner struct {
	cfg    *Config
	now    msg.Stamp
	bootID string
}

// plan decides what goes from the shelves.
func (p *planner) plan(shelves ...*shelf) plan {
	var all plan
	for _, s := range shelves {
		if s.absent != nil {
			continue
		}
		d := &decision{planner: p, shelf: s, used: s.used(), free: s.room.Free}
		d.decide()
		all.goes = append(all.goes, d.goes...)
		all.short = append(all.short, d.short...)
		all.rules = cmp.Or(all.rules, d.rules)
	}
	return all
}

// decision is the plan for one place while it is made.
type decision struct {
	*planner
	*shelf
	plan
	may        []*file // what may go, in order
	unsent     int     // files that may not
	used, free int64   // when what goes is gone
}

// decide takes what was dropped, and then by each cause in turn from what else
// may go.
func (d *decision) decide() {
	var dropped []*file
	for _, f := range d.files {
		switch {
		case f.state == spool.Dropped:
			dropped = append(dropped, f)
		case d.spared(f):
			d.unsent++
		default:
			d.may = append(d.may, f)
		}
	}
	slices.SortFunc(dropped, d.compare)
	slices.SortFunc(d.may, d.compare)
	for _, f := range dropped {
		d.doom(f, byDrop, "the mover dropped it")
	}
	d.takeEach(byWhen, d.matches)
	d.takeEach(byMaxAge, d.tooOld)
	d.takeUntil(byMaxBytes, d.limits.MaxBytes, func() int64 { return d.used - int64(d.limits.MaxBytes) }, settled)
	d.takeUntil(byMinFree, d.limits.MinFree, func() int64 { return int64(d.limits.MinFree) - d.free }, func(*file) bool { return true })
}

// spared says whether no setting lets a file go.
func (d *decision) spared(f *file) bool {
	if settled(f) {
		return !f.sent() && f.class() == sidecar.Losses
	}
	return !d.cfg.EvictUnsent || f.class() == sidecar.Losses
}

// settled says whether nobody is going to send a file any more.
func settled(f *file) bool { return f.sent() || f.state == spool.Rejected }

func (d *decision) doom(f *file, by cause, why string) {
	d.used, d.free = d.used-f.bytes, d.free+f.bytes
	d.goes = append(d.goes, doomed{f, by, "deleted: " + why})
}

// takeEach takes all files that a cause speaks of. It gives no reason for the others.
func (d *decision) takeEach(by cause, reason func(*file) string) {
	d.may = slices.DeleteFunc(d.may, func(f *file) bool {
		why := reason(f)
		if why != "" {
			d.doom(f, by, f.status()+", "+why)
		}
		return why != ""
	})
}

func (d *decision) matches(f *file) string {
	if !d.limits.When.Is() || f.state == spool.Born {
		return ""
	}
	yes, err := d.limits.When.Match(f.facts.At(f.end, d.now, d.bootID))
	d.rules = cmp.Or(d.rules, err)
	if !yes || err != nil {
		return ""
	}
	return fmt.Sprintf("%s.when holds", d.at)
}

func (d *decision) tooOld(f *file) string {
	most := d.limits.MaxAge
	age, known := f.end.Age(d.now, d.bootID)
	if most == 0 || !known || age <= most.D() || !settled(f) {
		return ""
	}
	return fmt.Sprintf("%s old, %s.max_age = %s", ageText(age), d.at, most)
}

// takeUntil takes files in their order as long as room is missing.
func (d *decision) takeUntil(by cause, setting topology.Bytes, missing func() int64, may func(*file) bool) {
	if setting == 0 {
		return
	}
	for len(d.may) > 0 && missing() > 0 && may(d.may[0]) {
		d.doom(d.may[0], by, fmt.Sprintf("%s, %s.%s = %s", d.may[0].status(), d.at, by, setting))
		d.may = d.may[1:]
	}
	if n := missing(); n > 0 {
		d.short = append(d.short, short{d.at, by, int64(setting), n, d.unsent + len(d.may), d.cfg.EvictUnsent})
	}
}

// compare orders files as they go.
func (p *planner) compare(a, b *file) int {
	return cmp.Or(
		cmp.Compare(a.rank(), b.rank()),
		cmp.Compare(slices.Index(p.cfg.Order, a.class()), slices.Index(p.cfg.Order, b.class())),
		p.older(a.end, b.end),
		strings.Compare(a.facts.ID, b.facts.ID))
}

// rank is what a file's state says of its turn.
func (f *file) rank() int {
	switch {
	case f.sent():
		return 0
	case f.state == spool.Rejected:
		return 1
	}
	return 2
}

// status is that in a word.
func (f *file) status() string { return []string{"sent", "rejected", "unsent"}[f.rank()] }

// older orders by boot time within this boot, and puts files of earlier boots
// before those. Among them only the recorded times can decide, right or not:
// this is an order, and no age.
func (p *planner) older(a, b rule.End) int {
	switch aNow, bNow := a.BootID == p.bootID, b.BootID == p.bootID; {
	case aNow && bNow:
		return cmp.Compare(a.Boot, b.Boot)
	case aNow:
		return 1
	case bNow:
		return -1
	}
	return a.Wall.Compare(b.Wall)
}
