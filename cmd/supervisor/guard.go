package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/private"
)

const (
	guardEvery = time.Second
	// maxFailures is how many checks in a row may fail before the supervisor stops its
	// fleet, which nobody could reach any more.
	maxFailures = 5
)

// guard checks regularly that the run folder, the lock and the sockets are still there
// and belong to this supervisor, and recreates what somebody removed: a cleaner, or
// logind at a user's last logout (loginctl(1), enable-linger). If that is impossible it
// stops the fleet, since nobody else could any more.
func (f *fleet) guard(ctx context.Context) {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		mended, err := f.mend()
		switch {
		case err != nil:
			failures++
			f.launcher.awake.missed() // heartbeats may not arrive
			f.log.Error("the run folder no longer belongs to this supervisor", "err", err)
		case mended:
			f.launcher.awake.missed()
			f.log.Warn("recreated what somebody removed from the run folder", "run_dir", f.plan.top.Node.RunDir)
			failures = 0
		default:
			failures = 0
		}
		if failures == maxFailures {
			f.abandon(fmt.Errorf("%s was removed and cannot be recreated: %w", f.plan.top.Node.RunDir, err))
			return
		}
	}
}

// mend recreates what is missing, and reports whether anything was.
func (f *fleet) mend() (mended bool, err error) {
	dir := f.plan.top.Node.RunDir
	root := f.root
	if !samePlace(root, dir) {
		if root, err = private.Open(dir, "run_dir", 0o022); err != nil {
			return false, err
		}
		mended = true
	}
	if !f.held.Current() || mended {
		lock, err := lockfile.Acquire(root, lockName) // before anything is written: the folder may be another's
		if err != nil {
			if mended {
				_ = root.Close()
			}
			return false, err
		}
		_ = f.held.Drop() // of a file that is gone
		f.held, mended = lock, true
	}
	if root != f.root {
		f.launcher.record.move(root)
		_ = f.root.Close() // the folder is gone: nothing can be done in it
		f.root = root
	}
	for _, one := range []interface{ reopen() (bool, error) }{f.launcher.notifier, f.control} {
		again, err := one.reopen()
		if err != nil {
			return false, err
		}
		mended = mended || again
	}
	if err := f.bus.Mend(); err != nil {
		return false, err
	}
	if _, err := f.root.Lstat(recordName); err != nil {
		return true, f.launcher.record.keep()
	}
	return mended, nil
}

// abandon stops the fleet because it has lost its run folder. If another supervisor has
// the folder by now, nothing in it is touched.
func (f *fleet) abandon(why error) {
	f.mu.Lock()
	f.fatal = why
	f.mu.Unlock()
	f.log.Error("stopping the fleet", "err", why)
	if another(why) {
		f.launcher.cgroup.leave()
		f.launcher.record.leave()
	}
	f.stop()
}

// another says whether another supervisor has the run folder.
func another(why error) bool {
	held := (*lockfile.HeldError)(nil)
	return errors.As(why, &held)
}

func (f *fleet) abandoned() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fatal
}

// samePlace says whether a folder is still the one that was opened under its path.
func samePlace(root *os.Root, path string) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	own, err := root.Stat(".")
	return err == nil && os.SameFile(there, own)
}

// supervisorsOf lists the living supervisors of a run folder, this process left
// out, also where the folder or the lock in it was removed: each has its lock file
// open (/proc/PID/fd, proc(5)).
func supervisorsOf(runDir string) (pids []int) {
	names := map[string]bool{filepath.Join(runDir, lockName): true}
	if real, err := filepath.EvalSymlinks(runDir); err == nil {
		names[filepath.Join(real, lockName)] = true
	} else if real, err := filepath.EvalSymlinks(filepath.Dir(runDir)); err == nil {
		names[filepath.Join(real, filepath.Base(runDir), lockName)] = true
	}
	own, _ := os.ReadFile("/proc/self/comm")
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, process := range processes {
		pid, err := strconv.Atoi(filepath.Base(process))
		comm, commErr := os.ReadFile(process + "/comm")
		if err != nil || commErr != nil || pid == os.Getpid() || string(comm) != string(own) {
			continue // it has ended, or is another program
		}
		links, _ := filepath.Glob(process + "/fd/*")
		if slices.ContainsFunc(links, func(link string) bool {
			file, err := os.Readlink(link)
			return err == nil && names[strings.TrimSuffix(file, " (deleted)")] && lockfile.HolderOf(link) == pid
		}) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// errLeftBehind says that a supervisor lives although its run folder is gone.
func errLeftBehind(runDir string, pid int) error {
	return fmt.Errorf("supervisor process %d still runs the fleet of %s, though its lock there was removed: %w",
		pid, runDir, &lockfile.HeldError{Path: filepath.Join(runDir, lockName), PID: pid})
}

// endSupervisor stops a supervisor whose socket is gone, and waits until it has ended.
func endSupervisor(ctx context.Context, pid int, patience time.Duration) error {
	process, err := os.FindProcess(pid)
	if err == nil {
		err = process.Signal(syscall.SIGTERM)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop supervisor process %d: %w", pid, err)
	}
	deadline := time.Now().Add(patience)
	for ; ctx.Err() == nil && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // it is not a child, so the kernel does not report its end
		if st, err := statOf(pid); err != nil || st.zombie {
			return nil
		}
	}
	return fmt.Errorf("supervisor process %d does not end %v after SIGTERM: its fleet may still be running; kill -KILL %d ends both", pid, patience, pid)
}
