package msg

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/shm"
)

// made is a message as somebody could make it by hand: any epoch and number.
type made struct {
	kind  Kind // empty is a reading
	epoch Epoch
	seq   uint64
	boot  string // empty is the present one
	body  string // empty is a good one
}

func (c *counter) make(t *testing.T, m made) {
	t.Helper()
	if m.boot == "" {
		m.boot = c.bus.Clock().BootID()
	}
	if m.body == "" {
		m.body = fmt.Sprintf(`"columns":["n"],"values":[%d]`, m.seq)
	}
	if m.kind == "" {
		m.kind = KindReading
	}
	c.say(t, string(TopicOf(m.kind, "air", "count")), fmt.Sprintf(`{"v":1,"kind":%q,"node":"box","source":"air","stream":"count","epoch":%q,`+
		`"boot_id":%q,"seq":%d,"time":"2026-01-02T03:04:05.000000000Z","boot_ns":1,"synced":true,%s}`, m.kind, m.epoch, m.boot, m.seq, m.body))
}

// bareCounter has its history where its subscribers do not find it, as a script
// that keeps none.
func bareCounter(t *testing.T, run, shm string) *counter {
	t.Helper()
	return startCounter(t, run, shm+"-elsewhere", Retention{})
}

// numbers reads messages until none comes for a while.
func numbers(t *testing.T, s *Subscriber) (got []uint64) {
	t.Helper()
	for {
		m, ok, err := s.Next(soon(t), time.Now().Add(2*lookEvery))
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return got
		}
		got = append(got, uint64(m.Seq))
	}
}

// A message that is malformed in its body is as little received as one that is in
// its header, whatever its kind.
func TestMalformedBodiesAreLostAndNotReceived(t *testing.T) {
	t.Parallel()
	detection := func(objects string) string {
		return `"frame_source":"porch","frame_epoch":"000282fe18281a71","frame_seq":1,"frame_time":"2026-05-17T09:41:07.250000000Z",` +
			`"frame_boot_ns":5,"covered_until":5,"objects":` + objects
	}
	for _, tt := range []struct {
		kind      Kind
		good, bad string
	}{
		{"reading", `"columns":["a","b"],"values":[1,2]`, `"columns":["a","b"],"values":[1]`},
		{"reading", `"columns":["a"],"values":[1]`, `"columns":["a"],"values":["1"]`},
		{"reading", `"columns":["a"],"values":[1]`, `"columns":["a"]`},
		{"reading", `"columns":["a"],"values":[1]`, `"columns":["a"],"values":[1],"bad":{"b":"?"}`},
		{"detection", detection("[]"), detection(`[{"label":"cat","score":0.5,"box":[1,2,3]}]`)},
		{"detection", detection("[]"), detection(`[{"label":"cat","score":2,"box":[1,2,3,4]}]`)},
		{"file", `"id":"a","state":"born","sidecar":null`, `"id":"../a","state":"born","sidecar":null`},
		{"file", `"id":"a","state":"born","sidecar":null`, `"id":"a","state":"lost","sidecar":null`},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			t.Parallel()
			run, shm := folders(t)
			c := bareCounter(t, run, shm)
			defer c.bus.Close()
			b := openBus(t, run, shm, "csv")
			defer b.Close()
			s, err := b.Subscribe(Subscription{Sources: []Address{{Source: "air"}}, Kinds: []Kind{tt.kind}})
			if err != nil {
				t.Fatal(err)
			}
			c.hears(t, "csv")
			for seq, body := range []string{tt.good, tt.bad, tt.good} {
				c.make(t, made{kind: tt.kind, epoch: c.pub.Epoch(), seq: uint64(seq), body: body})
			}
			if diff := cmp.Diff([]uint64{0, 2}, numbers(t, s)); diff != "" {
				t.Errorf("messages: %s", diff)
			}
			want := Account{Topic: TopicOf(tt.kind, "air", "count"), Epoch: c.pub.Epoch(), Sent: 3, Received: 2, Lost: 1}
			if diff := cmp.Diff([]Account{want}, s.Accounts()); diff != "" {
				t.Errorf("Accounts(): %s", diff)
			}
			if got := s.Refused().Malformed; got != 1 {
				t.Errorf("Refused().Malformed = %d; want 1", got)
			}
		})
	}
}

// The same with a history: a good copy there mends it, and a bad one does not.
func TestMalformedBodiesAndHistory(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	c.hears(t, "csv")
	s.look(false)
	end := c.out.out.end
	c.deafen(t)
	c.publish(t, 1)
	c.make(t, made{epoch: c.pub.Epoch(), seq: 0, body: `"columns":["n"],"values":[0,1]`})
	o := c.out.out
	o.mu.Lock()
	_, err := o.emit(c.bus.Clock().Now(), []byte(strings.Replace(c.header(1, c.pub.Epoch(), 1), "[1]", "[1,1]", 1)))
	o.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	c.out.out.end = end
	c.n = 2
	c.publish(t, 1)
	expect(t, s, soon(t), 0, 1)
	expect(t, s, soon(t), 2, 3)
	want := Account{Topic: "reading/air/count", Epoch: c.pub.Epoch(), Sent: 3, Received: 1, Repaired: 1, Lost: 1}
	if diff := cmp.Diff([]Account{want}, s.Accounts()); diff != "" {
		t.Errorf("Accounts(): %s", diff)
	}
	if got := s.Refused().Malformed; got != 2 {
		t.Errorf("Refused().Malformed = %d; want 2: one from the bus, one from the history", got)
	}
}

func in(d time.Duration) Epoch { return Epoch((clock.Boot()+d)/time.Microsecond) << 14 }

// However wrong the epoch or the number of one message is: what comes after it is
// still read.
func TestOneWrongMessageDoesNotSilenceItsSource(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		history bool
		wrong   func(real Epoch) []made
		extra   []uint64 // of the wrong ones, taken
		lost    uint64
		refused uint64
	}{
		{"epoch far ahead", true, func(Epoch) []made { return []made{{epoch: 1<<64 - 1, seq: 5}} }, nil, 0, 1},
		{"epoch an hour ahead", true, func(Epoch) []made { return []made{{epoch: in(time.Hour)}} }, nil, 0, 1},
		{"epoch of a run between", true, func(e Epoch) []made { return []made{{epoch: e + 1}} }, nil, 0, 1},
		{"epoch ahead, of another boot", true, func(Epoch) []made { return []made{{epoch: 1<<64 - 1, seq: 5, boot: "other"}} }, nil, 0, 1},
		{"number far ahead", true, func(e Epoch) []made { return []made{{epoch: e, seq: maxSeq}} }, nil, 0, 1},
		{"epoch far ahead", false, func(Epoch) []made { return []made{{epoch: 1<<64 - 1, seq: 5}} }, nil, 0, 1},
		{"epoch an hour ahead", false, func(Epoch) []made { return []made{{epoch: in(time.Hour)}} }, nil, 0, 1},
		{"epoch of a run between", false, func(e Epoch) []made { return []made{{epoch: e + 1}} }, []uint64{0}, 0, 0},
		{"epochs of runs between", false, func(e Epoch) []made { return []made{{epoch: e + 1}, {epoch: e + 2}, {epoch: e + 3}} }, []uint64{0, 0, 0}, 0, 0},
		{"epoch ahead, of another boot", false, func(Epoch) []made { return []made{{epoch: 1<<64 - 1, boot: "other"}} }, []uint64{0}, 0, 0},
		{"number far ahead", false, func(e Epoch) []made { return []made{{epoch: e, seq: maxSeq}} }, nil, 0, 1},
		{"number ahead", false, func(e Epoch) []made { return []made{{epoch: e, seq: 2000}} }, nil, 0, 1},
		{"number ahead, of another boot", false, func(e Epoch) []made { return []made{{epoch: e, seq: maxSeq, boot: "other"}} }, nil, 0, 1},
	} {
		t.Run(fmt.Sprintf("%s, history %v", tt.name, tt.history), func(t *testing.T) {
			t.Parallel()
			run, shm := folders(t)
			start := bareCounter
			if tt.history {
				start = func(t *testing.T, run, shm string) *counter { return startCounter(t, run, shm, Retention{}) }
			}
			c := start(t, run, shm)
			defer c.bus.Close()
			b := openBus(t, run, shm, "csv")
			defer b.Close()
			s := subscribe(t, b, nil)
			c.hears(t, "csv")
			s.look(false) // the first look takes all there is; from now on the bus is trusted
			c.publish(t, 10)
			for _, m := range tt.wrong(c.pub.Epoch()) {
				c.make(t, m)
			}
			c.publish(t, 10)
			got := numbers(t, s)
			var want []uint64
			for n := range uint64(20) {
				if n == 10 {
					want = append(want, tt.extra...)
				}
				want = append(want, n)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("messages: %s", diff)
			}
			if a := s.Accounts(); len(a) != 1 || a[0].Epoch != c.pub.Epoch() || a[0].Sent != 20 || a[0].Lost != 0 || !sums(a[0]) {
				t.Errorf("Accounts() = %+v; want 20 of %s, none lost", a, c.pub.Epoch())
			}
			all := uint64(len(want))
			if a := s.Totals(); a.Sent != all || a.Received+a.Repaired != all || !sums(a) {
				t.Errorf("Totals() = %+v; want %d", a, all)
			}
			if r := s.Refused(); r.Malformed != tt.refused || r.Duplicate != 0 {
				t.Errorf("Refused() = %+v; want %d malformed", r, tt.refused)
			}
		})
	}
}

// A gap that is real is taken, however wide: after the next message, or at the end.
func TestWideGapsWithoutHistory(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := bareCounter(t, run, shm)
	defer c.bus.Close()
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	c.hears(t, "csv")
	epoch := c.pub.Epoch()
	for _, seq := range []uint64{0, 1000, 1001, maxSeq - 1, maxSeq} {
		c.make(t, made{epoch: epoch, seq: seq, boot: "other"}) // of a boot whose age is not known
	}
	if diff := cmp.Diff([]uint64{0, 1000, 1001, maxSeq - 1, maxSeq}, numbers(t, s)); diff != "" {
		t.Errorf("messages: %s", diff)
	}
	if a := s.Accounts()[0]; a.Received != 5 || a.Sent != 1<<53 || !sums(a) {
		t.Errorf("Accounts() = %+v; want 5 received of 2^53", a)
	}
	c.make(t, made{epoch: epoch + 1, seq: 700, boot: "other"})
	if got := numbers(t, s); got != nil {
		t.Errorf("messages = %v; want none before the next one confirms it", got)
	}
	s.rest()
	if m, ok := s.pop(); !ok || m.Seq != 700 {
		t.Errorf("at the end: %s, %v; want number 700", m.ID(), ok)
	}
}

// Who comes late to a stream without history has not lost what was before.
func TestLateToAStreamWithoutHistory(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := bareCounter(t, run, shm)
	defer c.bus.Close()
	c.publish(t, 50)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	c.hears(t, "csv")
	c.publish(t, 2)
	expect(t, s, soon(t), 50, 52)
	if a := s.Totals(); a.Skipped != 50 || a.Received != 2 || a.Lost != 0 || !sums(a) {
		t.Errorf("Totals() = %+v; want 50 skipped, 2 received", a)
	}
}

// Rings that stay over a reboot, in a folder on disk, have epochs of another boot:
// a run of this one is entered though its number is smaller.
func TestRunOfALaterBootHasASmallerEpoch(t *testing.T) {
	t.Parallel()
	run, rings := folders(t)
	b := openBus(t, run, rings, "csv")
	defer b.Close()
	dir, err := shm.OpenDir(rings)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	meta := ringMeta{Kind: KindReading, Topic: "reading/air/count", Node: "box", BootID: "before"}
	w, err := shm.Create(dir, "air.count", in(1000*time.Hour), Retention{}.ring(meta))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Retire(); err != nil {
		t.Fatal(err)
	}
	s := subscribe(t, b, nil)
	if got := numbers(t, s); got != nil {
		t.Fatalf("messages = %v; want none", got)
	}
	for n := range 2 { // and again for the run after it
		c := startCounter(t, run, rings, Retention{Expect: []string{"absent"}})
		c.n = 20 * n
		c.publish(t, 10)
		expect(t, s, soon(t), 20*n, 20*n+10)
		c.publish(t, 10)
		expect(t, s, soon(t), 20*n+10, 20*n+20)
		if err := c.bus.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if a := s.Totals(); a.Sent != 40 || a.Lost != 0 || !sums(a) {
		t.Errorf("Totals() = %+v; want 40, none lost", a)
	}
}

// ZeroMQ queues a subscription until it is received: a publisher takes them in
// when it sends, and nobody asks it who is there.
func TestPublisherTakesInSubscriptionsWhenItSends(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	subscribe(t, b, nil)
	for by := time.Now().Add(2 * time.Minute); ; {
		c.publish(t, 1)
		c.pub.main.mu.Lock()
		there := c.pub.main.hello["csv"]
		c.pub.main.mu.Unlock()
		if there == 1 {
			return
		}
		if time.Now().After(by) {
			t.Fatal("a publisher that sends has not taken in the subscription of csv")
		}
	}
}
