package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/perch-edge/perch/internal/sidecar"
)

// TestMain lets the test binary be the processes that are killed, or contend.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"transit": func() { child(transitChild) },
		"contend": func() { child(contendChild) },
		"work":    func() { child(workChild) },
	})
}

// child is a program of the test binary.
func child(run func(args []string) error) {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// transition is a step of one file's life, from what is there before it to what
// has to be there after it, whatever happened in between.
type transition struct {
	name   string
	before func(t *testing.T, cache, store *Spool)
	do     func(cache, store *Spool, tries int) error
	after  map[string]string // by path: a file's text, or a sidecar's states
}

const clip = "a clip of some length"

func transitions() []transition {
	mp4, json := string(heldID)+".mp4", string(heldID)+".json"
	return []transition{
		{"complete", func(t *testing.T, cache, _ *Spool) {
			f, err := cache.Create(mp4)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(clip); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}, func(cache, _ *Spool, tries int) error {
			f, err := reopen(cache, mp4, tries)
			if err != nil {
				return err
			}
			defer f.Close()
			side := describe(heldID, mp4)
			side.Add(event("born", "made by a test"))
			return repeat(tries, func() error { return cache.Complete(f, Born, side) })
		}, map[string]string{"cache/born/" + mp4: clip, "cache/born/" + json: "born"}},

		{"move", func(t *testing.T, _, store *Spool) { put(t, store, Ready, heldID, clip) },
			func(_, store *Spool, tries int) error {
				return onHeld(store, Ready, "sent", tries, func(h *Held, side *sidecar.Sidecar) error { return h.Move(Sent, side) })
			}, map[string]string{"store/sent/" + mp4: clip, "store/sent/" + json: "ready sent"}},

		{"move to a new folder", func(t *testing.T, cache, _ *Spool) { put(t, cache, Born, heldID, clip) },
			func(cache, _ *Spool, tries int) error {
				return onHeld(cache, Born, "dropped", tries, func(h *Held, side *sidecar.Sidecar) error { return h.Move(Dropped, side) })
			}, map[string]string{"cache/dropped/" + mp4: clip, "cache/dropped/" + json: "born dropped"}},

		{"move to disk", func(t *testing.T, cache, _ *Spool) { put(t, cache, Born, heldID, clip) },
			func(cache, store *Spool, tries int) error {
				return onHeld(cache, Born, "ready", tries, func(h *Held, side *sidecar.Sidecar) error { return h.MoveTo(store, Ready, side, noop) })
			}, map[string]string{"store/ready/" + mp4: clip, "store/ready/" + json: "born ready"}},

		{"amend", func(t *testing.T, _, store *Spool) { put(t, store, Ready, heldID, clip) },
			func(_, store *Spool, tries int) error {
				if side, err := store.Sidecar(Ready, heldID); err == nil && side.State() == "amended" {
					return nil
				}
				return onHeld(store, Ready, "amended", tries, func(h *Held, side *sidecar.Sidecar) error { return h.Amend(side) })
			}, map[string]string{"store/ready/" + mp4: clip, "store/ready/" + json: "ready amended"}},

		{"remove", func(t *testing.T, _, store *Spool) { put(t, store, Sent, heldID, clip) },
			func(_, store *Spool, tries int) error {
				return onHeld(store, Sent, "", tries, func(h *Held, _ *sidecar.Sidecar) error { return h.Remove() })
			}, map[string]string{}},

		{"recover", litter, func(cache, store *Spool, tries int) error {
			return repeat(tries, func() error { return recoverBoth(cache, store) })
		}, map[string]string{"store/sent/" + mp4: clip, "store/sent/" + json: "ready sent",
			"store/ready/" + other(1) + ".mp4": "alone", "store/ready/" + other(1) + ".json": "ready",
			"store/quarantine/" + other(2) + ".mp4": "cut", "store/quarantine/" + other(2) + ".json": "ready quarantine"}},
	}
}

func other(n int) string { return string(heldID[:len(heldID)-1]) + strconv.Itoa(n+4) }

func describe(id sidecar.ID, name string) *sidecar.Sidecar {
	return &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: name, Media: "video/mp4", Worker: id.Worker()}
}

// litter is what several kills have left: a move before its rename, a file
// without a sidecar, one that was cut, a sidecar without a file, and a copy and
// a sidecar that were never finished.
func litter(t *testing.T, _, store *Spool) {
	next := put(t, store, Ready, heldID, clip).Clone()
	next.Add(event("sent", "made by a test"))
	text, err := next.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 3} {
		put(t, store, Ready, sidecar.ID(other(n)), "cut off")
	}
	err = errors.Join(
		os.WriteFile(store.Path(Sent, string(heldID)+".json"), text, 0o600),
		os.WriteFile(store.Path(Ready, other(1)+".mp4"), []byte("alone"), 0o600),
		os.Truncate(store.Path(Ready, other(2)+".mp4"), 3),
		os.Remove(store.Path(Ready, other(3)+".mp4")),
		os.WriteFile(store.Path(Work, other(4)+".part"), []byte("a c"), 0o600),
		os.WriteFile(store.Path(Work, other(5)+".json.new"), []byte("{"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// onHeld does a step with the file where it is still to be done.
func onHeld(s *Spool, state State, next string, tries int, step func(h *Held, side *sidecar.Sidecar) error) error {
	h, err := s.Hold(state, heldID)
	if err != nil {
		return err
	}
	side := h.Sidecar()
	if next != "" {
		side.Add(event(next, "made by a test"))
	}
	return errors.Join(repeat(tries, func() error { return step(h, side) }), h.Release())
}

func reopen(s *Spool, name string, tries int) (f *os.File, err error) {
	err = repeat(tries, func() error {
		f, err = s.Reopen(name)
		return err
	})
	return f, err
}

func repeat(tries int, do func() error) (err error) {
	for range tries {
		if err = do(); err == nil {
			break
		}
	}
	return err
}

func recoverBoth(cache, store *Spool) error {
	_, err := cache.Recover(recovery())
	_, err2 := store.Recover(recovery())
	return errors.Join(err, err2)
}

// openBoth opens a cache and a store in a folder.
func openBoth(dir string) (cache, store *Spool, err error) {
	if cache, err = Open(dir+"/cache", Work, Born); err != nil {
		return nil, nil, err
	}
	if store, err = Open(dir+"/store", Work, Ready, Sent); err != nil {
		return nil, nil, errors.Join(err, cache.Close())
	}
	return cache, store, nil
}

func closeBoth(cache, store *Spool, err error) error {
	return errors.Join(err, cache.Close(), store.Close())
}

func (tr transition) prepare(t *testing.T, dir string) {
	t.Helper()
	cache, store, err := openBoth(dir)
	if err != nil {
		t.Fatal(err)
	}
	tr.before(t, cache, store)
	if err := closeBoth(cache, store, nil); err != nil {
		t.Fatal(err)
	}
}

// run is what a worker does at its start: it recovers, if it is to, and takes the step.
func (tr transition) run(dir string, recovers bool, tries int) error {
	cache, store, err := openBoth(dir)
	if err != nil {
		return err
	}
	if recovers {
		err = recoverBoth(cache, store)
	}
	if err == nil {
		err = tr.do(cache, store, tries)
	}
	return closeBoth(cache, store, err)
}

// settle takes the step again with all well, as often as a worker would, and
// looks at what is there then.
func (tr transition) settle(t *testing.T, dir, how string) {
	t.Helper()
	if err := tr.run(dir, true, 1); err != nil && !errors.Is(err, fs.ErrNotExist) { // it was done already
		t.Errorf("%s: once more = %v; want nil, or nothing to do", how, err)
	}
	tr.check(t, dir, how)
}

func (tr transition) check(t *testing.T, dir, how string) {
	t.Helper()
	got := map[string]string{}
	for name, text := range tree(t, dir) {
		if strings.HasSuffix(name, ".json") {
			text = states(t, text)
		}
		got[name] = text
	}
	if diff := cmp.Diff(tr.after, got); diff != "" {
		t.Errorf("%s: what is there (-want +got):\n%s", how, diff)
	}
	cache, store, err := openBoth(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Spool{cache, store} {
		if r, err := s.Recover(recovery()); err != nil || anything(r) {
			t.Errorf("%s: one more Recover() = %+v, %v; want nothing to do", how, r, err)
		}
	}
	if err := closeBoth(cache, store, nil); err != nil {
		t.Error(err)
	}
}

// states is the history that a sidecar tells.
func states(t *testing.T, text string) string {
	t.Helper()
	side, err := sidecar.Decode([]byte(text))
	if err != nil {
		t.Errorf("Decode(%q) = %v", text, err)
		return ""
	}
	var list []string
	for _, e := range side.History {
		list = append(list, e.State)
	}
	return strings.Join(list, " ")
}

// transitChild is a process that takes a step: name, folder, whether it recovers first.
func transitChild(args []string) error {
	list := transitions()
	i := slices.IndexFunc(list, func(tr transition) bool { return tr.name == args[0] })
	err := list[i].run(args[1], args[2] == "true", 1)
	if errors.Is(err, fs.ErrNotExist) && args[2] == "true" { // it was done before the kill
		err = nil
	}
	return err
}
