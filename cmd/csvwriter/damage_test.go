package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

// shell runs a command on the open file $f of the store $s.
func shell(t *testing.T, store, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "s="+store, "f="+openFile(t, store))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// Whatever somebody does to the open file while rows come, it is noticed within a
// second, no row is lost or repeated, the state says so, and the day's file is
// whole.
func TestOpenFileThatIsDamaged(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct {
		name, script string
		why          string // in the trouble; "" where there is none
		quarantine   int    // files there
		twice        bool   // the old file keeps its rows
	}{
		{name: "removed", script: `rm "$f"`, why: "it was removed"},
		{name: "moved away", script: `mv "$f" "$s/../elsewhere"`, why: "it was renamed or moved away", twice: true},
		{name: "renamed in place", script: `mv "$f" "$f.1"`, why: "it was renamed or moved away", twice: true},
		{name: "truncated", script: `: > "$f"`, why: "it was truncated"},
		{name: "truncated to a part", script: `truncate -s 300 "$f"`, why: "it was truncated", quarantine: 1},
		{name: "longer by a hole", script: `truncate -s +5000 "$f"`, why: "another program wrote 5000 bytes to its end", quarantine: 1},
		{name: "a note at the end", script: `echo "the window was open" >> "$f"`, why: "another program wrote 20 bytes to its end", quarantine: 1},
		{name: "zeros in the middle", script: `dd if=/dev/zero of="$f" bs=1 seek=300 count=200 conv=notrunc`, why: "its contents were changed", quarantine: 1},
		{name: "all zeros", script: `dd if=/dev/zero of="$f" bs=$(stat -c %s "$f") count=1 conv=notrunc`, why: "its contents were changed", quarantine: 1},
		{name: "a digit in a value", script: `printf 9 | dd of="$f" bs=1 seek=$(($(head -n 5 "$f" | wc -c) - 3)) conv=notrunc`, why: "its contents were changed", quarantine: 1},
		{name: "replaced", script: `echo other > "$s/../other"; mv "$s/../other" "$f"`, why: "something else has taken its name", quarantine: 1},
		{name: "edited by sed", script: `sed -i 3d "$f"`, why: "something else has taken its name", quarantine: 1},
		{name: "copied and truncated by a log rotation", script: `cp "$f" "$s/../rotated" && : > "$f"`, why: "it was truncated"},
		{name: "rsync --inplace of an old copy", script: `head -n 4 "$f" > "$s/../old"; cat "$s/../old" 1<>"$f"; truncate -s $(stat -c %s "$s/../old") "$f"`, why: "it was truncated"},
		{name: "a symlink in its place", script: `rm "$f"; ln -s /etc/passwd "$f"`, why: "something else has taken its name (L", quarantine: 1},
		{name: "a FIFO in its place", script: `n="$f"; rm "$f"; mkfifo "$n"`, why: "something else has taken its name (p", quarantine: 1},
		{name: "a folder in its place", script: `n="$f"; rm "$f"; mkdir "$n"; touch "$n/x"`, why: "something else has taken its name (d", quarantine: 1},
		{name: "a hard link", script: `ln "$f" "$s/../backup"`, why: "it has 2 names", twice: true},
		{name: "work removed", script: `rm -r "$s/work"`, why: "it was removed"},
		{name: "all that is in the store removed", script: `rm -r "$s"/* "$s"/.reserve`, why: "it was removed"},
		{name: "the store removed", script: `rm -r "$s"`, why: "it was removed, and its folder too"},
		{name: "not readable", script: `chmod 000 "$f"`},
		{name: "touched", script: `touch "$f"`},
	} {
		flush := []string{"instant", "1hz"}[i%2]
		t.Run(tt.name+" "+flush, func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet(flush))
			store := b.Dir + "/store"
			s := newSensor(t, b, "n")
			feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
			p := b.Start("csvwriter", "air-csv")
			n := 0
			publish := func(rows int, wall string) {
				for range rows {
					s.publish(at(t, wall, time.Hour+time.Duration(n)), float64(n))
					n++
				}
			}
			today := time.Now().UTC() // else the file ends when it is idle for a while
			publish(20, today.Format(time.RFC3339))
			waitRows(t, store, 20)
			shell(t, store, tt.script)
			if tt.why != "" {
				state := feed.State("the trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, tt.why) })
				if state.Counters["damaged_files"] != 1 || state.Counters["lost_rows"] != 0 || state.Counters["salvaged_rows"]+state.Counters["refilled_rows"] != 20 {
					t.Errorf("counters = %v; want one damaged file, of which 20 rows are there again", state.Counters)
				}
			}
			publish(20, today.Format(time.RFC3339))
			waitRows(t, store, 40)
			publish(1, today.AddDate(0, 0, 1).Format(time.RFC3339))
			boxtest.Poll(t, "the first day's file", func() bool { return ready(t, store) >= 1 })
			p.Stop()
			rows := rowsIn(t, store)
			wantOnce(t, rows, map[string]uint64{s.pub.Epoch().String(): 41})
			for _, r := range rows {
				if r.cells[5] != fmt.Sprint(r.seq) {
					t.Errorf("row %v; want the value that was published", r.cells)
				}
			}
			side := readySidecars(t, store)[0]
			last := side.History[len(side.History)-1]
			if side.Items != 40 || last.Reason != "the date changed" || (len(side.History) == 2) != (tt.why != "") {
				t.Errorf("sidecar of %d rows, history %+v; want 40, and what happened to it", side.Items, side.History)
			}
			if got := strings.Contains(side.History[0].Reason, "; at least once: "); got != tt.twice {
				t.Errorf("sidecar's history begins with %q; want that it says at least once: %v", side.History[0].Reason, tt.twice)
			}
			wantNoCSV(t, store, tt.quarantine)
			if mode := modeOf(t, openFile(t, store)); mode != 0o644 {
				t.Errorf("mode = %o; want 644", mode)
			}
		})
	}
}

// A store folder that is exchanged for another takes the rows from then on, and the
// state says where the others are.
func TestStoreThatIsExchanged(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	s.rows(20)
	waitRows(t, store, 20)
	if err := os.Rename(store, store+".old"); err != nil {
		t.Fatal(err)
	}
	feed.State("the trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, "was replaced") })
	s.rows(20)
	both := func() []row { return append(rowsIn(t, store), rowsIn(t, store+".old")...) }
	boxtest.Poll(t, "all rows", func() bool { return len(both()) == 40 })
	p.Stop()
	wantOnce(t, both(), map[string]uint64{s.pub.Epoch().String(): 40})
}

// A file that somebody moved away and puts back is completed: its sidecar says that
// another file may have the same rows.
func TestFileThatIsPutBack(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	for n := range 20 {
		s.publish(at(t, "2026-03-01T12:00:00Z", time.Hour+time.Duration(n)), float64(n))
	}
	waitRows(t, store, 20)
	name := filepath.Base(openFile(t, store))
	shell(t, store, `mv "$f" "$s/../elsewhere"`)
	feed.State("the trouble", func(s msg.State) bool { return s.Counters["salvaged_rows"] == 20 })
	s.publish(at(t, "2026-03-02T12:00:00Z", 2*time.Hour), 20)
	boxtest.Poll(t, "the new file to be complete", func() bool { return ready(t, store) == 1 })
	waitRows(t, store, 21)
	p.Stop()
	if err := os.Rename(b.Dir+"/elsewhere", store+"/work/"+name); err != nil {
		t.Fatal(err)
	}
	p = b.Start("csvwriter", "air-csv")
	boxtest.Poll(t, "the file that was put back", func() bool { return ready(t, store) == 2 })
	p.Stop()
	sides := readySidecars(t, store)
	for i, side := range sides {
		if reason := side.History[0].Reason; side.Items != 20 || !strings.Contains(reason, "at least once: ") {
			t.Errorf("file %d has %d rows, its history begins with %q; want 20, and at least once", i, side.Items, reason)
		}
	}
	if sides[0].ID == sides[1].ID {
		t.Errorf("both files are %s; want different ids", sides[0].ID)
	}
}

// A store that is removed and cannot be made again takes the open file with it: at the
// end of the run its rows are kept for the next one, and the exit code says so.
func TestStoppedWhileTheStoreCannotBeMadeAgain(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	bus := b.Bus("air")
	s := newSensorOn(t, bus, "n")
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	s.rows(20)
	waitRows(t, store, 20)
	shell(t, store, `rm -r "$s" && : > "$s"`)
	feed.State("the trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, "rows wait in RAM") })
	if err := bus.Close(); err != nil { // and its history with it
		t.Fatal(err)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 1 || !strings.Contains(p.Log(), "20 rows are not on disk (seq 0-19 of ") {
		t.Errorf("exit code = %d, log %s; want 1, and which rows are not on disk", code, p.Log())
	}
	if err := os.Remove(store); err != nil {
		t.Fatal(err)
	}
	p = b.Start("csvwriter", "air-csv")
	waitRows(t, store, 20)
	p.Stop()
	wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): 20})
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode()
}

// wantNoCSV wants so many files in quarantine/, and none that could be taken for
// a file of rows.
func wantNoCSV(t *testing.T, store string, n int) {
	t.Helper()
	paths, err := filepath.Glob(store + "/quarantine/*")
	if err != nil {
		t.Fatal(err)
	}
	if csv := slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return !strings.HasSuffix(p, ".csv") }); len(paths) != n || len(csv) > 0 {
		t.Errorf("quarantine/ holds %q; want %d files, and no .csv", paths, n)
	}
}

// What neither the file nor the history has is lost, and counted with its numbers.
func TestDamageThatNothingMends(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	bus := b.Bus("air")
	s := &sensor{t: t, bus: bus}
	var err error
	if s.pub, err = bus.Publisher(); err == nil {
		s.out, err = s.pub.Readings("count", []string{"n"}, msg.Retention{Messages: 8, MessageBytes: 512, Expect: []string{"air-csv"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
	p := b.Start("csvwriter", "air-csv")
	for n := range 30 { // no more at a time than the history holds
		s.rows(1)
		waitRows(t, store, n+1)
	}
	shell(t, store, `: > "$f"`)
	epoch := s.pub.Epoch().String()
	state := feed.State("the trouble", func(s msg.State) bool { return strings.Contains(s.Trouble, "it was truncated") })
	if c := state.Counters; c["lost_rows"] < 20 || c["lost_rows"]+c["refilled_rows"]+c["salvaged_rows"] != 30 {
		t.Errorf("counters = %v; want 22 rows lost and 8 refilled, or so", c)
	}
	lost := state.Counters["lost_rows"]
	if want := fmt.Sprintf("%d lost (seq 0-%d of %s)", lost, lost-1, epoch); !strings.Contains(state.Trouble, want) || !p.Logs(fmt.Sprintf(`"rows":"0-%d of %s"`, lost-1, epoch)) {
		t.Errorf("trouble = %q, log = %s; want %q in both", state.Trouble, p.Log(), want)
	}
	s.rows(5)
	waitRows(t, store, 35-int(lost))
	p.Stop()
	var want, got []uint64
	for seq := lost; seq < 35; seq++ {
		want = append(want, seq)
	}
	for _, r := range rowsIn(t, store) {
		got = append(got, r.seq)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// Rows that are written at once after somebody has truncated the file do not stand
// behind a hole, where no history could give them back.
func TestRowsAfterATruncation(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	bus := b.Bus("air")
	s := &sensor{t: t, bus: bus}
	var err error
	if s.pub, err = bus.Publisher(); err == nil {
		s.out, err = s.pub.Readings("count", []string{"n"}, msg.Retention{Messages: 3, MessageBytes: 512, Expect: []string{"air-csv"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	p := b.Start("csvwriter", "air-csv")
	for n := range 20 {
		s.rows(1)
		waitRows(t, store, n+1)
	}
	shell(t, store, `: > "$f"`)
	for range 20 { // more than the history has
		s.rows(1)
		boxtest.Poll(t, "the row", func() bool {
			text, err := os.ReadFile(openFile(t, store))
			return err == nil && strings.Contains(string(text), fmt.Sprintf(",%d,%s,", s.n.Load()-1, s.pub.Epoch()))
		})
	}
	p.Stop()
	seen := map[uint64]int{}
	for _, r := range rowsIn(t, store) {
		seen[r.seq]++
	}
	for seq := uint64(20); seq < 40; seq++ {
		if seen[seq] != 1 {
			t.Errorf("row %d is there %d times; want once", seq, seen[seq])
		}
	}
}

// A file that is damaged again and again is not written anew each time at once.
func TestPaceOfSalvage(t *testing.T) {
	now := time.Now()
	var p pace
	var waits []time.Duration
	for range 10 {
		p = p.again(now)
		waits = append(waits, p.next.Sub(now))
		now = p.next.Add(time.Second)
	}
	want := []time.Duration{0, 0, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
	if p = p.again(now.Add(time.Hour)); !p.next.Equal(now.Add(time.Hour)) {
		t.Errorf("wait after a quiet hour = %s; want none", p.next.Sub(now.Add(time.Hour)))
	}
}

// A journal that cannot be read, or is gone, stops nothing: its file is completed,
// the stream goes on in a new one, and no row is missing or there twice.
func TestJournalThatIsDamaged(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct{ name, script string }{
		{"zeros", `n=$(stat -c %s "$j"); head -c $n /dev/zero > "$j"`},
		{"empty", `: > "$j"`},
		{"half of it", `truncate -s 40 "$j"`},
		{"garbage", `head -c 3000 /dev/urandom > "$j"`},
		{"a later version", `echo '{"v":2}' > "$j"`},
		{"another type", `echo '{"v":1,"open":5}' > "$j"`},
		{"a path", `echo '{"v":1,"open":[{"id":"../../etc/passwd"}]}' > "$j"`},
		{"a folder", `rm "$j"; mkdir "$j"`},
		{"a FIFO", `rm "$j"; mkfifo "$j"`},
		{"a link to nothing", `rm "$j"; ln -s /nonexistent "$j"`},
		{"gone", `rm "$j"`},
	} {
		closed := i%2 == 0 // a file of the same run is in ready/
		t.Run(fmt.Sprint(tt.name, closed), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("instant"))
			store := b.Dir + "/store"
			s := newSensor(t, b, "n")
			feed := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "air-csv")
			p := b.Start("csvwriter", "air-csv")
			n, files := 0, 0
			publish := func(rows int, wall string) {
				for range rows {
					s.publish(at(t, wall, time.Hour+time.Duration(n)), float64(n))
					n++
				}
			}
			if closed {
				publish(5, "2026-02-28T12:00:00Z")
				files++
			}
			publish(10, "2026-03-01T12:00:00Z")
			waitRows(t, store, n)
			boxtest.Poll(t, "the file before", func() bool { return ready(t, store) >= files })
			p.Kill()
			shell(t, store, `j="$s/work/air-csv.journal"; `+tt.script)
			publish(10, "2026-03-01T13:00:00Z") // meanwhile
			p = b.Start("csvwriter", "air-csv")
			waitRows(t, store, n)
			if tt.name != "gone" {
				feed.State("the journal in its trouble", func(s msg.State) bool {
					return s.PID == p.PID() && s.Counters["damaged_journals"] == 1 && strings.Contains(s.Trouble, "journal")
				})
			}
			boxtest.Poll(t, "the file that was open", func() bool { return ready(t, store) >= files+1 })
			publish(5, "2026-03-01T14:00:00Z")
			waitRows(t, store, n)
			p.Stop()
			p = b.Start("csvwriter", "air-csv")
			publish(5, "2026-03-01T15:00:00Z")
			waitRows(t, store, n)
			p.Stop()
			wantExactly(t, store, map[string]uint64{s.pub.Epoch().String(): uint64(n)})
			wantNoLitter(t, store, 1)
			side := readySidecars(t, store)[files]
			if side.Source != "reading/air/count" || side.Items != 10 || side.Start.BootID == "" || side.History[0].Reason != "the journal was lost" {
				t.Errorf("sidecar = %+v; want the 10 rows of the stream that they are of", side)
			}
		})
	}
}

// With the journal its open files of two streams with the same columns are told
// apart by their rows.
func TestJournalOfTwoStreamsThatIsGone(t *testing.T) {
	t.Parallel()
	b := boxtest.New(t, fleet("instant"))
	store := b.Dir + "/store"
	s := newSensor(t, b, "n")
	other, err := s.pub.Readings("battery", []string{"n"}, history())
	if err != nil {
		t.Fatal(err)
	}
	p := b.Start("csvwriter", "air-csv")
	publish := func(n int) {
		for range n {
			s.rows(1)
			if _, err := other.Publish(s.bus.Clock().Now(), []float64{-1}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(10)
	waitRows(t, store, 20)
	p.Kill()
	if err := os.Remove(store + "/work/air-csv.journal"); err != nil {
		t.Fatal(err)
	}
	publish(10)
	p = b.Start("csvwriter", "air-csv")
	waitRows(t, store, 40)
	boxtest.Poll(t, "the files that were open", func() bool { return ready(t, store) == 2 })
	p.Stop()
	topics := map[msg.Topic]string{}
	for _, side := range readySidecars(t, store) {
		for _, r := range rowsIn(t, store) {
			if r.file == "ready/"+side.Name {
				topics[side.Source] += r.cells[5] + " "
			}
		}
	}
	want := map[msg.Topic]string{"reading/air/count": "0 1 2 3 4 5 6 7 8 9 ", "reading/air/battery": strings.Repeat("-1 ", 10)}
	if diff := cmp.Diff(want, topics); diff != "" {
		t.Errorf("rows of each stream in ready/ (-want +got):\n%s", diff)
	}
	values := map[string]int{}
	for _, r := range rowsIn(t, store) {
		values[r.cells[5]]++
	}
	if len(values) != 21 || values["-1"] != 20 {
		t.Errorf("values = %v; want 0 to 19 once each, and -1 20 times", values)
	}
}

// An open file of the version before, without the column bad, is completed as it
// is, and a new one begun.
func TestOpenFileOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	for _, journaled := range []bool{true, false} {
		t.Run(fmt.Sprint(journaled), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, fleet("instant"))
			store := b.Dir + "/store"
			s := newSensor(t, b, "n")
			s.rows(6)
			epoch, id := s.pub.Epoch().String(), "air-csv_20260301T120000Z_00000000000000aa-000001"
			first := s.bus.Clock().Now()
			text := "time,seq,epoch,boot_ns,synced,n\n"
			var rows []string
			// As the version before wrote them.
			for seq := range 4 {
				rows = append(rows, fmt.Sprintf("%s,%d,%s,%d,true,%d\n", msg.Time{Time: first.Wall}, seq, epoch, int64(first.Boot), seq))
			}
			text += strings.Join(rows, "")
			journal := fmt.Sprintf(`{"v":1,"open":[{"id":%q,"topic":"reading/air/count","columns":["n"],"first":{"time":%q,"boot_ns":%d,"boot_id":%q,"synced":true,"epoch":%q,"seq":0}}],"program":"csvwriter 0.1.0"}`,
				id, msg.Time{Time: first.Wall}, int64(first.Boot), s.bus.Clock().BootID(), epoch)
			err := errors.Join(os.MkdirAll(store+"/work", 0o755), os.WriteFile(store+"/work/"+id+".csv", []byte(text), 0o600))
			if journaled {
				err = errors.Join(err, os.WriteFile(store+"/work/air-csv.journal", []byte(journal), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			p := b.Start("csvwriter", "air-csv")
			boxtest.Poll(t, "the old file", func() bool { return ready(t, store) == 1 })
			if journaled { // otherwise its rows are not those of the history, and nothing is known of them
				waitRows(t, store, 6)
			}
			p.Stop()
			if got, err := os.ReadFile(store + "/ready/" + id + ".csv"); err != nil || string(got) != text {
				t.Errorf("old file = %q, %v; want it as it was, %q", got, err, text)
			}
			if journaled {
				wantExactly(t, store, map[string]uint64{epoch: 6})
				wantReady(t, store, []file{{"an earlier version of csvwriter began it", 4}})
				if head, err := os.ReadFile(openFile(t, store)); err != nil || !strings.HasPrefix(string(head), "time,seq,epoch,boot_ns,synced,n,bad\n") {
					t.Errorf("new file = %q, %v; want it with the column bad", head, err)
				}
			}
		})
	}
}

// Killed at any moment while it salvages, csvwriter loses nothing that a file or
// the history has, and repeats nothing.
func TestKilledWhileItSalvages(t *testing.T) {
	t.Parallel()
	atEachCall(t, 8, killedInSalvage)
}

func killedInSalvage(t *testing.T, n int) bool {
	t.Helper()
	b := boxtest.New(t, fleet("instant"))
	faults, backing := b.Faulty("store")
	s := newSensor(t, b, "n")
	p := b.Start("csvwriter", "air-csv")
	s.rows(10)
	waitRows(t, backing, 10)
	p.Kill()
	path := openFile(t, backing)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	lines[4] = "edited\n"
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.rows(3)
	p = victim(b, faults, n)
	whole := func() bool {
		rows, err := tryRowsIn(backing)
		return err == nil && len(rows) == 13
	}
	boxtest.Poll(t, "the salvage or the kill", func() bool { return faults.Broken() || whole() })
	came := faults.Broken()
	p.Kill()
	faults.Break(0, nil)
	p = b.Start("csvwriter", "air-csv")
	boxtest.Poll(t, "the salvage", whole)
	p.Stop()
	wantExactly(t, backing, map[string]uint64{s.pub.Epoch().String(): 13})
	for _, left := range []string{"/work/*.salvage", "/work/*.damaged"} {
		if paths, err := filepath.Glob(backing + left); len(paths) > 0 || err != nil {
			t.Errorf("work/ holds %q, %v; want nothing of the salvage", paths, err)
		}
	}
	return came
}
