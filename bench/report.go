package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// section is a generated part of docs/BENCHMARKS.md, between two marks:
//
//	<!-- bench:NAME -->
//	<!-- /bench:NAME -->
type section struct{ name, text string }

// table makes a Markdown table that is also to be read as it is. Columns whose
// title ends in a blank are set to the right. Without rows there is no table.
func table(titles []string, rows [][]string) string {
	if len(rows) == 0 {
		return ""
	}
	head := make([]string, len(titles))
	for i, t := range titles {
		head[i] = strings.TrimSpace(t)
	}
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, c := range row {
			widths[i] = max(widths[i], len([]rune(c)), 3)
		}
	}
	var out strings.Builder
	line := func(cells []string) {
		for i, c := range cells {
			pad := strings.Repeat(" ", widths[i]-len([]rune(c)))
			if strings.HasSuffix(titles[i], " ") {
				fmt.Fprintf(&out, "| %s%s ", pad, c)
			} else {
				fmt.Fprintf(&out, "| %s%s ", c, pad)
			}
		}
		out.WriteString("|\n")
	}
	rule := make([]string, len(head))
	for i, w := range widths {
		rule[i] = strings.Repeat("-", w)
		if strings.HasSuffix(titles[i], " ") {
			rule[i] = strings.Repeat("-", w-1) + ":"
		}
	}
	line(head)
	line(rule)
	for _, row := range rows {
		line(row)
	}
	return out.String()
}

func barTable(bars []bar) string {
	var rows [][]string
	for _, b := range bars {
		rows = append(rows, []string{b.what, number(b.value), number(b.must), number(b.aim), b.unit, b.verdict(), b.note})
	}
	return table([]string{"what", "value ", "must ", "aim ", "unit", "verdict", "besides"}, rows)
}

// number shows three digits, and none that say nothing.
func number(v float64) string {
	switch {
	case v != v:
		return "–"
	case v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func frameTable(cells []*cell) string {
	var rows [][]string
	for _, c := range cells {
		for _, m := range modes() {
			b := c.all(m)
			row := []string{c.shape.name, fmt.Sprint(c.readers), string(m), us(b.copy, 0.5), us(b.wake, 0.5), us(b.wake, 0.99),
				us(b.total, 0.5), us(b.total, 0.99), number(b.perFrame()), number(b.perRead(c.readers)),
				fmt.Sprintf("%d/%d", b.received, b.sent*c.readers)}
			switch m {
			case copying:
				row[1], row[len(row)-1] = "–", "–"
			case pixels: // copied within the sending
				row[3] = "–"
			}
			rows = append(rows, row)
		}
	}
	return table([]string{"frame", "readers ", "way", "copy p50 ", "wake p50 ", "wake p99 ", "total p50 ", "total p99 ",
		"CPU writer ", "CPU reader ", "arrived "}, rows)
}

func us(values []float64, q float64) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f", quantile(values, q))
}

func rowTable(runs []rowRun) string {
	var rows [][]string
	for _, r := range runs {
		if r.rate == 0 {
			continue
		}
		rows = append(rows, []string{fmt.Sprint(r.rate), fmt.Sprintf("%.0f", r.held), fmt.Sprint(r.rows), fmt.Sprint(r.lost),
			fmt.Sprintf("%.0f", r.behind*1000), number(r.publisher), number(r.writer), fmt.Sprintf("%.0f", r.writer*float64(r.rate)/1e4)})
	}
	return table([]string{"offered /s ", "published /s ", "rows ", "lost ", "last row after, ms ", "CPU µs a reading, publisher ",
		"csvwriter ", "csvwriter, % of a core "}, rows)
}

func (r fleetResult) table() string {
	idle := map[string]string{}
	for _, p := range r.idle {
		idle[p.name] = fmt.Sprintf("%.2f", p.part*100)
	}
	var rows [][]string
	for _, p := range r.memory {
		rows = append(rows, []string{p.name, p.program, number(float64(p.resident) / mib), number(float64(p.proportional) / mib),
			number(float64(p.rings) / mib), cmp.Or(idle[p.name], "–")})
	}
	return table([]string{"process", "program", "RSS, MiB ", "PSS, MiB ", "rings mapped, MiB ", "idle fleet: CPU, % "}, rows)
}

// machine says where and when the figures were made, and how.
func machine(ctx context.Context, command string) string {
	var u unix.Utsname
	kernel := "unknown kernel"
	if err := unix.Uname(&u); err == nil {
		kernel = "Linux " + unix.ByteSliceToString(u.Release[:])
	}
	zmq, err := exec.CommandContext(ctx, "pkg-config", "--modversion", "libzmq").Output()
	if err != nil {
		zmq = []byte("of unknown version")
	}
	return fmt.Sprintf("%s, %d cores (%s), %s, %s, libzmq %s; %s; `%s`\n", processor(), runtime.NumCPU(), runtime.GOARCH, kernel,
		runtime.Version(), bytes.TrimSpace(zmq), time.Now().UTC().Format("2006-01-02"), command)
}

// processor is the CPU's name, where the kernel tells it.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); key == "model name" || key == "Model" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// insert puts the sections between their marks in a document.
func insert(document string, sections []section) (string, error) {
	var errs []error
	for _, s := range sections {
		open, shut := "<!-- bench:"+s.name+" -->\n", "<!-- /bench:"+s.name+" -->"
		before, rest, found := strings.Cut(document, open)
		_, after, ended := strings.Cut(rest, shut)
		if !found || !ended {
			errs = append(errs, fmt.Errorf("no marks %s and %s", strings.TrimSpace(open), shut))
			continue
		}
		document = before + open + "\n" + s.text + "\n" + shut + after
	}
	return document, errors.Join(errs...)
}

func write(path string, sections []section) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	document, err := insert(string(text), sections)
	if err != nil {
		return fmt.Errorf("write figures into %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(document), 0o644); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}
