package msg

import (
	"slices"
	"testing"
)

// Replay hands out what the histories still hold, of this run and of earlier ones,
// and changes no account.
func TestReplay(t *testing.T) {
	run, shm := folders(t)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	keep := Retention{Messages: 8, Expect: []string{"csv", "other"}} // who never comes: so the history stays
	first := startCounter(t, run, shm, keep)
	s := subscribe(t, b, nil)
	first.publish(t, 5)
	expect(t, s, soon(t), 0, 5)
	if err := first.bus.Close(); err != nil {
		t.Fatal(err)
	}
	second := startCounter(t, run, shm, keep)
	defer second.bus.Close()
	second.n = 5
	for n := 5; n < 17; n += 6 { // no more at a time than the history holds
		second.publish(t, 6)
		expect(t, s, soon(t), n, n+6)
	}
	before := s.Totals()
	topic := TopicOf(KindReading, "air", "count")
	for _, tt := range []struct {
		name        string
		epoch       Epoch
		first, last Seq
		want        []float64
	}{
		{"of this run", second.pub.Epoch(), 6, 8, []float64{11, 12, 13}},
		{"as far as it reaches", second.pub.Epoch(), 0, 5, []float64{9, 10}},
		{"beyond its end", second.pub.Epoch(), 10, 1 << 50, []float64{15, 16}},
		{"of the run before", first.pub.Epoch(), 1, 3, []float64{1, 2, 3}},
		{"of no run", 7, 0, 9, nil},
	} {
		var got []float64
		err := s.Replay(topic, tt.epoch, tt.first, tt.last, func(m Message) {
			r, err := m.Reading()
			if err != nil || m.Epoch != tt.epoch {
				t.Errorf("%s: %s, %v; want a reading of %s", tt.name, m.ID(), err, tt.epoch)
			}
			got = append(got, r.Values[0])
		})
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: Replay() = %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
	if after := s.Totals(); after != before {
		t.Errorf("Totals() = %+v; want %+v as before", after, before)
	}
	second.publish(t, 1)
	expect(t, s, soon(t), 17, 18)
}
