package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// where says what to look at. All verbs have it.
type where struct {
	Topology string   `short:"t" placeholder:"FILE" help:"The fleet's topology."`
	Topic    pattern  `placeholder:"PATTERN" help:"Only topics KIND/SOURCE/STREAM that begin so, or match a glob such as 'frame/*/video'."`
	Output   string   `short:"o" enum:"text,json" default:"text" help:"text, or json: one object a line. (echo always prints JSON.)"`
	What     []string `arg:"" optional:"" help:"A topology (FILE.toml), names in it (air, porch.video), endpoints (ipc:///run/perch/air.ipc). Nothing is everything."`
}

// pattern selects topics by their beginning, or as a glob (path.Match).
type pattern string

// UnmarshalText refuses a glob that can match nothing.
func (p *pattern) UnmarshalText(text []byte) error {
	if _, err := path.Match(string(text), ""); err != nil {
		return fmt.Errorf("topic pattern %q: %w", text, err)
	}
	*p = pattern(text)
	return nil
}

const globSigns = `*?[\`

func (p pattern) match(t msg.Topic) bool {
	if !strings.ContainsAny(string(p), globSigns) {
		return strings.HasPrefix(string(t), string(p))
	}
	ok, _ := path.Match(string(p), string(t)) // checked when it was read
	return ok
}

// literal is what each matching topic begins with.
func (p pattern) literal() string {
	if i := strings.IndexAny(string(p), globSigns); i >= 0 {
		return string(p[:i])
	}
	return string(p)
}

// target is what one argument names: a run folder, a source in it, one stream
// of a source, or one endpoint.
type target struct {
	label    string // as the person wrote it
	runDir   string
	source   msg.Source // empty is all
	stream   msg.Stream // empty is all
	endpoint string     // this one only
}

// at says whether the target's messages may come from that endpoint.
func (t target) at(e msg.EndpointInfo) bool {
	if t.endpoint != "" {
		return e.Endpoint == t.endpoint
	}
	return (t.source == "" || t.source == e.Source) && (t.stream == "" || e.Frames == "" || t.stream == e.Frames)
}

func (t target) has(kind msg.Kind, source msg.Source, stream msg.Stream) bool {
	if t.endpoint != "" && (kind == msg.KindFrame) != (t.stream != "") {
		return false // frames have endpoints of their own
	}
	return (t.source == "" || t.source == source) && (t.stream == "" || t.stream == stream)
}

// selection is all that a command line asks for.
type selection struct {
	targets []target
	shmDir  string // where rings show themselves; empty where only endpoints are known
	topic   pattern
}

func (s selection) wants(kind msg.Kind, source msg.Source, stream msg.Stream) bool {
	return s.topic.match(msg.TopicOf(kind, source, stream)) &&
		slices.ContainsFunc(s.targets, func(t target) bool { return t.has(kind, source, stream) })
}

// runDirs lists the folders to look into, each once.
func (s selection) runDirs() (dirs []string) {
	for _, t := range s.targets {
		if !slices.Contains(dirs, t.runDir) {
			dirs = append(dirs, t.runDir)
		}
	}
	return dirs
}

// at says whether an endpoint may carry what is wanted.
func (s selection) at(e msg.EndpointInfo) bool {
	if !slices.ContainsFunc(s.targets, func(t target) bool { return t.at(e) }) {
		return false
	}
	for _, k := range msg.Kinds() {
		if (k == msg.KindFrame) != (e.Frames != "") {
			continue
		}
		if _, ok := overlap(string(msg.TopicOf(k, e.Source, e.Frames)), s.topic.literal()); ok {
			return true
		}
	}
	return false
}

// prefixes are what publishers need to send, so that the rest costs nothing.
func (s selection) prefixes() (list []string) {
	for _, t := range s.targets {
		if t.source == "" {
			return []string{s.topic.literal()}
		}
		for _, k := range msg.Kinds() {
			if p, ok := overlap(string(msg.TopicOf(k, t.source, t.stream)), s.topic.literal()); ok && !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
	}
	return list
}

// overlap is the longer of two beginnings where one begins with the other.
func overlap(a, b string) (string, bool) {
	if len(a) < len(b) {
		a, b = b, a
	}
	return a, strings.HasPrefix(a, b)
}

// selection sorts the arguments out.
func (w where) selection() (selection, error) {
	top, names, err := loadAmong(w.Topology, w.What)
	if err != nil {
		return selection{}, err
	}
	s := selection{topic: w.Topic}
	for _, name := range names {
		t, err := parseTarget(name, top)
		if err != nil {
			return selection{}, worker.BadConfig(err)
		}
		s.targets = append(s.targets, t)
	}
	if len(names) == 0 {
		s.targets = []target{{label: top.Node.RunDir, runDir: top.Node.RunDir}}
	}
	if top.Path != "" || slices.Contains(s.runDirs(), top.Node.RunDir) {
		s.shmDir = top.Node.ShmDir
	}
	return s, nil
}

// loadAmong loads the topology that is among the arguments, or the one of the
// flag, and returns the other arguments. Without one it is the default node's.
func loadAmong(file string, args []string) (*topology.Topology, []string, error) {
	var others []string
	for _, arg := range args {
		switch {
		case !strings.HasSuffix(arg, ".toml"):
			others = append(others, arg)
		case file != "" && file != arg:
			return nil, nil, worker.BadConfig(fmt.Errorf("two topologies, %s and %s: want one", file, arg))
		default:
			file = arg
		}
	}
	if file == "" {
		return &topology.Topology{Node: topology.DefaultNode()}, others, nil
	}
	top, err := topology.Load(file, topology.Settings{})
	return top, others, err
}

func parseTarget(arg string, top *topology.Topology) (target, error) {
	ref, err := topology.ParseRef(arg)
	if err != nil {
		return target{}, fmt.Errorf("%w; or a topology FILE.toml", err)
	}
	t := target{label: arg, runDir: top.Node.RunDir, source: msg.Source(ref.Name), stream: msg.Stream(ref.Stream), endpoint: ref.Endpoint}
	if ref.Endpoint != "" {
		t.runDir, t.source, t.stream, err = msg.ParseEndpoint(ref.Endpoint)
		return t, err
	}
	if _, err := msg.Endpoint(t.runDir, t.source, t.stream); err != nil {
		return target{}, err
	}
	return t, known(top, ref)
}

// known refuses names that the topology does not have. A sensor without stream
// tables has its program's own.
func known(top *topology.Topology, ref topology.Ref) error {
	if top.Path == "" {
		return nil
	}
	e := top.Entry(ref.Name)
	if e == nil {
		return fmt.Errorf("%s has no entry %q%s", top.Path, ref.Name, nearest.Hint(ref.Name, top.Names()))
	}
	streams := append([]string{"state"}, e.Streams...)
	if len(e.Streams) > 0 && ref.Stream != "" && !slices.Contains(streams, ref.Stream) {
		return fmt.Errorf("%q has no stream %q%s", ref.Name, ref.Stream, nearest.Hint(ref.Stream, streams))
	}
	return nil
}
