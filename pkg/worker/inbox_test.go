package worker

import (
	"context"
	"testing"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// After many messages a lull has them accounted for at once, and so has the next
// one those that came late; after few the next state is soon enough.
func TestALullAfterABurstGivesAccount(t *testing.T) {
	for _, c := range []struct {
		messages int
		want     bool
	}{{burst - 2, false}, {burst, true}} {
		w := &Worker{dog: newWatchdog(), soon: make(chan struct{}, 1)}
		taken, left := 0, 0
		l := &ledger{w: w, at: time.Now(), count: func() tally { return tally{accounts: []msg.Account{{Sent: uint64(taken)}}} }}
		next := func(context.Context, time.Time) (int, bool, error) {
			if left == 0 {
				return 0, false, nil
			}
			taken, left = taken+1, left-1
			return taken, true, nil
		}
		for _, left = range []int{c.messages, 1, 0} {
			n := left
			for range n {
				if _, ok, err := attend(t.Context(), l, time.Time{}, next); !ok || err != nil {
					t.Fatalf("attend() = %v, %v; want a message", ok, err)
				}
			}
			if _, ok, err := attend(t.Context(), l, time.Now(), next); ok || err != nil {
				t.Fatalf("attend() = %v, %v; want nothing", ok, err)
			}
			if got := len(w.soon) == 1; got != (c.want && n > 0) {
				t.Errorf("%d messages after %d, and a lull: a state is wanted soon: %v", n, taken-n, got)
			}
			if a := l.tally().accounts; c.want && (len(a) != 1 || a[0].Sent != uint64(taken)) {
				t.Errorf("account after %d messages: %+v; want all", taken, a)
			}
			if len(w.soon) == 1 {
				<-w.soon
			}
		}
	}
}
