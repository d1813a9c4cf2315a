package bme280

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/i2c/i2creg"
	"periph.io/x/host/v3"

	"github.com/perch-edge/perch/internal/simbme280"
)

// openBus opens a simulated or a real bus. Periph's drivers for the host are loaded only for a real one.
func openBus(name string, s settings) (i2c.BusCloser, error) {
	if strings.HasPrefix(name, simbme280.Prefix) {
		return simbme280.Open(name, s.now)
	}
	node := busNode(name)
	if node != "" {
		// Periph flattens errors to text, so ask the kernel first.
		if err := tryNode(node); err != nil {
			return nil, nodeError(node, err)
		}
		name = node
	}
	if _, err := host.Init(); err != nil {
		return nil, fmt.Errorf("%w: load periph's host drivers: %w", ErrNoDevice, err)
	}
	bus, err := i2creg.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: open bus %q: %w; buses here: %s", ErrNoDevice, name, err, knownBuses())
	}
	return bus, nil
}

// busNode is the device node that a name means, links followed, or "" for a name that only periph knows.
func busNode(name string) string {
	if n, err := strconv.ParseUint(name, 10, 16); err == nil {
		return fmt.Sprintf("/dev/i2c-%d", n)
	}
	if !strings.HasPrefix(name, "/dev/") {
		return ""
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		return target
	}
	return name
}

func tryNode(node string) error {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// nodeError says what to do about a device node that does not open.
func nodeError(node string, err error) error {
	advice := "see `dmesg | grep i2c`"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		advice = fmt.Sprintf("enable the bus with dtparam=i2c_arm=on in /boot/firmware/config.txt (or raspi-config) "+
			"and reboot, load the module i2c-dev, and compare the name: buses here: %s", nodesHere())
	case errors.Is(err, fs.ErrPermission):
		group := nodeGroup(node)
		advice = fmt.Sprintf("add the user that runs this to group %s (sudo usermod -aG %s USER) and log in again",
			group, group)
	}
	return fmt.Errorf("%w: open bus: %w: %s", ErrNoDevice, err, advice)
}

// nodeGroup is the group that owns a node; Raspberry Pi OS and Debian call it i2c.
func nodeGroup(node string) string {
	info, err := os.Stat(node)
	if err != nil {
		return "i2c"
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Gid == 0 { // root: no udev rule gave it away, and nobody should join that group
		return "i2c"
	}
	group, err := user.LookupGroupId(strconv.FormatUint(uint64(stat.Gid), 10))
	if err != nil {
		return "i2c"
	}
	return group.Name
}

func nodesHere() string {
	nodes, err := filepath.Glob("/dev/i2c-*")
	if err != nil || len(nodes) == 0 {
		return "none"
	}
	return strings.Join(nodes, ", ")
}

func knownBuses() string {
	var names []string
	for _, ref := range i2creg.All() {
		names = append(names, ref.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
