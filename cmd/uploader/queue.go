package main

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/backoff"
	"github.com/perch-edge/perch/internal/sidecar"
)

// item is a file that waits to be sent. The queue knows no more of it.
type item struct {
	id    sidecar.ID
	class sidecar.Class
	born  age
	retry *backoff.Backoff // after a failure of its own
	due   time.Time        // not before
	probe bool             // the attempt under way is one, of the receiver
	trial bool             // and of our store

	trouble *backoff.Backoff // after this box failed on it
	last    bool             // while the store is in trouble: others first
}

// age orders files from old to new.
type age struct {
	known bool          // files of unknown age count as older than all others
	boot  time.Duration // when it is known: this boot's clock at its end, negative before this boot
	wall  time.Time     // when it is not: the wall clock as it was then
}

func (a age) newer(b age) bool {
	if a.known != b.known {
		return a.known
	}
	if a.known {
		return a.boot > b.boot
	}
	return a.wall.After(b.wall)
}

// pile is a heap of items.
type pile struct {
	items []*item
	less  func(a, b *item) bool
}

func (p *pile) Len() int           { return len(p.items) }
func (p *pile) Less(i, j int) bool { return p.less(p.items[i], p.items[j]) }
func (p *pile) Swap(i, j int)      { p.items[i], p.items[j] = p.items[j], p.items[i] }

// Push is the heap's.
func (p *pile) Push(x any) { p.items = append(p.items, x.(*item)) }

// Pop is the heap's.
func (p *pile) Pop() any {
	last := p.items[len(p.items)-1]
	p.items = p.items[:len(p.items)-1]
	return last
}

// maxQueued bounds the queue; what is beyond waits in the store for a later scan.
const maxQueued = 100_000

const (
	// postponement is how long a file waits that somebody else is at work on.
	postponement = 2 * time.Second
	// storeRetryMost is the longest pause of all after this box has failed: each
	// try on a disk that is full may cost a transmission for nothing.
	storeRetryMost = 30 * time.Second
	// troubleMost is that of a file on which it failed.
	troubleMost = time.Minute
)

// outcome is what came of an attempt, for the queue.
type outcome int

const (
	settled   outcome = iota // the receiver answered, and the file has left ready/
	setAside                 // this box has moved the file out of ready/
	gone                     // the file is not there any more
	postponed                // somebody else is at work on it, or the store is not there
	troubled                 // this box failed
	failed                   // the receiver failed
	notTaken                 // the receiver does not take this file
	shutOut                  // the receiver does not let us
	stopped                  // the program ends
)

// refusedFirst is how long a file waits that was refused once.
const refusedFirst = time.Minute

// queue holds what is to be sent and says what is next: by class, the newest
// first, and nothing while the receiver needs a rest, or the store does, or is
// not there. A file that failed waits for itself, so that it is in nobody's way.
// It is safe for concurrent use.
type queue struct {
	mu      sync.Mutex
	most    time.Duration // longest pause of a file
	known   map[sidecar.ID]*item
	ready   pile
	later   pile
	breaker *breaker // of the receiver
	store   *breaker
	absent  bool // the store
	changed chan struct{}
}

func newQueue(priority []sidecar.Class, most time.Duration) *queue {
	return &queue{most: most, known: map[sidecar.ID]*item{}, changed: make(chan struct{}),
		breaker: newBreaker(backoff.Backoff{First: time.Second, Most: most, Full: true}),
		store:   newBreaker(backoff.Backoff{First: time.Second, Most: storeRetryMost}),
		ready: pile{less: func(a, b *item) bool {
			if a.last != b.last {
				return b.last
			}
			ra, rb := rankOf(a.class, priority), rankOf(b.class, priority)
			return ra < rb || ra == rb && a.born.newer(b.born)
		}},
		later: pile{less: func(a, b *item) bool { return a.due.Before(b.due) }}}
}

// wake lets those who wait look again.
func (q *queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// has says whether a file is queued, or under way.
func (q *queue) has(id sidecar.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.known[id] != nil
}

// add queues a file that is not queued yet.
func (q *queue) add(id sidecar.ID, class sidecar.Class, born age) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known[id] != nil || len(q.known) >= maxQueued {
		return
	}
	it := &item{id: id, class: class, born: born}
	q.known[id] = it
	heap.Push(&q.ready, it)
	q.wake()
}

// take waits for the next file to be sent; nil when ctx is done.
func (q *queue) take(ctx context.Context) *item {
	for ctx.Err() == nil {
		it, wait, changed := q.next(time.Now())
		if it != nil {
			return it
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// next is what may be sent now, or how long to wait at most.
func (q *queue) next(now time.Time) (*item, time.Duration, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.later.items) > 0 && !now.Before(q.later.items[0].due) {
		it := heap.Pop(&q.later).(*item)
		it.last = it.last && q.store.open
		heap.Push(&q.ready, it)
	}
	wait := time.Hour
	if len(q.later.items) > 0 {
		wait = q.later.items[0].due.Sub(now)
	}
	if len(q.ready.items) == 0 || q.absent {
		return nil, wait, q.changed
	}
	for _, b := range []*breaker{q.breaker, q.store} {
		if left := b.left(now); left > 0 {
			wait = min(wait, left)
		}
	}
	it := q.ready.items[0]
	var ok bool
	if ok, it.trial = q.store.admit(now); !ok {
		return nil, wait, q.changed
	}
	if ok, it.probe = q.breaker.admit(now); !ok {
		q.store.abandoned(it.trial)
		return nil, wait, q.changed
	}
	heap.Pop(&q.ready)
	return it, 0, nil
}

// setAbsent lets nothing be taken while the store is not there, and says whether
// that is new.
func (q *queue) setAbsent(absent bool) (turned bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	turned = q.absent != absent
	q.absent = absent
	if turned {
		q.wake()
	}
	return turned
}

// done says what came of an attempt; after is how long the receiver wants to be
// left alone.
func (q *queue) done(it *item, what outcome, after time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.learn(it, what, after, now)
	switch what {
	case settled, setAside, gone:
		delete(q.known, it.id)
	case shutOut, stopped: // not the file's fault
		heap.Push(&q.ready, it)
	default:
		it.due = now.Add(q.pause(it, what))
		heap.Push(&q.later, it)
	}
	q.wake()
}

// learn lets the breakers know.
func (q *queue) learn(it *item, what outcome, after time.Duration, now time.Time) {
	switch what {
	case settled, notTaken:
		q.breaker.worked()
	case failed:
		q.breaker.failed(now, it.probe, after)
	case shutOut:
		q.breaker.shut(now, it.probe, after)
	default:
		q.breaker.abandoned(it.probe)
	}
	switch what {
	case settled, setAside, notTaken: // all of these write
		q.storeWorked()
	case troubled:
		q.store.failed(now, it.trial, 0)
	default:
		q.store.abandoned(it.trial)
	}
}

// storeWorked ends a trouble of the store. Files on which it failed are as all
// others again.
func (q *queue) storeWorked() {
	if q.store.open {
		for _, it := range q.ready.items {
			it.last = false
		}
		heap.Init(&q.ready)
	}
	q.store.worked()
}

// pause is how long a file waits for itself.
func (q *queue) pause(it *item, what outcome) time.Duration {
	switch what {
	case postponed:
		return postponement
	case troubled:
		if it.trouble == nil {
			it.trouble = &backoff.Backoff{First: 2 * time.Second, Most: troubleMost}
		}
		it.last = true
		return it.trouble.Failed(0)
	}
	if it.retry == nil {
		first := time.Second
		if what == notTaken { // a receiver that is wrong for a while should not have refused for good
			first = min(refusedFirst, q.most)
		}
		it.retry = &backoff.Backoff{First: first, Most: q.most}
	}
	return it.retry.Failed(0)
}

// rest is how long nothing is sent, from now on.
func (q *queue) rest(now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(q.breaker.left(now), q.store.left(now))
}

// count is how many files of each class wait or are under way, and the boot
// time of the oldest of known age.
func (q *queue) count() (byClass map[sidecar.Class]int, oldest time.Duration, known bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	byClass = map[sidecar.Class]int{}
	for _, it := range q.known {
		byClass[it.class]++
		if it.born.known && (!known || it.born.boot < oldest) {
			oldest, known = it.born.boot, true
		}
	}
	return byClass, oldest, known
}
