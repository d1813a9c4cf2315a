package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// Program is what a program is: its name, what it reads and publishes, its
// settings and its work. A program that reads nothing is a sensor.
type Program[C any] struct {
	Name      string
	Summary   string // one line, for --help
	Reads     []msg.Kind
	Publishes []msg.Kind
	Stream    string   // of a sensor: the stream it has when run by hand with no stream set
	Config    func() C // the defaults
	Run       func(context.Context, *Worker, C) error
	Verbs     []Verb[C] // what else it does, when told to
	Job       bool      // it ends by itself, and is to be run now and then
}

// Configs may say more of themselves by these methods:
//
//	Validate() error               on *C: what the types cannot check
//	ValidateIn(*topology.Topology, *topology.Entry) error
//	                               on *C, once it is valid by itself: what refers to other entries
//	Reads() []msg.Kind             the kinds it reads, as it is set; by default Program.Reads
//	Rings() []Ring                 the shared memory that its streams take
//	Pins() int                     how many frames of its source it holds at once
//	Cached() Cached                what it does with files in RAM
//	Wants() []msg.Kind             kinds of which it must have a source, as it is set
//	Knows() []string               labels that its objects can have
//	Seeks() []string               labels of its sources' objects that it asks for
//	Check(context.Context) (warning, err error)
//	                               on *C: what --check finds out besides Validate, and a run by itself,
//	                               such as whether a file can be used; within ten seconds. It is not
//	                               called where the environment has QuickCheck

// QuickCheck is in the environment of a --check that is to decide by the settings
// alone, as before a fleet starts.
const QuickCheck = "PERCH_CHECK=quick"

// Ring is the shared memory of one stream.
type Ring struct {
	Stream    string   `json:"stream"`
	Kind      msg.Kind `json:"kind"`
	Slots     int      `json:"slots"`
	SlotBytes int      `json:"slot_bytes"`
}

// Report is what a program says of an entry of a topology: "--check -o json".
type Report struct {
	Program   string            `json:"program"`
	Version   string            `json:"version"`
	Name      string            `json:"name"`
	Sensor    bool              `json:"sensor"`
	Reads     []msg.Kind        `json:"reads,omitempty"`
	Publishes []msg.Kind        `json:"publishes,omitempty"`
	Rings     []Ring            `json:"rings,omitempty"`
	Pins      int               `json:"pins,omitempty"`
	Cached    Cached            `json:"cached,omitempty"`
	Wants     []msg.Kind        `json:"wants,omitempty"`
	Knows     []string          `json:"knows,omitempty"`
	Seeks     []string          `json:"seeks,omitempty"`
	Problems  topology.Problems `json:"problems,omitempty"`
	Warnings  topology.Problems `json:"warnings,omitempty"` // what it can run with
}

// Cached is what an entry does with files in cache_dir, which is in RAM.
type Cached string

// What there is to do with them.
const (
	Fills   Cached = "fills"   // its files are born there
	Empties Cached = "empties" // it decides about those of its sources, and takes them away
)

// flags are the same for every program.
type flags struct {
	Topology string           `short:"t" placeholder:"FILE" help:"The fleet's topology. Without one, --source and --set say all."`
	Name     string           `short:"n" placeholder:"NAME" help:"Which entry of the topology this is. May be left out where only one has this program."`
	Source   []string         `short:"s" placeholder:"SOURCE" sep:"none" help:"What to read: an endpoint (ipc:///run/perch/air.ipc), or a name in the default run folder."`
	Set      []string         `placeholder:"KEY=VALUE" sep:"none" help:"A setting, as in the entry's table or node.KEY. May be repeated."`
	Check    bool             `help:"Check the settings, and stop."`
	Example  bool             `help:"Print the entry's table with every key, its default and its meaning, and stop."`
	Output   string           `short:"o" enum:"text,json" default:"text" help:"How --check and verbs answer: text or json."`
	Version  kong.VersionFlag `help:"Print the version, and stop."`
}

// Main runs the program and ends the process. It is all that a main function does.
func Main[C any](p Program[C]) { os.Exit(p.main(os.Args[1:], os.Stdout, os.Stderr)) }

func (p Program[C]) main(args []string, stdout, stderr io.Writer) int {
	var f flags
	a := aboutWith{about: &about{}}
	done := -1
	options := append(p.grammar(&a), kong.Name(p.Name), kong.Description(p.Summary), kong.Writers(stdout, stderr),
		kong.Vars{"version": p.Name + " " + version.String()}, kong.Exit(func(code int) { done = code }),
		kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	parser, err := kong.New(&f, options...)
	if err != nil {
		panic("worker: flags: " + err.Error())
	}
	call, err := parser.Parse(args)
	if done >= 0 {
		return done // --help or --version has been answered
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v; %s --help lists the flags\n", p.Name, err, p.Name)
		return ExitConfig
	}
	f.Topology = cmp.Or(f.Topology, a.Topology)
	if f.Example {
		fmt.Fprint(stdout, p.Example("NAME"))
		return ExitDone
	}
	top, entry, cfg, err := p.configure(f)
	if f.Check {
		return p.answerCheck(f, entry, cfg, err, stdout, stderr)
	}
	if err == nil {
		ctx, stop := stopSignals()
		defer stop()
		if v := p.verb(call.Command()); v != nil {
			err = p.answer(ctx, v, a.Word, f, top, entry, cfg, stdout, stderr)
		} else {
			err = p.work(ctx, top, entry, cfg, stderr)
		}
	}
	code := ExitCode(err)
	if code != ExitDone && !said(err) {
		fmt.Fprintf(stderr, "%s: %s\n", p.Name, reason(err))
	}
	return code
}

func (p Program[C]) role() topology.Role {
	if len(p.Reads) == 0 {
		return topology.Sensor
	}
	return topology.Worker
}

// Example is the program's table with all its keys.
func (p Program[C]) Example(name string) string {
	cfg, role := p.Config(), p.role()
	if p.Job {
		role = topology.Job
	}
	return topology.Example(role, name, p.Name, &cfg)
}

// configure finds the entry that this process is, and decodes its settings.
// The error is all that is wrong, with the topology and with the entry's own
// keys.
func (p Program[C]) configure(f flags) (*topology.Topology, *topology.Entry, C, error) {
	cfg := p.Config()
	top, entry, err := p.entry(f)
	if entry == nil {
		return nil, nil, cfg, err
	}
	own := p.fits(top, entry)
	if own == nil {
		own = beside(f.Topology)
	}
	if own == nil {
		own = entry.BindOwn(&cfg)
	}
	if c, ok := any(&cfg).(interface {
		ValidateIn(*topology.Topology, *topology.Entry) error
	}); ok && own == nil {
		if ps := entry.Table.Problems(c.ValidateIn(top, entry)); len(ps) > 0 {
			own = ps
		}
	}
	if err == nil || own == nil {
		return top, entry, cfg, errors.Join(err, own)
	}
	all := append(topology.ProblemsOf(err), topology.ProblemsOf(own)...)
	all.Sort()
	return top, entry, cfg, all
}

// beside makes paths in a topology relative to its folder, for programs as for
// [node], whoever starts them and from where.
func beside(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Chdir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("enter the topology's folder: %w", err)
	}
	return nil
}

func (p Program[C]) entry(f flags) (*topology.Topology, *topology.Entry, error) {
	if f.Topology == "" {
		name := f.Name
		if name == "" {
			name = p.Name
		}
		top, err := topology.ByHand(p.role(), name, p.Name, f.Source, p.withStream(f.Set))
		if err != nil {
			return nil, nil, err
		}
		return top, top.Entry(name), nil
	}
	if len(f.Source) > 0 {
		return nil, nil, BadConfig(errors.New("--source goes without --topology: there, the entry's source key says it (or --set source=NAME)"))
	}
	plain, loadErr := topology.Load(f.Topology, topology.Settings{})
	if plain == nil {
		return nil, nil, loadErr
	}
	entry, err := plain.Find(f.Name, p.Name)
	if err != nil {
		return nil, nil, cmp.Or(loadErr, BadConfig(err))
	}
	if len(f.Set) == 0 || loadErr != nil {
		return plain, entry, loadErr
	}
	top, err := topology.Load(f.Topology, topology.Settings{Under: entry.Table.Path(), Values: f.Set})
	if err != nil {
		return nil, nil, err
	}
	return top, top.Entry(entry.Name), nil
}

// withStream gives a sensor that is run by hand its usual stream.
func (p Program[C]) withStream(sets []string) []string {
	if p.Stream == "" || slices.ContainsFunc(sets, func(s string) bool { return strings.HasPrefix(s, "stream.") }) {
		return sets
	}
	return append([]string{"stream." + p.Stream + " = {}"}, sets...)
}

// fits refuses a sensor among the workers, and the other way round.
func (p Program[C]) fits(top *topology.Topology, e *topology.Entry) error {
	if (e.Role == topology.Sensor) == (p.role() == topology.Sensor) {
		return nil
	}
	if p.role() == topology.Sensor {
		return topology.Problems{e.Table.Problem("program", "%s is a sensor: its table is [sensor.%s], without a source", p.Name, e.Name)}
	}
	return topology.Problems{e.Table.Problem("program", "%s reads %v: its table is [worker.%s], with a source", p.Name, p.Reads, e.Name)}
}

func (p Program[C]) answerCheck(f flags, entry *topology.Entry, cfg C, err error, stdout, stderr io.Writer) int {
	var warnings topology.Problems
	if c, ok := any(&cfg).(interface {
		Check(context.Context) (warning, err error)
	}); ok && err == nil && "PERCH_CHECK="+os.Getenv("PERCH_CHECK") != QuickCheck {
		warning, failed := c.Check(context.Background())
		warnings = entry.Table.Problems(warning)
		if ps := entry.Table.Problems(failed); len(ps) > 0 {
			err = ps
		}
	}
	if f.Output == "json" {
		return p.reportJSON(entry, cfg, warnings, err, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return ExitCode(err)
	}
	for _, w := range warnings {
		fmt.Fprintf(stderr, "%s: warning: %v\n", p.Name, w)
	}
	fmt.Fprintf(stdout, "%s: [%s] is fine\n", p.Name, entry.Table.Path())
	return ExitDone
}

func (p Program[C]) reportJSON(entry *topology.Entry, cfg C, warnings topology.Problems, err error, stdout, stderr io.Writer) int {
	r := Report{Program: p.Name, Version: version.String(), Sensor: len(p.Reads) == 0, Reads: p.Reads, Publishes: p.Publishes,
		Problems: topology.ProblemsOf(err), Warnings: warnings}
	if entry != nil {
		r.Name = entry.Name
	}
	if err == nil {
		if c, ok := any(&cfg).(interface{ Reads() []msg.Kind }); ok {
			r.Reads = c.Reads()
		}
		if c, ok := any(&cfg).(interface{ Rings() []Ring }); ok {
			r.Rings = c.Rings()
		}
		if c, ok := any(&cfg).(interface{ Pins() int }); ok {
			r.Pins = c.Pins()
		}
		if c, ok := any(&cfg).(interface{ Cached() Cached }); ok {
			r.Cached = c.Cached()
		}
		if c, ok := any(&cfg).(interface{ Wants() []msg.Kind }); ok {
			r.Wants = c.Wants()
		}
		if c, ok := any(&cfg).(interface{ Knows() []string }); ok {
			r.Knows = c.Knows()
		}
		if c, ok := any(&cfg).(interface{ Seeks() []string }); ok {
			r.Seeks = c.Seeks()
		}
	}
	if jsonErr := json.NewEncoder(stdout).Encode(r); jsonErr != nil {
		fmt.Fprintf(stderr, "%s: print report: %v\n", p.Name, jsonErr)
		return ExitFailed
	}
	return ExitCode(err)
}
