package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// file is one in born/ whose fate is not carried out yet.
type file struct {
	id         sidecar.ID
	camera     msg.Source    // whose data it holds
	start, end time.Duration // boot times of its first and last row or frame
	bytes      int64
	foreign    bool          // it is of an earlier boot: start and end mean nothing
	deadline   time.Duration // boot time by which detectors must have spoken
	facts      rule.File
	ruling     *ruling // once it is decided
	retry      backoff.Backoff
	after      time.Time // when it is tried again to carry that out
	stuck      error     // why it could not be
	noted      bool      // its sidecar says that it is kept
}

// ruling is a decision about a file.
type ruling struct {
	verdict Verdict
	reason  string
	rule    string // the one that decided; "" is none
	counter string // what it is counted as
	evidence
}

// judge is how files are judged.
type judge struct {
	cfg       Config
	sights    sights
	detectors func(camera msg.Source) []msg.Source // that look at a camera
}

// rule decides about a file, or returns nil as long as that is to wait. last says
// that there will be no other chance.
func (j *judge) rule(f *file, now time.Duration, last bool) *ruling {
	if !j.cfg.Keep.Is() {
		return &ruling{verdict: Keep, reason: "kept: there is no rule", counter: "kept_files"}
	}
	if !j.cfg.Keep.Uses("detections") {
		return j.byRule(f, evidence{})
	}
	if f.foreign {
		return j.otherwise("it is of an earlier boot, whose detections are gone", evidence{})
	}
	detectors := j.detectors(f.camera)
	late := j.sights.late(f, detectors, j.cfg.Pre.D())
	if len(detectors) == 0 {
		late = fmt.Sprintf("no detector looks at %s", f.camera)
	}
	if late != "" && !last && now < f.deadline {
		return nil
	}
	e := j.sights.evidence(f, detectors, j.cfg.Pre.D(), j.cfg.Post.D())
	why := j.unknown(e, late, last)
	if r := j.byRule(f, e); why == "" || r.verdict == Keep {
		return r
	}
	return j.otherwise(why, e)
}

// unknown says what too little is known for to drop a file by the rule; "" is
// nothing.
func (j *judge) unknown(e evidence, late string, last bool) string {
	switch {
	case late != "" && last:
		return "the mover was told to stop, and " + late
	case late != "":
		return fmt.Sprintf("%s after its end %s", j.cfg.patience(), late)
	case e.looked == 0:
		return "no frame of it was looked at"
	case e.gap > j.cfg.MaxGap.D():
		return fmt.Sprintf("for %s of it no frame was looked at: max_gap = %q", tenths(e.gap), j.cfg.MaxGap)
	}
	return ""
}

func (j *judge) byRule(f *file, e evidence) *ruling {
	holds, err := j.cfg.Keep.Match(scene{f.facts, e.objects})
	if err != nil {
		return j.otherwise(err.Error(), e)
	}
	r := &ruling{verdict: Drop, reason: "dropped by the rule", rule: j.cfg.Keep.String(), counter: "dropped_files", evidence: e}
	if holds {
		r.verdict, r.reason, r.counter = Keep, "kept by the rule", "kept_files"
	}
	if j.cfg.Keep.Uses("detections") {
		r.reason += ": " + e.String()
	}
	return r
}

func (j *judge) otherwise(why string, e evidence) *ruling {
	return &ruling{verdict: j.cfg.Otherwise, reason: fmt.Sprintf("undecided: %s; otherwise = %q", why, j.cfg.Otherwise),
		rule: j.cfg.Keep.String(), counter: "undecided_" + string(j.cfg.Otherwise), evidence: e}
}

// String says what was seen, for people: each label with how often and how
// surely.
func (e *evidence) String() string {
	if len(e.objects) == 0 {
		return fmt.Sprintf("nothing seen in %d frames", e.frames)
	}
	count, best := map[string]int{}, map[string]float64{}
	for _, o := range e.objects {
		count[o.Label]++
		best[o.Label] = max(best[o.Label], o.Score)
	}
	labels := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
	var parts []string
	for i, l := range labels {
		if i == 5 {
			parts = append(parts, fmt.Sprintf("and %d more labels", len(labels)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("%s %d times (%.2f)", l, count[l], best[l]))
	}
	return fmt.Sprintf("%s in %d frames", strings.Join(parts, ", "), e.frames)
}
