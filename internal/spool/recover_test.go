package spool

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/sidecar"
)

func recovery() Recovery {
	return Recovery{Deep: true, Event: event, Alive: noop, Describe: func(id sidecar.ID, name string) *sidecar.Sidecar {
		return &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: name, Worker: id.Worker()}
	}}
}

// counts is a report in numbers.
type counts struct{ Unfinished, Orphans, Finished, Recovered, Damaged, Foreign int }

func TestRecover(t *testing.T) {
	mp4 := string(heldID) + ".mp4"
	write := func(t *testing.T, s *Spool, p, text string) {
		t.Helper()
		if err := os.WriteFile(s.Dir()+"/"+p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(t *testing.T, s *Spool, from, to string) {
		t.Helper()
		if err := os.Rename(s.Dir()+"/"+from, s.Dir()+"/"+to); err != nil {
			t.Fatal(err)
		}
	}
	id := string(heldID)
	for name, c := range map[string]struct {
		break_ func(*testing.T, *Spool)
		want   counts
		left   []string
	}{
		"nothing": {func(t *testing.T, s *Spool) { put(t, s, Ready, heldID, "x") }, counts{}, []string{"ready/ID.json", "ready/ID.mp4"}},
		"an unfinished copy": {func(t *testing.T, s *Spool) { write(t, s, "work/"+id+".part", "x") },
			counts{Unfinished: 1}, nil},
		"a sidecar alone": {func(t *testing.T, s *Spool) {
			put(t, s, Ready, heldID, "x")
			if err := os.Remove(s.Path(Ready, mp4)); err != nil {
				t.Fatal(err)
			}
		}, counts{Orphans: 1}, nil},
		"a file alone": {func(t *testing.T, s *Spool) { write(t, s, "ready/"+mp4, "x") },
			counts{Recovered: 1}, []string{"ready/ID.json", "ready/ID.mp4"}},
		"an empty sidecar": {func(t *testing.T, s *Spool) {
			write(t, s, "ready/"+mp4, "x")
			write(t, s, "ready/"+id+".json", "")
		}, counts{Recovered: 1}, []string{"ready/ID.json", "ready/ID.mp4"}},
		"a move before its rename": {func(t *testing.T, s *Spool) {
			side := *put(t, s, Ready, heldID, "x")
			side.Add(event("sent", "the receiver has it"))
			text, err := side.Encode()
			if err != nil {
				t.Fatal(err)
			}
			write(t, s, "sent/"+id+".json", string(text))
		}, counts{Finished: 1}, []string{"sent/ID.json", "sent/ID.mp4"}},
		"a move after its rename": {func(t *testing.T, s *Spool) {
			side := *put(t, s, Sent, heldID, "x")
			side.History = nil
			text, err := side.Encode()
			if err != nil {
				t.Fatal(err)
			}
			write(t, s, "ready/"+id+".json", string(text))
		}, counts{Finished: 1}, []string{"sent/ID.json", "sent/ID.mp4"}},
		"a completion before its rename": {func(t *testing.T, s *Spool) {
			put(t, s, Ready, heldID, "x")
			rename(t, s, "ready/"+mp4, "work/"+mp4)
		}, counts{Finished: 1}, []string{"work/ID.mp4"}},
		"a file that was cut": {func(t *testing.T, s *Spool) {
			put(t, s, Ready, heldID, "xyz")
			write(t, s, "ready/"+mp4, "x")
		}, counts{Damaged: 1}, []string{"quarantine/ID.json", "quarantine/ID.mp4"}},
		"what is none of ours": {func(t *testing.T, s *Spool) { write(t, s, "ready/notes.txt", "x") },
			counts{Foreign: 1}, []string{"ready/notes.txt"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStates(t, Ready, Sent)
			c.break_(t, s)
			r, err := s.Recover(recovery())
			got := counts{r.Unfinished, r.Orphans, r.Finished, len(r.Recovered), len(r.Damaged), len(r.Foreign)}
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("Recover() (-want +got), %v:\n%s", err, diff)
			}
			if diff := cmp.Diff(c.left, lying(t, s)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			again, err := s.Recover(recovery())
			if err != nil || anything(again) {
				t.Errorf("the second Recover() = %+v, %v; want nothing to do", again, err)
			}
		})
	}
}

func TestRecoverLeavesAloneWhatIsHeld(t *testing.T) {
	s := openStates(t, Ready)
	put(t, s, Ready, heldID, "x")
	hold(t, s, Ready, heldID)
	if err := os.Remove(s.Path(Ready, string(heldID)+".json")); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Recover(recovery()); err != nil || anything(r) {
		t.Errorf("Recover() = %+v, %v; want nothing done about a held file", r, err)
	}
}

// anything says whether there was something to do.
func anything(r Report) bool {
	return r.Unfinished+r.Orphans+r.Finished+len(r.Recovered)+len(r.Damaged) > 0
}
