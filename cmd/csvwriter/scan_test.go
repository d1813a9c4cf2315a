package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
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
		Columns: []string{"temperature_c", "humidity_pct"}, Format: newFormat, First: moment(1, "2026-03-01T00:00:00Z"), Before: &msg.Cursor{Epoch: 6, Seq: 99}}
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
	doubtful := reading(3, 4, math.NaN())
	doubtful.Bad = map[string]string{"humidity_pct": "no answer", "temperature_c": "it jumped by 20, \"within\" 1 s\nof"}
	d.append(doubtful)
	doubtful = reading(4, 4, 5)
	doubtful.Bad = map[string]string{"humidity_pct": "stuck"}
	d.append(doubtful)
	const want = `time,seq,epoch,boot_ns,synced,temperature_c,humidity_pct,bad
2026-03-01T00:00:00.000000005Z,0,0000000000000007,0,true,21.015625,55,
2026-03-01T00:00:01.000000005Z,1,0000000000000007,1000000000,false,,-0.5,
2026-03-01T00:00:02.000000005Z,2,0000000000000007,2000000000,true,1000000000000000000000,0.0000001,
2026-03-01T00:00:03.000000005Z,3,0000000000000007,3000000000,false,4,,"temperature_c=it jumped by 20, ""within"" 1 s of; humidity_pct=no answer"
2026-03-01T00:00:04.000000005Z,4,0000000000000007,4000000000,true,4,5,humidity_pct=stuck
`
	got := d.head() + string(d.waiting)
	if got != want {
		t.Errorf("rows = %s; want %s", got, want)
	}
	if last := d.last(); last == nil || *last != (msg.Cursor{Epoch: 7, Seq: 4}) {
		t.Errorf("last row = %v; want 4 of epoch 7", last)
	}
	lines, err := csv.NewReader(strings.NewReader(got)).ReadAll()
	if err != nil || lines[4][7] != `temperature_c=it jumped by 20, "within" 1 s of; humidity_pct=no answer` {
		t.Errorf("read by encoding/csv: %q, %v; want the reasons in the last cell", lines, err)
	}
	if c := scanText(t, got); c.rows.len() != 5 || c.damaged != "" || c.torn != 0 {
		t.Errorf("scan() of it = %+v; want five whole rows", c)
	}
}

func scanText(t *testing.T, text string) contents {
	t.Helper()
	d := exampleDraft()
	return scanAs(t, &d, text)
}

func scanAs(t *testing.T, d *draft, text string) contents {
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
	c, err := scan(f, d, func() {})
	if err != nil {
		t.Fatalf("scan of %.60q = %v; want nil", text, err)
	}
	return c
}

// A file may end anywhere after a kill, and in zeros after a power cut: what
// is whole stays, what is not goes.
func TestScanFindsTheLastWholeRowAtEachCut(t *testing.T) {
	whole := textOf(3)
	head := len(textOf(0))
	for cut := range len(whole) + 1 {
		rows := strings.Count(whole[:cut], "\n") - 1
		size := strings.LastIndexByte(whole[:cut], '\n') + 1
		for _, zeros := range []int{0, 1, 4096} {
			text := whole[:cut] + strings.Repeat("\x00", zeros)
			c := scanText(t, text)
			if c.rows.len() != max(rows, 0) || c.size != int64(size) || c.torn != int64(len(text)-size) || c.damaged != "" {
				t.Fatalf("scan of %d bytes and %d zeros = %+v; want %d rows in %d bytes", cut, zeros, c, rows, size)
			}
			if rows <= 0 {
				continue
			}
			last := msg.Cursor{Epoch: 7, Seq: msg.Seq(rows - 1)}
			if got := c.rows.last(); *got != last {
				t.Fatalf("scan of %d bytes ends with row %v; want %v", cut, got, last)
			}
			if c.start.Seq != 0 || c.end.Seq != last.Seq || !c.end.Time.Equal(reading(rows-1).Time.Time) || c.end.BootID != "b" {
				t.Fatalf("scan of %d bytes goes from %+v to %+v; want rows 0 to %d", cut, c.start, c.end, rows-1)
			}
			if want := sha256.Sum256([]byte(whole[:size])); !bytes.Equal(c.sum.Sum(nil), want[:]) {
				t.Fatalf("scan of %d bytes has another hash than its %d whole ones", cut, size)
			}
		}
	}
	if c := scanText(t, ""); c.size != 0 || c.torn != 0 || head == 0 {
		t.Errorf("scan of nothing = %+v; want nothing", c)
	}
}

// Whole rows after a bad place, or another head, are no work of a power cut:
// nothing of such a file is cut off.
func TestScanTellsDamageFromATornEnd(t *testing.T) {
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
		"a note at the end":    whole + "the window was open\n",
		"a row twice":          whole + lines[2],
	} {
		if c := scanText(t, text); c.damaged == "" {
			t.Errorf("%s: scan() = %+v; want damage", name, c)
		}
	}
	c := scanText(t, lines[0]+lines[1]+"edited\n"+lines[3]+lines[4])
	if *c.rows.last() != (msg.Cursor{Epoch: 7, Seq: 3}) || c.missing.text() != "1 of 0000000000000007" {
		t.Errorf("scan of a damaged file: last row %v, missing %q; want the last whole one, and row 1 missing", c.rows.last(), c.missing.text())
	}
}

// A file of the version before has no column bad.
func TestScanOfAnEarlierFormat(t *testing.T) {
	const text = "time,seq,epoch,boot_ns,synced,temperature_c,humidity_pct\n" +
		"2026-03-01T00:00:00.000000005Z,0,0000000000000007,0,true,21.015625,55\n" +
		"2026-03-01T00:00:01.000000005Z,1,0000000000000007,1000000000,false,,-0.5\n"
	d := exampleDraft()
	d.Format = plainFormat
	if c := scanAs(t, &d, text); c.rows.len() != 2 || c.damaged != "" || c.torn != 0 {
		t.Errorf("scan() = %+v; want two rows", c)
	}
	for _, tt := range []struct {
		head    string
		columns int
		format  int
		ok      bool
	}{
		{text[:strings.IndexByte(text, '\n')+1], 2, plainFormat, true},
		{textOf(0), 2, badFormat, true},
		{"time,seq,epoch,boot_ns,synced,bad\n", 1, plainFormat, true}, // a column of that name
		{"time,seq,epoch,boot_ns,synced\n", 0, 0, false},
		{"time,seq,epoch,boot_ns,synced,n", 0, 0, false},
		{"time,seq,epoch,boot_ns,synced,n m\n", 0, 0, false},
		{"", 0, 0, false},
	} {
		if columns, format, ok := columnsOf(tt.head); len(columns) != tt.columns || format != tt.format || ok != tt.ok {
			t.Errorf("columnsOf(%q) = %q, %d, %t; want %d columns, %d, %t", tt.head, columns, format, ok, tt.columns, tt.format, tt.ok)
		}
	}
}

func TestRowLog(t *testing.T) {
	var l rowLog
	var all []msg.Cursor
	for _, s := range []struct {
		epoch msg.Epoch
		from  msg.Seq
		n     int
	}{{7, 3, 4}, {7, 9, 1}, {8, 0, 3}, {7, 20, 2}} {
		for k := range s.n {
			c := msg.Cursor{Epoch: s.epoch, Seq: s.from + msg.Seq(k)}
			all = append(all, c)
			l.add(c, uint32(len(all)))
		}
	}
	for i, c := range all {
		if got, ok := l.find(c); got != i || !ok || l.cursor(i) != c || !l.has(c, uint32(i+1)) || l.has(c, 0) {
			t.Errorf("find(%v) = %d, %t, cursor(%d) = %v; want %d and back", c, got, ok, i, l.cursor(i), i)
		}
		if a, b := l.before(i), l.from(i); a.len() != i || b.len() != len(all)-i || b.cursor(0) != c {
			t.Errorf("cut at %d: %d and %d rows, the second from %v; want %d and %d, from %v", i, a.len(), b.len(), b.cursor(0), i, len(all)-i, c)
		}
	}
	for _, c := range []msg.Cursor{{Epoch: 7, Seq: 2}, {Epoch: 7, Seq: 7}, {Epoch: 8, Seq: 3}, {Epoch: 9}} {
		if i, ok := l.find(c); ok {
			t.Errorf("find(%v) = %d; want nothing", c, i)
		}
	}
	if got, want := l.text(), "3-6 of 0000000000000007, 9 of 0000000000000007, 0-2 of 0000000000000008, 20-21 of 0000000000000007"; got != want {
		t.Errorf("text() = %q; want %q", got, want)
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
func FuzzScan(f *testing.F) {
	f.Add([]byte(textOf(3)))
	f.Add([]byte(textOf(1) + "\x00\x00"))
	f.Add([]byte(strings.ReplaceAll(textOf(2), ",", ",,")))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := scanText(t, string(text))
		if c.size < 0 || c.size+c.torn != int64(len(text)) {
			t.Errorf("scan() = %+v of %d bytes; want them all accounted for", c, len(text))
		}
		if again := scanText(t, string(text[:c.size])); c.damaged == "" && (again.torn != 0 || again.rows.len() != c.rows.len()) {
			t.Errorf("scan() after the cut = %+v; want %d rows and no torn end", again, c.rows.len())
		}
	})
}
