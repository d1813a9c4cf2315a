package e2e

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
)

const balance = `
[sensor.maker]
program = "maker"
truth = "$DIR/truth"

[worker.keep]
program = "mover"
source = "maker"
keep = "items == 2"

[worker.send]
program = "uploader"
source = "keep"
to = "$SERVER/box"
retry_most = "1s"

[worker.clean]
program = "deleter"
source = ["keep", "send"]
history = "2GB"
[worker.clean.disk]
when = "sent"

[job.sweep]
program = "sweeper"
source = ["maker", "keep"]
every = "2s"
wait = "3s"
`

// Files are made at 20 Hz, half of them for the mover to keep; a server that
// fails in many ways takes those; the deleter removes what is sent or dropped.
// Meanwhile each of them is killed at random, and once their supervisor. When
// all has come to rest each file that was completed is at the server, once, or
// dropped by the rule, and remembered; and nothing else is anywhere.
func TestFilesBalance(t *testing.T) {
	t.Parallel()
	length := max(10*time.Second, faultfs.Soak())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	server := newReceiver(t, rand.New(rand.NewPCG(seed, 1)))
	f := newFleet(t, strings.ReplaceAll(balance, "$SERVER", server.server.URL))
	if err := os.Mkdir(filepath.Join(f.dir, "truth"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.storm(rand.New(rand.NewPCG(seed, 2)), length, server.kinds)
	server.calm()
	f.wait("all ready", func(b box) bool { return b.Ready })
	f.supervisor("stop", "maker")
	f.drained()
	if err := f.stop(); err != nil {
		t.Errorf("supervisor up ended with %v; want 0", err)
	}
	if left := f.leftovers(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if left := f.spooled(); len(left) > 0 {
		t.Errorf("%d files are left, the first ones are %v; want none", len(left), left[:min(len(left), 5)])
	}
	f.compareFiles(server)
}

// storm kills workers at random, and once the supervisor, until there was a fault
// of each kind at the server too.
func (f *fleet) storm(random *rand.Rand, length time.Duration, faults func() int) {
	f.t.Helper()
	victims, kills := []string{"maker", "keep", "send", "clean"}, map[string]int{}
	begun, struck := time.Now(), false
	for time.Since(begun) < length || faults() < faultKinds && time.Since(begun) < length+time.Minute {
		if !struck && time.Since(begun) > length/2 {
			struck = true
			f.up.Process.Kill()
			f.up.Wait()
			f.launch()
		}
		time.Sleep(50*time.Millisecond + time.Duration(random.Int64N(int64(400*time.Millisecond)))) // until the next kill
		name := victims[random.IntN(len(victims))]
		b, err := f.status()
		if err != nil { // the supervisor is not there yet
			continue
		}
		if pid := b.pid(name); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			kills[name]++
		}
	}
	f.t.Logf("killed: %v, and the supervisor", kills)
}

// spooled are the files, copies and sidecars in cache and store.
func (f *fleet) spooled() (list []string) {
	f.t.Helper()
	for _, dir := range []string{"cache", "store"} {
		for _, end := range []string{".bin", ".json", ".part", ".new", ".jsonl"} {
			list = append(list, f.files(dir, end)...)
		}
	}
	return slices.DeleteFunc(list, func(p string) bool { return strings.HasPrefix(p, filepath.Join(f.dir, "store/gone")) })
}

// drained waits until all files have come to their end. A move that a kill
// interrupted is settled within a minute, and what comes of it is found within
// another.
func (f *fleet) drained() {
	f.t.Helper()
	begun := time.Now()
	for {
		left := slices.DeleteFunc(f.spooled(), func(p string) bool { return strings.Contains(p, "/store/work/clean_") }) // the next losses file
		if len(left) == 0 {
			f.t.Logf("drained after %v", time.Since(begun).Round(100*time.Millisecond))
			return
		}
		if time.Since(begun) > 3*time.Minute {
			b, err := f.status()
			f.t.Fatalf("%d files are left after three minutes of rest: %v\n%+v, %v", len(left), left[:min(len(left), 10)], b, err)
		}
		time.Sleep(100 * time.Millisecond) // between two looks at other processes
	}
}

// made is a file in the maker's account.
type made struct {
	sum      string
	items    int
	complete bool
}

func (f *fleet) made() map[sidecar.ID]*made {
	f.t.Helper()
	all := map[sidecar.ID]*made{}
	accounts, _ := filepath.Glob(f.dir + "/truth/*")
	for _, path := range accounts {
		text, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var id sidecar.ID
			var m made
			if _, err := fmt.Sscanf(line, "complete %s", &id); err == nil {
				all[id].complete = true
			} else if _, err := fmt.Sscanf(line, "begun %s %s %d", &id, &m.sum, &m.items); err == nil {
				all[id] = &m
			} else {
				f.t.Fatalf("account %s has the line %q", path, line)
			}
		}
	}
	return all
}

// remembered is what the box knows of files that are gone: each one's last
// sidecar.
func (f *fleet) remembered() map[sidecar.ID]*sidecar.Sidecar {
	f.t.Helper()
	all := map[sidecar.ID]*sidecar.Sidecar{}
	for _, path := range f.files("store/gone", ".jsonl") { // in their order
		text, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if side, err := sidecar.Decode([]byte(line)); err == nil { // a kill may have torn it
				all[side.ID] = side
			}
		}
	}
	return all
}

// compareFiles holds the maker's account against the server and what the box
// remembers of its files.
func (f *fleet) compareFiles(server *receiver) {
	f.t.Helper()
	all, gone := f.made(), f.remembered()
	completed, sent, dropped := 0, 0, 0
	for id, m := range all {
		side := gone[id]
		o, there := server.objects[string(id)+".bin"]
		if m.complete {
			completed++
		} else if side == nil && !there { // it was never finished
			continue
		}
		if side == nil {
			f.t.Errorf("%s, %d items, at the server: %v: the box remembers nothing of it", id, m.items, there)
			continue
		}
		if there {
			sent++
			f.wantArrived(server, id, m, o)
		} else {
			dropped++
		}
		if want := m.items == 2; there != want {
			f.t.Errorf("%s, %d items: at the server: %v; want %v. Its history: %v", id, m.items, there, want, states(side))
		}
		f.wantHistory(side, m)
	}
	again := 0
	for name, n := range server.puts {
		if id, ok := strings.CutSuffix(name, ".bin"); ok && all[sidecar.ID(id)] == nil {
			f.t.Errorf("the server has got %s, which nobody made", name)
		}
		again += n - 1
	}
	f.t.Logf("%d files completed = %d at the server + %d dropped by the rule (and %d whose maker was killed before it could say so)",
		completed, sent, dropped, sent+dropped-completed)
	f.t.Logf("faults of the server: %v; whole objects sent again: %d", server.faults, again)
	if completed < 50 || sent == 0 || dropped == 0 || server.kinds() < faultKinds {
		f.t.Error("that was no storm: want files of both kinds, and faults of all kinds")
	}
}

func (f *fleet) wantArrived(server *receiver, id sidecar.ID, m *made, o object) {
	f.t.Helper()
	if sum := hex.EncodeToString(o.sum[:]); sum != m.sum {
		f.t.Errorf("%s at the server has sha256 %s; want %s", id, sum, m.sum)
	}
	if n := server.stored[string(id)+".bin"]; n != 1 {
		f.t.Errorf("%s was stored %d times by the server; want once", id, n)
	}
	side, err := sidecar.Decode(server.objects[string(id)+".json"].text)
	if err != nil || side.ID != id || side.SHA256 != m.sum {
		f.t.Errorf("the sidecar of %s at the server: %v; want its own, with sha256 %s", id, err, m.sum)
	}
}

// wantHistory wants each step of a file's life once, and the file that was made.
func (f *fleet) wantHistory(side *sidecar.Sidecar, m *made) {
	f.t.Helper()
	want := []string{"born", "dropped", "gone"}
	if m.items == 2 {
		want = []string{"born", "ready", "sent", "gone"}
	}
	if got := states(side); !slices.Equal(got, want) {
		f.t.Errorf("history of %s, %d items: %v; want %v", side.ID, m.items, got, want)
	}
	if side.SHA256 != m.sum || m.items == 2 && (side.Receipt == nil || side.Receipt.Key != side.Name || side.Receipt.Proof == "") {
		f.t.Errorf("%s has sha256 %s, receipt %+v; want %s, and a receipt for this file with its proof", side.ID, side.SHA256, side.Receipt, m.sum)
	}
}

func states(side *sidecar.Sidecar) (list []string) {
	for _, e := range side.History {
		list = append(list, e.State)
	}
	return list
}
