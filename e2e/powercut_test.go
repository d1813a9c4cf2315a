package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// powered is a fleet whose store is on a disk of its own, and all else in RAM:
// when the power is cut, the disk is as its image is, and RAM is empty.
type powered struct {
	*fleet
	server *receiver
	image  string
	bus    *msg.Bus
	sub    *msg.Subscriber
	said   map[sidecar.ID]spool.State      // the last that a file message said of each file
	gone   map[sidecar.ID]*sidecar.Sidecar // what the box remembered at some time
	inRAM  map[sidecar.ID]bool             // complete files that were there when the power was cut
	found  int                             // files that were in the store then
}

// later is a state said of a deleted file, after all those of a spool.
const later = spool.State("gone")

// The power of a whole box is cut again and again, at random moments, while its
// files are moved, sent and deleted; each time the disk is used as it then was.
// What was said to be on disk is there, whole and in one state, or sent, or deleted
// and remembered; the server has each object once. In the end all files that
// were completed are sent, or dropped by the rule, or were in RAM when it was lost.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	const cuts = 12 // and some more where few files have come to the store by then: the moments are random
	until := time.Now().Add(faultfs.Soak())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	server := newReceiver(t, rand.New(rand.NewPCG(seed, 1)))
	table := strings.NewReplacer("$SERVER", server.server.URL, `history = "2GB"`, `history = "16MB"`,
		`truth = "$DIR/truth"`, "truth = \"$DIR/truth\"\nhz = 40").Replace(balance)
	p := &powered{fleet: newFleet(t, table), server: server, said: map[sidecar.ID]spool.State{},
		gone: map[sidecar.ID]*sidecar.Sidecar{}, inRAM: map[sidecar.ID]bool{}}
	p.disk()
	random := rand.New(rand.NewPCG(seed, 2))
	n := 0
	for ; n < cuts || p.found < 50 && n < 4*cuts || time.Now().Before(until); n++ {
		p.launch()
		p.listen()
		p.hear(1 + random.IntN(60))
		time.Sleep(time.Duration(random.Int64N(int64(20 * time.Millisecond)))) // which step it hits is left to chance
		p.cut()
		p.wantWhole()
		if t.Failed() {
			t.Fatalf("cut %d", n)
		}
	}
	server.calm()
	p.start()
	p.supervisor("stop", "maker")
	p.drained()
	if err := p.stop(); err != nil {
		t.Errorf("supervisor up ended with %v; want 0", err)
	}
	if left := p.spooled(); len(left) > 0 {
		t.Errorf("%d files are left, the first ones are %v; want none", len(left), left[:min(len(left), 5)])
	}
	t.Logf("%d cuts; %d files were found whole in the store after them", n, p.found)
	p.remember()
	p.compare()
}

// disk puts the store on a disk of its own.
func (p *powered) disk() {
	p.t.Helper()
	p.image = filepath.Join(p.dir, "disk.img")
	err := errors.Join(os.Mkdir(filepath.Join(p.dir, "truth"), 0o700), os.Mkdir(filepath.Join(p.dir, "store"), 0o700), faultfs.MakeDisk(p.image, 48<<20))
	if err == nil {
		err = faultfs.MountDisk(p.image, filepath.Join(p.dir, "store"))
	}
	if errors.Is(err, faultfs.ErrUnavailable) {
		p.t.Skip(err)
	} else if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if p.up != nil { // before its disk goes
			p.stop()
		}
		_ = faultfs.Unmount(filepath.Join(p.dir, "store")) // a test that failed in a cut has none
	})
}

// listen hears what becomes of files.
func (p *powered) listen() {
	p.t.Helper()
	var err error
	if p.bus, err = msg.Open(msg.Config{Node: "box", Name: "test", RunDir: p.dir + "/run", ShmDir: p.dir + "/shm"}); err != nil {
		p.t.Fatal(err)
	}
	p.sub, err = p.bus.Subscribe(msg.Subscription{Sources: []msg.Address{{Source: "keep"}, {Source: "send"}, {Source: "clean"}}, Kinds: []msg.Kind{msg.KindFile}})
	if err != nil {
		p.t.Fatal(err)
	}
}

// hear takes that many messages in.
func (p *powered) hear(n int) {
	p.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); n > 0; n-- {
		if !p.next(deadline) {
			p.t.Fatal("the workers said nothing of files for three minutes")
		}
	}
}

// next takes a message in, if one comes in time.
func (p *powered) next(deadline time.Time) bool {
	p.t.Helper()
	m, ok, err := p.sub.Next(context.Background(), deadline)
	if err != nil {
		p.t.Fatal(err)
	}
	if !ok {
		return false
	}
	f, err := m.File()
	if err != nil {
		p.t.Fatal(err)
	}
	if id, state := sidecar.ID(f.ID), spool.State(f.State); rank(state) > rank(p.said[id]) { // who sent it may be heard before who stored it
		p.said[id] = state
	}
	return true
}

func rank(s spool.State) int { return slices.Index(append(spool.Stages(), later), s) }

// cut stops all processes, takes a copy of the disk in its place, and clears RAM.
func (p *powered) cut() {
	p.t.Helper()
	pids := p.freeze()
	for p.next(time.Now().Add(20 * time.Millisecond)) { // what was said before that
	}
	err := errors.Join(faultfs.CopyDisk(p.image, p.image+".cut"), p.bus.Close())
	for _, file := range append(p.files("cache/born", ".bin"), p.files("cache/dropped", ".bin")...) {
		p.inRAM[idOf(file)] = true
	}
	for _, pid := range pids {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	_ = p.up.Wait() // it was killed
	p.up = nil
	store := filepath.Join(p.dir, "store")
	p.unmount(store)
	err = errors.Join(err, os.Rename(p.image+".cut", p.image))
	for _, dir := range []string{"cache", "run", "shm"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(p.dir, dir)))
	}
	if err = errors.Join(err, faultfs.MountDisk(p.image, store)); err != nil {
		p.t.Fatal(err)
	}
}

func idOf(file string) sidecar.ID {
	return sidecar.ID(strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)))
}

// freeze stops the supervisor first, so that it starts nothing new, and then all
// others.
func (p *powered) freeze() (pids []int) {
	p.t.Helper()
	if err := faultfs.Freeze(p.up.Process.Pid); err != nil {
		p.t.Fatal(err)
	}
	for _, pid := range p.processes() {
		if err := faultfs.Freeze(pid); err == nil {
			pids = append(pids, pid)
		} else if slices.Contains(p.processes(), pid) { // and is no job that has ended
			p.t.Fatal(err)
		}
	}
	return pids
}

// unmount takes the disk away when all processes are gone, as they are without
// power: one that was killed keeps it busy until the kernel has closed its files.
func (p *powered) unmount(store string) {
	p.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) { // between two looks
		left := p.processes()
		err := error(syscall.EBUSY)
		if len(left) == 0 {
			err = syscall.Unmount(store, 0)
		}
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			p.t.Fatalf("unmount the disk with processes %v: %v", left, err)
		}
	}
}

// processes are those of the fleet that can still do something.
func (f *fleet) processes() (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		line, err := os.ReadFile(p)
		if pid, _ := strconv.Atoi(strings.Split(p, "/")[2]); err == nil && strings.Contains(string(line), f.dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// wantWhole looks at the disk as it was found after a cut.
func (p *powered) wantWhole() {
	p.t.Helper()
	p.remember()
	all, where := p.made(), map[sidecar.ID]spool.State{}
	for _, state := range spool.Stages() {
		for _, file := range p.files("store/"+string(state), ".bin") {
			id := idOf(file)
			if other, twice := where[id]; twice {
				p.t.Errorf("%s is in %s and in %s", id, other, state)
			}
			where[id] = state
			text, err := os.ReadFile(file)
			if sum := sha256.Sum256(text); err != nil || all[id] == nil || hex.EncodeToString(sum[:]) != all[id].sum {
				p.t.Errorf("%s/%s is not what was made: %d bytes (%v)", state, id, len(text), err)
			}
		}
	}
	p.found += len(where)
	for id := range where { // the one in RAM was not all there was of it
		delete(p.inRAM, id)
	}
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	for id, said := range p.said {
		p.wantThere(id, said, where[id])
	}
	for name, n := range p.server.stored {
		id, isFile := strings.CutSuffix(name, ".bin")
		if m := all[sidecar.ID(id)]; isFile && (n != 1 || m == nil || m.sum != fmt.Sprintf("%x", p.server.objects[name].sum)) {
			p.t.Errorf("the server has stored %s %d times, and it is not what was made, or not once", name, n)
		}
	}
}

// wantThere wants what was said of a file to be so, or what comes after it.
func (p *powered) wantThere(id sidecar.ID, said, is spool.State) {
	p.t.Helper()
	_, atServer := p.server.objects[string(id)+".bin"]
	switch gone := p.gone[id]; {
	case said == spool.Dropped && is != "":
		p.t.Errorf("%s was said to be dropped, and is in %s of the store", id, is)
	case said == later && gone == nil:
		p.t.Errorf("%s was said to be deleted, and nothing is remembered of it", id)
	case said == spool.Ready && is != spool.Ready && is != spool.Sent && gone == nil,
		said == spool.Sent && is != spool.Sent && gone == nil:
		p.t.Errorf("%s was said to be %s; after the cut it is in %q, and not remembered", id, said, is)
	case (said == spool.Sent || is == spool.Sent) && !atServer:
		p.t.Errorf("%s is sent (said to be %q, in %q), and the server has not got it", id, said, is)
	}
}

// remember adds what the box remembers: in time it forgets the oldest.
func (p *powered) remember() { maps.Copy(p.gone, p.remembered()) }

// compare holds the maker's account against the server, and against what the box
// remembered. Of what is nowhere it wants that it was in RAM when the power failed.
func (p *powered) compare() {
	p.t.Helper()
	sent, dropped, lost := 0, 0, 0
	for id, m := range p.made() {
		o, there := p.server.objects[string(id)+".bin"]
		side := p.gone[id]
		if !m.complete && side == nil && !there { // it was never finished
			continue
		}
		switch {
		case there:
			sent++
			p.wantArrived(p.server, id, m, o)
			if m.items != 2 {
				p.t.Errorf("%s, which the rule does not keep, is at the server", id)
			}
		case side != nil || p.said[id] == spool.Dropped:
			dropped++
			if m.items != 1 {
				p.t.Errorf("%s, which the rule keeps, is dropped", id)
			}
		default:
			if lost++; !p.inRAM[id] {
				p.t.Errorf("%s is nowhere, and was not in RAM when the power failed", id)
			}
			continue
		}
		if side != nil {
			p.wantHistory(side, m)
		} else if !p.inRAM[id] {
			p.t.Errorf("the box remembers nothing of %s", id)
		}
	}
	p.t.Logf("%d files completed = %d at the server + %d dropped by the rule + %d in RAM when the power failed", sent+dropped+lost, sent, dropped, lost)
	if sent < 50 || dropped < 50 || p.found < 50 {
		p.t.Errorf("%d files sent, %d dropped, %d found after cuts: want 50 of each at least, or nothing was seen", sent, dropped, p.found)
	}
	p.t.Logf("faults of the server: %v", p.server.faults)
}
