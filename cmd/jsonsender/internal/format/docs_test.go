package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

const formatsFile = "../../../../docs/FORMATS.md"

var update = flag.Bool("update", false, "write the examples of docs/FORMATS.md")

// aReduced is a minute of readings as one.
func aReduced(t *testing.T) *record.Record {
	t.Helper()
	r := aReading()
	r.Bad["humidity_pct"] = "no good value in the window"
	reduced, err := record.Reduced(r, &record.Window{
		Reduce: "mean", Start: msg.Time{Time: r.Time.Add(-59 * time.Second)}, End: r.Time, FirstSeq: 1283, Readings: 60,
		Counts: []uint64{60, 58, 0}, Bad: []uint64{0, 2, 60}, Null: []uint64{0, 0, 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &reduced
}

// plainState is one as workers publish it.
func plainState() *msg.State {
	s := aState()
	s.Counters, s.Gauges = map[string]uint64{"files": 1, "rows": 86400, "lost_rows": 0}, map[string]float64{"free_bytes": 11811160064}
	return s
}

// shown is a record as the manual shows it: JSON over several lines.
func shown(t *testing.T, f Format, r *record.Record) (text string, ok bool) {
	t.Helper()
	raw, err := f.Encode(r)
	if errors.Is(err, ErrSkip) {
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil { // line protocol
		return string(raw), true
	}
	return rows.ReplaceAllStringFunc(b.String(), func(list string) string {
		return "[" + strings.Join(strings.Fields(list[1:len(list)-1]), " ") + "]"
	}), true
}

// rows are lists of numbers and short texts, which are shown in one line.
var rows = regexp.MustCompile(`\[[^][{}]*\]`)

// The examples of docs/FORMATS.md are what the formats write; where there is none, the format has
// no room for that kind.
func TestManualShowsWhatIsWritten(t *testing.T) {
	manual, err := os.ReadFile(formatsFile)
	if err != nil {
		t.Fatal(err)
	}
	got := string(manual)
	for _, name := range written() {
		f := newFormat(t, name, options(name))
		for _, kind := range []string{"reading", "reduced", "detection", "file", "state"} {
			r := map[string]*record.Record{"reading": of(t, aReading()), "reduced": aReduced(t), "detection": of(t, aDetection()), "file": of(t, aFile()), "state": of(t, plainState())}[kind]
			want, ok := shown(t, f, r)
			head := "\n```" + name + " " + kind + "\n"
			before, rest, found := strings.Cut(got, head)
			if (kind == "reduced" || kind == "state" && ok) && !found {
				continue // one format shows it
			}
			if found != ok {
				t.Errorf("%s has an example of %s %s: %v; want %v", formatsFile, name, kind, found, ok)
				continue
			}
			if !ok {
				continue
			}
			block, after, closed := strings.Cut(rest, "\n```")
			if !closed {
				t.Fatalf("%s: the example of %s %s has no end", formatsFile, name, kind)
			}
			if *update {
				got = before + head + want + "\n```" + after
			} else if block != want {
				t.Errorf("%s, %s %s:\n%s\nwant (go test -update writes it):\n%s", formatsFile, name, kind, block, want)
			}
		}
	}
	if *update {
		if err := os.WriteFile(formatsFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Each format has a section, and each section is of a format.
func TestManualHasEveryFormat(t *testing.T) {
	manual, err := os.ReadFile(formatsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		if head := fmt.Sprintf("\n## %s\n", name); !strings.Contains(string(manual), head) {
			t.Errorf("%s has no section %q", formatsFile, strings.TrimSpace(head))
		}
	}
}
