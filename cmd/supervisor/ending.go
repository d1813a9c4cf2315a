package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/shm"
	"github.com/perch-edge/perch/pkg/topology"
)

// Ending is the outcome of stopping a fleet.
type Ending struct {
	ShmDir string   `json:"shm"`
	Failed []Failed `json:"failed,omitempty"`
	Kept   []Kept   `json:"kept,omitempty"`
}

// Failed is a worker that failed while stopping, or was not running at the stop.
type Failed struct {
	Name string `json:"name"`
	How  string `json:"how"`
}

// Kept is a history that stays in shared memory because some of its readers have not
// read and saved all of it.
type Kept struct {
	Topic    msg.Topic `json:"topic"`
	Ring     shm.Name  `json:"ring"`
	For      []string  `json:"for"` // readers
	Messages uint64    `json:"messages"`
	Sent     uint64    `json:"sent"` // by the last run of the publisher; more than messages where older ones were overwritten
	Bytes    uint64    `json:"bytes"`
}

// stopped is the state of a child at the end of its fleet.
type stopped struct {
	exit   *Exit // of the process that was running at the stop; nil if none was
	before *Exit // of the run before that; nil if there was none
	inTurn bool  // it ended after its sources, so it has read all of them
	ready  bool  // it had become ready
	idle   Phase // if no process was running
}

// saved reports whether the child has read and saved everything from its sources.
func (s stopped) saved() bool {
	if s.exit == nil {
		return s.idle == Done
	}
	return s.ready && s.inTurn && s.exit.clean()
}

// failure says what went wrong; "" is nothing. A worker that somebody stopped or that had
// not been started yet has not failed, nor has one that does not handle SIGTERM and is
// ended by it.
func (s stopped) failure(last *Exit) string {
	switch {
	case s.exit != nil && s.exit.Signal == "SIGTERM" && s.exit.Why == "":
		if !s.ready && s.before != nil && !s.before.clean() { // its next try had just begun
			return fmt.Sprintf("did not run (%s): %s", Starting, s.before)
		}
		return ""
	case s.exit != nil && !s.exit.clean():
		return s.exit.String()
	case s.exit == nil && (s.idle == Backoff || s.idle == Held) && last != nil:
		return fmt.Sprintf("did not run (%s): %s", s.idle, last)
	}
	return ""
}

// clean says whether the process ended by itself with exit code 0.
func (e *Exit) clean() bool { return e.Code == 0 && e.Signal == "" && e.Why == "" }

// conclude determines which workers failed and which histories to keep. An exit code
// other than 0 means that a worker could not save what it had read, so the histories of
// its sources are kept for its next run. A worker that was not running has not read them.
func (f *fleet) conclude() {
	unread := map[string][]string{}
	var failed []Failed
	for _, c := range f.children {
		s := c.atEnd
		if how := s.failure(c.look().lastExit); how != "" && (s.exit != nil || len(c.sources) > 0) {
			failed = append(failed, Failed{c.entry.Name, how})
		}
		if s.saved() {
			continue
		}
		for _, source := range c.sources {
			unread[source.entry.Name] = append(unread[source.entry.Name], c.entry.Name)
		}
	}
	f.unread = unread
	f.ending = &Ending{ShmDir: f.plan.top.Node.ShmDir, Failed: failed}
	if !f.discard.Load() {
		f.ending.Kept = keptFor(f.plan.top.Node.ShmDir, unread)
	}
	for _, one := range failed {
		f.log.Error("did not end well", "name", one.Name, "exit", one.How)
	}
	for _, k := range f.ending.Kept {
		f.log.Warn("history kept", "topic", string(k.Topic), "for", k.For, "messages", k.Messages, "bytes", k.Bytes)
	}
}

// readersOf lists, by publisher, the workers that read it.
func readersOf(top *topology.Topology) map[string][]string {
	readers := map[string][]string{}
	for _, e := range top.Entries {
		if names := top.Readers(e.Name); len(names) > 0 {
			readers[e.Name] = names
		}
	}
	return readers
}

// keptFor lists the histories of these publishers that hold anything, with the workers
// that have yet to read them.
func keptFor(shmDir string, unread map[string][]string) (kept []Kept) {
	if len(unread) == 0 {
		return nil
	}
	streams, err := msg.Streams(shmDir)
	if err != nil && len(streams) == 0 {
		return nil
	}
	for _, s := range streams {
		_, source, _, err := s.Topic.Split()
		if err != nil || s.Geometry != nil || s.Ring.Published == 0 || len(unread[string(source)]) == 0 {
			continue
		}
		kept = append(kept, Kept{Topic: s.Topic, Ring: s.Ring.Name, For: unread[string(source)],
			Messages: min(s.Ring.Published, uint64(s.Ring.Slots)), Sent: s.Ring.Published, Bytes: bytesOf(shmDir, s.Ring.Name)})
	}
	return kept
}

// bytesOf is what a ring's files take, those of its earlier epochs too.
func bytesOf(shmDir string, ring shm.Name) (bytes uint64) {
	files, _ := filepath.Glob(filepath.Join(shmDir, string(ring)+".*")) // fails on a bad pattern only: a ring's name is none
	for _, file := range files {
		if st, err := os.Lstat(file); err == nil {
			bytes += uint64(st.Size())
		}
	}
	return bytes
}

// keeper is a filter for sweep.
func keeper(kept []Kept) func(shm.Name) bool {
	return func(ring shm.Name) bool {
		return slices.ContainsFunc(kept, func(k Kept) bool { return k.Ring == ring })
	}
}

// recordKept notes in the run folder what is kept, for the next sweep.
func recordKept(root *os.Root, bootID, shmDir string, unread map[string][]string, kept []Kept) error {
	if len(kept) == 0 {
		return nil
	}
	r := newRecord(root, bootID, shmDir, nil, nil)
	for _, k := range kept {
		if _, source, _, err := k.Topic.Split(); err == nil {
			r.Unread[string(source)] = unread[string(source)]
		}
	}
	return r.write()
}

// err is nil when no worker failed.
func (e *Ending) err() error {
	if len(e.Failed) == 0 {
		return nil
	}
	var all []string
	for _, f := range e.Failed {
		all = append(all, f.Name+" "+f.How)
	}
	text := "not all ended well: " + strings.Join(all, "; ")
	if len(e.Kept) > 0 {
		text += "; " + keptText(e.ShmDir, e.Kept)
	}
	return errors.New(text)
}

// print reports the outcome, and fails if a worker failed.
func (e *Ending) print(out, errs io.Writer) error {
	for _, f := range e.Failed {
		fmt.Fprintf(errs, "supervisor: %s %s\n", f.Name, f.How)
	}
	text := "stopped"
	if len(e.Kept) > 0 {
		text += "; " + keptText(e.ShmDir, e.Kept)
	}
	if _, err := fmt.Fprintln(out, text); err != nil {
		return err
	}
	if len(e.Failed) > 0 {
		return notWell()
	}
	return nil
}

// keptText says in one line what is kept, for whom, and what it takes.
func keptText(shmDir string, kept []Kept) string {
	var bytes uint64
	readers := map[string]bool{}
	var parts []string
	for _, k := range kept {
		bytes += k.Bytes
		for _, name := range k.For {
			readers[name] = true
		}
		amount := fmt.Sprint(k.Messages)
		if k.Sent > k.Messages {
			amount = fmt.Sprintf("%d of %d", k.Messages, k.Sent)
		}
		parts = append(parts, fmt.Sprintf("the last %s messages of %s", amount, k.Topic))
	}
	return fmt.Sprintf("%s are kept in %s for %s (%s of RAM): the next supervisor up reads them, supervisor down --discard removes them",
		strings.Join(parts, ", "), shmDir, strings.Join(slices.Sorted(maps.Keys(readers)), ", "), size(bytes))
}
