package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// cgroup is a group of control groups (cgroups(7), version 2): one for the
// fleet, one in it for each worker. What a process starts cannot leave it, and
// one write to cgroup.kill ends all that is inside. nil is none, and does
// nothing.
type cgroup struct {
	path string
	left atomic.Bool // it may be another supervisor's by now
}

// leave gives the group up without touching what is in it.
func (g *cgroup) leave() {
	if g != nil {
		g.left.Store(true)
	}
}

func (g *cgroup) none() bool { return g == nil || g.left.Load() }

// newCgroup makes the fleet's below the supervisor's own; nil where that is
// not allowed.
func newCgroup(runDir string) *cgroup {
	own := ownCgroup()
	if own == "" {
		return nil
	}
	path := filepath.Join(own, cgroupName(runDir))
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(path, "cgroup.kill")); err != nil { // Linux 5.14
		_ = os.Remove(path)
		return nil
	}
	return &cgroup{path: path}
}

// cgroupName tells the fleets of a machine apart.
func cgroupName(runDir string) string {
	h := fnv.New64a()
	h.Write([]byte(runDir))
	return fmt.Sprintf("perch-%016x", h.Sum64())
}

// cgroupAt is the one that an earlier supervisor of the run folder recorded;
// nil when the record names anything else.
func cgroupAt(path, runDir string) *cgroup {
	if path == "" || filepath.Base(path) != cgroupName(runDir) {
		return nil
	}
	return &cgroup{path: path}
}

// ownCgroup is the folder of this process's; "" when there is none of version 2.
func ownCgroup() string {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(own)) {
		inside, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for mount := range strings.Lines(string(mounts)) {
			f := strings.Fields(mount) // 3: root within the file system, 4: mount point
			if len(f) > 4 && strings.Contains(mount, " - cgroup2 ") {
				if rel, err := filepath.Rel(f[3], inside); err == nil && filepath.IsLocal(rel) {
					return filepath.Join(f[4], rel)
				}
			}
		}
	}
	return ""
}

// join puts a process into its worker's own. Where that fails, there is still
// its process group, and the mark.
func (g *cgroup) join(name string, pid int) {
	if g.none() {
		return
	}
	path := filepath.Join(g.path, name)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return
	}
	_ = os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

func (g *cgroup) killWorker(name string) {
	if !g.none() {
		_ = kill(filepath.Join(g.path, name)) // a worker that never had one has none
	}
}

func kill(path string) error {
	return os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
}

// remove kills all that is inside and removes the groups.
func (g *cgroup) remove() error {
	if g.none() {
		return nil
	}
	if err := kill(g.path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("kill cgroup %s: %w", g.path, err)
	}
	// A group is busy until the last of the killed has gone.
	for deadline := time.Now().Add(sweepPatience); ; time.Sleep(2 * time.Millisecond) { //nolint:forbidigo // the kernel does not tell
		err := g.rmdir()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (g *cgroup) rmdir() error {
	inside, err := os.ReadDir(g.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range inside {
		if e.IsDir() {
			errs = append(errs, os.Remove(filepath.Join(g.path, e.Name())))
		}
	}
	errs = append(errs, err, os.Remove(g.path))
	return errors.Join(errs...)
}
