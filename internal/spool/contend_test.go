package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
)

// contended is how many files the processes of a round are after.
const contended = 200

func contendedID(n int) sidecar.ID { return sidecar.NewID("porch-clips", start(), 0x1234, uint64(n)) }

// fate is what becomes of the n-th file: it is dropped and removed, or goes to
// the store and is sent, and every fifth of these is removed then.
func fate(n int) (dropped, removed bool) { return n%3 == 0, n%3 == 0 || n%5 == 0 }

// contendChild is a worker that moves files on as long as there are some to be
// moved, or with "recover" recovers over and over.
func contendChild(args []string) error {
	cache, store, err := openBoth(args[1])
	if err != nil {
		return err
	}
	if args[0] == "recover" {
		for {
			if err := recoverAmidst(cache, store, args[2] == "killed"); err != nil {
				return err
			}
		}
	}
	held := 0
	for left := contended; left > 0; {
		left = 0
		for n := range contended { // both in this order: they are at each other's heels
			more, err := contendFor(cache, store, n)
			if errors.Is(err, ErrHeld) {
				held++
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("file %d: %w", n, err)
			}
			if more {
				left++
			}
		}
	}
	fmt.Println(held)
	return nil
}

// contendFor takes one step with the n-th file, and says whether it may not have
// been its last.
func contendFor(cache, store *Spool, n int) (more bool, err error) {
	id, name := contendedID(n), string(contendedID(n))+".mp4"
	dropped, removed := fate(n)
	for _, at := range []struct {
		s    *Spool
		in   State
		step func(h *Held, side *sidecar.Sidecar) error
	}{
		{cache, Born, func(h *Held, side *sidecar.Sidecar) error {
			if dropped {
				side.Add(event("dropped", "made by a test"))
				return h.Move(Dropped, side)
			}
			side.Add(event("ready", "made by a test"))
			return h.MoveTo(store, Ready, side, noop)
		}},
		{cache, Dropped, func(h *Held, _ *sidecar.Sidecar) error { return h.Remove() }},
		{store, Ready, func(h *Held, side *sidecar.Sidecar) error {
			side.Add(event("sent", "made by a test"))
			return errors.Join(h.Amend(h.Sidecar()), h.Move(Sent, side))
		}},
		{store, Sent, func(h *Held, _ *sidecar.Sidecar) error {
			if removed {
				return h.Remove()
			}
			return nil
		}},
	} {
		if there, err := at.s.has(at.in, name); err != nil {
			return true, err
		} else if !there {
			continue
		}
		if at.in == Sent && !removed {
			return false, nil
		}
		h, err := at.s.Hold(at.in, id)
		if err != nil {
			return true, err
		}
		return true, errors.Join(at.step(h, h.Sidecar()), h.Release())
	}
	return false, nil
}

// recoverAmidst recovers while others are at work: it may find their traces,
// where they are killed, but nothing that needs a new history.
func recoverAmidst(cache, store *Spool, killed bool) error {
	for _, s := range []*Spool{cache, store} {
		how := recovery()
		how.Deep = rand.IntN(2) == 0
		r, err := s.Recover(how)
		if err != nil {
			return err
		}
		if len(r.Recovered)+len(r.Damaged)+len(r.Foreign) > 0 || !killed && r.Finished > 0 {
			return fmt.Errorf("in %s amidst the others' work it found %+v", s.Dir(), r)
		}
	}
	return nil
}

// Two processes are after the same files while a third recovers; in every other
// round the two are killed now and then. Each file comes to its end once.
func TestContention(t *testing.T) {
	for round := range again(2) {
		killed := round%2 == 1
		dir := ram(t)
		cache, store, err := openBoth(dir)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for n := range contended {
			put(t, cache, Born, contendedID(n), clip)
			if _, removed := fate(n); !removed {
				want["store/sent/"+string(contendedID(n))+".mp4"] = clip
				want["store/sent/"+string(contendedID(n))+".json"] = "born ready sent"
			}
		}
		word := map[bool]string{true: "killed"}[killed]
		recovers := startContender(t, "recover", dir, word)
		workers := []*contender{startContender(t, "move", dir, word), startContender(t, "move", dir, word)}
		for killed && len(workers) < 12 { // when is left to chance, and decides nothing
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			w := workers[len(workers)-2]
			w.kill()
			workers = append(workers, startContender(t, "move", dir, word))
		}
		for _, w := range workers {
			if out, err := w.wait(); err != nil {
				t.Errorf("a mover of round %d: %v: %s", round, err, out)
			} else if !w.killed {
				t.Logf("round %d: a file was held by another process %s times", round, strings.TrimSpace(out))
			}
		}
		recovers.kill()
		if out, err := recovers.wait(); err != nil || out != "" {
			t.Errorf("the recovery of round %d: %v: %s", round, err, out)
		}
		if err := recoverBoth(cache, store); err != nil {
			t.Error(err)
		}
		if err := closeBoth(cache, store, nil); err != nil {
			t.Error(err)
		}
		transition{after: want}.check(t, dir, fmt.Sprintf("round %d", round))
		if t.Failed() {
			t.FailNow()
		}
	}
}

// contender is one of the processes that are after the files.
type contender struct {
	cmd    *exec.Cmd
	out    strings.Builder
	killed bool
}

func startContender(t *testing.T, args ...string) *contender {
	t.Helper()
	w := &contender{cmd: exec.Command("contend", args...)}
	w.cmd.Stdout, w.cmd.Stderr = &w.out, &w.out
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *contender) kill() {
	w.killed = true
	_ = w.cmd.Process.Kill()
}

func (w *contender) wait() (string, error) {
	err := w.cmd.Wait()
	if exit := (*exec.ExitError)(nil); w.killed && errors.As(err, &exit) && !exit.Exited() {
		err = nil // by the kill
	}
	return w.out.String(), err
}

// again counts how often a test is to be repeated: that often, and in a soak as
// long as it lasts.
func again(atLeast int) func(func(int) bool) {
	end := time.Now().Add(faultfs.Soak())
	return func(yield func(int) bool) {
		for n := 0; n < atLeast || time.Now().Before(end); n++ {
			if !yield(n) {
				return
			}
		}
	}
}
