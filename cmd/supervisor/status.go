package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/pkg/worker"
)

type statusCmd struct {
	place
	Output string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// Run prints the state; the exit code says whether all is well.
func (c *statusCmd) Run(ctx context.Context, to worker.Streams) error {
	if err := c.find(); err != nil {
		return err
	}
	answer, err := c.ask(ctx, request{Verb: "status"}, 10*time.Second)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		err = printJSON(to.Out, answer.Box)
	} else {
		con := newConsole(to)
		_, err = io.WriteString(con.out, con.table(answer.Box))
		con.troubles(con.out, answer.Box)
	}
	if err == nil && !answer.Box.Ready {
		return notWell()
	}
	return err
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// column is a column of the table.
type column struct {
	title string
	right bool
	most  int // columns; 0 is any
	text  func(*Worker) string
}

// table is the box as people want to see it.
func (c *console) table(b *Box) string {
	on := c.colour && c.outTerm != nil
	width, _ := c.size()
	var out strings.Builder
	clock := "clock synced"
	if !b.Synced {
		clock = paint(on, yellow, "clock not synced")
	}
	up := time.Duration(b.BootNS - b.Supervisor.SinceBootNS)
	fmt.Fprintf(&out, "%s  %s, up %s, %s, free: %s RAM, %s shm, %s disk\n", paint(on, bold, b.Node),
		b.count(), age(up), clock, size(b.Memory.AvailableBytes), size(b.Memory.ShmFreeBytes), size(b.Memory.StoreFreeBytes))
	columns := b.columns()
	widths := make([]int, len(columns))
	left := width
	for i, col := range columns {
		widths[i] = len(col.title)
		for j := range b.Workers {
			widths[i] = max(widths[i], len([]rune(col.text(&b.Workers[j]))))
		}
		if col.most > 0 {
			widths[i] = min(widths[i], col.most)
		}
		left -= widths[i] + 1
	}
	widths[len(columns)-1] += min(left+1, 0) // the last one takes what is left
	row(&out, columns, widths, func(i int) string { return paint(on, dim, pad(columns[i], widths[i], columns[i].title)) })
	for j := range b.Workers {
		w := &b.Workers[j]
		row(&out, columns, widths, func(i int) string {
			text := pad(columns[i], widths[i], columns[i].text(w))
			if columns[i].title == "PHASE" {
				return paint(on, phaseColour(w.Phase), text)
			}
			return text
		})
	}
	return out.String()
}

func row(out *strings.Builder, columns []column, widths []int, cell func(int) string) {
	cells := make([]string, len(columns))
	for i := range columns {
		cells[i] = cell(i)
	}
	out.WriteString(strings.TrimRight(strings.Join(cells, " "), " ") + "\n")
}

func pad(col column, width int, text string) string {
	text = cut(text, width)
	fill := strings.Repeat(" ", max(width-len([]rune(text)), 0))
	if col.right {
		return fill + text
	}
	return text + fill
}

func (b *Box) columns() []column {
	return []column{
		{"NAME", false, 16, func(w *Worker) string { return w.Name }},
		{"PROGRAM", false, 14, func(w *Worker) string { return w.Program[strings.LastIndexByte(w.Program, '/')+1:] }},
		{"PHASE", false, 0, func(w *Worker) string { return string(w.Phase) }},
		{"PID", true, 0, func(w *Worker) string { return number(w.PID) }},
		{"UP", true, 0, func(w *Worker) string {
			if w.PID == 0 {
				return "-"
			}
			return age(time.Duration(w.UpS * float64(time.Second)))
		}},
		{"RST", true, 0, func(w *Worker) string { return strconv.Itoa(w.Restarts) }},
		{"RATE/s", true, 0, func(w *Worker) string { return rate(b.rate(w)) }},
		{"LOST", true, 0, func(w *Worker) string { return count(b.lost(w)) }},
		{"MEM", true, 0, func(w *Worker) string {
			if w.RSSBytes == 0 {
				return "-"
			}
			return size(w.RSSBytes)
		}},
		{"STATUS", false, 0, func(w *Worker) string {
			if w.Trouble != "" {
				return oneLine(w.Trouble)
			}
			return oneLine(w.Status)
		}},
	}
}

func oneLine(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(printable(text)), "\n", "; ")
}

// rate is what a sensor publishes a second, and what a worker takes in.
func (b *Box) rate(w *Worker) (hz float64) {
	if len(b.sources(w)) == 0 {
		for topic, flow := range w.Published {
			if !strings.HasPrefix(string(topic), "state/") {
				hz += flow.Hz
			}
		}
		return hz
	}
	for _, e := range b.sources(w) {
		hz += e.Hz
	}
	return hz
}

// lost is what never reached the worker, and what it could not pass on.
func (b *Box) lost(w *Worker) (n uint64) {
	for _, e := range b.sources(w) {
		n += e.Lost
	}
	for _, dropped := range w.Dropped {
		n += dropped
	}
	for name, count := range w.Counters {
		if strings.HasPrefix(name, "lost_") {
			n += count
		}
	}
	return n
}

func (b *Box) sources(w *Worker) (list []Edge) {
	for _, e := range b.Edges {
		if e.Reader == w.Name {
			list = append(list, e)
		}
	}
	return list
}

func (b *Box) count() string {
	well := 0
	for i := range b.Workers {
		if b.Workers[i].well() {
			well++
		}
	}
	return fmt.Sprintf("%d of %d ready", well, len(b.Workers))
}

// troubles says in full what the table has no room for.
func (c *console) troubles(out io.Writer, b *Box) {
	on := c.colour && (out == c.out && c.outTerm != nil || out == c.err && c.errTerm != nil)
	for _, w := range b.Workers {
		if w.Trouble == "" {
			continue
		}
		text := strings.ReplaceAll(strings.TrimSpace(printable(w.Trouble)), "\n", "\n    ")
		fmt.Fprintf(out, "%s %s: %s\n", w.Name, paint(on, phaseColour(w.Phase), string(w.Phase)), text)
	}
}

func phaseColour(p Phase) string {
	switch p {
	case Ready:
		return green
	case Held, Failing:
		return red
	case Done, Stopped:
		return dim
	default:
		return yellow
	}
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// count is a number in at most five columns.
func count(n uint64) string {
	switch {
	case n < 100_000:
		return strconv.FormatUint(n, 10)
	case n < 10_000_000:
		return fmt.Sprintf("%dk", n/1000)
	default:
		return fmt.Sprintf("%dM", n/1_000_000)
	}
}

func rate(hz float64) string {
	switch {
	case hz == 0:
		return "-"
	case hz < 10:
		return fmt.Sprintf("%.2f", hz)
	case hz < 1000:
		return fmt.Sprintf("%.1f", hz)
	default:
		return fmt.Sprintf("%.0f", hz)
	}
}

// age is a length of time in two units at most.
func age(d time.Duration) string {
	switch s := int(d.Seconds()); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}

// size is a number of bytes in at most five columns.
func size(bytes uint64) string {
	v, units := float64(bytes), "BKMGT"
	for v >= 1000 && len(units) > 1 {
		v, units = v/1024, units[1:]
	}
	if v < 10 && units[0] != 'B' {
		return fmt.Sprintf("%.1f%c", v, units[0])
	}
	return fmt.Sprintf("%.0f%c", v, units[0])
}
