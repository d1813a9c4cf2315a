package backlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/perch-edge/perch/internal/faultfs"
)

// logOf makes a log of some records of a stream, of which it has skipped the first.
func logOf(t *testing.T, root *os.Root, dir, key string, n int) {
	t.Helper()
	l, err := Open(root, dir, small())
	must(t, err)
	for k := range n {
		first, err := l.Append(numbered(Event, key, k, 200))
		must(t, err)
		if k == 0 {
			must(t, l.Skip(first))
		}
	}
	must(t, l.Close())
}

// wantAdopted wants the records of both logs in the second, each in its order.
func wantAdopted(t *testing.T, root *os.Root, how string, counts map[string]int) {
	t.Helper()
	l, err := Open(root, "new", small())
	if err != nil {
		t.Fatalf("%s: Open() = %v", how, err)
	}
	lost := l.Lost()
	count, at := census(t, drain(t, l))
	for key, n := range counts {
		if count[key] != n-1 || at[key][0] != 1 || at[key][n-2] != n-1 {
			t.Errorf("%s: %d records of %s, %v; want %d in order", how, count[key], key, at[key], n-1)
		}
	}
	if int(lost) != len(counts) {
		t.Errorf("%s: %d lost; want one of each", how, lost)
	}
	must(t, l.Close())
	if _, err := root.Stat("old"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: the old folder is there (%v); want it gone", how, err)
	}
}

func TestAdopt(t *testing.T) {
	root := openRoot(t, ram(t))
	must(t, Adopt(root, "old", "new", small())) // nothing
	logOf(t, root, "old", "a", 30)
	must(t, Adopt(root, "old", "new", small()))
	wantAdopted(t, root, "a whole log", map[string]int{"a": 30})

	root = openRoot(t, ram(t))
	logOf(t, root, "old", "a", 400)
	logOf(t, root, "new", "b", 20)
	held, err := Open(root, "old", small())
	must(t, err)
	if err := Adopt(root, "old", "new", small()); err == nil {
		t.Error("Adopt() of an open log = nil; want an error")
	}
	must(t, held.Close())
	must(t, Adopt(root, "old", "new", small()))
	wantAdopted(t, root, "two logs", map[string]int{"a": 400, "b": 20})
}

// Adopting fails at each of its calls, and is called again: every record is there once.
func TestAdoptFailsAtEachCall(t *testing.T) {
	faults, backing, at := mountFaults(t)
	sample, runs := faultfs.NewSample(9), 0
	t.Log(sample)
	for n := sample.Next(0, 1); ; n = sample.Next(0, n+1) {
		run, how := fmt.Sprintf("/run-%d", n), fmt.Sprintf("call %d and all behind it fail", n)
		must(t, os.Mkdir(backing+run, 0o700))
		behind, err := os.OpenRoot(backing + run)
		must(t, err)
		logOf(t, behind, "old", "a", 400)
		logOf(t, behind, "new", "b", 20)
		root, err := os.OpenRoot(at + run)
		must(t, err)
		faults.Calls()
		faults.Break(n, func() {})
		err = Adopt(root, "old", "new", small())
		broken := faults.Broken()
		calls := faults.Calls()
		faults.Break(0, nil)
		if broken == (err == nil) {
			t.Errorf("%s: Adopt() = %v, broken %v", how, err, broken)
		}
		must(t, errors.Join(root.Close(), behind.Close()))
		behind = openRoot(t, backing+run)
		if err := Adopt(behind, "old", "new", small()); err != nil {
			t.Errorf("%s: a second Adopt() = %v; want nil", how, err)
		}
		wantAdopted(t, behind, how, map[string]int{"a": 400, "b": 20})
		if t.Failed() {
			t.Fatalf("calls: %q", calls)
		}
		must(t, os.RemoveAll(backing+run))
		if runs++; !broken {
			break
		}
	}
	t.Logf("%d runs", runs)
}
