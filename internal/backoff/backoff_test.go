package backoff

import (
	"testing"
	"time"
)

func TestPausesGrowToTheLimit(t *testing.T) {
	b := Backoff{First: 200 * time.Millisecond, Most: 60 * time.Second, Healthy: time.Minute}
	want := b.First
	for n := range 20 {
		got := b.Failed(time.Second)
		if got > want || got < want*3/4 {
			t.Errorf("pause %d = %v; want %v less a quarter at most", n, got, want)
		}
		want = min(2*want, b.Most)
	}
	if got := b.Failed(time.Hour); got > b.First {
		t.Errorf("pause after a healthy hour = %v; want the first, %v", got, b.First)
	}
	b.Failed(0)
	b.Succeeded()
	if got := b.Failed(0); got > b.First {
		t.Errorf("pause after a success = %v; want the first, %v", got, b.First)
	}
	if got := (&Backoff{}).Failed(0); got != 0 {
		t.Errorf("pause of the zero value = %v; want none", got)
	}
}

func TestFullJitter(t *testing.T) {
	b := Backoff{First: time.Second, Most: time.Minute, Full: true}
	least, most := time.Hour, time.Duration(0)
	for n := range 1000 {
		got := b.Failed(0)
		if want := min(time.Second<<min(n, 10), time.Minute); got < 0 || got > want {
			t.Errorf("pause %d = %v; want 0 to %v", n, got, want)
		}
		if n > 10 {
			least, most = min(least, got), max(most, got)
		}
	}
	if least > 10*time.Second || most < 50*time.Second {
		t.Errorf("a thousand pauses are from %v to %v; want them all over the minute", least, most)
	}
}
