package rule

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

type seen struct {
	Label string  `expr:"label"`
	Score float64 `expr:"score"`
}

type scope struct {
	File
	Detections []seen `expr:"detections"`
}

func TestMatch(t *testing.T) {
	env := scope{File{Class: "clips", Bytes: 1000, DurationS: 4, AgeH: 3}, []seen{{"person", 0.7}, {"dog", 0.4}}}
	for text, want := range map[string]bool{
		`any(detections, .label == "person" && .score >= 0.5)`: true,
		`any(detections, .label == "dog" && .score >= 0.5)`:    false,
		`count(detections, .label in ["person", "dog"]) == 2`:  true,
		`class == "clips" and age_h > 2 and bytes < 1e4`:       true,
		`not sent`: true,
	} {
		r, err := Compile[scope](text)
		if err != nil {
			t.Errorf("Compile(%q) = %v; want a rule", text, err)
			continue
		}
		if got, err := r.Match(env); err != nil || got != want {
			t.Errorf("Match(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestCompileSaysWhatAndWhere(t *testing.T) {
	for text, want := range map[string]string{
		`any(detection, true)`:           `unknown name detection (at character 5); did you mean "detections"?`,
		`any(detections, .lable == "x")`: `nothing is called .lable there (at character 18); did you mean "label"?`,
		`bytes`:                          "bool",
		`bytes > "a"`:                    "at character 7",
		`class == "clips" &&`:            "unexpected token",
		strings.Repeat("x", maxText+1):   "want at most 4096",
		`frobnicate`:                     "known are id, class",
	} {
		_, err := Compile[scope](text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Compile(%.40q) = %v; want one line with %q", text, err, want)
		}
	}
}

func TestUses(t *testing.T) {
	r, err := Compile[scope](`class == "clips" or len(detections) > 0`)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Uses("detections") || !r.Uses("class") || r.Uses("bytes") {
		t.Errorf("Uses(detections, class, bytes) = %v, %v, %v; want true, true, false", r.Uses("detections"), r.Uses("class"), r.Uses("bytes"))
	}
}

func TestMatchFailsWhereAValueIsAbsent(t *testing.T) {
	r, err := Compile[scope](`detections[0].score > 0.5`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Match(scope{}); err == nil {
		t.Error("Match without detections = nil; want an error: nothing is decided")
	}
}

func TestAge(t *testing.T) {
	wall := func(h int) msg.Time { return msg.Time{Time: time.Date(2026, 5, 1, h, 0, 0, 0, time.UTC)} }
	now := msg.Stamp{Wall: wall(9).Time, Boot: 5 * time.Hour, Synced: true}
	end := func(boot string, ns time.Duration, h int, synced bool) *sidecar.Sidecar {
		return &sidecar.Sidecar{End: sidecar.Moment{BootID: boot, BootNS: int64(ns), Time: wall(h), Synced: synced}}
	}
	corrected := end("old", time.Hour, 1, false)
	corrected.TimeCorrected = &sidecar.Correction{End: wall(7)}
	type answer struct {
		Age   time.Duration
		Known bool
	}
	for name, c := range map[string]struct {
		side *sidecar.Sidecar
		now  msg.Stamp
		want answer
	}{
		"this boot, whatever the wall says": {end("now", 2*time.Hour, 23, false), now, answer{3 * time.Hour, true}},
		"an earlier boot, both synced":      {end("old", 2*time.Hour, 6, true), now, answer{3 * time.Hour, true}},
		"an earlier boot, not synced then":  {end("old", 2*time.Hour, 6, false), now, answer{}},
		"an earlier boot, corrected":        {corrected, now, answer{2 * time.Hour, true}},
		"an earlier boot, not synced now":   {end("old", 2*time.Hour, 6, true), msg.Stamp{Wall: now.Wall, Boot: now.Boot}, answer{}},
		"an earlier boot, from the future":  {end("old", 2*time.Hour, 12, true), now, answer{}},
	} {
		age, known := Age(c.side, c.now, "now")
		if diff := cmp.Diff(c.want, answer{age, known}); diff != "" {
			t.Errorf("Age(%s) (-want +got):\n%s", name, diff)
		}
	}
}

func TestCompared(t *testing.T) {
	r, err := Compile[scope](`class == "clips" && any(detections, .label == "person" || "cat" == .label) || count(detections, .label in ["dog", "cow"] && .score > 0.5) > 1`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"person", "cat", "dog", "cow"}, r.Compared("label"), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("Compared(label) (-want +got):\n%s", diff)
	}
	if got := r.Compared("score"); got != nil {
		t.Errorf("Compared(score) = %v; want none", got)
	}
}
