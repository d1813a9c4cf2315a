package topology

import (
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/nearest"
)

// checkGraph proves that each source exists and that nothing feeds itself.
func (t *Topology) checkGraph() (ps Problems) {
	for _, e := range t.Entries {
		for _, ref := range e.Sources {
			if ref.Endpoint != "" {
				continue
			}
			source := t.Entry(ref.Name)
			switch {
			case source == nil:
				ps = append(ps, e.Table.Problem("source", "there is no %q in this topology%s", ref.Name, nearest.Hint(ref.Name, t.others(e))))
			case source.Role == Job:
				ps = append(ps, e.Table.Problem("source", "%q is a job, and a job publishes nothing to be read", ref.Name))
			case source.Role == Sensor && ref.Stream != "" && !slices.Contains(source.Streams, ref.Stream):
				ps = append(ps, e.Table.Problem("source", "%q has no stream %q%s", ref.Name, ref.Stream, nearest.Hint(ref.Stream, source.Streams)))
			}
		}
	}
	for _, circle := range t.circles() {
		ps = append(ps, t.Entry(circle[0]).Table.Problem("source", "a circle: %s", strings.Join(append(circle, circle[0]), " reads ")))
	}
	return ps
}

func (t *Topology) others(e *Entry) (list []string) {
	for _, o := range t.Entries {
		if o != e && o.Role != Job {
			list = append(list, o.Name)
		}
	}
	return list
}

// circles lists the circles, each once, as the names along it.
func (t *Topology) circles() (found [][]string) {
	const white, grey, black = 0, 1, 2
	colour := map[string]int{}
	var path []string
	var visit func(name string)
	visit = func(name string) {
		colour[name] = grey
		path = append(path, name)
		for _, ref := range t.Entry(name).Sources {
			switch {
			case t.Entry(ref.Name) == nil:
			case colour[ref.Name] == grey:
				found = append(found, slices.Clone(path[slices.Index(path, ref.Name):]))
			case colour[ref.Name] == white:
				visit(ref.Name)
			}
		}
		path = path[:len(path)-1]
		colour[name] = black
	}
	for _, e := range t.Entries {
		if colour[e.Name] == white {
			visit(e.Name)
		}
	}
	return found
}

// Readers lists the entries that read from the one of that name, jobs left
// out: the subscribers that a publisher waits for at its start.
func (t *Topology) Readers(name string) (list []string) {
	for _, e := range t.Entries {
		if e.Role != Job && reads(e, name) {
			list = append(list, e.Name)
		}
	}
	return list
}

// Audience lists the workers that hear a job, whether or not they read files at
// all.
func (t *Topology) Audience(job string) (list []string) {
	j := t.Entry(job)
	for _, e := range t.Entries {
		if j != nil && t.hears(e, j) {
			list = append(list, e.Name)
		}
	}
	return list
}

// HeardJobs lists the jobs that a worker which reads files hears beside its
// sources.
func (t *Topology) HeardJobs(worker string) (list []string) {
	e := t.Entry(worker)
	for _, j := range t.Entries {
		if e != nil && t.hears(e, j) {
			list = append(list, j.Name)
		}
	}
	return list
}

// hears says whether a job speaks to a worker. A job speaks on behalf of those of
// its sources that are workers, to whoever reads one; and to a source itself, if
// that reads other workers, since what it missed is among what they left.
func (t *Topology) hears(e, job *Entry) bool {
	if job.Role != Job || e.Role != Worker {
		return false
	}
	return slices.ContainsFunc(job.Sources, func(spoken Ref) bool {
		return t.isWorker(spoken) && (reads(e, spoken.Name) || e.Name == spoken.Name && slices.ContainsFunc(e.Sources, t.isWorker))
	})
}

func (t *Topology) isWorker(r Ref) bool {
	e := t.Entry(r.Name)
	return e != nil && e.Role == Worker
}

func reads(e *Entry, name string) bool {
	return slices.ContainsFunc(e.Sources, func(r Ref) bool { return r.Name == name })
}

// StartOrder is the entries with each reader before its sources, so that a
// sensor's first message finds everybody. Jobs are left out. Stopping goes the
// other way round.
func (t *Topology) StartOrder() (order []*Entry) {
	done := map[string]bool{}
	var place func(e *Entry)
	place = func(e *Entry) {
		if e == nil || done[e.Name] || e.Role == Job {
			return
		}
		done[e.Name] = true
		for _, reader := range t.Readers(e.Name) {
			place(t.Entry(reader))
		}
		order = append(order, e)
	}
	for _, e := range t.Entries {
		place(e)
	}
	return order
}
