package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/backlog"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// span is the numbers of one stream that a record stands for: one message, or the readings that
// were reduced to it.
type span struct {
	Epoch msg.Epoch `json:"epoch"`
	First msg.Seq   `json:"first"`
	Last  msg.Seq   `json:"last"`
	done  bool
}

// track is how far a stream has come. A message is settled when it was acknowledged, is in the
// backlog, or is not to be sent at all.
type track struct {
	// Settled is the last message up to which all are settled.
	Settled msg.Cursor `json:"settled"`
	// Beyond lists those behind it that are settled as well.
	Beyond []span `json:"beyond,omitempty"`

	known bool
	open  []*span // behind Settled, in order
}

// tracks are those of all streams. They are kept in RAM across a restart of the worker, where
// the histories are that they refer to.
type tracks map[msg.Topic]*track

func (ts tracks) of(topic msg.Topic) *track {
	t := ts[topic]
	if t == nil {
		t = &track{}
		ts[topic] = t
	}
	return t
}

// begin notes a record that is to be settled later.
func (ts tracks) begin(topic msg.Topic, epoch msg.Epoch, first, last msg.Seq) *span {
	t := ts.of(topic)
	s := &span{Epoch: epoch, First: first, Last: last}
	t.open = append(t.open, s)
	return s
}

// settle notes that a record is settled.
func (ts tracks) settle(topic msg.Topic, s *span) {
	t := ts.of(topic)
	s.done = true
	n := 0
	for n < len(t.open) && t.open[n].done {
		t.Settled, t.known = msg.Cursor{Epoch: t.open[n].Epoch, Seq: t.open[n].Last}, true
		n++
	}
	clear(t.open[:n])
	t.open = t.open[n:] // nothing is moved: up to a thousand wait behind
	if len(t.open) > maxOpen {
		t.merge()
	}
}

// maxOpen is how many spans may stand behind one that is not settled before they are merged.
const maxOpen = 4096

// merge makes neighbours that are settled one span.
func (t *track) merge() {
	left := t.open[:1]
	for _, s := range t.open[1:] {
		last := left[len(left)-1]
		if last.done && s.done && last.Epoch == s.Epoch && last.Last+1 >= s.First {
			last.Last = s.Last
			continue
		}
		left = append(left, s)
	}
	clear(t.open[len(left):])
	t.open = left
}

// spooled notes a record of the last run that is in the backlog: it went there just before the kill.
func (ts tracks) spooled(topic msg.Topic, epoch msg.Epoch, seq msg.Seq) {
	t := ts[topic]
	if t == nil {
		t = &track{}
		ts[topic] = t
	}
	t.Beyond = append(t.Beyond, span{Epoch: epoch, First: seq, Last: seq})
}

// isSettled reports whether a message was settled before this run.
func (t *track) isSettled(epoch msg.Epoch, seq msg.Seq) bool {
	return slices.ContainsFunc(t.Beyond, func(s span) bool { return s.Epoch == epoch && s.First <= seq && seq <= s.Last })
}

// resume is where a subscriber goes on.
func (ts tracks) resume(topic msg.Topic) (msg.Cursor, bool) {
	t := ts[topic]
	if t == nil || !t.known {
		return msg.Cursor{}, false
	}
	return t.Settled, true
}

// settled are the tracks without what is not settled.
func (ts tracks) settled() tracks {
	list := tracks{}
	for topic, t := range ts {
		if len(t.open) > 0 {
			t.merge()
		}
		behind := func(s span) bool {
			return s.Epoch < t.Settled.Epoch || s.Epoch == t.Settled.Epoch && s.Last <= t.Settled.Seq
		}
		t.Beyond = slices.DeleteFunc(t.Beyond, behind)
		kept := &track{Settled: t.Settled, Beyond: slices.Clone(t.Beyond)}
		for _, s := range t.open {
			if s.done {
				kept.Beyond = append(kept.Beyond, *s)
			}
		}
		if t.known || len(kept.Beyond) > 0 {
			list[topic] = kept
		}
	}
	return list
}

const progressVersion = 1

// progress is what a sender that was killed goes on from. It is kept in RAM, as the histories are
// that it refers to: a reboot begins anew.
type progress struct {
	Version int               `json:"v"`
	BootID  string            `json:"boot_id"`
	Streams tracks            `json:"streams"`
	Spooled backlog.Position  `json:"spooled,omitempty"` // all before it in the backlog is settled in Streams
	Sending []stretch         `json:"sending,omitempty"` // the batch that was under way
	Lost    map[string]uint64 `json:"lost"`              // by the backlog, by reason, that is counted in the state
}

// save writes the file anew.
func (p *progress) save(cache *spool.Spool, name string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return cache.WriteAtom(name, text)
}

// loadProgress reads what the last run of this boot has left. Where that cannot be read, with an
// error too, it begins anew: records of the histories are sent again.
func loadProgress(cache *spool.Spool, name, bootID string) (*progress, error) {
	none := &progress{Streams: tracks{}}
	text, err := cache.ReadAtom(name)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	var p progress
	if err := json.Unmarshal(text, &p); err != nil || p.Version != progressVersion {
		return none, fmt.Errorf("%s: want the progress of a sender, version %d, got %.40q: records that the histories still hold are sent again", name, progressVersion, text)
	}
	if p.BootID != bootID || p.Streams == nil {
		return none, nil
	}
	for topic, t := range p.Streams {
		if t == nil {
			delete(p.Streams, topic)
			continue
		}
		t.known = t.Settled.Epoch != 0
	}
	return &p, nil
}
