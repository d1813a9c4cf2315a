package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/shm"
	"github.com/perch-edge/perch/pkg/topology"
)

const (
	lockName   = "supervisor.lock"
	recordName = "fleet.json"
	// sweepPatience bounds the wait for killed processes to be gone.
	sweepPatience = 5 * time.Second
)

// record is what was started, kept in the run folder for who has to sweep
// after a supervisor that was killed.
type record struct {
	mu   sync.Mutex
	root *os.Root // nil once it is another supervisor's
	recorded
}

type recorded struct {
	BootID    string             `json:"boot_id"`
	ShmDir    string             `json:"shm_dir"`
	Cgroup    string             `json:"cgroup,omitempty"`
	Processes map[int]recordedAs `json:"processes"` // by id
	// Unread lists, by publisher, the workers that may not have read and saved all
	// that its histories hold.
	Unread map[string][]string `json:"unread,omitempty"`
}

type recordedAs struct {
	Name    string `json:"name"`
	Started uint64 `json:"started"` // as in /proc/PID/stat
}

func newRecord(root *os.Root, bootID, shmDir string, g *cgroup, unread map[string][]string) *record {
	r := &record{root: root, recorded: recorded{BootID: bootID, ShmDir: shmDir, Processes: map[int]recordedAs{}, Unread: map[string][]string{}}}
	maps.Copy(r.Unread, unread)
	if g != nil {
		r.Cgroup = g.path
	}
	return r
}

func (r *record) add(pid int, name string) error {
	st, err := statOf(pid)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Processes[pid] = recordedAs{name, st.started}
	return r.write()
}

func (r *record) remove(pid int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.Processes, pid)
	return r.write()
}

// move keeps the record in another folder from now on.
func (r *record) move(root *os.Root) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.root = root
}

// leave writes no more.
func (r *record) leave() { r.move(nil) }

// keep writes it as it is.
func (r *record) keep() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.write()
}

// write replaces the file: half a record would be none.
func (r *record) write() error {
	if r.root == nil {
		return nil
	}
	text, err := json.Marshal(r.recorded)
	if err != nil {
		return err
	}
	if err := r.root.WriteFile(recordName+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return r.root.Rename(recordName+".new", recordName)
}

func readRecord(root *os.Root) (rec recorded) {
	text, err := root.ReadFile(recordName)
	if err == nil {
		err = json.Unmarshal(text, &rec)
	}
	if err != nil {
		return recorded{} // none was made, or it was cut short by a full disk
	}
	return rec
}

// swept is what a sweep found.
type swept struct {
	Processes []string // name and id
	Rings     []shm.Name
	Files     []string // sockets, and what else was in the run folder
}

func (s swept) any() bool { return len(s.Processes)+len(s.Rings)+len(s.Files) > 0 }

// String is one line for people.
func (s swept) String() string {
	var parts []string
	for _, p := range []struct {
		what  string
		names []string
	}{{"processes", s.Processes}, {"rings", texts(s.Rings)}, {"files", s.Files}} {
		if len(p.names) > 0 {
			parts = append(parts, p.what+" "+strings.Join(p.names, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

func texts[S ~string](list []S) (out []string) {
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}

// sweep removes what a killed supervisor and its killed workers left: first
// the processes, then what they held. Whoever calls it holds the supervisor's
// lock. shmDir may be empty, and is then what the record says. Rings that keep
// wants are left: see undrained; nil wants none.
func sweep(root *os.Root, runDir, shmDir string, keep func(shm.Name) bool) (s swept, err error) {
	rec := readRecord(root)
	if shmDir == "" {
		shmDir = rec.ShmDir
	}
	if err := s.processes(rec, runDir); err != nil {
		return s, err
	}
	err = errors.Join(s.rings(shmDir, keep), s.files(root))
	if len(rec.Processes) == 0 { // such as one that was left on purpose, for what is kept
		s.Files = slices.DeleteFunc(s.Files, func(name string) bool { return name == recordName })
	}
	return s, err
}

func (s *swept) processes(rec recorded, runDir string) error {
	sys, err := clock.System()
	if err != nil {
		return err
	}
	left := map[int]string{}
	if rec.BootID == sys.BootID() {
		for pid, as := range rec.Processes {
			if st, err := statOf(pid); err == nil && st.started == as.Started && !st.zombie {
				left[pid] = as.Name
			}
		}
		err = cgroupAt(rec.Cgroup, runDir).remove()
	}
	for _, pid := range bearing(mark + runDir) {
		if left[pid] == "" {
			left[pid] = "started by a worker"
		}
	}
	for pid, name := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL) // perhaps it has gone by now
		s.Processes = append(s.Processes, fmt.Sprintf("%s (%d)", name, pid))
	}
	return errors.Join(err, awaitGone(left))
}

// awaitGone waits until all of the processes have ended; it does not matter
// whether somebody has reaped them.
func awaitGone(left map[int]string) error {
	for deadline := time.Now().Add(sweepPatience); ; time.Sleep(2 * time.Millisecond) { //nolint:forbidigo // of no child of ours the kernel tells the end
		for pid := range left {
			if st, err := statOf(pid); err != nil || st.zombie {
				delete(left, pid)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("sweep processes of an earlier run: %v do not end, %v after SIGKILL", left, sweepPatience)
		}
	}
}

func (s *swept) rings(shmDir string, keep func(shm.Name) bool) error {
	if _, err := os.Stat(shmDir); err != nil {
		return nil // nothing was ever there
	}
	dir, err := shm.OpenDir(shmDir)
	if err != nil {
		return err
	}
	s.Rings, err = dir.Sweep(keep)
	return errors.Join(err, dir.Close())
}

// undrained keeps the histories of this fleet's own publishers: a reader that
// was killed along with them goes on there, and loses nothing. The publisher
// removes them in time.
func undrained(shmDir string, top *topology.Topology) func(shm.Name) bool {
	streams, err := msg.Streams(shmDir)
	if err != nil && len(streams) == 0 {
		return nil
	}
	keep := map[shm.Name]bool{}
	for _, s := range streams {
		if _, source, _, err := s.Topic.Split(); err == nil && s.Geometry == nil && top.Entry(string(source)) != nil {
			keep[s.Ring.Name] = true
		}
	}
	return func(name shm.Name) bool { return keep[name] }
}

// files removes the sockets and locks of endpoints that nobody holds, and what
// the supervisor itself keeps in the run folder.
func (s *swept) files(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("sweep run folder: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == controlName || name == notifyName || name == recordName || name == recordName+".new":
			errs = append(errs, s.remove(root, name))
		case strings.HasSuffix(name, ".ipc"), strings.HasSuffix(name, ".ipc.lock"):
			errs = append(errs, s.endpoint(root, strings.TrimSuffix(name, ".lock")))
		}
	}
	return errors.Join(errs...)
}

func (s *swept) endpoint(root *os.Root, socket string) error {
	lock, err := lockfile.Acquire(root, socket+".lock")
	if held := (*lockfile.HeldError)(nil); errors.As(err, &held) {
		return nil // a worker that somebody runs by hand
	}
	if err != nil {
		return err
	}
	return errors.Join(s.remove(root, socket), lock.Release())
}

func (s *swept) remove(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		s.Files = append(s.Files, name)
	}
	return err
}
