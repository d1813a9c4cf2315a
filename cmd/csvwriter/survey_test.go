package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

func moment(boot int64, wall string) sidecar.Moment {
	w, err := time.Parse(time.RFC3339Nano, wall)
	if err != nil {
		panic(err)
	}
	return sidecar.Moment{Time: msg.Time{Time: w}, BootNS: boot, BootID: "b", Synced: true, Epoch: 7, Seq: msg.Seq(boot)}
}

func exampleDraft() draft {
	return draft{ID: sidecar.NewID("air-csv", time.Unix(0, 0), 1, 1), Topic: "reading/air/environment",
		Columns: []string{"temperature_c", "humidity_pct"}, First: moment(1, "2026-03-01T00:00:00Z"), Before: &msg.Cursor{Epoch: 6, Seq: 99}}
}

func reading(n int, values ...float64) *msg.Reading {
	return &msg.Reading{Header: msg.Header{Kind: msg.KindReading, Source: "air", Stream: "environment", Epoch: 7, BootID: "b", Seq: msg.Seq(n),
		Time: msg.Time{Time: time.Date(2026, 3, 1, 0, 0, n, 5, time.UTC)}, BootNS: int64(n) * 1e9, Synced: n%2 == 0},
		Columns: []string{"temperature_c", "humidity_pct"}, Values: values}
}

// textOf is a file's text with rows 0 to n-1.
func textOf(n int) string {
	d := day{draft: exampleDraft()}
	for i := range n {
		d.append(reading(i, float64(i)+0.25, 50))
	}
	return d.head() + string(d.waiting)
}

func TestRowsAreTheseBytes(t *testing.T) {
	d := day{draft: exampleDraft()}
	d.append(reading(0, 21.015625, 55))
	d.append(reading(1, math.NaN(), -0.5))
	d.append(reading(2, 1e21, 1e-7))
	const want = `time,seq,epoch,boot_ns,synced,temperature_c,humidity_pct
2026-03-01T00:00:00.000000005Z,0,0000000000000007,0,true,21.015625,55
2026-03-01T00:00:01.000000005Z,1,0000000000000007,1000000000,false,,-0.5
2026-03-01T00:00:02.000000005Z,2,0000000000000007,2000000000,true,1000000000000000000000,0.0000001
`
	if got := d.head() + string(d.waiting); got != want {
		t.Errorf("rows = %q; want %q", got, want)
	}
	if d.last == nil || *d.last != (msg.Cursor{Epoch: 7, Seq: 2}) {
		t.Errorf("last row = %v; want 2 of epoch 7", d.last)
	}
}

func surveyText(t *testing.T, text string, how func(*os.File, *draft) (contents, error)) contents {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := exampleDraft()
	c, err := how(f, &d)
	if err != nil {
		t.Fatalf("survey of %.60q = %v; want nil", text, err)
	}
	return c
}

// A file may end anywhere after a kill, and in zeros after a power cut: what
// is whole stays, what is not goes.
func TestSurveyFindsTheLastWholeRowAtEachCut(t *testing.T) {
	whole := textOf(3)
	head := len(textOf(0))
	for cut := range len(whole) + 1 {
		rows := strings.Count(whole[:cut], "\n") - 1
		size := strings.LastIndexByte(whole[:cut], '\n') + 1
		for _, zeros := range []int{0, 1, 4096} {
			text := whole[:cut] + strings.Repeat("\x00", zeros)
			for name, how := range map[string]func(*os.File, *draft) (contents, error){"survey": survey, "surveyTail": surveyTail} {
				c := surveyText(t, text, how)
				want := contents{count: uint64(max(rows, 0)), size: int64(size), torn: int64(len(text) - size)}
				if c.count != want.count || c.size != want.size || c.torn != want.torn || c.damaged {
					t.Fatalf("%s of %d bytes and %d zeros = %+v; want %+v", name, cut, zeros, c, want)
				}
				last := msg.Cursor{Epoch: 6, Seq: 99} // from before the file
				if rows > 0 {
					last = msg.Cursor{Epoch: 7, Seq: msg.Seq(rows - 1)}
				}
				if c.last == nil || *c.last != last {
					t.Fatalf("%s of %d bytes ends with row %v; want %v", name, cut, c.last, last)
				}
				if rows > 0 && (c.start.Seq != 0 || c.end.Seq != last.Seq || !c.end.Time.Equal(reading(rows-1).Time.Time) || c.end.BootID != "b") {
					t.Fatalf("%s of %d bytes goes from %+v to %+v; want rows 0 to %d", name, cut, c.start, c.end, rows-1)
				}
			}
		}
	}
	if c := surveyText(t, "", survey); c.size != 0 || c.torn != 0 || head == 0 {
		t.Errorf("survey of nothing = %+v; want nothing", c)
	}
}

// Whole rows after a bad place, or another head, are no work of a power cut:
// nothing of such a file is cut off.
func TestSurveyTellsDamageFromATornEnd(t *testing.T) {
	whole := textOf(4)
	lines := strings.SplitAfter(whole, "\n")
	for name, text := range map[string]string{
		"a hole":               lines[0] + lines[1] + strings.Repeat("\x00", len(lines[2])-1) + "\n" + lines[3],
		"a line of text":       lines[0] + lines[1] + "edited by hand\n" + lines[2],
		"a cell too many":      lines[0] + strings.Replace(lines[1], "\n", ",5\n", 1) + lines[2],
		"another head":         strings.Replace(whole, "humidity_pct", "humidity", 1),
		"no head":              strings.TrimPrefix(whole, lines[0]),
		"a head of zeros":      strings.Repeat("\x00", len(lines[0])+10) + whole,
		"a long line":          strings.Repeat("x", 300<<10) + whole,
		"a long line in it":    lines[0] + lines[1] + strings.Repeat("x", 300<<10) + "\n" + lines[2],
		"carriage returns":     strings.ReplaceAll(whole, "\n", "\r\n"),
		"one head after other": lines[0] + whole,
	} {
		c := surveyText(t, text, survey)
		if !c.damaged {
			t.Errorf("%s: survey() = %+v; want damage", name, c)
		}
	}
	c := surveyText(t, lines[0]+lines[1]+"edited\n"+lines[2]+lines[3], survey)
	if *c.last != (msg.Cursor{Epoch: 7, Seq: 2}) {
		t.Errorf("last row of a damaged file = %v; want the last whole one", c.last)
	}
}

// A long file is looked at from its end only; zeros longer than that are looked through.
func TestSurveyTailOfALongFile(t *testing.T) {
	var b bytes.Buffer
	d := day{draft: exampleDraft()}
	b.WriteString(d.head())
	n := 0
	for ; b.Len() < tailBytes+1<<20; n++ {
		d.append(reading(n, 1, 2))
		b.Write(d.waiting)
		d.waiting = d.waiting[:0]
	}
	size := int64(b.Len())
	c := surveyText(t, b.String()+"2026-03", surveyTail)
	if c.last.Seq != msg.Seq(n-1) || c.size != size || c.torn != 7 || c.count >= uint64(n) || c.damaged {
		t.Errorf("surveyTail() = %+v; want the last row %d, and not all rows counted", c, n-1)
	}
	c = surveyText(t, textOf(3)+strings.Repeat("\x00", tailBytes+1000), surveyTail)
	if c.count != 3 || c.size != int64(len(textOf(3))) || c.damaged {
		t.Errorf("surveyTail() of many zeros = %+v; want the three rows before them", c)
	}
}

func TestOverSaysWhy(t *testing.T) {
	d := day{draft: exampleDraft()}
	d.First = moment(int64(time.Hour), "2026-03-01T12:00:00Z")
	for _, tt := range []struct {
		name   string
		change func(*msg.Reading)
		want   string
	}{
		{"the same day", func(r *msg.Reading) {}, ""},
		{"back within the day", func(r *msg.Reading) { r.Time.Time = r.Time.Add(-11 * time.Hour) }, ""},
		{"midnight", func(r *msg.Reading) { r.Time.Time = r.Time.Add(12 * time.Hour) }, "the date changed"},
		{"back a day", func(r *msg.Reading) { r.Time.Time = r.Time.Add(-24 * time.Hour) }, "the date changed"},
		{"another zone", func(r *msg.Reading) { r.Time.Time = r.Time.In(time.FixedZone("", -13*3600)) }, ""},
		{"almost a day of boot time", func(r *msg.Reading) { r.BootNS = int64(25*time.Hour) - 1 }, ""},
		{"a day of boot time", func(r *msg.Reading) { r.BootNS = int64(25 * time.Hour) }, "24 hours of boot time are over"},
		{"another boot", func(r *msg.Reading) { r.BootID = "c" }, "the box was booted"},
		{"another column", func(r *msg.Reading) { r.Columns = []string{"temperature_c", "pressure_pa"} }, "the columns changed"},
		{"a column less", func(r *msg.Reading) { r.Columns = r.Columns[:1] }, "the columns changed"},
	} {
		r := reading(1, 2, 3)
		r.Time.Time, r.BootNS = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), int64(time.Hour)
		tt.change(r)
		if got := d.over(r.Columns, r.Stamp(), r.BootID); got != tt.want {
			t.Errorf("%s: over() = %q; want %q", tt.name, got, tt.want)
		}
	}
	d.size = maxBytes
	r := reading(1, 2, 3)
	if got, want := d.over(r.Columns, r.Stamp(), r.BootID), fmt.Sprintf("it has %d MiB", maxBytes>>20); got != want {
		t.Errorf("over() of a large file = %q; want %q", got, want)
	}
}

// Bytes from a disk are untrusted: no panic, and never more than was there.
func FuzzSurvey(f *testing.F) {
	f.Add([]byte(textOf(3)))
	f.Add([]byte(textOf(1) + "\x00\x00"))
	f.Add([]byte(strings.ReplaceAll(textOf(2), ",", ",,")))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := surveyText(t, string(text), survey)
		if c.size < 0 || c.size+c.torn != int64(len(text)) {
			t.Errorf("survey() = %+v of %d bytes; want them all accounted for", c, len(text))
		}
		if again := surveyText(t, string(text[:c.size]), survey); !c.damaged && (again.torn != 0 || again.count != c.count) {
			t.Errorf("survey() after the cut = %+v; want %d rows and no torn end", again, c.count)
		}
	})
}
