package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// screen shows a running fleet: its log, or a table that is kept up to date.
type screen struct {
	con      *console
	topology string
	table    bool

	mu      sync.Mutex
	least   slog.Level // what is shown
	recent  []entry    // the last ones, to be shown below the table
	painted int        // lines, to be painted over

	stop    context.CancelFunc
	painter sync.WaitGroup
}

// below is how many entries are shown below a table.
const below = 6

func (c *upCmd) screen(con *console) *screen {
	s := &screen{con: con, topology: c.Topology, table: c.Table, least: slog.LevelDebug, stop: func() {}}
	if c.Table || c.Detached {
		s.least = slog.LevelWarn
	}
	return s
}

// take shows one entry of the log: for people on a terminal and for who has
// started a supervisor in the background, otherwise as JSON.
func (s *screen) take(e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Level < s.least {
		return
	}
	if s.table && s.con.outTerm != nil {
		s.recent = append(s.recent, e)
		s.recent = s.recent[max(0, len(s.recent)-below):]
		return
	}
	line := string(e.json())
	if s.con.errTerm != nil || s.least == slog.LevelWarn {
		line = e.text(s.con.colour && s.con.errTerm != nil)
	}
	fmt.Fprintln(s.con.err, line)
}

// quiet shows nothing more: nobody looks, and the log is kept.
func (s *screen) quiet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.least = math.MaxInt
}

// open says what is going to be started.
func (s *screen) open(p *plan) {
	if s.table {
		fmt.Fprintln(s.con.out, p.summary())
	}
}

// begin keeps the table up to date until ctx is done: the last table that
// stays is of the fleet at work.
func (s *screen) begin(ctx context.Context, f *fleet) {
	if !s.table {
		return
	}
	every := 5 * time.Second
	if s.con.outTerm != nil {
		every = time.Second
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.painter.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			s.paint(f.box())
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// end says where everything is.
func (s *screen) end(f *fleet) {
	s.stop()
	s.painter.Wait()
	if s.table {
		fmt.Fprint(s.con.out, "stopped; nothing is left running\n", places(f.box().Folders))
	}
}

// places says where a fleet's files are, relative to here where that is shorter.
func places(at Folders) string {
	here, err := os.Getwd()
	from := func(path string) string {
		if rel, relErr := filepath.Rel(here, path); err == nil && relErr == nil && len(rel) < len(path) {
			return rel
		}
		return path
	}
	return fmt.Sprintf("  readings  %[1]s/work/*.csv, and ready/ once their day is over\n"+
		"  files     %[2]s/born/, and %[1]s/ready/ once they are kept; the newest picture is %[2]s/latest.jpg\n  logs      %[3]s/*.log\n",
		from(at.Store), from(at.Cache), from(at.Logs))
}

// tips are what to try in a second terminal while the fleet runs.
func (s *screen) tips() string {
	return fmt.Sprintf("  try       (in a second terminal) bin/tap list %[1]s\n            bin/tap hz %[1]s\n            bin/supervisor status %[1]s\n", s.topology)
}

func (s *screen) paint(b *Box) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out strings.Builder
	out.WriteString(s.con.table(b))
	columns, rows := s.con.size()
	for _, e := range s.recent {
		out.WriteString(paint(s.con.colour, levelColour(e.Level), cut(e.text(false), columns)) + "\n")
	}
	out.WriteString(places(b.Folders) + s.tips())
	if s.con.outTerm == nil {
		_, _ = io.WriteString(s.con.out, out.String()+"\n")
		return
	}
	text := fit(out.String(), columns, rows-1)
	if s.painted > 0 {
		text = fmt.Sprintf("\x1b[%dA\x1b[J", s.painted) + text // up, and clear to the end (ECMA-48)
	}
	s.painted = strings.Count(text, "\n")
	_, _ = io.WriteString(s.con.out, text)
}

// fit cuts a text so that no line wraps and nothing scrolls: only then can it
// be painted over.
func fit(text string, columns, rows int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	lines = lines[:min(len(lines), max(rows, 1))]
	for i, line := range lines {
		if !strings.Contains(line, "\x1b") {
			lines[i] = cut(line, columns)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
