package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// meter is a small disk of its own, whose writes are counted where the disk is:
// with what the file system writes for itself, and with nothing of anybody else's.
type meter struct {
	at   string
	stat string // of the block device, in /sys
}

// mountMeter makes an ext4 in a file in dir, with blocks as an SD card has
// them, and mounts it. It takes root.
func mountMeter(dir string, bytes int64) (*meter, error) {
	image, at := filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk")
	err := errors.Join(os.Mkdir(at, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, bytes))
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make disk: %s: %w: %s", args[0], err, out)
		}
	}
	m := &meter{at: at}
	var st unix.Stat_t
	if err = unix.Stat(at, &st); err == nil {
		dev := st.Dev
		m.stat = fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(dev), unix.Minor(dev))
		_, err = m.written()
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// written is how many bytes the disk was told to write so far, all that waits
// in RAM included.
func (m *meter) written() (int64, error) {
	unix.Sync()
	text, err := os.ReadFile(m.stat)
	if err != nil {
		return 0, fmt.Errorf("count written bytes: %w", err)
	}
	var sectors int64 // of 512 bytes, the seventh figure (Documentation/block/stat.rst of Linux)
	words := strings.Fields(string(text))
	if len(words) < 7 {
		return 0, fmt.Errorf("count written bytes: %s has %d figures", m.stat, len(words))
	}
	if _, err := fmt.Sscan(words[6], &sectors); err != nil {
		return 0, fmt.Errorf("count written bytes: %w", err)
	}
	return sectors * 512, nil
}

// over is how many bytes that writes to the disk; of no disk it is none.
func (m *meter) over(do func() error) (float64, error) {
	if m == nil {
		return 0, do()
	}
	before, err := m.written()
	if err == nil {
		err = do()
	}
	if err != nil {
		return 0, err
	}
	after, err := m.written()
	return float64(after - before), err
}

func (m *meter) close() error {
	if out, err := exec.Command("umount", m.at).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount disk: %w: %s", err, out)
	}
	return nil
}
