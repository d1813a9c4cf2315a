package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/sidecar"
)

func hours(h int) age { return age{known: true, boot: time.Duration(h) * time.Hour} }

// taken takes what can be had at once.
func taken(t *testing.T, q *queue) *item {
	t.Helper()
	it, _, _ := q.next(time.Now())
	return it
}

func TestOrder(t *testing.T) {
	q := newQueue([]sidecar.Class{sidecar.Clips, sidecar.Losses}, time.Minute)
	q.add("old clip", sidecar.Clips, hours(-3))
	q.add("picture", sidecar.Pictures, hours(9))
	q.add("clip of an unknown time", sidecar.Clips, age{wall: time.Unix(1e10, 0)})
	q.add("older clip of an unknown time", sidecar.Clips, age{wall: time.Unix(1e9, 0)})
	q.add("losses", sidecar.Losses, hours(1))
	q.add("new clip", sidecar.Clips, hours(2))
	q.add("new clip", sidecar.Clips, hours(2))
	var got []string
	for it := taken(t, q); it != nil; it = taken(t, q) {
		got = append(got, string(it.id))
	}
	want := []string{"new clip", "old clip", "clip of an unknown time", "older clip of an unknown time", "losses", "picture"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// A receiver that fails for hours is asked by one file at a time, ever less
// often, and once it answers all goes on at once.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 5 * time.Minute
		q := newQueue(sidecar.Classes(), most)
		for i := range 10 {
			q.add(sidecar.ID(fmt.Sprint(i)), sidecar.Clips, hours(i))
		}
		one, two := taken(t, q), taken(t, q)
		q.done(one, failed, 0)
		q.done(two, failed, 0)
		var last time.Time
		var longest time.Duration
		probes := 0
		for begun := time.Now(); time.Since(begun) < 6*time.Hour; probes++ {
			it := q.take(t.Context())
			if !it.probe {
				t.Fatalf("%s is sent while the receiver rests", it.id)
			}
			if again := taken(t, q); again != nil {
				t.Fatalf("%s is sent beside the probe", again.id)
			}
			if !last.IsZero() {
				longest = max(longest, time.Since(last))
			}
			last = time.Now()
			time.Sleep(time.Second) // the attempt
			q.done(it, failed, 0)
		}
		if longest > 2*most || longest < most/2 || probes < 70 || probes > 400 {
			t.Errorf("%d probes in six hours, the longest pause %s; want about one in %s", probes, longest, most/2)
		}
		it := q.take(t.Context())
		q.done(it, settled, 0)
		time.Sleep(most) // files that failed wait for themselves, no longer than that
		if it := taken(t, q); it == nil || it.probe {
			t.Errorf("after an answer there is %v; want files without probes", it)
		}
	})
}

func TestRetryAfterIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sidecar.Classes(), time.Minute)
		q.add("one", sidecar.Clips, hours(1))
		q.add("two", sidecar.Clips, hours(2))
		begun := time.Now()
		q.done(taken(t, q), failed, 20*time.Minute)
		if rest := q.rest(begun); rest < 20*time.Minute || rest > 21*time.Minute {
			t.Errorf("rest = %s; want the 20 minutes, and a second at most", rest)
		}
		q.take(t.Context())
		if took := time.Since(begun); took < 20*time.Minute || took > 21*time.Minute {
			t.Errorf("the next attempt came after %s; want 20 minutes, and a second at most", took)
		}
	})
}

// A receiver that does not let us in is left alone for as long as is said, and
// never longer.
func TestShutOutDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sidecar.Classes(), 24*time.Hour)
		q.add("one", sidecar.Clips, hours(1))
		for range 20 {
			q.done(q.take(t.Context()), shutOut, time.Minute)
			if rest := q.rest(time.Now()); rest != time.Minute {
				t.Fatalf("rest = %s; want a minute", rest)
			}
		}
	})
}

// A file that somebody else is at work on is tried again soon, however long the
// receiver's pauses may be.
func TestPostponedIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sidecar.Classes(), 24*time.Hour)
		q.add("one", sidecar.Clips, hours(1))
		begun := time.Now()
		for range 20 {
			q.done(q.take(t.Context()), postponed, 0)
		}
		if took := time.Since(begun); took != 19*postponement {
			t.Errorf("twenty attempts took %s; want %s between two", took, postponement)
		}
	})
}

// While the store is away nothing is taken; when it is back all is, at once.
func TestAbsentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sidecar.Classes(), 24*time.Hour)
		q.add("one", sidecar.Clips, hours(1))
		if !q.setAbsent(true) || q.setAbsent(true) {
			t.Error("setAbsent(true), twice, is no news and news; want the opposite")
		}
		if it := taken(t, q); it != nil {
			t.Errorf("%s is taken from a store that is not there", it.id)
		}
		got := make(chan *item)
		go func() { got <- q.take(t.Context()) }()
		synctest.Wait()
		begun := time.Now()
		q.setAbsent(false)
		if it := <-got; it == nil || time.Since(begun) > 0 {
			t.Errorf("take() = %v after %s; want the file at once", it, time.Since(begun))
		}
	})
}

// When this box fails all wait, the longer the more often it does, and half a
// minute at most; the receiver's pauses have no part in it.
func TestTroubledStorePausesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sidecar.Classes(), 24*time.Hour)
		for i := range 10 {
			q.add(sidecar.ID(fmt.Sprint(i)), sidecar.Clips, hours(i))
		}
		tries := map[sidecar.ID]int{}
		n := 0
		for begun := time.Now(); time.Since(begun) < 10*time.Second; n++ {
			it := q.take(t.Context())
			tries[it.id]++
			q.done(it, troubled, 0)
			if again := taken(t, q); again != nil {
				t.Fatalf("%s is sent while this box has failed", again.id)
			}
		}
		if n > 6 || len(tries) != n {
			t.Errorf("%d tries of %d files in 10 s; want about five, each of another file", n, len(tries))
		}
		last := time.Now()
		for range 20 {
			it := q.take(t.Context())
			if pause := time.Since(last); pause > storeRetryMost {
				t.Errorf("a pause of %s; want %s at most", pause, storeRetryMost)
			}
			last = time.Now()
			q.done(it, troubled, 0)
		}
		q.done(q.take(t.Context()), setAside, 0)
		time.Sleep(troubleMost)
		for n = 0; taken(t, q) != nil; n++ {
		}
		if n != 9 {
			t.Errorf("%d files can be had when this box works again; want all 9", n)
		}
	})
}

// A probe that ends without a word on the receiver lets another one go.
func TestProbeThatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, what := range []outcome{gone, postponed, stopped, setAside} {
			q := newQueue(sidecar.Classes(), time.Minute)
			for i := range 3 {
				q.add(sidecar.ID(fmt.Sprint(i)), sidecar.Clips, hours(i))
			}
			q.done(taken(t, q), failed, 0)
			q.done(q.take(t.Context()), what, 0)
			if it := taken(t, q); it == nil || !it.probe {
				t.Errorf("after a probe with outcome %d there is %v; want another probe", what, it)
			}
		}
	})
}

// A file that is not taken waits longer each time, and the others do not.
func TestFileThatIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sidecar.Classes(), 10*time.Second)
		q.add("poison", sidecar.Losses, hours(9))
		begun := time.Now()
		for n := range 6 {
			it := q.take(t.Context())
			if it.id != "poison" {
				t.Fatalf("took %s; want the file that is due", it.id)
			}
			q.done(it, notTaken, 0)
			q.add("other", sidecar.Clips, hours(n))
			other := taken(t, q)
			if other == nil || other.id != "other" {
				t.Fatalf("beside a file that waits there is %v; want the other one", other)
			}
			q.done(other, settled, 0)
		}
		if took := time.Since(begun); took < 35*time.Second || took > 55*time.Second {
			t.Errorf("six attempts took %s; want 1 + 2 + 4 + 8 + 10 s, less a quarter at most", took)
		}
	})
}

// Who waits for a file is woken by one, and by the end.
func TestTakeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sidecar.Classes(), time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		got := make(chan *item, 3)
		for range 3 {
			group.Go(func() { got <- q.take(ctx) })
		}
		synctest.Wait()
		q.add("one", sidecar.Clips, hours(1))
		if it := <-got; it == nil || it.id != "one" {
			t.Errorf("take() = %v; want the file", it)
		}
		cancel()
		group.Wait()
		if a, b := <-got, <-got; a != nil || b != nil {
			t.Errorf("take() at the end = %v, %v; want nothing", a, b)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue(sidecar.Classes(), time.Minute)
	for i := range maxQueued + 10 {
		q.add(sidecar.ID(fmt.Sprint(i)), sidecar.Clips, hours(i))
	}
	if byClass, _, _ := q.count(); byClass[sidecar.Clips] != maxQueued {
		t.Errorf("%d files are queued; want %d", byClass[sidecar.Clips], maxQueued)
	}
}
