package backlog

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
)

// startSender runs a sender that tells what it does in a file.
func startSender(t *testing.T, dir, told string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(told)
	must(t, err)
	defer log.Close()
	cmd := exec.Command("work", dir)
	cmd.Stdout, cmd.Stderr = log, os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func told(t *testing.T, path string) *ledger {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	g := newLedger()
	readLedger(g, string(text))
	return g
}

func lines(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return bytes.Count(text, []byte("\n"))
}

// waitLines waits until the sender has gone a random way further.
func waitLines(t *testing.T, cmd *exec.Cmd, path string, more int) {
	t.Helper()
	for until := lines(t, path) + more; lines(t, path) < until; {
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) // where it stands then is left to chance
		if _, err := faultfs.Frozen(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
}

// The power fails at a random moment. What was synced is there, or counted as lost; what
// was acknowledged and synced does not come back.
func TestPowerCuts(t *testing.T) {
	dir := ram(t)
	image, disk := dir+"/disk.img", dir+"/disk"
	err := errors.Join(faultfs.MakeDisk(image, 8<<20), os.Mkdir(disk, 0o700))
	if err == nil {
		err = faultfs.MountDisk(image, disk)
	}
	if errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, faultfs.Unmount(disk)) })
	cmd := startSender(t, disk, dir+"/told")
	cuts := 6
	if faultfs.Soak() > 0 {
		cuts = 50
	}
	for n := range cuts {
		waitLines(t, cmd, dir+"/told", 1+rand.IntN(300))
		cut := filepath.Join(dir, "cut.img")
		must(t, errors.Join(faultfs.Freeze(cmd.Process.Pid), faultfs.CopyDisk(image, cut)))
		g := told(t, dir+"/told")
		must(t, syscall.Kill(cmd.Process.Pid, syscall.SIGCONT))
		afterCut(t, cut, g)
		if t.Failed() {
			t.Fatalf("cut %d, after %d steps", n, g.lines)
		}
		if n == cuts-1 {
			t.Logf("%d records synced, %d acknowledged", g.synced, len(g.acked))
		}
	}
}

func afterCut(t *testing.T, image string, g *ledger) {
	t.Helper()
	at := image + ".d"
	must(t, errors.Join(os.MkdirAll(at, 0o700), faultfs.MountDisk(image, at)))
	defer func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	g.check(t, at, "after the cut")
}

// A sender is killed at random moments, and the next one goes on.
func TestKills(t *testing.T) {
	kills := 5
	if faultfs.Soak() > 0 {
		kills = 100
	}
	for n := range kills {
		dir := ram(t)
		cmd := startSender(t, dir, dir+"/told")
		waitLines(t, cmd, dir+"/told", 1+rand.IntN(600))
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		told(t, dir+"/told").check(t, dir, "after the kill")
		if t.Failed() {
			t.Fatalf("kill %d", n)
		}
	}
}
