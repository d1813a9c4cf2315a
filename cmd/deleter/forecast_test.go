package main

import (
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/spool"
)

func TestForecast(t *testing.T) {
	every := func(n int, gap time.Duration, change func(*sample)) (list []sample) {
		for i := range n {
			s := sample{name: string(rune('a' + i)), state: spool.Sent, age: time.Duration(i+1) * gap}
			change(&s)
			list = append(list, s)
		}
		return list
	}
	for name, tt := range map[string]struct {
		files []sample
		known bool
		full  time.Duration // with 60 blocks free
	}{
		"nothing is there":      {},
		"one file says no rate": {files: every(1, time.Hour, func(*sample) {})},
		"ten blocks an hour":    {files: every(7, time.Hour, func(*sample) {}), known: true, full: 7 * time.Hour},
		"what is old does not count": {files: append(every(7, time.Hour, func(*sample) {}),
			sample{name: "old", state: spool.Sent, age: 48 * time.Hour, boot: earlierBoot, blocks: 500}), known: true, full: 7 * time.Hour},
		"ages are not known": {files: every(7, time.Hour, func(s *sample) { s.boot, s.wrong = earlierBoot, true })},
		"all of one moment":  {files: every(7, time.Second, func(*sample) {})},
	} {
		f, known := forecastOf(shelfOf(disk, &Limits{}, 60, tt.files...), noon(true), thisBoot)
		if known != tt.known {
			t.Errorf("forecastOf(%s) is known: %v; want %v", name, known, tt.known)
			continue
		}
		if known && f.in(60*block).Round(time.Second) != tt.full {
			t.Errorf("forecastOf(%s) says full in %s; want %s", name, f.in(60*block), tt.full)
		}
	}
	if in := (forecast{perSecond: 1e-9}).in(1 << 40); in <= 0 {
		t.Errorf("in(1 TiB) at next to nothing = %s; want a long time", in)
	}
	if in := (forecast{perSecond: 1}).in(-5); in != 0 {
		t.Errorf("in() of less than nothing = %s; want 0", in)
	}
}

func TestAgeText(t *testing.T) {
	for d, want := range map[time.Duration]string{5 * time.Second: "5s", 90 * time.Second: "1m", 80 * time.Hour: "80h", 101 * time.Hour: "4d"} {
		if got := ageText(d); got != want {
			t.Errorf("ageText(%s) = %s; want %s", d, got, want)
		}
	}
}
