package backlog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
)

// A sensor's readings, ten at a time, cost less than 500 bytes of disk each, the zeros of
// new segments included; where segments are used again, it is one page for ten.
func TestWear(t *testing.T) {
	l := open(t, openRoot(t, ram(t)), Config{})
	const all = 30_000
	write := func(drained bool) int64 {
		before := l.Written()
		for n := range all / 10 {
			appendTen(t, l, n)
			if drained && n%100 == 99 {
				drain(t, l)
			}
		}
		return (l.Written() - before) / all
	}
	growing := write(false)
	drain(t, l)
	drained := write(true)
	t.Logf("%d bytes a record while the log grows, %d once segments are used again", growing, drained)
	if growing > 500 || drained > 450 {
		t.Errorf("%d and %d bytes a record; want at most 500 and 450", growing, drained)
	}
	must(t, l.Close())
}

func appendTen(t testing.TB, l *Log, n int) {
	t.Helper()
	var list []Entry
	for k := range 10 {
		list = append(list, reading(10*n+k))
	}
	_, err := l.Append(list...)
	must(t, err)
	must(t, l.Sync())
}

// What reaches the device is that and the file system's journal. A soak measures it on ext4,
// in the time of a box: ten readings each ten seconds.
func TestWearOfDevice(t *testing.T) {
	if faultfs.Soak() == 0 {
		t.Skip("takes a minute and a half for each mount option: with PERCH_SOAK")
	}
	for _, commit := range []string{"5", "60"} {
		dir := t.TempDir()
		image, at := dir+"/disk.img", dir+"/disk"
		must(t, errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20), os.Mkdir(at, 0o700)))
		if out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-F", image).CombinedOutput(); err != nil {
			t.Skipf("mkfs.ext4: %v: %s", err, out)
		}
		if out, err := exec.Command("mount", "-o", "loop,commit="+commit, image, at).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, out)
		}
		root := openRoot(t, at)
		l := open(t, root, Config{})
		appendTen(t, l, 0)
		must(t, exec.Command("sync", "-f", at).Run())
		before := sectors(t, image)
		const rounds = 9
		for n := range rounds {
			appendTen(t, l, n+1)
			time.Sleep(10 * time.Second) // the journal goes by time
		}
		t.Logf("commit=%s: %d bytes a record reach the device", commit, (sectors(t, image)-before)*512/(10*rounds))
		must(t, errors.Join(l.Close(), root.Close(), faultfs.Unmount(at)))
	}
}

// sectors is how many the loop device of an image has been written.
func sectors(t testing.TB, image string) (n int64) {
	t.Helper()
	out, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", image).Output()
	must(t, err)
	stat, err := os.ReadFile("/sys/block/" + filepath.Base(strings.TrimSpace(string(out))) + "/stat")
	must(t, err)
	var skip [6]int64
	if _, err := fmt.Sscan(string(stat), &skip[0], &skip[1], &skip[2], &skip[3], &skip[4], &skip[5], &n); err != nil {
		t.Fatal(err)
	}
	return n
}
