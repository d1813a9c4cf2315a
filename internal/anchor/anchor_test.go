package anchor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// noon is a wall time that is right.
func noon() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

func synced(wall time.Time, boot time.Duration) msg.Stamp {
	return msg.Stamp{Wall: wall, Boot: boot, Synced: true}
}

// open is the anchors of a folder as a process of its own has them.
func open(t *testing.T, dir string) *Anchors {
	t.Helper()
	s, err := spool.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return Open(func() (*spool.Spool, error) { return s, nil })
}

func note(t *testing.T, a *Anchors, now msg.Stamp, boot string) {
	t.Helper()
	if err := a.Note(now, boot); err != nil {
		t.Fatalf("Note(%v, %s) = %v; want nil", now, boot, err)
	}
}

// at is a moment of a boot, whose clock showed 1970.
func at(boot string, since time.Duration) sidecar.Moment {
	return sidecar.Moment{Time: msg.Time{Time: time.Unix(0, 0).Add(since).UTC()}, BootNS: int64(since), BootID: boot}
}

// corrected is the true start and end as Correct tells them; "" where it does not.
func corrected(a *Anchors, start, end sidecar.Moment) string {
	side := sidecar.Sidecar{Start: start, End: end}
	if !a.Correct(&side) {
		if side.TimeCorrected != nil {
			return "changed and not said"
		}
		return ""
	}
	c := side.TimeCorrected
	return c.Start.Format("15:04:05") + " " + c.End.Format("15:04:05") + " by " + c.Anchor.BootID
}

func TestAFileBornBeforeTheTimeWasKnownIsRedated(t *testing.T) {
	a := open(t, t.TempDir())
	note(t, a, msg.Stamp{Wall: time.Unix(5, 0), Boot: 5 * time.Second}, "b") // not synchronised
	if got := corrected(a, at("b", time.Second), at("b", 3*time.Second)); got != "" {
		t.Errorf("Correct() before the time is known = %s; want no", got)
	}
	note(t, a, synced(noon(), time.Minute), "b")
	note(t, a, synced(noon().Add(-9*time.Hour), 2*time.Minute), "b") // a step later on changes nothing
	sure := at("b", 70*time.Second)
	sure.Synced, sure.Time = true, msg.Time{Time: noon().Add(10 * time.Second)}
	for _, c := range []struct {
		name       string
		start, end sidecar.Moment
		want       string
	}{
		{"both before", at("b", 30*time.Second), at("b", 45*time.Second), "11:59:30 11:59:45 by b"},
		{"across", at("b", 30*time.Second), sure, "11:59:30 12:00:10 by b"},
		{"the time was lost again", sure, at("b", 90*time.Second), "12:00:10 12:00:30 by b"},
		{"known", sure, sure, ""},
		{"another boot", at("c", 30*time.Second), at("c", 45*time.Second), ""},
		{"two boots", at("b", 30*time.Second), at("c", 45*time.Second), ""},
		{"no moment at all", sidecar.Moment{}, sidecar.Moment{}, ""},
	} {
		if got := corrected(a, c.start, c.end); got != c.want {
			t.Errorf("%s: Correct() = %q; want %q", c.name, got, c.want)
		}
	}
}

func TestWhatIsCorrectedStays(t *testing.T) {
	a := open(t, t.TempDir())
	note(t, a, synced(noon(), time.Minute), "b")
	side := sidecar.Sidecar{Start: at("b", 0), End: at("b", 0), TimeCorrected: &sidecar.Correction{}}
	if a.Correct(&side) || side.TimeCorrected.Anchor.BootID != "" {
		t.Errorf("Correct() of a corrected one changed it: %+v", side.TimeCorrected)
	}
}

// text is the file, other than by the package.
func text(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheFileIsTheDocumentedText(t *testing.T) {
	dir := t.TempDir()
	note(t, open(t, dir), synced(noon(), time.Minute), "b-1")
	note(t, open(t, dir), synced(noon().Add(time.Hour), time.Second), "b-2")
	want := `{"boot_id":"b-1","boot_ns":60000000000,"time":"2026-05-01T12:00:00.000000000Z"}
{"boot_id":"b-2","boot_ns":1000000000,"time":"2026-05-01T13:00:00.000000000Z"}
`
	if diff := cmp.Diff(want, text(t, dir)); diff != "" {
		t.Errorf("clock.jsonl (-want +got):\n%s", diff)
	}
	later := open(t, dir)
	note(t, later, msg.Stamp{Boot: time.Second}, "b-3")
	if got := corrected(later, at("b-1", 0), at("b-1", time.Minute)); got != "11:59:00 12:00:00 by b-1" {
		t.Errorf("Correct() in a later boot = %q; want the first one's time", got)
	}
	if left, _ := filepath.Glob(dir + "/.clock*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTheLastBootsAreRemembered(t *testing.T) {
	dir := t.TempDir()
	for i := range most + 3 {
		note(t, open(t, dir), synced(noon().AddDate(0, 0, i), time.Minute), fmt.Sprintf("b%d", i))
	}
	got := text(t, dir)
	if n := strings.Count(got, "\n"); n != most || strings.Contains(got, `"b2"`) || !strings.Contains(got, `"b3"`) {
		t.Errorf("clock.jsonl has %d boots; want the last %d:\n%s", n, most, got)
	}
}

func TestNobodyLosesAnothersAnchor(t *testing.T) {
	dir := t.TempDir()
	var group sync.WaitGroup
	for i := range 16 {
		a, boot := open(t, dir), fmt.Sprintf("b%d", i)
		group.Go(func() {
			for limit := time.Now().Add(2 * time.Minute); time.Now().Before(limit); time.Sleep(time.Millisecond) { // while others write
				if err := a.Note(synced(noon(), time.Minute), boot); err != nil {
					t.Errorf("Note(%s) = %v; want nil", boot, err)
					return
				}
				if b, _ := os.ReadFile(filepath.Join(dir, file)); strings.Contains(string(b), `"`+boot+`"`) {
					return
				}
			}
			t.Errorf("%s never had its turn", boot)
		})
	}
	group.Wait()
	if n := strings.Count(text(t, dir), "\n"); n != 16 {
		t.Errorf("clock.jsonl has %d anchors; want all 16:\n%s", n, text(t, dir))
	}
}

func TestOfTwoOfOneBootTheFirstStays(t *testing.T) {
	dir := t.TempDir()
	late, early := open(t, dir), open(t, dir)
	note(t, early, msg.Stamp{}, "b") // both have read the file
	note(t, late, synced(noon().Add(time.Second), time.Minute+time.Second), "b")
	note(t, early, synced(noon(), time.Minute), "b")
	if got := text(t, dir); !strings.Contains(got, `"boot_ns":60000000000,`) || strings.Count(got, "\n") != 1 {
		t.Errorf("clock.jsonl = %s; want the earlier one", got)
	}
}

func TestDamagedLinesAreDroppedAndSaid(t *testing.T) {
	for name, damage := range map[string]string{
		"torn":       `{"boot_id":"x","boot`,
		"zeros":      strings.Repeat("\x00", 300),
		"no JSON":    "good morning\n",
		"no boot":    `{"boot_ns":1,"time":"2026-05-01T12:00:00.000000000Z"}` + "\n",
		"before":     `{"boot_id":"x","boot_ns":-1,"time":"2026-05-01T12:00:00.000000000Z"}` + "\n",
		"no battery": `{"boot_id":"x","boot_ns":1,"time":"1970-01-01T00:00:00.000000000Z"}` + "\n",
		"the future": `{"boot_id":"x","boot_ns":1,"time":"9999-05-01T12:00:00.000000000Z"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			note(t, open(t, dir), synced(noon(), time.Minute), "b")
			whole := text(t, dir)
			if err := os.WriteFile(filepath.Join(dir, file), []byte(whole+damage), 0o600); err != nil {
				t.Fatal(err)
			}
			a := open(t, dir)
			if err := a.Note(msg.Stamp{Boot: 1}, "c"); err == nil || !strings.Contains(err.Error(), "1 lines told of no moment") {
				t.Errorf("Note() = %v; want word of the damage", err)
			}
			note(t, a, msg.Stamp{Boot: time.Minute}, "c") // once
			if got := text(t, dir); got != whole {
				t.Errorf("clock.jsonl = %s; want %s", got, whole)
			}
			if got := corrected(a, at("b", 0), at("b", 0)); got == "" {
				t.Error("Correct() = no; want the anchor that was left")
			}
		})
	}
}

func TestNoTrapIsFollowed(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, file)); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Note(synced(noon(), time.Minute), "b"); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("Note() with a link in place of the file = %v; want an error that says so", err)
	}
	if b, err := os.ReadFile(outside); err != nil || len(b) > 0 {
		t.Errorf("outside = %q, %v; want it untouched", b, err)
	}
}

func TestAStoreThatIsAbsentAndComes(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	there := false
	a := Open(func() (*spool.Spool, error) {
		if !there {
			return nil, spool.ErrNotMounted
		}
		return s, nil
	})
	if err := a.Note(synced(noon(), time.Minute), "b"); !errors.Is(err, spool.ErrNotMounted) {
		t.Errorf("Note() = %v; want that it is not mounted", err)
	}
	if got := corrected(a, at("b", 0), at("b", 0)); got == "" {
		t.Error("Correct() = no; want it by the anchor in memory")
	}
	there = true
	note(t, a, synced(noon().Add(time.Hour), time.Hour), "b")
	if got := text(t, dir); !strings.Contains(got, `"boot_ns":60000000000,`) {
		t.Errorf("clock.jsonl = %q; want the first moment", got)
	}
}

func TestAnotherDiskGetsWhatIsKnown(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	note(t, open(t, dirs[1]), synced(noon(), time.Second), "other")
	var spools []*spool.Spool
	for _, dir := range dirs {
		s, err := spool.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		spools = append(spools, s)
	}
	now := 0
	a := Open(func() (*spool.Spool, error) { return spools[now], nil })
	note(t, a, synced(noon(), time.Minute), "b")
	now = 1
	note(t, a, synced(noon(), time.Hour), "b")
	if got := text(t, dirs[1]); !strings.Contains(got, `"b"`) || !strings.Contains(got, `"other"`) {
		t.Errorf("clock.jsonl of the other disk = %q; want both", got)
	}
}

func TestAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := faultfs.Tmpfs(dir, 64<<10); errors.Is(err, faultfs.ErrUnavailable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := faultfs.Unmount(dir); err != nil {
			t.Error(err)
		}
	}()
	note(t, open(t, dir), synced(noon(), time.Minute), "before")
	whole := text(t, dir)
	filler := filepath.Join(dir, "filler")
	if err := fill(filler); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill = %v; want a full disk", err)
	}
	a := open(t, dir)
	if err := a.Note(synced(noon(), time.Minute), "b"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Note() on a full disk = %v; want that it is full", err)
	}
	if got := text(t, dir); got != whole {
		t.Errorf("clock.jsonl = %q; want %q", got, whole)
	}
	if got := corrected(a, at("b", 0), at("b", 0)); got == "" {
		t.Error("Correct() = no; want it by the anchor in memory")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := a.Note(synced(noon(), time.Minute+time.Millisecond), "b"); err == nil {
		t.Error("Note() a moment later = nil; want the same error, without another attempt")
	}
	note(t, a, synced(noon(), 2*time.Minute), "b")
	if got := text(t, dir); !strings.Contains(got, `"before"`) || !strings.Contains(got, `"b"`) {
		t.Errorf("clock.jsonl = %q; want both", got)
	}
}

func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return err
		}
	}
}

// Whatever the file holds, what can be corrected by it can be kept.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"boot_id":"b","boot_ns":60000000000,"time":"2026-05-01T12:00:00.000000000Z"}`), int64(5))
	f.Add([]byte("\n\x00"), int64(-1<<63))
	f.Fuzz(func(t *testing.T, content []byte, boot int64) {
		anchors, _ := decode(content)
		for _, k := range anchors {
			a := Anchors{known: []sidecar.Anchor{k}}
			m := sidecar.Moment{BootID: k.BootID, BootNS: boot}
			side := sidecar.Sidecar{Start: m, End: m}
			if !a.Correct(&side) {
				t.Fatalf("Correct() by %+v = no; want yes", k)
			}
			text, err := side.TimeCorrected.Start.MarshalJSON()
			var back msg.Time
			if err == nil {
				err = back.UnmarshalJSON(text)
			}
			if err != nil {
				t.Fatalf("corrected to %s: %v", text, err)
			}
		}
	})
}
