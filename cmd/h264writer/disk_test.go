package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// On a full disk frames are lost and said to be; once there is room the segments
// come, and what was there before is still there.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet("segment = \"1s\"\nfragment = \"100ms\""))
	b.Small("cache", 256<<10)
	c := newCamera(t, b, pixel.YUV420, small(), killHz)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	stop := c.shoot()
	states.State("a segment", func(s msg.State) bool { return s.Counters["segments"] >= 1 })
	big := make([]byte, 256<<10)
	_ = os.WriteFile(b.Dir+"/cache/big", big, 0o600) // as much as there is room for
	states.State("trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, "no space left") })
	if err := os.Remove(b.Dir + "/cache/big"); err != nil {
		t.Fatal(err)
	}
	before := states.State("the trouble gone", func(s msg.State) bool { return s.Trouble == "" }).Counters["segments"]
	states.State("more segments", func(s msg.State) bool { return s.Counters["segments"] > before })
	stop()
	states.State("the last frame", func(s msg.State) bool {
		return len(s.Sources) == 1 && int(s.Sources[0].Sent) == c.sent
	})
	p.Stop()
	list := born(t, b)
	for _, s := range list {
		wantTrue(t, b, s)
	}
	wantAccounted(t, list, int(list[len(list)-1].End.Seq)+1)
	wantNothingLeft(t, b)
	t.Log(briefs(list))
}

// On a disk, what was recorded is synced as it grows, and killing the writer
// leaves what plays.
func TestOnADisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, c, states, p := begin(t, "segment = \"4s\"\nfragment = \"100ms\"\ndir = \""+dir+"\"")
	c.film(c.bus.Clock().Now(), 50)
	states.State("all frames", fed(50))
	boxtest.Poll(t, "some fragments", func() bool {
		m, err := os.ReadDir(dir + "/work")
		if err != nil || len(m) != 1 {
			return false
		}
		st, err := os.Stat(dir + "/work/" + m[0].Name() + "/000000.mp4")
		return err == nil && st.Size() > 4000
	})
	p.Kill()
	p = b.Start("h264writer", "clips")
	states.State("the segment recovered", func(s msg.State) bool { return s.Counters["recovered"] == 1 && s.Counters["segments"] >= 1 })
	p.Stop()
	entries, err := os.ReadDir(dir + "/work")
	if err != nil || len(entries) != 0 {
		t.Errorf("work/ has %v, %v; want nothing", entries, err)
	}
}

// A segment that loses bytes when it could not be synced is set aside and
// counted; those after it are filed.
func TestASyncThatCostBytes(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet("segment = \"1s\""))
	faults, backing := b.Faulty("cache")
	segment := regexp.MustCompile(`^sync (work/clips_[^/]+\.mp4)$`)
	failed := ""
	faults.Watch(func(call string) {
		m := segment.FindStringSubmatch(call)
		if m == nil || failed != "" {
			return
		}
		failed = m[1]
		faults.FailSyncs(1, failed, true)
		f, err := os.OpenFile(backing+"/"+failed, os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("lost"), 2000) // behind the header, which the journal has
			f.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
	c := newCamera(t, b, pixel.YUV420, small(), 25)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	c.film(c.bus.Clock().Now(), 90)
	states.State("all frames", fed(90))
	states.State("one segment set aside, and two filed", func(s msg.State) bool {
		return s.Counters["quarantined"] == 1 && s.Counters["segments"] >= 2 && s.Trouble == ""
	})
	p.Stop()
	wantNothingLeft(t, b)
	list := born(t, b)
	if got, want := briefs(list), "25-49 -0-24, 50-74, 75-89"; got != want {
		t.Errorf("segments %s; want %s", got, want)
	}
	for _, s := range list {
		wantTrue(t, b, s)
	}
}
