package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
)

// kept bounds what the disk of the power cuts has to hold.
const kept = 40

// workChild is a box's workers in one: it completes files in RAM and brings
// them to disk, completes others on disk, sends them, and removes the oldest. It
// says what is done, and what it is about to remove.
func workChild(args []string) error {
	cache, store, err := openApart(args[0], args[1])
	if err != nil {
		return err
	}
	for n := uint64(1); ; n++ {
		id := sidecar.NewID("porch-clips", start(), 0x1234, n)
		if n%3 == 0 {
			err = workFile(store, Ready, id)
		} else if err = workFile(cache, Born, id); err == nil {
			err = workMove(cache, Born, id, func(h *Held, side *sidecar.Sidecar) error { return h.MoveTo(store, Ready, side, noop) }, Ready)
		}
		if err != nil {
			return err
		}
		fmt.Println("ready", id)
		if n%2 == 0 {
			if err := workMove(store, Ready, id, func(h *Held, side *sidecar.Sidecar) error { return h.Move(Sent, side) }, Sent); err != nil {
				return err
			}
			fmt.Println("sent", id)
		}
		if n > kept {
			old := sidecar.NewID("porch-clips", start(), 0x1234, n-kept)
			fmt.Println("going", old)
			state := Ready
			if (n-kept)%2 == 0 {
				state = Sent
			}
			if err := workMove(store, state, old, func(h *Held, _ *sidecar.Sidecar) error { return h.Remove() }, ""); err != nil {
				return err
			}
		}
	}
}

func openApart(cacheDir, storeDir string) (cache, store *Spool, err error) {
	if cache, err = Open(cacheDir, Work, Born); err != nil {
		return nil, nil, err
	}
	store, err = Open(storeDir, Work, Ready, Sent)
	return cache, store, err
}

func workFile(s *Spool, to State, id sidecar.ID) error {
	side := describe(id, string(id)+".mp4")
	side.Add(event(string(to), "made by a test"))
	f, err := s.Create(side.Name)
	if err != nil {
		return err
	}
	text := strings.Repeat(string(id), 1+rand.IntN(2000))
	for len(text) > 0 && err == nil { // as frames come
		n := min(len(text), 1+rand.IntN(30_000))
		_, err = f.WriteString(text[:n])
		text = text[n:]
	}
	if err == nil {
		err = s.Complete(f, to, side)
	}
	return errors.Join(err, f.Close())
}

func workMove(s *Spool, from State, id sidecar.ID, step func(h *Held, side *sidecar.Sidecar) error, next State) error {
	h, err := s.Hold(from, id)
	if err != nil {
		return err
	}
	side := h.Sidecar()
	if next != "" {
		side.Add(event(string(next), "made by a test"))
	}
	return errors.Join(step(h, side), h.Release())
}

// diskImage makes a disk of a file, and mounts it.
func diskImage(t *testing.T, dir string) (image, at string) {
	t.Helper()
	image, at = filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk")
	err := faultfs.MakeDisk(image, 24<<20)
	if err == nil {
		err = mountImage(image, at)
	}
	if errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := faultfs.Unmount(at); err != nil {
			t.Error(err)
		}
	})
	return image, at
}

func mountImage(image, at string) error {
	return errors.Join(os.MkdirAll(at, 0o700), faultfs.MountDisk(image, at))
}

// said is what a worker has said so far: where each file is, and how much it said.
func said(t *testing.T, log string) (where map[string]State, lines int) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	where = map[string]State{}
	for line := range strings.Lines(string(text)) {
		what, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		if where[id] = State(what); what == "going" {
			delete(where, id)
		}
		lines++
	}
	return where, lines
}

// The power fails at a random moment: the disk is then as its image is. What was
// said to be done is there, whole and with its sidecar; nothing that can be seen
// is half; and one recovery settles the rest.
func TestPowerCuts(t *testing.T) {
	dir := ram(t)
	image, disk := diskImage(t, dir)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("work", filepath.Join(dir, "cache"), filepath.Join(disk, "store"))
	cmd.Stdout, cmd.Stderr = log, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	found, settled, last := 0, 0, 0
	for n := range again(15) {
		for lines, until := last, last+1+rand.IntN(9); lines < until; _, lines = said(t, log.Name()) {
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) // which step it hits is left to chance
			if _, err := faultfs.Frozen(cmd.Process.Pid); err != nil {
				t.Fatal(err)
			}
		}
		cut := filepath.Join(dir, "cut.img")
		if err := errors.Join(faultfs.Freeze(cmd.Process.Pid), faultfs.CopyDisk(image, cut)); err != nil {
			t.Fatal(err)
		}
		var where map[string]State
		where, last = said(t, log.Name())
		if err := syscall.Kill(cmd.Process.Pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		files, work := afterCut(t, cut, where)
		found, settled = found+files, settled+work
		if t.Failed() {
			t.Fatalf("cut %d", n)
		}
	}
	t.Logf("%d files found whole, %d things settled", found, settled)
}

// afterCut is the box's next start.
func afterCut(t *testing.T, image string, where map[string]State) (files, settled int) {
	t.Helper()
	at := image + ".d"
	if err := mountImage(image, at); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	store, err := Open(filepath.Join(at, "store"), Work, Ready, Sent)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	wholeFiles(t, store)
	r, err := store.Recover(recovery())
	if err != nil || len(r.Recovered)+len(r.Damaged)+len(r.Foreign) > 0 {
		t.Errorf("Recover() = %+v, %v; want nothing without a sidecar, and nothing damaged", r, err)
	}
	if r, err := store.Recover(recovery()); err != nil || anything(r) {
		t.Errorf("the second Recover() = %+v, %v; want nothing to do", r, err)
	}
	there := wholeFiles(t, store)
	for id, state := range where {
		if got := there[id]; got != state && !(state == Ready && got == Sent) {
			t.Errorf("%s was said to be in %s; after the cut it is in %q", id, state, got)
		}
	}
	return len(where), r.Finished + r.Orphans + r.Unfinished
}

// wholeFiles finds the files of a store, each of which is what its sidecar tells.
func wholeFiles(t *testing.T, s *Spool) map[string]State {
	t.Helper()
	there := map[string]State{}
	for _, state := range Stages() {
		entries, err := s.Entries(state)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if other, twice := there[string(e.ID)]; twice {
				t.Errorf("%s is in %s and in %s", e.ID, other, state)
			}
			there[string(e.ID)] = state
			side, err := s.Sidecar(state, e.ID)
			if err != nil {
				t.Errorf("%s/%s: %v", state, e.Name, err)
				continue
			}
			text, err := fs.ReadFile(s.root.FS(), string(state)+"/"+e.Name)
			if sum := sha256.Sum256(text); err != nil || hex.EncodeToString(sum[:]) != side.SHA256 {
				t.Errorf("%s/%s has %d bytes (%v) with another hash than its sidecar tells of %d bytes", state, e.Name, len(text), err, side.Bytes)
			}
		}
	}
	return there
}
