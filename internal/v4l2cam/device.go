package v4l2cam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vladimirvivien/go4vl/v4l2"
	"golang.org/x/sys/unix"
)

// openDevice opens the device file; its errors say what to do.
func openDevice(path string) (uintptr, error) {
	fd, err := v4l2.OpenDevice(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, fs.ErrPermission):
		return 0, explainDenied(path, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return 0, explainAbsent(path, err)
	}
	return 0, explainBusy(path, err)
}

// resolve follows links to the device file; the path itself where it cannot.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// explainAbsent lists the cameras that are there, and of those the one whose
// name is nearest.
func explainAbsent(path string, err error) error {
	const advice = "check cable and power, then run \"v4l2-ctl --list-devices\""
	there := cameras(filepath.Dir(path))
	if len(there) == 0 {
		return fmt.Errorf("%w: %w; no camera at all is here: %s", ErrNoDevice, err, advice)
	}
	var names []string
	for _, p := range there {
		if real := resolve(p); real != p {
			p += " (" + real + ")"
		}
		names = append(names, p)
	}
	return fmt.Errorf("%w: %w; nearest is %s; here are %s: %s", ErrNoDevice, err, mostAlike(path, there), strings.Join(names, ", "), advice)
}

// cameras lists the device files and links of cameras in the folders of Linux
// and in dir, the one that was looked in.
func cameras(dir string) []string {
	var found []string
	for _, folder := range []string{"/dev/v4l/by-id", "/dev/v4l/by-path", "/dev", dir} {
		pattern := "video*"
		if strings.HasPrefix(filepath.Base(folder), "by-") {
			pattern = "*"
		}
		matches, err := filepath.Glob(filepath.Join(folder, pattern))
		if err == nil { // else the folder's name is no pattern: nothing to list
			found = append(found, matches...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// mostAlike is the path that begins most like want: names in by-id begin with the
// maker.
func mostAlike(want string, paths []string) string {
	common := func(path string) int {
		n := 0
		for n < min(len(path), len(want)) && path[n] == want[n] {
			n++
		}
		return n
	}
	return slices.MaxFunc(paths, func(a, b string) int { return common(a) - common(b) })
}

// explainDenied names the group whose members may use the device.
func explainDenied(path string, err error) error {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return err
	}
	group := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Errorf("%w: mode %#o, group %s: add the user to it (\"sudo usermod -aG %s $USER\") and log in again", err, st.Mode&0o777, group, group)
}

// explainBusy names who holds a camera that is in use; other errors stay as
// they are.
func explainBusy(path string, err error) error {
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	held := holders(path)
	if len(held) == 0 {
		return fmt.Errorf("%w by this process, or one that cannot be seen from here: %w", ErrBusy, err)
	}
	return fmt.Errorf("%w by %s: %w", ErrBusy, strings.Join(held, ", "), err)
}

// holders lists the processes that have path open, "ffmpeg (pid 812)", as far
// as this user may see them; see proc(5), /proc/PID/fd.
func holders(path string) []string {
	var wanted unix.Stat_t
	if unix.Stat(path, &wanted) != nil {
		return nil
	}
	var found []string
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well-formed
	for _, d := range descriptors {
		var st unix.Stat_t
		pid := strings.Split(d, "/")[2]
		if pid == strconv.Itoa(os.Getpid()) || unix.Stat(d, &st) != nil || st.Ino != wanted.Ino || st.Dev != wanted.Dev {
			continue
		}
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err == nil { // else it has just ended
			found = append(found, fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
