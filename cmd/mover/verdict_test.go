package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

const second = time.Second

// config is the default one with a rule, and what the test sets.
func config(t *testing.T, text string, set func(*Config)) Config {
	t.Helper()
	cfg := DefaultConfig()
	if text != "" {
		r, err := rule.Compile[scene](text)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Keep = r
	}
	if set != nil {
		set(&cfg)
	}
	return cfg
}

// looks makes a detector's messages: one a frame from start on every step, and
// what is seen in each.
func looks(s sights, detector msg.Source, start, end, step time.Duration, see func(at time.Duration) []msg.Object) {
	for at, n := start, msg.Seq(0); at <= end; at, n = at+step, n+1 {
		s.take(&msg.Detection{Header: msg.Header{Source: detector}, FrameSource: "porch", FrameSeq: n, FrameBootNS: int64(at),
			CoveredUntil: int64(at), Objects: see(at)}, at)
	}
}

func nothing(time.Duration) []msg.Object { return nil }

func person(from, to time.Duration) func(time.Duration) []msg.Object {
	return func(at time.Duration) []msg.Object {
		if at < from || at > to {
			return nil
		}
		return []msg.Object{{Label: "person", Score: 0.9, Box: [4]float64{1, 2, 3, 4}}}
	}
}

// clip is a file from one moment to another.
func clip(start, end time.Duration) *file {
	return &file{id: "clip", camera: "porch", start: start, end: end, facts: rule.File{Class: "clips"}}
}

const persons = `any(detections, .label == "person" && .score >= 0.5)`

func TestRule(t *testing.T) {
	type answer struct{ Verdict, Reason string }
	for name, c := range map[string]struct {
		rule string
		set  func(*Config)
		see  func(sights)
		file *file
		now  time.Duration
		last bool
		want *answer // the beginning of the reason; nil is undecided
	}{
		"without a rule": {file: clip(0, 4*second), want: &answer{"keep", "kept: there is no rule"}},
		"a rule that needs no detector": {rule: `class == "pictures"`, file: clip(0, 4*second),
			want: &answer{"drop", "dropped by the rule"}},
		"a person in it": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 5*second, second/5, person(2*second, 3*second)) },
			file: clip(0, 4*second), now: 5 * second, want: &answer{"keep", "kept by the rule: person 6 times (0.90) in 21 frames"}},
		"nobody in it": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 5*second, second/5, nothing) },
			file: clip(0, 4*second), now: 5 * second, want: &answer{"drop", "dropped by the rule: nothing seen in 21 frames"}},
		"one frame in three seconds": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 9*second, 3*second, nothing) },
			file: clip(4*second, 8*second), now: 9 * second, want: &answer{"drop", "dropped by the rule: nothing seen in 1 frames"}},
		"the detector is behind": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 3*second, second/5, nothing) },
			file: clip(0, 4*second), now: 18 * second},
		"the detector is behind, at the deadline": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 3*second, second/5, nothing) },
			file: clip(0, 4*second), now: 19 * second,
			want: &answer{"keep", `undecided: 15s after its end eye is 1s behind its end; otherwise = "keep"`}},
		"behind, with a person already": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 3*second, second/5, person(0, second)) },
			file: clip(0, 4*second), now: 19 * second, want: &answer{"keep", "kept by the rule: person 6 times"}},
		"behind, and drop is wanted": {rule: persons, set: func(c *Config) { c.Otherwise = Drop },
			see:  func(s sights) { looks(s, "eye", 0, 3*second, second/5, nothing) },
			file: clip(0, 4*second), now: 19 * second, want: &answer{"drop", "undecided: 15s after its end"}},
		"no detector ever spoke": {rule: persons, file: clip(0, 4*second), now: 19 * second,
			want: &answer{"keep", "undecided: 15s after its end no detector looks at porch"}},
		"only what is within pre of its end can still come": {rule: persons, set: func(c *Config) { c.Pre = topology.Duration(20 * second) },
			see: func(s sights) { looks(s, "eye", 0, 23*second, second/5, nothing) }, file: clip(0, 4*second), now: 23 * second},
		"covered with pre": {rule: persons, set: func(c *Config) { c.Pre = topology.Duration(20 * second) },
			see: func(s sights) { looks(s, "eye", 0, 25*second, second/5, nothing) }, file: clip(0, 4*second), now: 25 * second,
			want: &answer{"drop", "dropped by the rule"}},
		"told to stop": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 3*second, second/5, nothing) },
			file: clip(0, 4*second), now: 5 * second, last: true,
			want: &answer{"keep", "undecided: the mover was told to stop, and eye is 1s behind"}},
		"the detector was dead for most of it": {rule: persons, see: func(s sights) {
			looks(s, "eye", 0, second, second/5, nothing)
			looks(s, "eye", 9*second, 11*second, second/5, nothing)
		}, file: clip(0, 10*second), now: 11 * second, want: &answer{"keep", `undecided: for 8s of it no frame was looked at: max_gap = "5s"`}},
		"no frame of it": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 9*second, 3*second, nothing) },
			file: clip(4*second, 5*second), now: 9 * second, want: &answer{"keep", "undecided: no frame of it was looked at"}},
		"no frame of a short clip, and many before it": {rule: persons, set: func(c *Config) { c.Pre, c.Post = topology.Duration(10*second), topology.Duration(10*second) },
			see: func(s sights) {
				looks(s, "eye", 10*second, 19*second, second/5, nothing)
				looks(s, "eye", 25*second, 35*second, second/5, nothing)
			}, file: clip(20*second, 24*second), now: 35 * second, want: &answer{"keep", "undecided: no frame of it was looked at"}},
		"only one of two detectors looked": {rule: persons, see: func(s sights) {
			looks(s, "eye", 0, 6*second, second/5, nothing)
			looks(s, "ear", 5*second, 6*second, second/5, nothing)
		}, file: clip(0, 4*second), now: 6 * second, want: &answer{"keep", "undecided: no frame of it was looked at"}},
		"one of two detectors is silent": {rule: persons, see: func(s sights) {
			looks(s, "eye", 0, 5*second, second/5, nothing)
			looks(s, "ear", 0, 2*second, second/5, nothing)
		}, file: clip(0, 4*second), now: 5 * second},
		"another boot": {rule: persons, file: &file{camera: "porch", foreign: true}, now: second,
			want: &answer{"keep", "undecided: it is of an earlier boot"}},
		"before somebody came, with pre": {rule: persons, set: func(c *Config) { c.Pre = topology.Duration(2 * second) },
			see:  func(s sights) { looks(s, "eye", 0, 9*second, second/5, person(5*second, 6*second)) },
			file: clip(0, 4*second), now: 9 * second, want: &answer{"keep", "kept by the rule: person"}},
		"after somebody left, with post": {rule: persons, set: func(c *Config) { c.Post = topology.Duration(2 * second) },
			see:  func(s sights) { looks(s, "eye", 0, 14*second, second/5, person(5*second, 6*second)) },
			file: clip(8*second, 12*second), now: 14 * second, want: &answer{"keep", "kept by the rule: person"}},
		"after somebody left, without": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 14*second, second/5, person(5*second, 6*second)) },
			file: clip(8*second, 12*second), now: 14 * second, want: &answer{"drop", "dropped by the rule"}},
		"a picture": {rule: persons, see: func(s sights) { looks(s, "eye", 0, 9*second, second/5, person(4*second, 4*second)) },
			file: clip(4500*time.Millisecond, 4500*time.Millisecond), now: 9 * second, want: &answer{"keep", "kept by the rule: person 1 times"}},
		"a rule that fails": {rule: `detections[0].score > 0.5`, see: func(s sights) { looks(s, "eye", 0, 5*second, second/5, nothing) },
			file: clip(0, 4*second), now: 5 * second, want: &answer{"keep", "undecided: apply rule"}},
	} {
		t.Run(name, func(t *testing.T) {
			j := judge{cfg: config(t, c.rule, c.set), sights: sights{}}
			j.detectors = j.sights.of
			if c.see != nil {
				c.see(j.sights)
			}
			var got *answer
			c.file.deadline = c.file.end + j.cfg.patience()
			if r := j.rule(c.file, c.now, c.last); r != nil {
				got = &answer{string(r.verdict), r.reason}
				if c.want != nil && strings.HasPrefix(got.Reason, c.want.Reason) {
					got.Reason = c.want.Reason
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("rule() (-want +got):\n%s", diff)
			}
		})
	}
}

// What a message says of the future, and of ever new cameras, is not believed.
func TestTakeRefuses(t *testing.T) {
	s := sights{}
	d := msg.Detection{Header: msg.Header{Source: "eye"}, FrameSource: "porch", FrameBootNS: int64(5 * second), CoveredUntil: 1 << 62}
	if !s.take(&d, 6*second) || s[pair{"eye", "porch"}].covered != 6*second {
		t.Errorf("covered = %s; want the present, 6s", s[pair{"eye", "porch"}].covered)
	}
	d.FrameBootNS = int64(7 * second)
	if s.take(&d, 6*second) {
		t.Error("take() of a frame of the future = true; want it refused")
	}
	d.FrameBootNS = 0
	for i := range 2 * maxPairs {
		d.FrameSource = msg.Source(fmt.Sprint("camera", i))
		s.take(&d, 6*second)
	}
	if len(s) != maxPairs {
		t.Errorf("%d cameras are known; want at most %d", len(s), maxPairs)
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	s := sights{}
	crowd := make([]msg.Object, 100)
	for i := range crowd {
		crowd[i] = msg.Object{Label: fmt.Sprint(i), Score: 0.5}
	}
	looks(s, "eye", 0, 10*second, second/10, func(time.Duration) []msg.Object { return crowd })
	e := s.evidence(clip(0, 10*second), []msg.Source{"eye"}, 0, 0)
	if len(e.record) != sidecar.MaxDetections || len(e.record)+int(e.omitted) != 101*100 || len(e.objects) != 101*100 {
		t.Errorf("evidence() has %d for the sidecar, %d omitted, %d for the rule; want %d, and %d in all", len(e.record), e.omitted,
			len(e.objects), sidecar.MaxDetections, 101*100)
	}
}

// What a track forgets makes a gap, and never an empty clip.
func TestTrackForgetsAndSaysSo(t *testing.T) {
	s := sights{}
	looks(s, "eye", 0, remembered+2*time.Hour, second, nothing)
	track := s[pair{"eye", "porch"}]
	if n := len(track.sights); n > int((remembered+2*time.Hour)/second*3/4) {
		t.Errorf("%d sights are remembered of %d; want what is older than %s forgotten", n, int((remembered+2*time.Hour)/second), remembered)
	}
	if gap := track.gap(0, 10*second); gap != 10*second {
		t.Errorf("gap(forgotten) = %s; want all of it", gap)
	}
	crowd := make([]msg.Object, 100)
	looks(s, "eye", 9*remembered, 9*remembered+time.Hour, second, func(time.Duration) []msg.Object { return crowd })
	count := 0
	for _, one := range track.sights {
		count += len(one.objects)
	}
	if count > maxObjects || count != track.objects {
		t.Errorf("%d objects, and %d counted; want as many, at most %d", count, track.objects, maxObjects)
	}
}

func TestSightsOutOfOrder(t *testing.T) {
	s := sights{}
	looks(s, "eye", 2*second, 2*second, second, person(0, 9*second))
	looks(s, "eye", second, second, second, nothing)
	got := s[pair{"eye", "porch"}].between(0, 3*second)
	if len(got) != 2 || got[0].at != second || got[1].at != 2*second {
		t.Errorf("between() = %v; want those of 1 s and 2 s, in this order", got)
	}
}
