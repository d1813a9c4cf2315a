package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/redact"
	"github.com/perch-edge/perch/internal/uplink"
)

// maxAnswer bounds one answer of a receiver.
const maxAnswer = 64 << 10

// acks are the receiver's answers to the items of one delivery. Answers come in any order.
type acks struct {
	secrets redact.Secrets
	wake    chan struct{} // has something in it when the last answer has come; waking for each costs more than reading it

	mu      sync.Mutex
	waiting map[string][]int // the items without an answer, by id
	results []Result
	moved   int
	unknown int    // answers that are to no item
	last    string // the last of these
}

func newAcks(items []Item, secrets redact.Secrets) *acks {
	a := &acks{secrets: secrets, wake: make(chan struct{}, 1), waiting: make(map[string][]int, len(items)), results: make([]Result, len(items))}
	for i := range items {
		id := items[i].ID()
		a.waiting[id] = append(a.waiting[id], i)
	}
	return a
}

// answer reads one answer: an item's id, or a JSON object with it as "id", which is a refusal where it
// has an "error".
func (a *acks) answer(text string) {
	id, refusal := parseAnswer(text)
	r := Result{State: Acknowledged}
	if refusal != "" {
		r = Result{Refused, uplink.OneLine(a.secrets.Hide(refusal))}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting[id]) == 0 {
		a.unknown++
		a.last = a.secrets.Hide(text)
		return
	}
	a.decide(id, r)
	if len(a.waiting) > 0 {
		return
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func parseAnswer(text string) (id, refusal string) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "{") {
		return text, ""
	}
	var object struct {
		ID    string `json:"id"`
		Error any    `json:"error"`
	}
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return text, "" // which is no id
	}
	if object.Error != nil && object.Error != "" && object.Error != false {
		refusal = fmt.Sprint(object.Error)
	}
	return object.ID, refusal
}

// decide settles all items of that id. The lock is held.
func (a *acks) decide(id string, r Result) {
	for _, i := range a.waiting[id] {
		a.results[i] = r
	}
	delete(a.waiting, id)
	a.moved++
}

// settle settles one item without an answer.
func (a *acks) settle(item *Item, r Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.decide(item.ID(), r)
}

// isWaiting reports whether an item has no result.
func (a *acks) isWaiting(item *Item) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.waiting[item.ID()]) > 0
}

// open returns how many items have no result, and how often something was settled.
func (a *acks) open() (waiting, moved int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.waiting), a.moved
}

// end returns a copy of the results, and what the error that items are unknown for should add.
func (a *acks) end(o *Options, err error) ([]Result, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o.count("unknown_acks", uint64(a.unknown))
	results := append([]Result(nil), a.results...)
	if err != nil && a.unknown > 0 {
		err = fmt.Errorf("%w; the receiver also sent %d answers that are no id of a record under way, the last %s", err, a.unknown, uplink.OneLine(a.last))
	}
	return results, err
}

// leastProgress is how many bytes must arrive within Stall for a connection to count as alive.
const leastProgress = 1 << 10

// watch is a delivery that is waited for.
type watch struct {
	stall time.Duration
	wake  <-chan struct{}
	ended <-chan struct{} // the connection is no more
	why   func() error    // it ended
	bytes func() int64    // that have arrived
	steps func() int      // items that were settled
}

// until waits until done, and fails when nothing moves for stall, when the connection ends, or with ctx.
func (w *watch) until(ctx context.Context, done func() (bool, error)) error {
	bytes, steps, since, pause := w.bytes(), w.steps(), time.Now(), time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.wake:
		case <-timer.C:
			pause = min(2*pause, 50*time.Millisecond)
			timer.Reset(pause)
		case <-w.ended:
			if ok, err := done(); ok || err != nil { // what came before the end counts
				return err
			}
			return w.why()
		}
		if s := w.steps(); s > steps { // asking for bytes is a system call, and answers come one by one
			steps, since = s, time.Now()
			continue
		}
		switch b := w.bytes(); {
		case b >= bytes+leastProgress:
			bytes, since = b, time.Now()
		case time.Since(since) >= w.stall:
			return fmt.Errorf("nothing has moved for %s", w.stall)
		}
	}
}
