package main

import (
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// sources knows whose files are moved, and who looks at which camera.
type sources struct {
	w       *worker.Worker
	names   []msg.Source
	writers map[msg.Source]bool // of files, as far as is known
	asked   time.Time           // when the rings were last looked at
}

// askEvery is how often the rings are looked at for sources that have not spoken.
const askEvery = time.Second

func newSources(w *worker.Worker) *sources {
	s := &sources{w: w, writers: map[msg.Source]bool{}}
	for _, ref := range w.Entry().Sources {
		name := msg.Source(ref.Name)
		if ref.Endpoint != "" {
			_, source, _, err := msg.ParseEndpoint(ref.Endpoint)
			if err != nil {
				continue // Messages says so
			}
			name = source
		}
		s.names = append(s.names, name)
	}
	return s
}

// write says whether a worker is one whose files are moved, and remembers that
// it writes some.
func (s *sources) write(worker string) bool {
	if !slices.Contains(s.names, msg.Source(worker)) {
		return false
	}
	s.writers[msg.Source(worker)] = true
	return true
}

// announces says whether a publisher may speak of any worker's files: a job that
// finds what nobody heard of.
func (s *sources) announces(publisher msg.Source) bool {
	return slices.Contains(s.w.Topology().HeardJobs(s.w.Name()), string(publisher))
}

// detectors lists those whose word on a camera is to be waited for: all that
// have spoken of it, and the sources that read it and write no files. One that
// never started is thus waited for too.
func (s *sources) detectors(camera msg.Source, known sights) []msg.Source {
	list := known.of(camera)
	for _, name := range s.names {
		e := s.w.Topology().Entry(string(name))
		if e == nil || slices.Contains(list, name) || s.writers[name] {
			continue
		}
		for _, ref := range e.Sources {
			if ref.Name == string(camera) && !s.writesFiles(name) {
				list = append(list, name)
				break
			}
		}
	}
	return list
}

// writesFiles asks the rings whether a source publishes file events.
func (s *sources) writesFiles(name msg.Source) bool {
	if time.Since(s.asked) >= askEvery {
		s.asked = time.Now()
		list, err := msg.Streams(s.w.Node().ShmDir)
		if err != nil {
			s.w.Log.Debug("look at rings", "err", err) // who is not known is waited for
		}
		for _, one := range list {
			if kind, source, _, err := one.Topic.Split(); err == nil && kind == msg.KindFile {
				s.writers[source] = true
			}
		}
	}
	return s.writers[name]
}

func factsOf(side *sidecar.Sidecar, now msg.Stamp, bootID string) rule.File {
	return rule.Of(side, side.State(), now, bootID)
}
