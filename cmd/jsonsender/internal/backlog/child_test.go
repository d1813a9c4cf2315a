package backlog

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// runChild is the main of a program that a test kills.
func runChild(do func(args []string) error) {
	if err := do(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// sender is a program that appends and acknowledges. It tells what it is about to do and what
// is durable: "append N", "synced N" (all up to N), "ack N", "acked" (what it was about to is durable).
type sender struct {
	log   *Log
	tell  func(what string)
	tries int // of each step
	next  int
	acks  []int
}

func (s *sender) try(do func() error) (err error) {
	for range s.tries {
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}

// round appends some records, acknowledges some of the oldest out of order, and syncs.
func (s *sender) round(size int) error {
	var list []Entry
	for k := range 10 {
		list = append(list, numbered(Class((s.next+k)%10/9), fmt.Sprint("s", s.next%2), s.next+k, size))
	}
	s.tell(fmt.Sprint("append ", s.next+len(list)-1))
	if err := s.try(func() error { _, err := s.log.Append(list...); return err }); err != nil {
		return err
	}
	s.next += len(list)
	if err := s.try(s.log.Sync); err != nil {
		return err
	}
	s.tell(fmt.Sprint("synced ", s.next-1))
	old, err := s.log.Peek(0, 8, 1<<20)
	if err != nil {
		return err
	}
	var some []Position
	for i, e := range old {
		if i%4 != 3 {
			some = append(some, e.Position)
			_, n, _ := strings.Cut(name(e), "/")
			s.tell("ack " + n)
		}
	}
	if err := s.try(func() error { return s.log.Ack(some...) }); err != nil {
		return err
	}
	if err := s.try(s.log.Sync); err != nil {
		return err
	}
	s.tell("acked")
	return nil
}

// ledger is what a sender told.
type ledger struct {
	appended, synced int // the highest number
	tried, acked     map[int]bool
	lines            int
}

func (g *ledger) line(text string) {
	g.lines++
	verb, number, _ := strings.Cut(text, " ")
	n, _ := strconv.Atoi(number)
	switch verb {
	case "append":
		g.appended = n
	case "synced":
		g.synced = n
	case "ack":
		g.tried[n] = true
	case "acked":
		for n := range g.tried {
			g.acked[n] = true
		}
	}
}

func newLedger() *ledger { return &ledger{synced: -1, tried: map[int]bool{}, acked: map[int]bool{}} }

// check opens the log and wants each record that is synced and was not acknowledged, or a
// count of what is missing, and none that is acknowledged.
func (g *ledger) check(t *testing.T, dir string, how string) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	l, err := Open(root, "log", small())
	if err != nil {
		t.Fatalf("%s: Open() = %v; want nil", how, err)
	}
	lost := int(l.Lost())
	last, seen := -1, map[int]bool{}
	for _, e := range drain(t, l) {
		var n int
		_, number, _ := strings.Cut(name(e), "/")
		if n, err = strconv.Atoi(number); err != nil || n <= last || n > g.appended {
			t.Errorf("%s: record %d follows %d (%v); want each once, in order, up to %d", how, n, last, err, g.appended)
		}
		want := numbered(e.Class, e.Key, n, len(e.Payload)-len(name(e))-1)
		if string(want.Payload) != string(e.Payload) {
			t.Errorf("%s: record %d is not what was appended", how, n)
		}
		if g.acked[n] {
			t.Errorf("%s: record %d was acknowledged and is back", how, n)
		}
		last, seen[n] = n, true
	}
	missing := 0
	for n := 0; n <= g.synced; n++ {
		if !seen[n] && !g.tried[n] {
			missing++
		}
	}
	if missing > lost {
		t.Errorf("%s: %d records are missing, %d are counted as lost", how, missing, lost)
	}
	must(t, l.Close())
}

// workChild is a sender that works until it is killed.
func workChild(args []string) error {
	root, err := os.OpenRoot(args[0])
	if err != nil {
		return err
	}
	l, err := Open(root, "log", small())
	if err != nil {
		return err
	}
	s := &sender{log: l, tries: 1, tell: func(what string) { fmt.Println(what) }}
	for {
		if err := s.round(1000 + s.next%500); err != nil {
			return err
		}
	}
}

// trialChild is a sender that goes a few rounds on a log that has reached its bound.
func trialChild(args []string) error {
	next, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return trial(args[0], next, 1, func(what string) { fmt.Println(what) })
}

func trial(dir string, next, tries int, tell func(what string)) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	s := &sender{tries: tries, tell: tell, next: next}
	if err := s.try(func() (err error) { s.log, err = Open(root, "log", small()); return err }); err != nil {
		return err
	}
	for range 12 {
		if err := s.round(1000); err != nil {
			return errors.Join(err, s.log.Close())
		}
	}
	if err := s.log.Close(); tries == 1 { // it is not tried again; all was synced before
		return err
	}
	return nil
}

func readLedger(g *ledger, text string) {
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, "\n") {
			g.line(strings.TrimSpace(line))
		}
	}
}
