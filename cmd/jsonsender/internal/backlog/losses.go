package backlog

import (
	"slices"
	"time"
)

// Reason is why records were lost.
type Reason string

// Thinned readings made room for others of their stream; dropped records made room for
// newer ones; skipped ones were given up by the caller; damaged ones could not be read.
const (
	Thinned Reason = "thinned"
	Dropped Reason = "dropped"
	Skipped Reason = "skipped"
	Damaged Reason = "damaged"
)

// Loss is what a stream has lost for one reason since the log was made. Whose the
// damaged records were is not known: their key is empty.
type Loss struct {
	Key     string    `json:"key"`
	Class   Class     `json:"class"`
	Reason  Reason    `json:"reason"`
	Records uint64    `json:"records"`
	First   Position  `json:"first"` // the lowest and the highest position among them
	Last    Position  `json:"last"`
	From    time.Time `json:"from,omitzero"` // the earliest and the latest time of their data, if known
	To      time.Time `json:"to,omitzero"`
}

// maxLosses bounds the list: what other streams lose is counted under the key "".
const maxLosses = 64

func lossOf(e Entry, why Reason) Loss {
	return Loss{Key: e.Key, Class: e.Class, Reason: why, Records: 1, First: e.Position, Last: e.Position, From: e.Time, To: e.Time}
}

// merge adds a loss to a list.
func merge(list []Loss, more Loss) []Loss {
	same := func(l Loss) bool { return l.Key == more.Key && l.Class == more.Class && l.Reason == more.Reason }
	i := slices.IndexFunc(list, same)
	if i < 0 && len(list) >= maxLosses {
		more.Key = ""
		i = slices.IndexFunc(list, same)
	}
	if i < 0 {
		return append(list, more)
	}
	l := &list[i]
	l.Records += more.Records
	l.First, l.Last = min(l.First, more.First), max(l.Last, more.Last)
	if !more.From.IsZero() && (l.From.IsZero() || more.From.Before(l.From)) {
		l.From = more.From
	}
	if more.To.After(l.To) {
		l.To = more.To
	}
	return list
}

func (l *Log) lose(more ...Loss) {
	for _, one := range more {
		l.state.Losses = merge(l.state.Losses, one)
	}
	l.unwritten = true
}

// Losses lists what was lost since the log was made, by stream and reason. It is kept on
// disk, and its counts never fall.
func (l *Log) Losses() []Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.state.Losses)
}

// LossesBefore are the losses as they were when the log was opened, before what that found.
func (l *Log) LossesBefore() []Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.before)
}

// Lost is how many records were lost for any reason since the log was made.
func (l *Log) Lost() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return lost(l.state.Losses)
}

func lost(list []Loss) (n uint64) {
	for _, one := range list {
		n += one.Records
	}
	return n
}
