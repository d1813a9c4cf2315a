package main

import (
	"cmp"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// A receiver that drops repeated batches knows them by a key, which follows from the records. So a
// batch that may have arrived is sent again with exactly the same records, also after a restart.

// attempt is a batch that was sent and is not decided yet.
type attempt struct {
	parts []stretch
	until time.Time // when a restarted sender no longer waits for its records; zero is never
}

// stretch is records of one stream that follow each other.
type stretch struct {
	Topic msg.Topic `json:"topic"`
	Epoch msg.Epoch `json:"epoch"`
	First msg.Seq   `json:"first"`
	Last  msg.Seq   `json:"last"`
	N     int       `json:"n"` // how many: reduced readings stand for several numbers each
}

// of returns the records of the stretch.
func (s stretch) of(list []*entry) (found []*entry) {
	for _, e := range list {
		h := &e.record.Header
		if !e.done && h.Topic() == s.Topic && h.Epoch == s.Epoch && s.First <= h.Seq && h.Seq <= s.Last {
			found = append(found, e)
		}
	}
	return found
}

// attemptFor is how long a restarted sender waits until the histories have brought the records of
// its last batch.
const attemptFor = 5 * time.Second

// set notes the records that are under way. gaps says that others may stand between them that
// are not.
func (a *attempt) set(batch []*entry, gaps bool) {
	a.parts, a.until = nil, time.Time{}
	for _, e := range batch {
		topic, epoch, seq := e.record.Topic(), e.record.Epoch, e.record.Seq
		if n := len(a.parts); n > 0 {
			if last := &a.parts[n-1]; last.Topic == topic && last.Epoch == epoch && last.Last < seq && !gaps {
				last.Last, last.N = seq, last.N+1
				continue
			}
		}
		a.parts = append(a.parts, stretch{topic, epoch, seq, seq, 1})
	}
}

func byTopic(a, b *entry) int { return cmp.Compare(a.record.Topic(), b.record.Topic()) }

// undecided are the records of a keyed batch that may or may not have arrived.
func undecided(batch []*entry, fates []fate, keyed bool) (list []*entry) {
	if !keyed {
		return nil
	}
	for i, e := range batch {
		if fates[i] == waits {
			list = append(list, e)
		}
	}
	return list
}

// inRAM are the entries that are in RAM alone.
func inRAM(list []*entry) (left []*entry) {
	for _, e := range list {
		if !e.isElsewhere() {
			left = append(left, e)
		}
	}
	return left
}

// repeat is the batch under way once more, or how long to wait for its records. The caller holds
// both locks.
func (o *outbox) repeat(now time.Time) (batch []*entry, again time.Duration, err error) {
	from := inRAM(o.waiting)
	if o.disk.len() > 0 {
		onDisk, err := o.disk.peek(o.limits.records+len(o.parked), 2*o.limits.bytes)
		if err != nil {
			return nil, never, err
		}
		from = append(onDisk, from...)
	}
	for _, s := range o.states {
		from = append(from, s)
	}
	for _, r := range o.attempt.parts {
		found := r.of(from)
		batch = append(batch, found...)
		if len(found) != r.N && now.Before(o.attempt.until) {
			return nil, attemptFor / 50, nil
		}
	}
	if len(batch) == 0 {
		o.attempt.set(nil, false)
		return nil, time.Millisecond, nil
	}
	return batch, 0, nil
}
