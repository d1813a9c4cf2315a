package faultfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// MakeDisk makes a file that is a disk with an empty ext4 of that many bytes.
func MakeDisk(image string, bytes int64) error {
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, bytes)); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: mkfs.ext4: %w: %s", ErrUnavailable, err, out)
	}
	return nil
}

// MountDisk mounts a disk that is a file. commit=60 keeps the file system from
// making anything durable by itself. A copy of the file is then what a power
// cut would leave at that moment. Unmount takes it away.
func MountDisk(image, at string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: a disk in a file needs root and loop devices", ErrUnavailable)
	}
	if out, err := exec.Command("mount", "-o", "loop,commit=60", image, at).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: mount: %w: %s", ErrUnavailable, err, out)
	}
	return nil
}

// CopyDisk copies a disk while those who write to it stand still (Freeze), so that
// the copy is of one moment.
func CopyDisk(image, to string) error {
	text, err := os.ReadFile(image)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	return nil
}

// Freeze stops a process, and waits until all of its threads stand still.
func Freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		if still, err := Frozen(pid); err != nil || still {
			return err
		}
	}
}

// Frozen says whether all threads of a process stand still. It fails for one that
// has ended.
func Frozen(pid int) (bool, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	if len(stats) == 0 {
		return false, fmt.Errorf("process %d has ended", pid)
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err == nil && strings.Contains(string(text), ") Z ") {
			return false, fmt.Errorf("process %d has ended", pid)
		}
		if err == nil && !strings.Contains(string(text), ") T ") {
			return false, nil
		}
	}
	return true, nil
}
