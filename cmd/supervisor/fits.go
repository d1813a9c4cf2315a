package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/private"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/shm"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// checkFleet finds what no program can see by itself.
func (p *plan) checkFleet() (ps topology.Problems) {
	for _, e := range p.top.Entries {
		if e.Name == ownName {
			ps = append(ps, e.Table.Problem("", "%q is the supervisor's own name on the bus", ownName))
		}
		ps = append(ps, p.checkKinds(e)...)
		ps = append(ps, p.checkWants(e)...)
		ps = append(ps, p.checkPins(e)...)
	}
	ps = append(ps, p.checkEndpoints()...)
	ps = append(ps, p.checkFolders()...)
	return append(ps, p.checkBudget()...)
}

// checkWants proves that a worker has a source of each kind that it cannot do
// without.
func (p *plan) checkWants(e *topology.Entry) (ps topology.Problems) {
	var names []string
	published := map[msg.Kind]bool{}
	for _, ref := range e.Sources {
		source, known := p.reports[ref.Name]
		if !known {
			return nil // an endpoint, or reported already
		}
		names = append(names, ref.Name)
		for _, k := range source.Publishes {
			published[k] = true
		}
	}
	for _, k := range p.reports[e.Name].Wants {
		if !published[k] {
			ps = append(ps, e.Table.Problem("source", "as it is set, %s needs a source that publishes %s: none of %v does", e.Program, k, names))
		}
	}
	return ps
}

// checkKinds proves that a worker finds something to read in each of its sources.
func (p *plan) checkKinds(e *topology.Entry) (ps topology.Problems) {
	reader, ok := p.reports[e.Name]
	if !ok {
		return nil
	}
	for _, ref := range e.Sources {
		source, ok := p.reports[ref.Name]
		if !ok || slices.ContainsFunc(reader.Reads, func(k msg.Kind) bool {
			return k == msg.KindState || slices.Contains(source.Publishes, k) // all publish their state
		}) {
			continue
		}
		ps = append(ps, e.Table.Problem("source", "%s reads %s, and %s (%s) publishes %s",
			reader.Program, words(reader.Reads), ref.Name, source.Program, words(source.Publishes)))
	}
	return ps
}

func words(kinds []msg.Kind) string {
	if len(kinds) == 0 {
		return "nothing"
	}
	text := make([]string, len(kinds))
	for i, k := range kinds {
		text[i] = string(k)
	}
	return strings.Join(text, ", ")
}

// checkPins proves that the readers of a ring together leave its writer the two
// slots that it needs.
func (p *plan) checkPins(e *topology.Entry) (ps topology.Problems) {
	for _, ring := range p.reports[e.Name].Rings {
		readers, pins, names := p.readersOf(e, ring)
		key := "stream." + ring.Stream + ".slots"
		switch {
		case len(readers) > shm.MaxReaders:
			ps = append(ps, e.Table.Problem("stream."+ring.Stream, "%d workers read it: want %d at most", len(readers), shm.MaxReaders))
		case pins+2 > ring.Slots:
			ps = append(ps, e.Table.Problem(key, "%d slots, and its readers hold %d (%s) while the writer needs 2: want slots = %d",
				ring.Slots, pins, strings.Join(names, ", "), pins+2))
		}
	}
	return ps
}

func (p *plan) readersOf(e *topology.Entry, ring worker.Ring) (readers []string, pins int, names []string) {
	for _, reader := range p.top.Entries { // jobs too
		name := reader.Name
		r := p.reports[name]
		reads := slices.ContainsFunc(reader.Sources, func(ref topology.Ref) bool {
			return ref.Name == e.Name && (ref.Stream == "" || ref.Stream == ring.Stream)
		})
		if !reads || !slices.Contains(r.Reads, ring.Kind) {
			continue
		}
		n := 1
		if ring.Kind == msg.KindFrame {
			n = max(r.Pins, 1)
		}
		readers, pins, names = append(readers, name), pins+n, append(names, fmt.Sprintf("%s %d", name, n))
	}
	return readers, pins, names
}

// checkEndpoints proves that every socket's path is short enough for one.
func (p *plan) checkEndpoints() topology.Problems {
	longest, stream := ownName, ""
	for _, e := range p.top.Entries {
		if len(e.Name) > len(longest)+len(stream) {
			longest, stream = e.Name, ""
		}
		for _, ring := range p.reports[e.Name].Rings {
			if ring.Kind == msg.KindFrame && len(e.Name+"."+ring.Stream) > len(longest)+len(stream) {
				longest, stream = e.Name, ring.Stream
			}
		}
	}
	dir := p.top.Node.RunDir
	_, err := msg.Endpoint(dir, msg.Source(longest), msg.Stream(stream))
	if room := len(unix.RawSockaddrUnix{}.Path) - 1; err == nil && len(filepath.Join(dir, controlName)) > room {
		err = fmt.Errorf("the path of %s in it has more than %d bytes: use a shorter run_dir", controlName, room)
	}
	if err != nil && dir != "" {
		return topology.Problems{p.top.NodeProblem("run_dir", "%v", err)}
	}
	return nil
}

// checkFolders proves that the fleet's folders can be used.
func (p *plan) checkFolders() (ps topology.Problems) {
	n := p.top.Node
	for _, f := range []struct {
		key, path string
		forbidden uint32 // rights that others must not have
	}{{"run_dir", n.RunDir, 0o022}, {"shm_dir", n.ShmDir, 0o077}, {"cache_dir", n.CacheDir, 0}, {"store_dir", n.StoreDir, 0}} {
		if f.path == "" || f.key == "store_dir" && notMounted(n) != nil {
			continue // has been reported
		}
		if err := usable(f.path, f.key, f.forbidden); err != nil {
			ps = append(ps, p.top.NodeProblem(f.key, "%v", err))
		}
	}
	return ps
}

// warnings are what a fleet can run with, and people should know.
func (p *plan) warnings() topology.Problems {
	return slices.Concat(p.absentStore(), p.fullCache(), p.unknownLabels(), p.reported())
}

// reported are the warnings of the programs about their own entries.
func (p *plan) reported() (ps topology.Problems) {
	for _, e := range p.top.Entries {
		ps = append(ps, p.reports[e.Name].Warnings...)
	}
	return ps
}

// unknownLabels warns of rules that ask for what no detector will ever see. A
// model may have names of its own, of which nobody knows before it runs.
func (p *plan) unknownLabels() (ps topology.Problems) {
	for _, e := range p.top.Entries {
		var known []string
		for _, source := range e.Sources {
			known = append(known, p.reports[source.Name].Knows...)
		}
		for _, label := range p.reports[e.Name].Seeks {
			if len(known) > 0 && !slices.Contains(known, label) {
				ps = append(ps, e.Table.Problem("keep", "its detectors have no label %q, unless a model brings it, so that nothing is kept for it%s", label, nearest.Hint(label, known)))
			}
		}
	}
	return ps
}

// fullCache warns of files that stay in RAM until it is full.
func (p *plan) fullCache() (ps topology.Problems) {
	for _, e := range p.top.Entries {
		emptied := func(reader string) bool { return p.reports[reader].Cached == worker.Empties }
		if p.reports[e.Name].Cached == worker.Fills && !slices.ContainsFunc(p.top.Readers(e.Name), emptied) {
			ps = append(ps, e.Table.Problem("", "its files are born in RAM (cache_dir) and stay there until it is full: no mover has source = %q", e.Name))
		}
	}
	return ps
}

// absentStore warns of a store whose disk is not there: the fleet runs without it.
func (p *plan) absentStore() topology.Problems {
	err := notMounted(p.top.Node)
	if err == nil {
		return nil
	}
	return topology.Problems{p.top.NodeProblem("store_mount", "%v: until it is, readings, files and logs are held in RAM", err)}
}

// usable says why this user cannot make files in a folder, or make the folder.
func usable(path, key string, forbidden uint32) error {
	there := nearestFolder(path)
	st, err := os.Stat(there)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a folder", there)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, there, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		if there == path {
			return fmt.Errorf("cannot write in it: %w%s", err, private.Whose(path, key))
		}
		return fmt.Errorf("cannot make it in %s: %w; make it once: sudo install -d -o %d -m 0700 %s, or choose another %s", there, err, os.Geteuid(), path, key)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if there == path && forbidden != 0 && ok && (int(sys.Uid) != os.Geteuid() || sys.Mode&forbidden != 0) {
		if whose := private.Whose(path, key); whose != "" {
			return fmt.Errorf("belongs to another user%s", whose)
		}
		return fmt.Errorf("has mode %#o, which lets others in: chmod 700 %s, or choose another %s", sys.Mode&0o777, path, key)
	}
	return nil
}

// nearestFolder is the path itself, or what is there of the folders it is in.
func nearestFolder(path string) string {
	for {
		_, err := os.Stat(path)
		if absent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR); !absent || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}
