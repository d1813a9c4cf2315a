package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

type graphCmd struct {
	Topology string `arg:"" help:"The fleet's topology."`
	Output   string `short:"o" enum:"text,dot,json" default:"text" help:"text, dot (Graphviz) or json."`
}

// link is an edge of the graph.
type link struct {
	Source string     `json:"source"`
	Stream string     `json:"stream,omitempty"`
	Reader string     `json:"reader"`
	Job    bool       `json:"job,omitempty"`   // the reader runs now and then
	Kinds  []msg.Kind `json:"kinds,omitempty"` // where the programs say so
}

// Run prints who reads whom. A topology with problems has a graph too, as far
// as it can be read; its problems are told as well.
func (c *graphCmd) Run(ctx context.Context, to worker.Streams) error {
	p, problems := inspect(ctx, c.Topology, true)
	if p == nil {
		return problems
	}
	var err error
	switch c.Output {
	case "json":
		err = printJSON(to.Out, p.links())
	case "dot":
		_, err = io.WriteString(to.Out, p.dot())
	default:
		_, err = io.WriteString(to.Out, p.tree())
	}
	return errors.Join(err, problems)
}

// links lists the edges, as the data flows.
func (p *plan) links() []link {
	list := []link{}
	for _, source := range p.origins() {
		for _, reader := range p.top.Entries {
			for _, ref := range reader.Sources {
				if ref.Name == source || ref.Endpoint == source {
					list = append(list, link{source, ref.Stream, reader.Name, reader.Role == topology.Job, p.kindsBetween(source, reader.Name)})
				}
			}
		}
	}
	return list
}

// origins lists what can be read: endpoints elsewhere, and the entries, as the
// data flows.
func (p *plan) origins() (list []string) {
	for _, e := range p.top.Entries {
		for _, ref := range e.Sources {
			if ref.Endpoint != "" && !slices.Contains(list, ref.Endpoint) {
				list = append(list, ref.Endpoint)
			}
		}
	}
	for _, e := range slices.Backward(p.top.StartOrder()) {
		list = append(list, e.Name)
	}
	return list
}

func (p *plan) kindsBetween(source, reader string) (kinds []msg.Kind) {
	for _, k := range p.reports[source].Publishes {
		if slices.Contains(p.reports[reader].Reads, k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// tree is the graph for people: under each source its readers.
func (p *plan) tree() string {
	var out strings.Builder
	links := p.links()
	for _, source := range p.origins() {
		own := slices.DeleteFunc(slices.Clone(links), func(l link) bool { return l.Source != source })
		if e := p.top.Entry(source); len(own) == 0 && len(e.Sources) > 0 {
			continue // shown where it reads
		}
		out.WriteString(p.label(source) + "\n")
		for i, l := range own {
			branch, line := "├", "─"
			if i == len(own)-1 {
				branch = "└"
			}
			if l.Job {
				line = "╌"
			}
			branch += line
			if flows := l.flows(); flows != "" {
				branch += line + " " + flows + " "
			}
			fmt.Fprintf(&out, "  %s%s> %s\n", branch, line, p.label(l.Reader))
		}
	}
	return out.String()
}

// label is an entry with its program and, of a job, its schedule; or an endpoint.
func (p *plan) label(name string) string {
	e := p.top.Entry(name)
	switch {
	case e == nil:
		return name
	case e.Role == topology.Job:
		return fmt.Sprintf("%s (%s, job: %s)", name, e.Program, e.Schedule())
	default:
		return fmt.Sprintf("%s (%s)", name, e.Program)
	}
}

// flows names what goes over the link, as far as it is known.
func (l link) flows() string {
	text := l.Stream
	if len(l.Kinds) > 0 {
		text = words(l.Kinds) + " " + text
	}
	return strings.TrimSpace(text)
}

// dot is the graph for Graphviz (graphviz.org/doc/info/lang.html).
func (p *plan) dot() string {
	var out strings.Builder
	out.WriteString("digraph fleet {\n\trankdir=LR\n\tnode [shape=box]\n")
	for _, e := range p.top.Entries {
		fmt.Fprintf(&out, "\t%q [label=%q%s]\n", e.Name, p.label(e.Name), dashed(e.Role == topology.Job))
	}
	for _, l := range p.links() {
		fmt.Fprintf(&out, "\t%q -> %q [label=%q%s]\n", l.Source, l.Reader, l.flows(), dashed(l.Job))
	}
	out.WriteString("}\n")
	return out.String()
}

func dashed(job bool) string {
	if job {
		return " style=dashed"
	}
	return ""
}
