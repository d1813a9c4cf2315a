package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

func run(ctx context.Context, w *worker.Worker, cfg Config) error {
	audience := w.Topology().Audience(w.Name())
	if len(audience) == 0 {
		return worker.BadConfig(fmt.Errorf("nobody hears %s: it has to be a [job.NAME] of a topology in which workers read files of its sources", w.Name()))
	}
	found, incomplete := find(w.Node())
	if len(found) == 0 {
		w.Status("nothing to announce")
		w.Log.Info("nothing to announce")
		return incomplete
	}
	files, err := w.PublishNames(max(leastSlots, min(len(found), ahead)))
	if err != nil {
		return err
	}
	states, err := w.States(audience...)
	if err != nil {
		return err
	}
	s := &sweep{w: w, files: files, states: states, wait: cfg.Wait.D(), audience: audience,
		awaited: slices.Clone(audience), accounts: map[msg.Source]msg.Account{}}
	w.Status("%d files to announce", len(found))
	w.Ready(ctx)
	s.absent = w.Await(ctx, audience, gather)
	s.awaited = slices.DeleteFunc(s.awaited, func(name string) bool { return slices.Contains(s.absent, name) })
	if err := s.announce(ctx, found); err != nil {
		return err
	}
	return errors.Join(s.verdict(count(found)), incomplete)
}

// gather is how long it waits for its audience, who look for it a few times a
// second.
const gather = 3 * time.Second

// file is one to be announced.
type file struct {
	id    sidecar.ID
	state spool.State
}

// find lists the files that were not sent. What it cannot list is the error.
func find(n topology.Node) ([]file, error) {
	born, notBorn := list(spool.Born, n.CacheDir, "")
	ready, notReady := list(spool.Ready, n.StoreDir, n.StoreMount)
	return append(born, ready...), errors.Join(notBorn, notReady)
}

func list(state spool.State, dir, mount string) (found []file, err error) {
	s, there, err := spool.Peek(dir, mount)
	if errors.Is(err, spool.ErrNotMounted) {
		return nil, worker.Temporary(err)
	}
	if !there { // nothing has been kept there yet
		return nil, err
	}
	entries, err := s.Entries(state)
	for _, e := range entries {
		found = append(found, file{e.ID, state})
	}
	return found, errors.Join(err, s.Close())
}

func count(found []file) string {
	born := 0
	for _, f := range found {
		if f.state == spool.Born {
			born++
		}
	}
	return fmt.Sprintf("%d files, %d in RAM and %d on disk", len(found), born, len(found)-born)
}

// sweep is one run.
type sweep struct {
	w        *worker.Worker
	files    *worker.Files
	states   *worker.Inbox
	wait     time.Duration
	audience []string
	absent   []string // of the audience: who was not there at the beginning
	awaited  []string // of the audience: who is there, and has not been given up
	accounts map[msg.Source]msg.Account
	sent     uint64
}

// announce says where the files are, and waits until that was heard.
func (s *sweep) announce(ctx context.Context, found []file) error {
	for _, f := range found {
		if s.sent%256 == 0 {
			s.w.Progress()
		}
		if s.sent >= ahead {
			if err := s.await(ctx, s.sent-ahead+1); err != nil {
				return err
			}
		}
		if err := s.files.Repeat(f.id, f.state); err != nil {
			return err
		}
		s.sent++
	}
	s.w.Counter("announced_files").Add(len(found))
	return s.await(ctx, s.sent)
}

// await waits until all who are awaited have accounted for so many messages.
// Who has not in time is awaited no more.
func (s *sweep) await(ctx context.Context, messages uint64) error {
	behind := func(name string) bool { return s.accounts[msg.Source(name)].Sent < messages }
	for until := time.Now().Add(s.wait); slices.ContainsFunc(s.awaited, behind); {
		m, ok, err := s.states.Next(ctx, until)
		if err != nil {
			return err
		}
		if !ok {
			s.awaited = slices.DeleteFunc(s.awaited, behind)
			return nil
		}
		s.hear(m)
	}
	return nil
}

// hear takes in what a worker says of itself. Its account of an earlier sweep
// says nothing.
func (s *sweep) hear(m msg.Message) {
	state, err := m.State()
	if err != nil {
		s.w.Counter("malformed_states").Add(1)
		return
	}
	for _, a := range state.Sources {
		if _, source, _, err := a.Topic.Split(); err == nil && string(source) == s.w.Name() && a.Epoch == s.w.Epoch() {
			s.accounts[m.Source] = a
		}
	}
}

// verdict sums up who heard it. It fails when somebody did not.
func (s *sweep) verdict(what string) error {
	var heard, not []string
	for _, name := range s.audience {
		a, came := s.accounts[msg.Source(name)]
		switch {
		case !came && slices.Contains(s.absent, name):
			not = append(not, name+" (not there)")
		case a.Sent < s.sent:
			not = append(not, fmt.Sprintf("%s (heard %d, as far as it says)", name, a.Received+a.Repaired))
		case a.Lost > 0:
			not = append(not, fmt.Sprintf("%s (lost %d)", name, a.Lost))
		default: // what it skipped was said before it came, and who comes looks around
			heard = append(heard, name)
		}
	}
	said := "announced " + what
	if len(heard) > 0 {
		said += "; heard by " + strings.Join(heard, ", ")
	}
	if len(not) > 0 {
		said += "; not heard by " + strings.Join(not, ", ")
		s.w.Status("%s", said)
		return worker.Temporary(errors.New(said))
	}
	s.w.Status("%s", said)
	s.w.Log.Info(said)
	return nil
}
