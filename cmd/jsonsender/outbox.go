package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/backlog"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

// The outbox holds what the receiver has not acknowledged.
//
//	add --> waiting (RAM) --> take --> the sink --> settle
//	            └─ after spool_after, or when too much waits ─> backlog (disk) ─> take
//
// While the backlog holds anything, only the backlog is sent, so that each stream stays in order.
// States are about now: only the newest of each stream waits, in RAM, and it goes first.

const (
	// maxWaiting bounds the records in RAM. Half of it makes them go to disk at once. A publisher's
	// history keeps 1024 messages of a stream, so that a kill costs none.
	maxWaiting      = 1000
	maxWaitingBytes = 4 << 20
	// maxParked bounds the refused records that wait for their next attempt.
	maxParked = 1000
	// parkFirst is the pause before a refused record is tried again; it doubles each time.
	parkFirst = 2 * time.Second
)

// entry is a record on its way out.
type entry struct {
	record record.Record
	body   []byte // as the format wrote it; nil: not yet
	at     time.Time
	span   *span            // until it is settled
	disk   backlog.Position // 0: only in RAM
	stored bool             // it came from the disk
	done   bool
}

func (e *entry) isState() bool { return e.record.Kind == msg.KindState }

func (e *entry) size() int { return len(e.record.Raw()) }

// isElsewhere reports whether an entry needs not be sent from RAM: it is done, or is in the backlog.
func (e *entry) isElsewhere() bool { return e.done || e.disk != 0 && !e.stored }

// refusal is what is known of a record that the receiver has refused.
type refusal struct {
	times    int
	until    time.Time // not before then is it tried again
	accepted uint64    // how many records had been accepted at the first refusal
}

// outbox is safe for concurrent use.
type outbox struct {
	limits limits
	more   chan struct{} // something has come that can be taken
	due    chan struct{} // something is to be written to disk

	disk disk // locked before mu

	mu       sync.Mutex
	waiting  []*entry // in order of arrival
	bytes    int      // of their records
	states   map[msg.Topic]*entry
	tracks   tracks
	parked   map[string]*refusal // by id
	accepted uint64
	taken    time.Time         // when the last batch was taken
	lost     map[string]uint64 // by the backlog, by reason, as far as it is counted in the state; nil: not yet
	attempt  attempt           // the batch that is under way, where the receiver knows batches by a key
	spooled  backlog.Position  // all before it in the backlog is settled in tracks; 0: not known
}

// progress is what a restarted sender goes on from.
func (o *outbox) progress(bootID string) *progress {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &progress{Version: progressVersion, BootID: bootID, Streams: o.tracks.settled(), Spooled: o.spooled, Sending: o.attempt.parts, Lost: o.lost}
}

// limits are those of the settings and of the sink.
type limits struct {
	records, bytes, attempts int
	batchAge, after, sync    time.Duration
	keyed                    bool // a batch that may have arrived is sent again as it was
}

func newOutbox(l limits, kept *progress) *outbox {
	return &outbox{limits: l, more: make(chan struct{}, 1), due: make(chan struct{}, 1), states: map[msg.Topic]*entry{},
		tracks: kept.Streams, spooled: kept.Spooled, lost: kept.Lost, attempt: attempt{kept.Sending, time.Now().Add(attemptFor)}, parked: map[string]*refusal{}}
}

// signal wakes whoever waits on a channel of one place.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake
	}
}

// isFull reports whether no more records should be added until some have gone to disk.
func (o *outbox) isFull() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting) >= maxWaiting || o.bytes >= maxWaitingBytes
}

// add takes in a record that stands for the messages from first on. It returns whether it replaced
// a state that nobody will get.
func (o *outbox) add(r record.Record, first msg.Seq, body []byte) (replaced bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := &entry{record: r, body: body, at: time.Now()}
	if e.isState() {
		replaced = o.states[r.Topic()] != nil
		o.states[r.Topic()] = e
		signal(o.more)
		return replaced
	}
	if o.tracks.of(r.Topic()).isSettled(r.Epoch, r.Seq) {
		return false
	}
	e.span = o.tracks.begin(r.Topic(), r.Epoch, first, r.Seq)
	o.waiting = append(o.waiting, e)
	o.bytes += e.size()
	signal(o.due)
	signal(o.more)
	return false
}

// skip settles messages that are not sent.
func (o *outbox) skip(h *msg.Header) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tracks.settle(h.Topic(), o.tracks.begin(h.Topic(), h.Epoch, h.Seq, h.Seq))
}

// take waits for records to send, until ctx is done.
func (o *outbox) take(ctx context.Context) ([]*entry, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		batch, again, err := o.collect(time.Now())
		if len(batch) > 0 || err != nil {
			return batch, err
		}
		timer.Reset(again)
		select {
		case <-timer.C:
		case <-o.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// never is longer than anything waits.
const never = time.Hour

// collect returns what can be sent now, or how long to wait.
func (o *outbox) collect(now time.Time) (batch []*entry, again time.Duration, err error) {
	o.disk.Lock()
	defer o.disk.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.attempt.parts) > 0 {
		return o.repeat(now)
	}
	room := &room{records: o.limits.records, bytes: o.limits.bytes}
	for _, e := range o.states {
		if o.mayGo(e, now) && room.has(e) {
			batch = append(batch, e)
		}
	}
	from, err := o.oldest(room, now)
	batch = append(batch, from...)
	if len(batch) == 0 || err != nil {
		return nil, o.untilNext(now), err
	}
	if wait := o.taken.Add(o.limits.batchAge).Sub(now); wait > 0 && !room.full {
		return nil, wait, nil
	}
	o.taken = now
	if o.limits.keyed {
		slices.SortStableFunc(batch, byTopic)
		o.attempt.set(batch, len(o.parked) > 0)
	}
	return batch, 0, nil
}

// oldest is the first records on disk, or where there are none in RAM.
func (o *outbox) oldest(room *room, now time.Time) (batch []*entry, err error) {
	var from []*entry
	switch {
	case o.disk.len() > 0:
		if from, err = o.disk.peek(o.limits.records+len(o.parked), o.limits.bytes); err != nil {
			o.disk.unsynced = true // so that it is looked whether the disk is still there
			signal(o.due)
			return nil, err
		}
	case o.limits.after > 0:
		from = o.waiting
	}
	for _, e := range from {
		if e.isElsewhere() || !o.mayGo(e, now) {
			continue
		}
		if !room.has(e) {
			break
		}
		batch = append(batch, e)
	}
	return batch, nil
}

// mayGo reports whether a record is not waiting for its next attempt.
func (o *outbox) mayGo(e *entry, now time.Time) bool {
	if len(o.parked) == 0 {
		return true
	}
	p := o.parked[e.record.ID()]
	return p == nil || !now.Before(p.until)
}

// untilNext is how long until a refused record is to be tried again.
func (o *outbox) untilNext(now time.Time) time.Duration {
	wait := time.Duration(never)
	for _, p := range o.parked {
		wait = min(wait, max(p.until.Sub(now), time.Millisecond))
	}
	return wait
}

// room is what a batch still takes.
type room struct {
	records, bytes int
	full, used     bool
}

func (r *room) has(e *entry) bool {
	n := e.size()
	if r.full = r.full || r.records < 1 || r.used && r.bytes < n; r.full {
		return false
	}
	r.records, r.bytes, r.used = r.records-1, r.bytes-n, true
	r.full = r.records == 0
	return true
}

// fate is what becomes of a record.
type fate int

const (
	waits   fate = iota // it stays
	arrived             // the receiver has it
	refused             // the receiver refused it
	given               // it will not be sent: too late, or the format cannot hold it
)

// settle notes what became of a batch, and returns the refused records that are to be set aside.
func (o *outbox) settle(batch []*entry, fates []fate) (aside []*entry) {
	o.disk.Lock()
	defer o.disk.Unlock()
	var off []*entry
	o.mu.Lock()
	for i, e := range batch {
		switch fates[i] {
		case arrived:
			o.accepted++
			off = o.remove(e, off)
		case given:
			off = o.remove(e, off)
		}
	}
	for i, e := range batch {
		if fates[i] == refused && o.refuse(e) {
			aside = append(aside, e)
		}
	}
	o.compact()
	o.attempt.set(undecided(batch, fates, o.limits.keyed), len(o.parked) > 0)
	o.mu.Unlock()
	o.acknowledge(off)
	return aside
}

// acknowledge takes records out of the backlog. Where the disk fails that is tried again with the next
// sync, and the state shows it. The caller holds the disk's lock.
func (o *outbox) acknowledge(list []*entry) {
	if err := o.disk.ack(list); err != nil {
		o.disk.unsynced = true
	}
	if len(list) > 0 {
		signal(o.due)
	}
}

// drop removes records that were set aside.
func (o *outbox) drop(list []*entry) {
	o.disk.Lock()
	defer o.disk.Unlock()
	var off []*entry
	o.mu.Lock()
	for _, e := range list {
		off = o.remove(e, off)
	}
	o.compact()
	o.mu.Unlock()
	o.acknowledge(off)
}

// remove ends an entry. Those on disk are collected in off.
func (o *outbox) remove(e *entry, off []*entry) []*entry {
	e.done = true
	if len(o.parked) > 0 {
		delete(o.parked, e.record.ID())
	}
	if e.isState() && o.states[e.record.Topic()] == e {
		delete(o.states, e.record.Topic())
	}
	if e.span != nil {
		o.tracks.settle(e.record.Topic(), e.span)
	}
	if e.disk != 0 {
		off = append(off, e)
	}
	return off
}

// compact removes from waiting what is done, or safe on disk.
func (o *outbox) compact() {
	left := o.waiting[:0]
	o.bytes = 0
	for _, e := range o.waiting {
		if !e.done && !e.span.done {
			left = append(left, e)
			o.bytes += e.size()
		}
	}
	clear(o.waiting[len(left):])
	o.waiting = left
}

// refuse notes a refusal, and reports whether the record is to be set aside: it was refused often
// enough while the receiver took others.
func (o *outbox) refuse(e *entry) bool {
	id := e.record.ID()
	p := o.parked[id]
	if p == nil {
		if len(o.parked) >= maxParked {
			return o.limits.attempts <= 1
		}
		p = &refusal{accepted: o.accepted}
		o.parked[id] = p
	}
	p.times++
	p.until = time.Now().Add(parkFirst << min(p.times-1, 8))
	return p.times >= o.limits.attempts && o.accepted > p.accepted
}

// refusals is how many records wait that the receiver has refused.
func (o *outbox) refusals() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.parked)
}

// resume is where the subscription goes on.
func (o *outbox) resume(topic msg.Topic) (msg.Cursor, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tracks.resume(topic)
}

// left is how many records are in RAM alone, states left out.
func (o *outbox) left() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting)
}

// holding is what waits.
type holding struct {
	ram, disk int
	diskBytes int64
	oldest    time.Duration // since it was measured
	losses    []backlog.Loss
	written   int64 // bytes, by this process
}

func (o *outbox) status(now time.Time) (s holding) {
	o.disk.Lock()
	var on backlog.Status
	if o.disk.log != nil {
		on = o.disk.log.Status()
	}
	written := o.disk.writtenBytes()
	o.disk.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	s = holding{ram: len(o.waiting), disk: int(on.Records), diskBytes: on.Bytes, losses: on.Losses, written: written}
	switch {
	case on.Records > 0 && !on.Oldest.IsZero():
		s.oldest = max(now.Sub(on.Oldest), 0)
	case len(o.waiting) > 0:
		s.oldest = now.Sub(o.waiting[0].at)
	}
	return s
}

// byReason are the records lost, by reason.
func byReason(all []backlog.Loss) map[string]uint64 {
	n := map[string]uint64{}
	for _, l := range all {
		n[string(l.Reason)] += l.Records
	}
	return n
}

// newlyLost is what the backlog has lost since the last call, by reason. A sender that begins anew
// begins with what was lost before it opened the backlog.
func (o *outbox) newlyLost(all []backlog.Loss) map[string]uint64 {
	now := byReason(all)
	o.mu.Lock()
	defer o.mu.Unlock()
	fresh := map[string]uint64{}
	for reason, n := range now {
		if o.lost != nil && n > o.lost[reason] {
			fresh[reason] = n - o.lost[reason]
		}
	}
	o.lost = now
	return fresh
}
