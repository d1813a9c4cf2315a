package boxtest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/pkg/msg"
)

// Trial is a program with something to do on a disk that is going to fail.
type Trial struct {
	*Box
	Faults        *faultfs.FS // of its disk
	Program, Name string
	Done          func() bool       // it has done it
	Whole         func(when string) // wants what has to be so at any time
	Counters      map[string]uint64 // some of its own, when it has done it without a restart
	Settle        func()            // settles what a kill left; nil: the program itself does, at its start
	End           func()            // wants what has to be so at the end
}

// fault is a way in which a disk fails a program at its n-th call.
type fault struct {
	name  string
	lasts bool          // until the disk is mended
	says  syscall.Errno // what the program is told; 0: it is killed
	set   func(disk *faultfs.FS, n int, kill func())
	least int // how many calls there are at least, of those that can fail so
}

// faults are all of them. calls and syncs is how often each has to come.
func faults(calls, syncs int) []fault {
	all := []fault{{name: "killed", set: func(disk *faultfs.FS, n int, kill func()) { disk.Break(n, kill) }, least: calls}}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EXDEV} {
		for _, lasts := range []bool{false, true} {
			name := strings.ReplaceAll(errno.Error(), "/", " or ") + map[bool]string{true: " for long", false: " once"}[lasts]
			all = append(all, fault{name, lasts, errno, func(disk *faultfs.FS, n int, _ func()) { disk.Fail(n, errno, !lasts) }, calls})
		}
	}
	for _, keep := range []bool{false, true} {
		name := "a sync that " + map[bool]string{true: "fails", false: "loses what it should keep"}[keep]
		all = append(all, fault{name, false, syscall.EIO, func(disk *faultfs.FS, n int, _ func()) { disk.FailSync(n, keep) }, syncs})
	}
	return all
}

// stripes is how many tests of a fault are under way at a time. They wait far more
// than they work, and longest where the disk has to be mended.
func (f fault) stripes() int {
	if f.lasts {
		return 5
	}
	return 3
}

// most is how many calls of a program are tried.
const most = 1000

// pause is how long a test waits between two looks: many look at the same time.
const pause = 25 * time.Millisecond

// Ordeal lets a program's disk fail at each of its calls in turn, from its start
// to its end, in each way that a disk fails, and kills it there; until it gets
// by without coming to that call. begin makes a new box with something to do.
// Of the calls one in twelve is tried, and each in a soak (faultfs.Sample).
//
// Where the program ends, it is started again, as a supervisor does it. A fault
// that lasts is taken away when the program has said so in its state, or has
// ended with a word on it: it then goes on by itself. It keeps the machine busy:
// run it beside no other tests.
func Ordeal(t *testing.T, calls, syncs int, begin func(t *testing.T) *Trial) {
	t.Helper()
	sample := faultfs.NewSample(12)
	t.Log(sample)
	var group sync.WaitGroup
	var all atomic.Int64
	for i, f := range faults(calls, syncs) {
		group.Go(func() { all.Add(f.atCalls(t, begin, sample.Next(i, 1), sample.Every())) })
	}
	group.Wait()
	t.Logf("%d faults", all.Load())
}

// atCalls tries the calls from first on that are so far apart, and returns at how
// many of them the program came to the fault.
func (f fault) atCalls(t *testing.T, begin func(t *testing.T) *Trial, first, apart int) int64 {
	t.Helper()
	var group sync.WaitGroup
	var count, left, reached atomic.Int64
	for stripe := range f.stripes() {
		group.Go(func() {
			for n := first + stripe*apart; n < most; n += f.stripes() * apart {
				ran, came := false, false
				passed := t.Run(fmt.Sprintf("%s/%d", f.name, n), func(t *testing.T) {
					ran = true
					came = begin(t).run(t, f, n)
				})
				switch {
				case !ran: // -run leaves it out
					left.Add(1)
				case !came || !passed:
					return
				default:
					count.Add(1)
					for last := reached.Load(); int64(n) > last && !reached.CompareAndSwap(last, int64(n)); last = reached.Load() {
					}
				}
			}
		})
	}
	group.Wait()
	n := reached.Load()
	t.Logf("%s: at %d of %d calls", f.name, count.Load(), n)
	if n+int64(apart) <= int64(f.least) && left.Load() == 0 && !t.Failed() {
		t.Errorf("%s: it was done after %d calls; want at least %d, or this test does not see them", f.name, n, f.least)
	}
	if n >= most-int64(f.stripes()*apart) {
		t.Errorf("%s: it was not done after %d calls", f.name, n)
	}
	return count.Load()
}

// run says whether it came to the n-th call at all.
func (tr *Trial) run(t *testing.T, f fault, n int) (came bool) {
	states := tr.Follow(tr.Bus("watch"), []msg.Kind{msg.KindState}, msg.Source(tr.Name))
	started := make(chan int, 1)
	f.set(tr.Faults, n, func() { _ = syscall.Kill(<-started, syscall.SIGKILL) }) // it dies when this call has failed
	p := tr.Start(tr.Program, tr.Name)
	started <- p.PID()
	pollEach(t, pause, "the work to be done, or a word on the fault", func() bool {
		return p.ended() || tr.Done() || f.lasts && tr.Faults.Broken() && strings.Contains(states.Trouble(), f.says.Error())
	})
	if !tr.Faults.Broken() { // its last calls are those at its end
		Poll(t, "the program to be ready", func() bool { return p.ended() || p.isReady() })
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have been killed just now
		p.Wait()
	}
	if came = tr.Faults.Broken(); came && f.says == 0 {
		p.Wait()
	}
	tr.Whole("after the fault")
	calls := tr.Faults.Calls()
	tr.Faults.Fail(0, 0, false)
	if p.ended() {
		tr.wantWord(t, p, f, came)
	}
	if came {
		tr.goOn(p, states)
	}
	tr.Whole("at the end")
	tr.End()
	if left := tr.Litter(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if t.Failed() {
		t.Logf("calls up to the fault: %q; after it: %q", calls, tr.Faults.Calls())
	}
	return came
}

// wantWord wants a program that has ended to have said why.
func (tr *Trial) wantWord(t *testing.T, p *Process, f fault, came bool) {
	t.Helper()
	switch code := p.Wait(); {
	case f.says == 0 && came && code != -1:
		t.Errorf("it was killed, and ended with code %d", code)
	case code > 0 && !strings.Contains(p.Log(), f.says.Error()):
		t.Errorf("it ended with code %d, and says nothing of %q", code, f.says.Error())
	case code > 1 && code != 75:
		t.Errorf("it ended with code %d; want 1 or 75, to be started again", code)
	case code != 0 && !came:
		t.Errorf("it ended with code %d, and nothing had failed; want 0", code)
	}
}

// goOn lets the program finish its work, and settles what was left.
func (tr *Trial) goOn(p *Process, states *Feed) {
	tr.t.Helper()
	again := p.ended()
	if again {
		p = tr.Start(tr.Program, tr.Name)
	}
	pollEach(tr.t, pause, "the work to be done once all is well", func() bool { return p.ended() || tr.Done() })
	p.Stop()
	if !again {
		states.State(fmt.Sprint(tr.Counters), func(st msg.State) bool {
			for name, n := range tr.Counters {
				if st.Counters[name] != n {
					return false
				}
			}
			return true
		})
	}
	if len(tr.Litter()) > 0 && tr.Settle == nil {
		tr.Start(tr.Program, tr.Name).Stop()
	} else if tr.Settle != nil {
		tr.Settle()
	}
}
