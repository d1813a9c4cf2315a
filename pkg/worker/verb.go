package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/perch-edge/perch/pkg/topology"
)

// Verb is something else that a program does when its name is given: an answer
// about an entry of a topology, whose worker may be running meanwhile. It is
// told the entry as the worker is, by the same flags, and is on no bus.
type Verb[C any] struct {
	Name    string
	Summary string // one line, for --help
	Arg     bool   // it takes a word before the topology: Asked.Arg
	Run     func(context.Context, Asked, C) error
}

// Asked is what a verb is asked about, and where it answers.
type Asked struct {
	Streams
	Topology *topology.Topology
	Entry    *topology.Entry
	Arg      string // the word that a verb with Arg was given
	JSON     bool   // the answer is for a program
}

// work is the name of what a program does when no verb is given.
const work = "work"

// about is what a verb is asked about, said without a flag.
type about struct {
	Topology string `arg:"" optional:"" help:"The fleet's topology, as --topology."`
}

// aboutWith is the same for a verb that takes a word first.
type aboutWith struct {
	Word string `arg:"" name:"other-worker" help:"The other worker's name."`
	*about
}

// grammar adds the verbs to the command line, where there are some.
func (p Program[C]) grammar(a *aboutWith) (options []kong.Option) {
	if len(p.Verbs) == 0 {
		return nil
	}
	options = append(options, kong.DynamicCommand(work, "Do the work: what it does when no verb is given.", "", &struct{}{}, `default:"1"`))
	for _, v := range p.Verbs {
		var args any = a.about
		if v.Arg {
			args = a
		}
		options = append(options, kong.DynamicCommand(v.Name, v.Summary, "", args))
	}
	return options
}

// verb is the one of that name; nil is the program's work.
func (p Program[C]) verb(command string) *Verb[C] {
	name, _, _ := strings.Cut(command, " ") // what follows is the argument's
	i := slices.IndexFunc(p.Verbs, func(v Verb[C]) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &p.Verbs[i]
}

// answer lets a verb answer, as long as somebody reads.
func (p Program[C]) answer(ctx context.Context, v *Verb[C], word string, f flags, top *topology.Topology, entry *topology.Entry, cfg C, stdout, stderr io.Writer) error {
	failPipes()
	err := v.Run(ctx, Asked{Streams: streams(stdout, stderr), Topology: top, Entry: entry, Arg: word, JSON: f.Output == "json"}, cfg)
	if errors.Is(err, errUnread) {
		return nil
	}
	if err != nil && !said(err) {
		err = fmt.Errorf("%s: %w", v.Name, err)
	}
	return err
}
