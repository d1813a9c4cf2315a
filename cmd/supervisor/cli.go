package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// commandLine is what a person can ask for.
type commandLine struct {
	Up      upCmd      `cmd:"" help:"Start the fleet and keep it running, until Ctrl-C or supervisor down."`
	Down    downCmd    `cmd:"" help:"Stop the fleet, and wait until nothing of it is left."`
	Status  statusCmd  `cmd:"" help:"Print the state of the box."`
	Wait    waitCmd    `cmd:"" help:"Wait until all workers are ready or done."`
	Start   startCmd   `cmd:"" help:"Start a worker that is stopped, done, held or waiting for its next try; run a job now."`
	Stop    stopCmd    `cmd:"" help:"Stop one worker or job, until it is started again."`
	Restart restartCmd `cmd:"" help:"Stop one worker or job and start it again."`
	Check   checkCmd   `cmd:"" help:"Check a topology, with all its programs and the memory it needs."`
	Graph   graphCmd   `cmd:"" help:"Print who reads whom."`
}

// notWell says that what was printed is not as it should be.
func notWell() error { return worker.Said(worker.ExitFailed) }

// notRunningError says that no supervisor answers.
type notRunningError struct {
	place place
	why   error
}

func (e *notRunningError) Error() string {
	file := e.place.Topology
	if file == "" {
		file = "FILE"
	}
	if left := supervisorsOf(e.place.RunDir); len(left) > 0 {
		return fmt.Sprintf("supervisor process %d runs the fleet of %s, but its socket was removed: try again in a second; it recreates the socket, or stops its fleet", left[0], e.place.RunDir)
	}
	return fmt.Sprintf("no supervisor runs in %s: start one with supervisor up %s", e.place.RunDir, file)
}

func (e *notRunningError) Unwrap() error { return e.why }

// place says which fleet is meant.
type place struct {
	Topology string `arg:"" optional:"" help:"The fleet's topology."`
	RunDir   string `placeholder:"DIR" help:"The fleet's run folder, in place of a topology. With neither, the default one."`

	node topology.Node // as far as it is known
}

// find settles the run folder. A topology with problems still says where its
// fleet runs.
func (p *place) find() error {
	p.node = topology.DefaultNode()
	if p.Topology != "" && p.RunDir != "" {
		return worker.BadConfig(errors.New("a topology and --run-dir: give one of them"))
	}
	if p.Topology != "" {
		top, err := topology.Load(p.Topology, topology.Settings{})
		if top == nil {
			return err
		}
		p.node, p.RunDir = top.Node, top.Node.RunDir
		return nil
	}
	if p.RunDir == "" {
		p.RunDir = p.node.RunDir
		return nil
	}
	p.node = topology.Node{} // its other folders are known to its supervisor only
	var err error
	p.RunDir, err = filepath.Abs(p.RunDir)
	return err
}

// named is one worker or job of a fleet.
type named struct {
	Words  []string `arg:"" name:"name" help:"The worker's or job's name; before it the fleet's topology, where --run-dir does not say which fleet."`
	RunDir string   `placeholder:"DIR" help:"The fleet's run folder, in place of a topology. With neither, the default one."`
}

func (n *named) order(ctx context.Context, verb string) error {
	if len(n.Words) > 2 {
		return worker.BadConfig(fmt.Errorf("%d words after %s: want a topology and a name, or a name", len(n.Words), verb))
	}
	at := place{RunDir: n.RunDir}
	if len(n.Words) == 2 {
		at.Topology = n.Words[0]
	}
	if err := at.find(); err != nil {
		return err
	}
	_, err := at.ask(ctx, request{Verb: verb, Name: n.Words[len(n.Words)-1]}, time.Minute)
	return err
}

type (
	startCmd   struct{ named }
	stopCmd    struct{ named }
	restartCmd struct{ named }
)

// Run starts the worker.
func (c *startCmd) Run(ctx context.Context) error { return c.order(ctx, "start") }

// Run stops the worker.
func (c *stopCmd) Run(ctx context.Context) error { return c.order(ctx, "stop") }

// Run restarts the worker.
func (c *restartCmd) Run(ctx context.Context) error { return c.order(ctx, "restart") }

type waitCmd struct {
	place
	Timeout time.Duration `default:"60s" help:"How long to wait."`
}

// Run waits until all is ready; otherwise it says what is not.
func (c *waitCmd) Run(ctx context.Context, to worker.Streams) error {
	if err := c.find(); err != nil {
		return err
	}
	reply, err := c.ask(ctx, request{Verb: "wait", TimeoutS: c.Timeout.Seconds()}, c.Timeout+5*time.Second)
	if err != nil {
		return err
	}
	if !reply.Box.Ready {
		fmt.Fprintln(to.Err, "supervisor:", reply.Box.summary())
		con := newConsole(to)
		con.troubles(con.err, reply.Box)
		return notWell()
	}
	return nil
}
