package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/pkg/topology"
)

// plug mounts a disk, which is unplugged with the test if not before.
func plug(t *testing.T, at string) {
	t.Helper()
	if err := faultfs.Tmpfs(at, 8<<20); errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = faultfs.Unmount(at) }) // it may be unplugged already
}

func unplug(t *testing.T, at string) {
	t.Helper()
	if err := faultfs.Unmount(at); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(at); err != nil || len(left) > 0 {
		t.Errorf("below the mount point there is %v, %v; want nothing", left, err)
	}
}

// A fleet runs without its store's disk, and says so. Its logs are in RAM
// meanwhile; what they say is on the disk when that has come.
func TestFleetWithoutItsDisk(t *testing.T) {
	t.Parallel()
	b := newBox(t, "")
	mount := filepath.Join(b.dir, "store")
	b.write(fmt.Sprintf("store_mount = %q\ncache_dir = \"cache\"\n[sensor.air]\nprogram = \"fake-sensor\"\n", mount))
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := b.supervisor("check", b.file)
	if want := fmt.Sprintf("supervisor: warning: %s:6: node.store_mount = %q: store %s: not mounted: ", b.file, mount, mount); err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("check = %v, %q; want the warning %q", err, out, want)
	}
	cache, disk := filepath.Join(b.dir, "cache/logs"), filepath.Join(mount, "logs")
	b.up()
	b.untilPhase("air", Ready)
	if s := b.state(); s.Memory.StoreMounted || s.Memory.StoreFreeBytes != 0 || s.Folders.Logs != cache || !s.Ready {
		t.Errorf("state = %+v, %+v; want ready, the store absent, logs in %s", s.Memory, s.Folders, cache)
	}
	if out, err := b.supervisor("status", b.file); err != nil || !strings.Contains(out, "store not mounted") {
		t.Errorf("status = %v, %q; want the store not mounted", err, out)
	}
	has := func(path, text string) bool {
		got, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(got), text)
	}
	const absent = "the store's disk is absent"
	b.until("the log in RAM", 10*time.Second, func() bool { return has(cache+"/supervisor.log", absent) })

	plug(t, mount)
	speak := func(where string) {
		t.Helper()
		b.until("the log in "+where, 10*time.Second, func() bool {
			if _, err := b.supervisor("restart", b.file, "air"); err != nil {
				t.Fatal(err)
			}
			return b.state().Folders.Logs == where && has(where+"/supervisor.log", `"name":"air"`)
		})
	}
	speak(disk)
	if !has(disk+"/supervisor.log", absent) {
		t.Error("what was said before the disk came is not on it")
	}
	if left, err := os.ReadDir(cache); err != nil || len(left) > 0 {
		t.Errorf("in RAM there is still %v, %v; want nothing", left, err)
	}
	b.until("the state says that the store is mounted", 10*time.Second, func() bool {
		s := b.state()
		return s.Memory.StoreMounted && s.Memory.StoreFreeBytes > 0
	})
	unplug(t, mount)
	speak(cache)
	if _, err := b.supervisor("down", b.file); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(mount); err != nil || len(left) > 0 {
		t.Errorf("below the mount point there is %v, %v; want nothing", left, err)
	}
}

// What was kept in RAM stands on the disk after what was there, and is bounded
// as every log is.
func TestLogsAreBroughtToTheDisk(t *testing.T) {
	dir := t.TempDir()
	n := topology.Node{CacheDir: dir + "/cache", StoreDir: dir + "/store"}
	for path, text := range map[string]string{"store/logs/air.log": "1\n", "cache/logs/air.log.1": "2\n", "cache/logs/air.log": "3\n", "cache/logs/csv.log": "4\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755), os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	p := newLogPlace(n)
	if _, err := p.folder(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.close(), p.store.Close()); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"air.log": "1\n2\n3\n", "csv.log": "4\n"} {
		if got, err := os.ReadFile(dir + "/store/logs/" + name); err != nil || string(got) != want {
			t.Errorf("%s on disk = %q, %v; want %q", name, got, err, want)
		}
	}
}
