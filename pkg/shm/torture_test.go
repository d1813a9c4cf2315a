package shm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The torture: a writer that goes round a small ring as fast as it can, so
// that every look at an old message is a race with being overwritten, and
// reader processes that verify every word of what they lease. Meanwhile
// readers are killed, stopped and started, and so is the writer.
const (
	tornReaders   = 4
	tornPins      = 3
	tornSlots     = tornReaders*tornPins + 2
	tornSlotBytes = 64 << 10
)

// playTornWriter publishes until it is killed: folder, epoch.
func playTornWriter(args []string) error {
	dir, err := OpenDir(args[0])
	if err != nil {
		return err
	}
	w, err := Create(dir, ring, Epoch(number(args[1])), Options{Slots: tornSlots, SlotBytes: tornSlotBytes, KeepDead: 1})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		s, err := w.Claim()
		if err != nil {
			fmt.Println("dropped", w.Dropped())
			continue
		}
		fill(s.Bytes(), w.Published())
		s.Publish(len(s.Bytes()), Info{Boot: int64(w.Published() * 1e6)}) // a second each thousand
	}
}

// playTornReader leases and verifies until it is killed, from epoch to epoch,
// and says now and then "reads torn epochs" of what it did since it said so
// last. Folder, name, "pin" or "look" (the control, without pins).
func playTornReader(args []string) error {
	dir, err := OpenDir(args[0])
	if err != nil {
		return err
	}
	t := &tornReader{who: args[1], look: args[2] == "look", out: bufio.NewWriter(os.Stdout)}
	for {
		r, err := OpenReader(dir, ring, t.who, tornPins)
		if errors.Is(err, ErrNoRing) {
			time.Sleep(time.Millisecond) // between two writers
			continue
		}
		if err != nil {
			return err
		}
		r.unpinned = t.look
		t.epochs++
		t.follow(r)
		for current := r.Epoch(); current == r.Epoch(); time.Sleep(100 * time.Microsecond) {
			if now, err := dir.Current(ring); err == nil {
				current = now
			}
		}
		// One lease is carried over into the next epoch.
		if err := r.Close(); err != nil {
			return err
		}
	}
}

type tornReader struct {
	who                 string
	look                bool
	kept                Lease
	reads, torn, epochs int
	out                 *bufio.Writer
}

// follow reads one epoch until its writer is gone, and then what is left of it.
func (t *tornReader) follow(r *Reader) {
	seen, idle := uint64(0), 0
	for turn := 0; turn%64 != 0 || !r.Ended(); turn++ {
		if now := r.Published(); now != seen {
			seen, idle = now, 0
		} else if idle++; idle%32 == 0 {
			time.Sleep(10 * time.Microsecond) // the processor for the writer: no race without it
		}
		l, err := r.Latest()
		if err != nil {
			continue // nothing published yet
		}
		if turn%4 != 0 { // mostly the old ones, next to be overwritten
			want := l.Seq() - min(l.Seq(), tornSlots-1-rand.Uint64N(5))
			l.Release()
			if l, err = r.At(want); err != nil {
				continue
			}
			if l.Seq() != want {
				t.torn++
			}
		}
		t.verify(l)
		t.keep(l, turn)
	}
	for seq := r.Published() - min(r.Published(), tornSlots); seq < r.Published(); seq++ {
		if l, err := r.At(seq); err == nil {
			t.verify(l)
			l.Release()
		}
	}
}

// keep holds one lease for a while and verifies it again before it lets go.
func (t *tornReader) keep(l Lease, turn int) {
	if turn%37 != 0 {
		l.Release()
		return
	}
	if t.kept.Held() {
		t.verify(t.kept)
		t.kept.Release()
	}
	t.kept = l
}

func (t *tornReader) verify(l Lease) {
	t.reads++
	if !whole(l.Bytes(), l.Seq()) {
		t.torn++
	}
	if t.reads%50 == 0 {
		fmt.Fprintln(t.out, t.reads, t.torn, t.epochs)
		t.out.Flush()
		t.reads, t.torn, t.epochs = 0, 0, 0
	}
}

// tally adds up what the readers say, from one goroutine each.
type tally struct {
	reads, torn, epochs atomic.Int64
	group               sync.WaitGroup
}

func (sum *tally) listen(t *testing.T, c *child) {
	sum.group.Go(func() {
		for {
			line, err := c.buf.ReadString('\n')
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
					t.Errorf("read process %d: %v", c.cmd.Process.Pid, err)
				}
				return
			}
			var reads, torn, epochs int64
			if _, err := fmt.Sscan(line, &reads, &torn, &epochs); err != nil {
				t.Errorf("process %d says %q; want counts", c.cmd.Process.Pid, line)
				continue
			}
			sum.reads.Add(reads)
			sum.torn.Add(torn)
			sum.epochs.Add(epochs)
		}
	})
}

// torture is the fleet under test and what has been done to it.
type torture struct {
	t       *testing.T
	dir     *Dir
	sum     tally
	readers [tornReaders]*child
	stopped [tornReaders]bool
	writer  *child
	epoch   Epoch

	killedReaders, stops, killedWriters int
}

func (x *torture) startReader(i int) {
	x.readers[i] = start(x.t, "torn-reader", x.dir.Path(), fmt.Sprint("reader-", i), "pin")
	x.stopped[i] = false
	x.sum.listen(x.t, x.readers[i])
}

func (x *torture) startWriter() {
	x.epoch++
	x.writer = start(x.t, "torn-writer", x.dir.Path(), uint64(x.epoch))
	x.writer.says("ready")
}

// hurt does one thing to the fleet. Two readers at least stay awake.
func (x *torture) hurt(rnd *rand.Rand) {
	i, asleep := rnd.IntN(tornReaders), 0
	for _, s := range x.stopped {
		if s {
			asleep++
		}
	}
	switch what := rnd.IntN(8); {
	case what == 0:
		x.writer.kill()
		x.startWriter()
		x.killedWriters++
	case what < 3:
		x.readers[i].kill()
		x.startReader(i)
		x.killedReaders++
	case x.stopped[i]:
		x.readers[i].resume()
		x.stopped[i] = false
	case asleep < tornReaders-2:
		x.readers[i].stop()
		x.stopped[i] = true
		x.stops++
	}
}

func TestNoTornMessageWhileProcessesAreKilled(t *testing.T) {
	want := int64(100_000)
	if underRace() {
		want = 5_000 // the detector does not see other processes: this is the plain run's
	}
	const seed = 20
	rnd := rand.New(rand.NewPCG(seed, seed))
	x := &torture{t: t, dir: folder(t)}
	x.startWriter()
	for i := range x.readers {
		x.startReader(i)
	}
	for x.sum.reads.Load() < want || x.killedReaders < 20 || x.stops < 20 || x.killedWriters < 10 {
		next := x.sum.reads.Load() + want/100
		poll(t, "readers to get on", func() bool { return x.sum.reads.Load() >= next })
		x.hurt(rnd)
	}
	for _, r := range x.readers {
		r.kill()
	}
	x.sum.group.Wait()
	x.writer.kill()
	t.Logf("%d reads verified; killed %d readers and %d writers, stopped %d readers; readers moved on %d times",
		x.sum.reads.Load(), x.killedReaders, x.killedWriters, x.stops, x.sum.epochs.Load())
	if n := x.sum.torn.Load(); n != 0 {
		t.Errorf("%d of %d messages were torn; want 0", n, x.sum.reads.Load())
	}
	if rest, _ := io.ReadAll(x.writer.buf); len(rest) > 0 {
		t.Errorf("the writer says %q; want nothing: no message dropped", rest)
	}
	x.nothingLeft()
}

// nothingLeft shows that the next writer has all slots and leaves no old file.
func (x *torture) nothingLeft() {
	x.t.Helper()
	w := create(x.t, x.dir, x.epoch+1, Options{Slots: tornSlots, SlotBytes: tornSlotBytes})
	if used := lap(x.t, w, Info{}); len(used) != tornSlots {
		x.t.Errorf("the next writer uses %d slots; want %d", len(used), tornSlots)
	}
	if epochs, err := x.dir.Epochs(ring); err != nil || len(epochs) != 1 {
		x.t.Errorf("Epochs() = %v, %v; want the present one alone", epochs, err)
	}
	if r := w.Readers(); len(r) != 0 {
		x.t.Errorf("Readers() = %v; want none", r)
	}
}

// The torture's control: the same readers without pins must find torn
// messages, or the test above would find none in a broken ring either.
func TestTortureFindsTornMessagesWithoutPins(t *testing.T) {
	x := &torture{t: t, dir: folder(t)}
	x.startWriter()
	c := start(t, "torn-reader", x.dir.Path(), "looker", "look")
	x.sum.listen(t, c)
	poll(t, "the reader to look", func() bool { return x.sum.reads.Load() >= 3000 })
	c.kill()
	x.sum.group.Wait()
	reads, torn := x.sum.reads.Load(), x.sum.torn.Load()
	t.Logf("%d of %d messages torn without pins (%.1f %%)", torn, reads, 100*float64(torn)/float64(reads))
	if torn*100 <= reads {
		t.Errorf("%d of %d messages torn without pins; want more than 1 %%", torn, reads)
	}
}
