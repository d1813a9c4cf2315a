package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// askTimeout bounds how long a program may take to check its table. It answers within ten seconds of
// its own start, which on a machine that is booting may itself take long.
const askTimeout = time.Minute

// plan is a topology that has been checked: what to start, and what it takes.
type plan struct {
	top      *topology.Topology
	file     string                   // absolute
	programs map[string]string        // path of each entry's program
	reports  map[string]worker.Report // what the programs say of their entries
	budget   budget
}

// inspect checks a topology as a whole: by itself, by each of its programs, and
// as a fleet. The error is topology.Problems, all of them; the plan is then as
// complete as can be, nil when there is nothing to be read. A quick one leaves out
// what takes programs seconds, such as to load a model: a fleet starts at once, and
// records, although its detector will be held.
func inspect(ctx context.Context, path string, quick bool) (*plan, error) {
	file, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	top, err := topology.Load(path, topology.Settings{})
	if top == nil {
		return nil, err
	}
	p := &plan{top: top, file: file, programs: map[string]string{}, reports: map[string]worker.Report{}}
	ps := append(topology.ProblemsOf(err), p.findPrograms()...)
	ps = append(ps, p.askAll(ctx, quick)...)
	ps = append(ps, p.checkFleet()...)
	if ps = tidy(ps); len(ps) > 0 {
		return p, ps
	}
	return p, nil
}

// tidy sorts problems and drops what was found twice: every program reads the
// whole topology.
func tidy(ps topology.Problems) topology.Problems {
	ps.Sort()
	var once topology.Problems
	for _, p := range ps {
		if !slices.Contains(once, p) {
			once = append(once, p)
		}
	}
	return once
}

// findPrograms looks for each program beside the supervisor.
func (p *plan) findPrograms() (ps topology.Problems) {
	self, err := os.Executable()
	if err != nil {
		return topology.Problems{{File: p.top.Path, Message: "find the programs: " + err.Error()}}
	}
	folder := filepath.Dir(self)
	for _, e := range p.top.Entries {
		path := e.Program
		switch {
		case path == "":
			continue // has been reported
		case !filepath.IsAbs(path) && strings.ContainsRune(path, '/'):
			ps = append(ps, e.Table.Problem("program", "want the name of a program in %s, or an absolute path", folder))
			continue
		case !filepath.IsAbs(path):
			path = filepath.Join(folder, path)
		}
		if why := notProgram(path); why != "" {
			ps = append(ps, e.Table.Problem("program", "%s%s", why, hint(e.Program, path)))
			continue
		}
		p.programs[e.Name] = path
	}
	return ps
}

// hint is the nearest program; where none is near, all those beside the
// supervisor are listed, but not what else is in another folder.
func hint(program, path string) string {
	known := programsIn(filepath.Dir(path))
	if _, near := nearest.Word(filepath.Base(path), known); !near && filepath.IsAbs(program) {
		return ""
	}
	return nearest.Hint(filepath.Base(path), known)
}

func notProgram(path string) string {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("there is no program %s in %s", filepath.Base(path), filepath.Dir(path))
	case err != nil:
		return err.Error()
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return fmt.Sprintf("%s is not a program", path)
	}
	return ""
}

// programsIn lists what could be meant.
func programsIn(folder string) (names []string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.Name() != ownName && notProgram(filepath.Join(folder, e.Name())) == "" {
			names = append(names, e.Name())
		}
	}
	return names
}

// askAll asks all programs for their reports, a few at a time.
func (p *plan) askAll(ctx context.Context, quick bool) (ps topology.Problems) {
	var asking sync.WaitGroup
	var mu sync.Mutex
	room := make(chan struct{}, max(runtime.NumCPU(), 2))
	for _, e := range p.top.Entries {
		program := p.programs[e.Name]
		if program == "" {
			continue
		}
		asking.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			report, err := ask(ctx, program, p.top.Path, e.Name, quick)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				ps = append(ps, e.Table.Problem("program", "%v", err))
				return
			}
			p.reports[e.Name] = report
			ps = append(ps, report.Problems...)
		})
	}
	asking.Wait()
	return ps
}

// ask lets a program check its entry.
func ask(ctx context.Context, program, topologyPath, name string, quick bool) (worker.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--topology", topologyPath, "--name", name, "--check", "-o", "json")
	cmd.WaitDelay = time.Second
	if quick {
		cmd.Env = append(os.Environ(), worker.QuickCheck)
	}
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	if ctx.Err() != nil {
		return worker.Report{}, fmt.Errorf("%s --check: no answer: %w", program, ctx.Err())
	}
	var r worker.Report
	bad := json.Unmarshal(out.Bytes(), &r)
	code := cmd.ProcessState.ExitCode()
	if bad == nil && (code == worker.ExitDone || code == worker.ExitConfig && len(r.Problems) > 0) {
		return r, nil
	}
	if err == nil {
		err = bad
	}
	last := strings.TrimSpace(words.String())
	if last != "" {
		last = ": " + last[strings.LastIndexByte(last, '\n')+1:]
	}
	return worker.Report{}, fmt.Errorf("%s --check does not answer as a worker does: %w%s", program, err, cut(printable(last), 200))
}

// jobs lists the entries that run now and then.
func (p *plan) jobs() (list []*topology.Entry) {
	for _, e := range p.top.Entries {
		if e.Role == topology.Job {
			list = append(list, e)
		}
	}
	return list
}

// summary says what the plan is, in one line.
func (p *plan) summary() string {
	sensors, jobs := 0, len(p.jobs())
	for _, e := range p.top.Entries {
		if e.Role == topology.Sensor {
			sensors++
		}
	}
	text := fmt.Sprintf("%s: %s, %s", p.top.Node.Name, plural(sensors, "sensor"), plural(len(p.top.Entries)-sensors-jobs, "worker"))
	if jobs > 0 {
		text += ", " + plural(jobs, "job")
	}
	return text + "; " + p.budget.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

type checkCmd struct {
	Topology string `arg:"" help:"The fleet's topology."`
	Output   string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// answered is what "check -o json" prints.
type answered struct {
	OK       bool              `json:"ok"`
	Problems topology.Problems `json:"problems"`
	Warnings topology.Problems `json:"warnings,omitempty"` // what a fleet can run with
	Entries  []worker.Report   `json:"entries"`
	Budget   *budget           `json:"budget,omitempty"`
}

// Run checks, and prints all problems or one line.
func (c *checkCmd) Run(ctx context.Context, to worker.Streams) error {
	plan, err := inspect(ctx, c.Topology, false)
	switch {
	case c.Output == "text" && err != nil:
		return err
	case c.Output == "text":
		for _, w := range plan.warnings() {
			fmt.Fprintln(to.Err, "supervisor: warning:", w)
		}
		_, err = fmt.Fprintln(to.Out, plan.summary())
		return err
	}
	a := answered{OK: err == nil, Problems: append(topology.Problems{}, topology.ProblemsOf(err)...), Entries: []worker.Report{}}
	if plan != nil {
		a.Budget, a.Warnings = &plan.budget, plan.warnings()
		for _, e := range plan.top.Entries {
			if r, ok := plan.reports[e.Name]; ok {
				r.Problems, r.Warnings = nil, nil // they are above
				a.Entries = append(a.Entries, r)
			}
		}
	}
	if printErr := printJSON(to.Out, a); printErr != nil || err == nil {
		return printErr
	}
	return worker.Said(worker.ExitConfig)
}
