package backlog

import (
	"sync"
	"testing"
)

// While a sender works, others may look: they see no damage that is none, and no lock stops
// them.
func TestInspectWhileInUse(t *testing.T) {
	root := openRoot(t, ram(t))
	l := open(t, root, Config{SegmentBytes: minSegment, MaxBytes: 16 << 20})
	const rounds = 200
	var group sync.WaitGroup
	more := make(chan struct{}, rounds)
	done := make(chan struct{})
	group.Go(func() {
		defer close(done)
		for n := range rounds {
			if _, err := l.Append(numbered(Event, "e", 2*n, 2000), numbered(Event, "e", 2*n+1, 2000)); err != nil {
				t.Error(err)
			}
			if err := l.Sync(); err != nil {
				t.Error(err)
			}
			more <- struct{}{}
		}
	})
	group.Go(func() {
		for range rounds {
			<-more
			list, err := l.Peek(0, 2, 1<<20)
			if err == nil {
				err = l.Ack(positions(list)...)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	looks := 0
	for open := true; open; looks++ {
		select {
		case <-done:
			open = false
		default:
		}
		if st, err := Inspect(root, "log"); err != nil || st.Lost != 0 || st.Rewound != 0 || st.Records > 2*rounds {
			t.Errorf("Inspect() = %+v, %v; want no loss", st, err)
		}
	}
	group.Wait()
	must(t, l.Close())
	t.Logf("%d looks", looks)
}

// Damage that Inspect sees is what Open counts.
func TestInspectOfDamage(t *testing.T) {
	im, want := damagedLog(t, false)
	seg := im.segment(t)
	text := im.files[seg]
	c := scan(text, number(t, seg))
	text[c.blocks[2].off+headerBytes]++
	im.put(t, seg, text)
	for range 2 { // it changes nothing
		st, err := Inspect(im.root, "log")
		if err != nil || st.Lost != 1 || int(st.Records) != len(want)-1 || st.Losses[0].Reason != Damaged {
			t.Errorf("Inspect() = %+v, %v; want one lost of %d", st, err, len(want))
		}
	}
	opened(t, im, want, "after Inspect")
}
