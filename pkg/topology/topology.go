package topology

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/names"
	"github.com/perch-edge/perch/internal/nearest"
)

// Role is what an entry is: the first word of its table's name.
type Role string

// The roles.
const (
	Sensor Role = "sensor" // makes data: the only entries without a source
	Worker Role = "worker" // reads one or more sources
	Job    Role = "job"    // a worker that runs now and then
)

// Topology is a fleet: the box, and what runs on it.
type Topology struct {
	Path    string
	Node    Node
	Entries []*Entry // by name

	node *Table // nil when there is none
}

// Entry is one sensor, worker or job.
type Entry struct {
	Name     string
	Role     Role
	Program  string // a program beside the supervisor, or an absolute path
	Sources  []Ref
	Streams  []string // of a sensor, by name
	LogLevel LogLevel
	Every    Duration // of a job, from start to start; 0 where Cron says when
	Cron     Cron     // of a job, where Every does not say when
	Timeout  Duration // of a job: how long a run may take
	Device   Device   // of a sensor
	Table    *Table   // everything, for the program to decode
}

// Device says what a sensor is, for the records.
type Device struct {
	Interface    string `toml:"interface" json:"interface,omitempty" doc:"i2c, spi, audio or video"`
	Manufacturer string `toml:"manufacturer" json:"manufacturer,omitempty" doc:"who made the device"`
	Model        string `toml:"device" json:"model,omitempty" doc:"what the device is called"`
	Serial       string `toml:"serial" json:"serial,omitempty" doc:"the device's serial number"`
}

// sensorKeys, workerKeys and jobKeys are the keys of every entry of a role,
// whatever its program.
type sensorKeys struct {
	Program string `toml:"program" doc:"program beside the supervisor, or an absolute path"`
	Device
	LogLevel LogLevel `toml:"log_level" doc:"debug, info, warn or error; default: the node's"`
}

type workerKeys struct {
	Program  string   `toml:"program" doc:"program beside the supervisor, or an absolute path"`
	Source   Refs     `toml:"source" doc:"what it reads: a name, NAME.STREAM, an ipc:// endpoint, or a list of them"`
	LogLevel LogLevel `toml:"log_level" doc:"debug, info, warn or error; default: the node's"`
}

type jobKeys struct {
	workerKeys
	Every   Duration `toml:"every" doc:"how often it runs, from start to start; the first time 10s after the fleet has started, or sooner"`
	Cron    Cron     `toml:"cron" doc:"in place of every: when it runs, in local time, as \"17 3 * * *\" or @daily; it waits until the clock was synchronised"`
	Timeout Duration `toml:"timeout" doc:"how long a run may take; after it, it is ended and has failed"`
}

func defaultJob() jobKeys { return jobKeys{Timeout: Duration(time.Hour)} }

// commonKeys lists the keys that an entry's program does not have to know.
func (r Role) commonKeys() []string {
	switch r {
	case Sensor:
		return []string{"program", "interface", "manufacturer", "device", "serial", "log_level"}
	case Job:
		return []string{"program", "source", "log_level", "every", "cron", "timeout"}
	default:
		return []string{"program", "source", "log_level"}
	}
}

// Ref names a source: an entry, one of its streams, or an endpoint by address.
type Ref struct {
	Name     string
	Stream   string
	Endpoint string
}

// ParseRef reads NAME, NAME.STREAM or ipc://PATH.
func ParseRef(text string) (Ref, error) {
	if strings.Contains(text, "://") {
		return Ref{Endpoint: text}, nil
	}
	name, stream, has := strings.Cut(text, ".")
	if err := names.Worker(name); err != nil {
		return Ref{}, fmt.Errorf("source %q: %w", text, err)
	}
	if has {
		if err := names.Stream(stream); err != nil {
			return Ref{}, fmt.Errorf("source %q: stream %w", text, err)
		}
	}
	return Ref{Name: name, Stream: stream}, nil
}

func (r Ref) String() string {
	switch {
	case r.Endpoint != "":
		return r.Endpoint
	case r.Stream != "":
		return r.Name + "." + r.Stream
	default:
		return r.Name
	}
}

// Refs is one source, or a list of them.
type Refs []Ref

// UnmarshalTOML reads a string or a list of strings.
func (rs *Refs) UnmarshalTOML(v any) error {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	*rs = nil
	for _, item := range list {
		text, ok := item.(string)
		if !ok {
			return fmt.Errorf("want a source's name in quotes, or a list of names")
		}
		ref, err := ParseRef(text)
		if err != nil {
			return err
		}
		*rs = append(*rs, ref)
	}
	return nil
}

// Load reads a topology and checks all that can be checked without its
// programs: syntax, keys, names, sources, cycles. The error is Problems, all
// of them.
func Load(path string, settings Settings) (*Topology, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, Problems{{File: path, Message: "read topology: " + err.Error()}}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, Problems{{File: path, Message: err.Error()}}
	}
	root, err := parse(path, string(text))
	if err != nil {
		return nil, err
	}
	return build(path, filepath.Dir(abs), root, settings)
}

// ByHand is a fleet of one, for a worker that is run without a topology.
func ByHand(role Role, name, program string, sources []string, values []string) (*Topology, error) {
	root, err := parse("command line", fmt.Sprintf("[%s.%s]\nprogram = %q\n", role, name, program))
	if err != nil {
		return nil, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return nil, Problems{{Message: err.Error()}}
	}
	if len(sources) > 0 {
		values = append([]string{fmt.Sprintf("source=[%s]", quoteAll(sources))}, values...)
	}
	return build("", wd, root, Settings{Under: string(role) + "." + name, Values: values})
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(quoted, ", ")
}

func build(path, base string, root *Table, settings Settings) (*Topology, error) {
	t := &Topology{Path: path, Node: DefaultNode()}
	ps := root.set(settings)
	for _, key := range root.Keys() {
		switch key {
		case "node":
			if t.node, _ = root.sub(key); t.node != nil {
				keys := nodeKeys{Node: t.Node}
				ps = append(ps, t.node.Bind(&keys)...)
				t.Node = keys.Node
				t.Node.Location = keys.location()
			}
		case string(Sensor), string(Worker), string(Job):
		default:
			ps = append(ps, root.Problem(key, "unknown table%s", nearest.Hint(key, []string{"node", "sensor", "worker", "job"})))
		}
	}
	t.Node.resolve(base)
	if n := &t.Node; n.strayed() {
		ps = append(ps, t.NodeProblem("store_mount", "store_dir %s is not below it: want one such as %s", n.StoreDir, filepath.Join(n.StoreMount, "perch")))
	}
	for _, role := range []Role{Sensor, Worker, Job} {
		ps = append(ps, t.addAll(root, role)...)
	}
	if path != "" { // by hand, sources are elsewhere
		ps = append(ps, t.checkGraph()...)
		if len(t.Entries) == 0 && len(ps) == 0 {
			ps = append(ps, Problem{File: path, Message: "nothing to run: no [sensor.NAME], no [worker.NAME]"})
		}
	}
	return t, ps.orNil()
}

func (t *Topology) addAll(root *Table, role Role) (ps Problems) {
	group, ok := root.sub(string(role))
	if !ok {
		return nil
	}
	for _, name := range group.Keys() {
		table, ok := group.sub(name)
		if !ok {
			ps = append(ps, group.Problem(name, "want a table [%s.%s]", role, name))
			continue
		}
		e := &Entry{Name: name, Role: role, Table: table, LogLevel: t.Node.LogLevel}
		ps = append(ps, e.readCommon()...)
		if err := names.Worker(name); err != nil {
			ps = append(ps, table.Problem("", "%v", err))
		}
		if twin := t.Entry(name); twin != nil {
			ps = append(ps, table.Problem("", "the name %q is taken by [%s] on line %d; names are one namespace", name, twin.Table.Path(), twin.Table.at.line))
			continue
		}
		t.Entries = append(t.Entries, e)
	}
	return ps
}

// readCommon decodes the keys that every entry of a role has.
func (e *Entry) readCommon() (ps Problems) {
	own := func(keys any) Problems {
		return e.Table.only(e.Role.commonKeys()).Bind(keys)
	}
	switch e.Role {
	case Sensor:
		k := sensorKeys{LogLevel: e.LogLevel}
		ps = own(&k)
		e.Program, e.Device, e.LogLevel = k.Program, k.Device, k.LogLevel
		if _, has := e.Table.keys["source"]; has {
			ps = append(ps, e.Table.Problem("source", "a sensor has no source; what reads one is a [worker.%s]", e.Name))
		}
		if streams, ok := e.Table.sub("stream"); ok {
			e.Streams = streams.Keys()
		}
		for _, s := range e.Streams {
			if err := names.Stream(s); err != nil {
				ps = append(ps, e.Table.Problem("stream", "stream %v", err))
			}
		}
	default:
		k := defaultJob()
		k.LogLevel = e.LogLevel
		ps = own(&k)
		e.Program, e.Sources, e.LogLevel = k.Program, k.Source, k.LogLevel
		if e.Role == Job {
			e.Every, e.Cron, e.Timeout = k.Every, k.Cron, k.Timeout
			ps = append(ps, e.checkTimes(ps)...)
		}
		if _, has := e.Table.keys["source"]; !has {
			ps = append(ps, e.Table.Problem("", "no source: every worker has one, as source = \"air\", or --source air on the command line"))
		} else if len(k.Source) == 0 && len(ps) == 0 {
			ps = append(ps, e.Table.Problem("source", "an empty list: every worker has a source"))
		}
	}
	if e.Program == "" && !e.Table.has("program") {
		ps = append(ps, e.Table.Problem("", "no program, as program = \"csvwriter\""))
	}
	return ps
}

// checkTimes proves that a job has one schedule, beside the problems that its
// keys have already.
func (e *Entry) checkTimes(found Problems) (ps Problems) {
	every, cron := e.Table.has("every"), e.Table.has("cron")
	switch {
	case every && cron:
		ps = append(ps, e.Table.Problem("cron", "every stands beside it, and a job has one of the two"))
	case !every && !cron:
		ps = append(ps, e.Table.Problem("", "no time to run: want every = \"10m\", or cron = \"17 3 * * *\" on a box whose clock is right"))
	}
	for key, d := range map[string]Duration{"every": e.Every, "timeout": e.Timeout} {
		if e.Table.has(key) && d.D() < time.Second && !found.about(e.Table.Path()+"."+key) {
			ps = append(ps, e.Table.Problem(key, "want 1s at least"))
		}
	}
	return ps
}

// Schedule says when a job runs, for people.
func (e *Entry) Schedule() string {
	switch {
	case e.Every > 0:
		return "every " + e.Every.String()
	case e.Cron.String() != "":
		return "cron " + e.Cron.String()
	default: // of a topology with problems
		return "at no time"
	}
}

// BindOwn decodes an entry's table into its program's own config.
func (e *Entry) BindOwn(cfg any) error { return e.Table.Bind(cfg, e.Role.commonKeys()...).orNil() }

// Entry finds an entry by name; nil when there is none.
func (t *Topology) Entry(name string) *Entry {
	i := slices.IndexFunc(t.Entries, func(e *Entry) bool { return e.Name == name })
	if i < 0 {
		return nil
	}
	return t.Entries[i]
}

// NodeProblem is a problem with one of the keys of [node], which need not be
// set.
func (t *Topology) NodeProblem(key, format string, args ...any) Problem {
	if t.node == nil {
		return Problem{File: t.Path, Key: "node." + key, Message: fmt.Sprintf(format, args...)}
	}
	return t.node.Problem(key, format, args...)
}

// Names lists the entries' names.
func (t *Topology) Names() []string {
	list := make([]string, len(t.Entries))
	for i, e := range t.Entries {
		list[i] = e.Name
	}
	return list
}

// Find is the entry that a process of a program is: by name, or the only one
// with that program when no name is given.
func (t *Topology) Find(name, program string) (*Entry, error) {
	var same []string
	for _, e := range t.Entries {
		if filepath.Base(e.Program) == program {
			same = append(same, e.Name)
		}
	}
	if name == "" {
		if len(same) != 1 {
			return nil, fmt.Errorf("%s has %d entries with program = %q %v: say which with --name", t.Path, len(same), program, same)
		}
		name = same[0]
	}
	e := t.Entry(name)
	if e == nil {
		return nil, fmt.Errorf("%s has no entry %q%s", t.Path, name, nearest.Hint(name, same))
	}
	if !slices.Contains(same, name) {
		return nil, fmt.Errorf("[%s] in %s has program = %q, this is %q", e.Table.Path(), t.Path, e.Program, program)
	}
	return e, nil
}
