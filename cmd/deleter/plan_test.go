package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/rule"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

const thisBoot, earlierBoot = "boot-2", "boot-1"

// noon is the time of all these plans, ten hours after this boot.
func noon(synced bool) msg.Stamp {
	return msg.Stamp{Wall: time.Date(2026, 5, 17, 12, 0, 0, 0, time.UTC), Boot: 10 * time.Hour, Synced: synced}
}

// sample is a file of a plan: its name in the test, what it is and how old.
type sample struct {
	name   string
	state  spool.State
	media  string
	age    time.Duration
	boot   string // this one where there is none
	wrong  bool   // the wall clock was, when it was made
	blocks int64  // that it takes up; 10 where it says none
}

func (s sample) file(at place, n int) *file {
	now := noon(true)
	end := sidecar.Moment{BootID: s.boot, Synced: !s.wrong, Time: msg.Time{Time: now.Wall.Add(-s.age)}, BootNS: int64(now.Boot - s.age)}
	if s.boot == "" {
		end.BootID = thisBoot
	} else {
		end.BootNS = 1
	}
	if s.blocks == 0 {
		s.blocks = 10
	}
	side := &sidecar.Sidecar{ID: sidecar.ID(s.name), Media: s.media, Bytes: (s.blocks - 1) * block, End: end}
	if s.state == spool.Sent {
		side.Receipt = &sidecar.Receipt{}
	}
	return newFile(at, s.state, time.Time{}, side)
}

func shelfOf(at place, limits *Limits, free int64, samples ...sample) *shelf {
	s := newShelf(at, limits)
	s.room = spool.Room{Total: 1000 * block, Free: free * block}
	for n, x := range samples {
		f := x.file(at, n)
		s.files[f.id()] = f
	}
	return s
}

func when(t *testing.T, text string) rule.Rule[rule.File] {
	t.Helper()
	r, err := rule.Compile[rule.File](text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const clip, picture, csv = "video/mp4", "image/jpeg", "text/csv"

func TestPlan(t *testing.T) {
	everything := []sample{
		{name: "dropped", state: spool.Dropped, media: clip, age: time.Hour},
		{name: "born", state: spool.Born, media: clip, age: time.Hour},
		{name: "ready-clip", state: spool.Ready, media: clip, age: 2 * time.Hour},
		{name: "ready-csv", state: spool.Ready, media: csv, age: 9 * time.Hour},
		{name: "ready-losses", state: spool.Ready, media: sidecar.LossesMedia, age: 9 * time.Hour},
		{name: "rejected-csv", state: spool.Rejected, media: csv, age: 5 * time.Hour},
		{name: "rejected-losses", state: spool.Rejected, media: sidecar.LossesMedia, age: 9 * time.Hour},
		{name: "sent-csv", state: spool.Sent, media: csv, age: 9 * time.Hour},
		{name: "sent-new", state: spool.Sent, media: clip, age: time.Hour},
		{name: "sent-old", state: spool.Sent, media: clip, age: 3 * time.Hour},
		{name: "sent-picture", state: spool.Sent, media: picture, age: 4 * time.Hour},
		{name: "sent-losses", state: spool.Sent, media: sidecar.LossesMedia, age: 9 * time.Hour},
	}
	all := "dropped:dropped sent-old:min_free sent-new:min_free sent-picture:min_free sent-csv:min_free sent-losses:min_free rejected-csv:min_free"
	for _, tt := range []struct {
		name   string
		limits Limits
		evict  bool
		free   int64 // blocks
		unsure bool  // the wall clock now
		files  []sample
		want   string
		short  string
	}{
		{name: "nothing is set", files: everything, want: "dropped:dropped"},
		{name: "nothing is set, and unsent may go", evict: true, files: everything, want: "dropped:dropped"},
		{name: "by age", limits: Limits{MaxAge: hours(3.5)}, files: everything,
			want: "dropped:dropped sent-picture:max_age sent-csv:max_age sent-losses:max_age rejected-csv:max_age"},
		{name: "unsent never by age", limits: Limits{MaxAge: hours(3.5)}, evict: true, files: everything,
			want: "dropped:dropped sent-picture:max_age sent-csv:max_age sent-losses:max_age rejected-csv:max_age"},
		{name: "by rule", limits: Limits{When: when(t, `class == "clips" or age_h > 8`)}, files: everything,
			want: "dropped:dropped sent-old:when sent-new:when sent-csv:when sent-losses:when"},
		{name: "unsent by rule, but what is not decided", limits: Limits{When: when(t, `true`)}, evict: true, files: everything,
			want: "dropped:dropped sent-old:when sent-new:when sent-picture:when sent-csv:when sent-losses:when rejected-csv:when ready-clip:when ready-csv:when"},
		{name: "to a size", limits: Limits{MaxBytes: 100 * block}, files: everything, want: "dropped:dropped sent-old:max_bytes"},
		{name: "to the size that is there", limits: Limits{MaxBytes: 120 * block}, files: everything, want: "dropped:dropped"},
		{name: "to a size that cannot be", limits: Limits{MaxBytes: 20 * block}, evict: true, files: everything,
			want:  strings.ReplaceAll(all, "min_free", "max_bytes"),
			short: "disk: max_bytes = 81.9kB needs 122.9kB more: 5 unsent files are not deleted"},
		{name: "enough free", limits: Limits{MinFree: 500 * block}, free: 500, files: everything, want: "dropped:dropped"},
		{name: "one block short", limits: Limits{MinFree: 500 * block}, free: 489, files: everything, want: "dropped:dropped sent-old:min_free"},
		{name: "all but unsent", limits: Limits{MinFree: 500 * block}, free: 400, files: everything, want: all,
			short: "disk: min_free = 2MB needs 122.9kB more: 5 unsent files are not deleted (evict_unsent = false)"},
		{name: "the hard floor", limits: Limits{MinFree: 500 * block}, evict: true, free: 415, files: everything,
			want: all + " ready-clip:min_free born:min_free"},
		{name: "below the hard floor", limits: Limits{MinFree: 500 * block}, evict: true, free: 100, files: everything,
			want:  all + " ready-clip:min_free born:min_free ready-csv:min_free",
			short: "disk: min_free = 2MB needs 1.2MB more: 2 unsent files are not deleted"},
		{name: "nothing is left", limits: Limits{MinFree: 500 * block}, want: "", short: "disk: min_free = 2MB needs 2MB more, and nothing is left that may be deleted"},
		{name: "one after the other, and none twice", limits: Limits{When: when(t, `class == "pictures"`), MaxAge: hours(8), MaxBytes: 85 * block, MinFree: 60 * block}, files: everything,
			want: "dropped:dropped sent-picture:when sent-csv:max_age sent-losses:max_age sent-old:min_free", free: 15},
		{name: "a rule that fails decides nothing", limits: Limits{When: when(t, `[1][bytes] == 1`)}, files: everything, want: "dropped:dropped"},
		{name: "ages of earlier boots", limits: Limits{MaxAge: hours(24)}, files: earlier(),
			want: "synced:max_age"},
		{name: "ages of earlier boots while the clock is not right", limits: Limits{MaxAge: hours(24)}, unsure: true, files: earlier(), want: ""},
		{name: "earlier boots go first", limits: Limits{MinFree: 1000 * block}, files: earlier(), free: 951,
			want: "synced:min_free not-synced:min_free from-the-future:min_free this-boot-old:min_free this-boot-new:min_free"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.EvictUnsent = tt.evict
			p := planner{&cfg, noon(!tt.unsure), thisBoot}
			got := p.plan(shelfOf(disk, &tt.limits, tt.free, tt.files...))
			var goes, lacks []string
			for _, d := range got.goes {
				goes = append(goes, fmt.Sprintf("%s:%s", d.id(), d.by))
			}
			for _, s := range got.short {
				lacks = append(lacks, s.Error())
			}
			if diff := cmp.Diff(tt.want, strings.Join(goes, " ")); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.short, strings.Join(lacks, "; ")); diff != "" {
				t.Errorf("short (-want +got):\n%s", diff)
			}
		})
	}
}

func hours(h float64) topology.Duration { return topology.Duration(h * float64(time.Hour)) }

// earlier are files of this boot and of the one before.
func earlier() []sample {
	return []sample{
		{name: "this-boot-new", state: spool.Sent, age: time.Hour, wrong: true},
		{name: "this-boot-old", state: spool.Sent, age: 9 * time.Hour},
		{name: "synced", state: spool.Sent, age: 50 * time.Hour, boot: earlierBoot},
		{name: "not-synced", state: spool.Sent, age: 40 * time.Hour, boot: earlierBoot, wrong: true},
		{name: "from-the-future", state: spool.Sent, age: -time.Hour, boot: earlierBoot},
	}
}

// Each reason says what a person needs to know.
func TestReasons(t *testing.T) {
	cfg := DefaultConfig()
	cfg.EvictUnsent = true
	p := planner{&cfg, noon(true), thisBoot}
	for want, limits := range map[string]Limits{
		"deleted: sent, 50h old, disk.max_age = 24h": {MaxAge: hours(24)},
		"deleted: sent, disk.when holds":             {When: when(t, "sent")},
		"deleted: unsent, disk.min_free = 4.1MB":     {MinFree: 1000 * block},
		"deleted: sent, disk.max_bytes = 4.1kB":      {MaxBytes: block},
	} {
		state := spool.Sent
		if strings.Contains(want, "unsent") {
			state = spool.Ready
		}
		got := p.plan(shelfOf(disk, &limits, 1, sample{name: "it", state: state, age: 50 * time.Hour, boot: earlierBoot}))
		if len(got.goes) != 1 || got.goes[0].reason != want {
			t.Errorf("plan() = %+v; want one file for %q", got.goes, want)
		}
	}
}

// A place that is not there is no place that is short.
func TestPlanLeavesOutAnAbsentPlace(t *testing.T) {
	cfg := DefaultConfig()
	s := shelfOf(disk, &Limits{MinFree: 1000 * block}, 1, sample{name: "it", state: spool.Sent})
	s.gone(spool.ErrNotMounted)
	p := planner{&cfg, noon(true), thisBoot}
	if got := p.plan(s); len(got.goes)+len(got.short) > 0 {
		t.Errorf("plan() = %+v; want nothing", got)
	}
}
