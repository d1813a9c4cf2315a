package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
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

// column is a column of a table of workers or jobs.
type column[T any] struct {
	title string
	right bool
	most  int // columns; 0 is any
	text  func(*T) string
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
	disk := size(b.Memory.StoreFreeBytes) + " disk"
	if !b.Memory.StoreMounted {
		disk = paint(on, red, "store not mounted")
	}
	up := time.Duration(b.BootNS - b.Supervisor.SinceBootNS)
	fmt.Fprintf(&out, "%s  %s, up %s, %s, free: %s RAM, %s shm, %s\n", paint(on, bold, b.Node),
		b.count(), age(up), clock, size(b.Memory.AvailableBytes), size(b.Memory.ShmFreeBytes), disk)
	grid(&out, on, width, b.columns(), b.Workers, func(w *Worker) Phase { return w.Phase })
	if len(b.Jobs) > 0 {
		grid(&out, on, width, jobColumns(), b.Jobs, func(j *Job) Phase { return j.Phase })
	}
	return out.String()
}

// grid writes a title and a line for each item, within that width.
func grid[T any](out *strings.Builder, colour bool, width int, columns []column[T], items []T, phase func(*T) Phase) {
	widths := make([]int, len(columns))
	left := width
	for i, col := range columns {
		widths[i] = len(col.title)
		for j := range items {
			widths[i] = max(widths[i], len([]rune(col.text(&items[j]))))
		}
		if col.most > 0 {
			widths[i] = min(widths[i], col.most)
		}
		left -= widths[i] + 1
	}
	widths[len(columns)-1] += min(left+1, 0) // the last one takes what is left
	row(out, columns, func(i int) string { return paint(colour, dim, pad(columns[i], widths[i], columns[i].title)) })
	for j := range items {
		row(out, columns, func(i int) string {
			text := pad(columns[i], widths[i], columns[i].text(&items[j]))
			if columns[i].title == "PHASE" {
				return paint(colour, phaseColour(phase(&items[j])), text)
			}
			return text
		})
	}
}

func row[T any](out *strings.Builder, columns []column[T], cell func(int) string) {
	cells := make([]string, len(columns))
	for i := range columns {
		cells[i] = cell(i)
	}
	out.WriteString(strings.TrimRight(strings.Join(cells, " "), " ") + "\n")
}

func pad[T any](col column[T], width int, text string) string {
	text = cut(text, width)
	fill := strings.Repeat(" ", max(width-len([]rune(text)), 0))
	if col.right {
		return fill + text
	}
	return text + fill
}

func (b *Box) columns() []column[Worker] {
	return []column[Worker]{
		{"NAME", false, 16, func(w *Worker) string { return w.Name }},
		{"PROGRAM", false, 14, (*Worker).base},
		{"PHASE", false, 0, func(w *Worker) string { return string(w.Phase) }},
		{"PID", true, 0, func(w *Worker) string { return number(w.PID) }},
		{"UP", true, 0, (*Worker).up},
		{"RST", true, 0, func(w *Worker) string { return strconv.Itoa(w.Restarts) }},
		{"RATE/s", true, 0, func(w *Worker) string { return rate(b.rate(w)) }},
		{"LOST", true, 0, func(w *Worker) string { return count(w.Lost) }},
		{"MEM", true, 0, func(w *Worker) string {
			if w.RSSBytes == 0 {
				return "-"
			}
			return size(w.RSSBytes)
		}},
		{"STATUS", false, 0, (*Worker).line},
	}
}

// base is the program without its folder.
func (w *Worker) base() string { return w.Program[strings.LastIndexByte(w.Program, '/')+1:] }

func (w *Worker) up() string {
	if w.PID == 0 {
		return "-"
	}
	return age(seconds(w.UpS))
}

// line is what there is to say of it.
func (w *Worker) line() string {
	if w.Trouble != "" {
		return oneLine(near(w.Trouble))
	}
	return oneLine(near(w.Status))
}

// near names what lies below the current folder from there: a table has little
// room.
func near(text string) string {
	here, err := os.Getwd()
	if err != nil || here == "/" {
		return text
	}
	return strings.ReplaceAll(text, " "+here+"/", " ")
}

func jobColumns() []column[Job] {
	return []column[Job]{
		{"JOB", false, 16, func(j *Job) string { return j.Name }},
		{"PROGRAM", false, 14, func(j *Job) string { return j.base() }},
		{"PHASE", false, 0, func(j *Job) string { return string(j.Phase) }},
		{"PID", true, 0, func(j *Job) string { return number(j.PID) }},
		{"UP", true, 0, func(j *Job) string { return j.up() }},
		{"NEXT", true, 0, func(j *Job) string {
			if j.NextS == nil {
				return "-"
			}
			return age(seconds(*j.NextS))
		}},
		{"LAST", false, 0, func(j *Job) string { return j.LastExit.word() }},
		{"RUNS", true, 0, func(j *Job) string { return count(j.Runs) }},
		{"FAIL", true, 0, func(j *Job) string { return count(j.Failures) }},
		{"SKIP", true, 0, func(j *Job) string { return count(j.Skipped) }},
		{"STATUS", false, 0, func(j *Job) string { return j.line() }},
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

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
	tell := func(w *Worker) {
		if w.Trouble == "" {
			return
		}
		text := strings.ReplaceAll(strings.TrimSpace(printable(w.Trouble)), "\n", "\n    ")
		fmt.Fprintf(out, "%s %s: %s\n", w.Name, paint(on, phaseColour(w.Phase), string(w.Phase)), text)
	}
	for i := range b.Workers {
		tell(&b.Workers[i])
	}
	for i := range b.Jobs {
		tell(&b.Jobs[i].Worker)
	}
}

func phaseColour(p Phase) string {
	switch p {
	case Ready, Running:
		return green
	case Held, Failing:
		return red
	case Done, Stopped, Scheduled:
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
