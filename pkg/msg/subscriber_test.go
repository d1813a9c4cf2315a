package msg

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sums says whether an account adds up.
func sums(a Account) bool { return a.Received+a.Repaired+a.Lost+a.Skipped == a.Sent }

// next wants a message.
func next(t *testing.T, s *Subscriber) Message {
	t.Helper()
	m, ok, err := s.Next(soon(t), time.Time{})
	if err != nil || !ok {
		t.Fatalf("Next() = %v, %v; want a message", ok, err)
	}
	return m
}

// quiet wants none for a moment in which all rings are looked at.
func quiet(t *testing.T, s *Subscriber) {
	t.Helper()
	if m, ok, err := s.Next(soon(t), time.Now().Add(3*lookEvery)); ok || err != nil {
		t.Fatalf("Next() = %s, %v; want nothing", m.ID(), err)
	}
}

// hears waits until the subscriber has really subscribed.
func (c *counter) hears(t *testing.T, name string) {
	t.Helper()
	hasSubscribed(t, c.pub.Gate, name)
}

func hasSubscribed(t *testing.T, gate func([]string, time.Duration, <-chan struct{}) []string, name string) {
	t.Helper()
	if missing := gate([]string{name}, 5*time.Second, nil); missing != nil {
		t.Fatalf("Gate(%s) misses %v", name, missing)
	}
}

// deafen turns the counter's messages away from the bus: they reach its
// history alone, as when their publisher is killed between the two.
func (c *counter) deafen(t *testing.T) {
	t.Helper()
	address, err := Endpoint(c.bus.cfg.RunDir, "nobody", "")
	if err != nil {
		t.Fatal(err)
	}
	if c.out.out.end, err = c.bus.bind(address, queue); err != nil {
		t.Fatal(err)
	}
}

// say sends parts past the publisher's own checks.
func (c *counter) say(t *testing.T, parts ...string) {
	t.Helper()
	raw := make([][]byte, len(parts))
	for i, p := range parts {
		raw[i] = []byte(p)
	}
	if err := c.pub.main.send(raw...); err != nil {
		t.Fatal(err)
	}
}

// header is a reading's header part.
func (c *counter) header(version int, epoch Epoch, seq uint64) string {
	return fmt.Sprintf(`{"v":%d,"kind":"reading","node":"box","source":"air","stream":"count","epoch":%q,"boot_id":"b","seq":%d,`+
		`"time":"2026-01-02T03:04:05.000000000Z","boot_ns":1,"synced":true,"columns":["n"],"values":[%d]}`, version, epoch, seq, seq)
}

func TestTwoSources(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	air := startCounter(t, run, shm, Retention{})
	defer air.bus.Close()
	water := &counter{bus: openBus(t, run, shm, "water")}
	defer water.bus.Close()
	var err error
	if water.pub, err = water.bus.Publisher(); err != nil {
		t.Fatal(err)
	}
	if water.out, err = water.pub.Readings("count", []string{"n"}, Retention{}); err != nil {
		t.Fatal(err)
	}
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s, err := b.Subscribe(Subscription{Sources: []Address{{Source: "air"}, {Source: "water"}}, Kinds: []Kind{KindReading}})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		air.publish(t, 1)
		water.publish(t, 2)
	}
	got := map[Source]Seq{}
	for range 150 {
		m := next(t, s)
		if m.Seq != got[m.Source] {
			t.Fatalf("message %s; want number %d", m.ID(), got[m.Source])
		}
		got[m.Source]++
	}
	if want := map[Source]Seq{"air": 50, "water": 100}; !cmp.Equal(got, want) {
		t.Errorf("messages by source = %v; want %v", got, want)
	}
	if a := s.Totals(); a.Sent != 150 || a.Lost != 0 || !sums(a) {
		t.Errorf("Totals() = %+v; want 150, none lost", a)
	}
}

// Subscriptions of ZeroMQ are prefixes, and ring names begin alike too.
func TestStreamsThatBeginAlike(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	long := &counter{bus: c.bus, pub: c.pub}
	var err error
	if long.out, err = c.pub.Readings("count-2", []string{"n"}, Retention{}); err != nil {
		t.Fatal(err)
	}
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	// Named twice: one connection all the same.
	s, err := b.Subscribe(Subscription{Sources: []Address{{Source: "air", Stream: "count"}, {Source: "air", Stream: "count"}}, Kinds: []Kind{KindReading}})
	if err != nil {
		t.Fatal(err)
	}
	c.hears(t, "csv")
	long.publish(t, 10)
	c.publish(t, 10)
	expect(t, s, soon(t), 0, 10)
	quiet(t, s)
	if r := s.Refused(); len(s.Accounts()) != 1 || r.Malformed+r.Version != 0 || r.Duplicate > 10 {
		t.Errorf("Accounts() = %+v, Refused() = %+v; want one stream", s.Accounts(), r)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	states, err := c.pub.States("state")
	if err != nil {
		t.Fatal(err)
	}
	b := openBus(t, run, shm, "super")
	defer b.Close()
	s, err := b.Subscribe(Subscription{Sources: []Address{{Source: "air"}}, Kinds: []Kind{KindState}})
	if err != nil {
		t.Fatal(err)
	}
	c.hears(t, "super")
	want := State{Program: "sensor", PID: 7, Ready: true, Status: "fine", ProgressNS: 5, Counters: map[string]uint64{"n": 1 << 63},
		Gauges: map[string]float64{"t_c": 1.5}, Sources: []Account{{Topic: "file/a/b", Epoch: 9, Sent: 1, Lost: 1}},
		Published: map[Topic]uint64{"reading/air/count": 3}, Dropped: map[Topic]uint64{"reading/air/count": 0}, Subscribers: c.pub.Subscribers()}
	sent := want
	sent.Gauges = map[string]float64{"t_c": 1.5, "rh_pct": math.NaN()}
	if err := states.Publish(c.bus.Clock().Now(), sent); err != nil {
		t.Fatal(err)
	}
	m := next(t, s)
	got, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	got.Header = Header{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("State(): %s", diff)
	}
	if len(s.Accounts()) != 0 || !slices.Equal(got.Subscribers, []string{"super"}) {
		t.Errorf("Accounts() = %v, subscribers %v; want no account of states, and super", s.Accounts(), got.Subscribers)
	}
}

// What is refused is counted twice over: by its class, and as lost where its
// number is passed. A good copy in the history mends it.
func TestRefusedMessagesAreAccountedFor(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	c.hears(t, "csv")
	s.look(false) // the first look takes all there is; from now on the bus is trusted
	c.publish(t, 1)
	expect(t, s, soon(t), 0, 1)
	end := c.out.out.end
	c.deafen(t)
	c.publish(t, 3) // numbers 1 to 3 come only as these:
	c.say(t, "reading/air/count", c.header(2, c.pub.Epoch(), 1))
	c.say(t, "reading/air/count", `{"v":1}`)
	c.say(t, "reading/air/count", c.header(1, c.pub.Epoch(), 1<<40)) // far ahead of the history
	c.say(t, "reading/air/count", c.header(1, c.pub.Epoch()-1, 0))   // of a run before
	c.say(t, "reading/air/count", c.header(1, c.pub.Epoch(), 0))     // again
	c.out.out.end = end
	c.publish(t, 1)
	expect(t, s, soon(t), 1, 5)
	if want, got := (Refused{Malformed: 2, Version: 1, Duplicate: 2}), s.Refused(); got != want {
		t.Errorf("Refused() = %+v; want %+v", got, want)
	}
	want := Account{Topic: "reading/air/count", Epoch: c.pub.Epoch(), Sent: 5, Received: 2, Repaired: 3}
	if diff := cmp.Diff([]Account{want}, s.Accounts()); diff != "" {
		t.Errorf("Accounts(): %s", diff)
	}
}

// A history that holds what this program does not understand is lost to it,
// and so counted, and does not stop it.
func TestUnknownVersionInTheHistoryIsLost(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	o := c.out.out
	for seq := range 4 {
		version := 1 + seq%2
		o.mu.Lock()
		_, err := o.emit(c.bus.Clock().Now(), []byte(c.header(version, c.pub.Epoch(), uint64(seq))))
		o.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	if first, second := next(t, s).Seq, next(t, s).Seq; first != 0 || second != 2 {
		t.Errorf("messages %d, %d; want 0, 2", first, second)
	}
	quiet(t, s)
	if a := s.Totals(); a.Lost != 2 || a.Sent != 4 || !sums(a) {
		t.Errorf("Totals() = %+v; want 2 of 4 lost", a)
	}
}

// The last messages of a publisher that ended in order, and never came by the bus.
func TestTailOfAnEndedPublisher(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{Expect: []string{"csv"}})
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	c.publish(t, 1)
	expect(t, s, soon(t), 0, 1)
	c.deafen(t)
	c.publish(t, 9)
	if err := c.bus.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, s, soon(t), 1, 10)
}

// Runs that came and went between two looks of a subscriber that was there
// are its own as well.
func TestRunsThatWereNeverHeard(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	for n := range 3 {
		c := startCounter(t, run, shm, Retention{Expect: []string{"csv"}})
		c.n = 10 * n
		c.deafen(t)
		c.publish(t, 10)
		if n == 2 {
			defer c.bus.Close()
		} else if err := c.bus.Close(); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, s, soon(t), 0, 30)
	if a := s.Totals(); a.Repaired != 30 || a.Sent != 30 || !sums(a) {
		t.Errorf("Totals() = %+v; want 30 repaired", a)
	}
}

// A cursor of a run whose history is out of reach for another reason than its
// absence: what is older has been read, and is not read again.
func TestResumeNeverGoesBack(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	keep := Retention{Messages: 3, Expect: []string{"csv"}}
	first := startCounter(t, run, shm, keep)
	first.publish(t, 2)
	first.bus.Close()
	second := startCounter(t, run, shm, keep)
	second.n = 2
	second.publish(t, 2)
	// One place for a reader, and somebody else has it.
	other := openBus(t, run, shm, "other")
	defer other.Close()
	hog := subscribe(t, other, nil)
	expect(t, hog, soon(t), 2, 4)
	second.bus.Close()
	third := startCounter(t, run, shm, Retention{})
	defer third.bus.Close()
	third.n = 4
	third.publish(t, 2)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	held := Cursor{Epoch: second.pub.Epoch(), Seq: 1}
	s := subscribe(t, b, func(Topic) (Cursor, bool) { return held, true })
	expect(t, s, soon(t), 4, 6)
}

// Who does not know yet what it holds gets all that is there. What had been
// overwritten by then is nobody's loss.
func TestResumeFromNothing(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	keep := Retention{Messages: 3, Expect: []string{"csv"}}
	for n := range 3 {
		c := startCounter(t, run, shm, keep)
		c.n = 5 * n
		c.publish(t, 5)
		if n == 2 {
			defer c.bus.Close()
		} else if err := c.bus.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, func(Topic) (Cursor, bool) { return Cursor{}, true })
	ctx := soon(t)
	for n := range 3 {
		expect(t, s, ctx, 5*n+2, 5*n+5)
	}
	if a := s.Totals(); a.Repaired != 9 || a.Skipped != 6 || a.Lost != 0 || !sums(a) {
		t.Errorf("Totals() = %+v; want 9 repaired and 6 skipped", a)
	}
}

// A history with one place for a reader, which somebody else has: nothing can be
// repaired, and that is said until it is over.
func TestWaitingSaysWhatIsOutOfReach(t *testing.T) {
	t.Parallel()
	run, rings := folders(t)
	c := startCounter(t, run, rings, Retention{Messages: 3})
	defer c.bus.Close()
	c.publish(t, 1)
	other := openBus(t, run, rings, "other")
	expect(t, subscribe(t, other, nil), soon(t), 0, 1)
	b := openBus(t, run, rings, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	quiet(t, s)
	if got := fmt.Sprint(s.Waiting()); !strings.Contains(got, "history of reading/air/count: ") || !strings.Contains(got, "no room for 1 more") {
		t.Errorf("Waiting() = %s; want the stream, and that there is no room", got)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for s.Waiting() != nil && t.Context().Err() == nil {
		if _, _, err := s.Next(soon(t), time.Now().Add(lookEvery)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSubscribeRefuses(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	for _, c := range []struct {
		want Subscription
		text string
	}{
		{Subscription{Kinds: []Kind{KindFrame}}, "Bus.Frames"},
		{Subscription{Sources: []Address{{Source: "air", Kinds: []Kind{KindFrame}}}}, "Bus.Frames"},
		{Subscription{Sources: []Address{{Source: "Air"}}}, `name "Air"`},
		{Subscription{Sources: []Address{{Source: "air", Stream: "a/b"}}, Kinds: []Kind{KindReading}}, `name "a/b"`},
		{Subscription{Sources: []Address{{Source: "air"}}, Kinds: []Kind{"sound"}}, `kind "sound"`},
		{Subscription{Sources: []Address{{Source: "air", Endpoint: "tcp://127.0.0.1:5555"}}}, "CURVE"},
		{Subscription{Sources: []Address{{Source: "air", Endpoint: "ipc://" + run + "/water.ipc"}}}, "not of air"},
	} {
		if _, err := b.Subscribe(c.want); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("Subscribe(%+v) = %v; want an error with %q", c.want, err, c.text)
		}
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, _, err := s.Next(ctx, time.Time{})
		done <- err
	}()
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Next() = %v; want context.Canceled", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Next() waits on though its context is done")
	}
}

// A publisher that is seldom there is heard from its first message on each time
// that it comes, by the bus: its history is not needed for that.
func TestAPublisherThatIsSeldomThere(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s, err := b.Subscribe(Subscription{Sources: []Address{{Source: "air", Seldom: true}}, Kinds: []Kind{KindReading}})
	if err != nil {
		t.Fatal(err)
	}
	quiet(t, s)
	for n := range 2 {
		c := startCounter(t, run, shm, Retention{})
		c.n = 10 * n
		ctx := soon(t)
		for c.pub.Gate([]string{"csv"}, time.Millisecond, nil) != nil { // ZeroMQ subscribes again from within Next
			if m, ok, err := s.Next(ctx, time.Now().Add(10*time.Millisecond)); ok || err != nil {
				t.Fatalf("Next() = %s, %v; want nothing yet", m.ID(), err)
			}
		}
		c.publish(t, 10)
		expect(t, s, ctx, 10*n, 10*n+10)
		if err := c.bus.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if a := s.Totals(); a.Received != 20 || a.Sent != 20 || !sums(a) {
		t.Errorf("Totals() = %+v; want 20 received", a)
	}
}

// The memory of a history that has ended and been read is given back, and what
// was read of it is not read again.
func TestAnEndedHistoryIsLetGo(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{Expect: []string{"csv", "absent"}}) // for whom it stays there
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	c.publish(t, 10)
	expect(t, s, soon(t), 0, 10)
	if s.order[0].ring == nil {
		t.Fatal("the history of a live publisher is not open")
	}
	if err := c.bus.Close(); err != nil {
		t.Fatal(err)
	}
	quiet(t, s)
	if s.order[0].ring != nil {
		t.Error("the history is held open after its end")
	}
	if a := s.Accounts(); len(a) != 1 || a[0].Sent != 10 || !sums(a[0]) || s.Waiting() != nil {
		t.Errorf("Accounts() = %+v, Waiting() = %v; want the ten, and nothing out of reach", a, s.Waiting())
	}
	next := startCounter(t, run, shm, Retention{})
	defer next.bus.Close()
	next.n = 10
	next.publish(t, 10)
	expect(t, s, soon(t), 10, 20)
}
