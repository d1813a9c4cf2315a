package worker

import (
	"context"
	"testing"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// After many messages a lull has them accounted for at once; after few the next
// state is soon enough.
func TestALullAfterABurstGivesAccount(t *testing.T) {
	for _, c := range []struct {
		messages int
		want     bool
	}{{burst - 1, false}, {burst, true}} {
		w := &Worker{dog: newWatchdog(), soon: make(chan struct{}, 1)}
		taken := 0
		l := &ledger{w: w, at: time.Now(), count: func() tally { return tally{accounts: []msg.Account{{Sent: uint64(taken)}}} }}
		next := func(context.Context, time.Time) (int, bool, error) {
			if taken == c.messages {
				return 0, false, nil
			}
			taken++
			return taken, true, nil
		}
		for range c.messages {
			if _, ok, err := attend(t.Context(), l, time.Time{}, next); !ok || err != nil {
				t.Fatalf("attend() = %v, %v; want a message", ok, err)
			}
		}
		if _, ok, err := attend(t.Context(), l, time.Now(), next); ok || err != nil {
			t.Fatalf("attend() = %v, %v; want nothing", ok, err)
		}
		if got := len(w.soon) == 1; got != c.want {
			t.Errorf("after %d messages and a lull a state is wanted soon: %v; want %v", c.messages, got, c.want)
		}
		if a := l.tally().accounts; c.want && (len(a) != 1 || a[0].Sent != uint64(c.messages)) {
			t.Errorf("account after %d messages: %+v; want all", c.messages, a)
		}
	}
}
