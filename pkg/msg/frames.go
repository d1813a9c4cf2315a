package msg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/pkg/shm"
)

// ErrEnded says, once an epoch, that the source closed its stream and that all
// its frames have been read. Asking again waits for the source's next run.
var ErrEnded = errors.New("the source ended its stream")

// Frame is a frame in place: its bytes are the publisher's slot, and stay as
// they are until Release.
type Frame struct {
	Geometry
	Epoch Epoch
	Seq   Seq
	Stamp Stamp
	lease shm.Lease
}

// Bytes is the frame in shared memory, read-only.
func (f Frame) Bytes() []byte { return f.lease.Bytes() }

// Release gives the slot back to the publisher.
func (f Frame) Release() { f.lease.Release() }

// FrameSource says which frames to read.
type FrameSource struct {
	Source   Source
	Stream   Stream
	Endpoint string // empty is the stream's in the bus's run folder
	Pins     int    // frames held at once; 0 is 1
}

// Frames reads a stream of frames. The message is a doorbell only: the ring
// says which frames there are. It is not safe for concurrent use; the frames
// it returns are.
type Frames struct {
	bus     *Bus
	from    FrameSource
	in      *inbox
	began   time.Duration
	ring    *shm.Reader
	geo     Geometry
	next    uint64
	toldEnd bool
	rang    uint64 // doorbells
	count   Account
	past    Account
	why     error // why there is no ring at the moment
}

// Frames connects to a stream of frames, which may start later.
func (b *Bus) Frames(from FrameSource) (*Frames, error) {
	if err := errors.Join(from.Source.Check(), from.Stream.Check()); err != nil {
		return nil, fmt.Errorf("subscribe to frames: %w", err)
	}
	if from.Endpoint == "" {
		var err error
		if from.Endpoint, err = Endpoint(b.cfg.RunDir, from.Source, from.Stream); err != nil {
			return nil, err
		}
	}
	from.Pins = max(from.Pins, 1)
	in, err := b.newInbox(1)
	if err != nil {
		return nil, err
	}
	for _, topic := range []string{string(TopicOf(KindFrame, from.Source, from.Stream)), helloPrefix + string(b.cfg.Name)} {
		if err := in.soc.SetSubscribe(topic); err != nil {
			return nil, fmt.Errorf("subscribe to frames: %w", err)
		}
	}
	if err := in.soc.Connect(from.Endpoint); err != nil {
		return nil, fmt.Errorf("subscribe to frames of %s at %s: %w", from.Source, from.Endpoint, err)
	}
	f := &Frames{bus: b, from: from, in: in, began: b.cfg.Clock.Now().Boot}
	b.open = append(b.open, f.close)
	return f, nil
}

func (f *Frames) close() error {
	if f.ring == nil {
		return nil
	}
	return f.ring.Close()
}

// Newest waits for a frame that is newer than the last one returned, and
// returns the newest there is. What it passed over is counted as skipped. When
// until passes without one it returns false.
func (f *Frames) Newest(ctx context.Context, until time.Time) (Frame, bool, error) {
	return f.take(ctx, until, func() (shm.Lease, error) {
		lease, err := f.ring.Latest()
		if err == nil && lease.Seq() < f.next {
			lease.Release()
			return shm.Lease{}, shm.ErrNotYet
		}
		if err == nil {
			f.count.Skipped += lease.Seq() - f.next
		}
		return lease, err
	})
}

// Next waits for the next frame in order. Frames that were overwritten before
// they could be taken are counted as lost. When until passes without one it
// returns false; when the source ended its stream, ErrEnded.
func (f *Frames) Next(ctx context.Context, until time.Time) (Frame, bool, error) {
	return f.take(ctx, until, func() (shm.Lease, error) {
		for {
			lease, err := f.ring.At(f.next)
			if !errors.Is(err, shm.ErrGone) {
				return lease, err
			}
			f.count.Lost++
			f.next++
		}
	})
}

func (f *Frames) take(ctx context.Context, until time.Time, pick func() (shm.Lease, error)) (Frame, bool, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Frame{}, false, err
		}
		if err := f.drain(); err != nil {
			return Frame{}, false, err
		}
		if f.ring == nil {
			f.attach()
		}
		if f.ring != nil {
			lease, err := pick()
			if err == nil {
				return f.frame(lease), true, nil
			}
			if !errors.Is(err, shm.ErrNotYet) {
				return Frame{}, false, fmt.Errorf("read frame %d of %s/%s: %w", f.next, f.from.Source, f.from.Stream, err)
			}
			if f.replaced() {
				continue
			}
			if f.ring.Closed() && f.ring.Published() == f.next && !f.toldEnd {
				f.toldEnd = true
				return Frame{}, false, ErrEnded
			}
		}
		if !until.IsZero() && !time.Now().Before(until) {
			return Frame{}, false, nil
		}
		if err := f.listen(ctx, until); err != nil {
			return Frame{}, false, err
		}
	}
}

// drain throws the doorbells away that have rung: the ring knows more.
func (f *Frames) drain() error {
	for {
		parts, err := f.in.poll()
		if parts == nil || err != nil {
			return err
		}
		f.rang++
	}
}

// patience is how long a reader trusts the bus before it looks at the ring
// itself: a doorbell may be lost.
func (f *Frames) patience() time.Duration {
	if f.ring == nil {
		return 200 * time.Millisecond // no ring yet; its first doorbell comes sooner
	}
	if f.geo.Hz <= 0 {
		return 100 * time.Millisecond
	}
	return min(max(time.Duration(1.5/f.geo.Hz*float64(time.Second)), 5*time.Millisecond), time.Second)
}

func (f *Frames) listen(ctx context.Context, until time.Time) error {
	wake := time.Now().Add(f.patience())
	if !until.IsZero() && until.Before(wake) {
		wake = until
	}
	parts, err := f.in.wait(ctx, wake)
	if parts != nil {
		f.rang++
	}
	return err
}

// replaced moves on to the ring of a later epoch, if there is one, once the
// present one has nothing left.
func (f *Frames) replaced() bool {
	current, err := f.bus.dir.Current(f.name())
	if err != nil || current == f.ring.Epoch() || f.next < f.ring.Published() {
		return false
	}
	f.leave()
	f.attach()
	return f.ring != nil
}

func (f *Frames) leave() {
	f.past = f.past.plus(f.count)
	_ = f.ring.Close() // leases that are held keep the memory until they end
	f.ring = nil
}

func (f *Frames) name() shm.Name { return ringName(f.from.Source, f.from.Stream) }

func (f *Frames) attach() {
	ring, err := shm.OpenReader(f.bus.dir, f.name(), string(f.bus.cfg.Name), f.from.Pins)
	if err != nil {
		f.why = err
		return
	}
	meta, err := decodeMeta(f.name(), ring.Meta())
	if err == nil && (meta.Kind != KindFrame || meta.Geometry == nil) {
		err = fmt.Errorf("%w: ring %s holds %s, want frames", ErrMalformed, f.name(), meta.Kind)
	}
	if err != nil {
		f.why = errors.Join(err, ring.Close())
		return
	}
	f.ring, f.geo, f.why, f.toldEnd = ring, *meta.Geometry, nil, false
	f.count = Account{Topic: TopicOf(KindFrame, f.from.Source, f.from.Stream), Epoch: ring.Epoch()}
	f.next = 0
	if ring.Created() < f.began && f.past.Sent == 0 {
		// The stream was running before this reader: it begins with the newest.
		f.next = ring.Published() - min(ring.Published(), 1)
		f.count.Skipped = f.next
	}
}

func (f *Frames) frame(lease shm.Lease) Frame {
	f.next = lease.Seq() + 1
	f.count.Received++
	i := lease.Info()
	return Frame{Geometry: f.geo, Epoch: f.ring.Epoch(), Seq: Seq(lease.Seq()), lease: lease,
		Stamp: Stamp{Wall: time.Unix(0, i.Wall).UTC(), Boot: time.Duration(i.Boot), Synced: i.Synced}}
}

// Waiting says why there is no stream at the moment; nil when there is one.
func (f *Frames) Waiting() error {
	if f.ring != nil {
		return nil
	}
	return f.why
}

// Account is what became of the frames of the present epoch.
func (f *Frames) Account() Account {
	a := f.count
	a.Sent = f.next
	return a
}

// Totals sums the accounts over all epochs that this reader has seen.
func (f *Frames) Totals() Account { return f.past.plus(f.count) }

func (a Account) plus(b Account) Account {
	sum := Account{Topic: b.Topic, Epoch: b.Epoch, Received: a.Received + b.Received, Repaired: a.Repaired + b.Repaired,
		Lost: a.Lost + b.Lost, Skipped: a.Skipped + b.Skipped}
	sum.Sent = sum.Received + sum.Repaired + sum.Lost + sum.Skipped
	return sum
}
