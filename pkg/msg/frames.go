package msg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/shm"
)

// ErrEnded says, once an epoch, that the source closed its stream and that all
// its frames have been read. Asking again waits for the source's next run.
var ErrEnded = errors.New("the source ended its stream")

// doorbells is how many wait for a reader. With room for one only, ZeroMQ would
// wake its own thread for each that is taken.
const doorbells = 64

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

// Image is the frame as a picture, in place. It fails for coded formats.
func (f Frame) Image() (pixel.Image, error) {
	format, err := pixel.ParseFormat(f.Format)
	if err != nil {
		return pixel.Image{}, err
	}
	img := pixel.Image{Format: format, Size: pixel.Size{Width: f.Width, Height: f.Height}, Planes: f.Planes, Data: f.Bytes(), Colour: f.Colour()}
	return img, img.Check()
}

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
	bus    *Bus
	from   FrameSource
	in     *inbox
	born   time.Duration
	ring   *shm.Reader
	begun  bool  // a ring has been read
	epoch  Epoch // of that ring
	geo    Geometry
	next   uint64
	known  bool      // a frame has been taken since the last doorbell
	silent bool      // no doorbells are subscribed to at the moment
	looked time.Time // when the ring was last known to be the stream's present one
	tried  time.Time // when it was last out of reach, but for there being none
	count  Account
	past   Account
	why    error // why there is no ring at the moment
}

// Frames connects to a stream of frames, which may start later.
func (b *Bus) Frames(from FrameSource) (*Frames, error) {
	if err := errors.Join(from.Source.Check(), from.Stream.Check()); err != nil {
		return nil, fmt.Errorf("subscribe to frames: %w", err)
	}
	endpoint, err := b.locate(from.Source, from.Stream, from.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("subscribe to frames: %w", err)
	}
	from.Pins = max(from.Pins, 1)
	in, err := newInbox(b.ctx, doorbells)
	if err != nil {
		return nil, err
	}
	f := &Frames{bus: b, from: from, in: in, born: clock.Boot()}
	err = errors.Join(in.soc.SetSubscribe(f.doorbell()), in.soc.Connect(endpoint))
	if err == nil {
		f.attach() // before it says that it is there: a stream begins when all are
		err = in.soc.SetSubscribe(helloPrefix + string(b.cfg.Name))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to frames of %s at %s: %w", from.Source, endpoint, err), f.close())
	}
	b.closeLater(f.close)
	return f, nil
}

func (f *Frames) close() error {
	err := f.in.close()
	if f.ring != nil {
		err = errors.Join(err, f.ring.Close())
	}
	return err
}

// Newest waits for a frame that is newer than the last one returned, and
// returns the newest there is. What it passed over is counted as skipped. When
// until passes without one it returns false; when the source ended its stream,
// ErrEnded.
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
			published := f.ring.Published()
			next := max(f.next+1, published-min(published, uint64(f.ring.Slots())))
			f.count.Lost += next - f.next
			f.next = next
		}
	})
}

// Rest throws away the doorbells that have rung, and where no frame is wanted for
// a while, has them silenced until the next wait: each would wake the reader, and
// the publisher to send it. A reader that wants no frame until some moment calls it
// now and then: ZeroMQ sends a subscription to a publisher that came back only when
// its socket is used.
func (f *Frames) Rest(until time.Time) error {
	if f.ring != nil && f.geo.Hz > 0 && !f.silent && time.Until(until).Seconds() > restful/f.geo.Hz {
		if err := f.in.soc.SetUnsubscribe(f.doorbell()); err != nil {
			return fmt.Errorf("silence doorbells: %w", err)
		}
		f.silent = true
	}
	_, err := f.in.discard()
	return err
}

// restful is how many frames it must be until one is wanted for their doorbells to
// be silenced, which takes two messages itself.
const restful = 4

// doorbell is the topic of what tells of a frame.
func (f *Frames) doorbell() string {
	return string(TopicOf(KindFrame, f.from.Source, f.from.Stream))
}

func (f *Frames) take(ctx context.Context, until time.Time, pick func() (shm.Lease, error)) (Frame, bool, error) {
	for waited := false; ; waited = true {
		if err := ctx.Err(); err != nil {
			return Frame{}, false, err
		}
		frame, ok, err := f.try(pick, waited)
		if ok || err != nil {
			return frame, ok, err
		}
		if !until.IsZero() && !time.Now().Before(until) {
			return Frame{}, false, nil
		}
		if err := f.listen(ctx, until); err != nil {
			return Frame{}, false, err
		}
	}
}

// try takes a frame if there is one. Whether the stream goes on in another ring
// costs system calls to know, so that it is asked only when a doorbell, or the
// want of one, says that something is amiss.
func (f *Frames) try(pick func() (shm.Lease, error), waited bool) (Frame, bool, error) {
	for f.ring != nil || f.attach() {
		lease, err := pick()
		if err == nil {
			return f.frame(lease), true, nil
		}
		if !errors.Is(err, shm.ErrNotYet) {
			return Frame{}, false, fmt.Errorf("read frame %d of %s/%s: %w", f.next, f.from.Source, f.from.Stream, err)
		}
		if (!waited && time.Since(f.looked) < f.patience()) || !f.over() {
			return Frame{}, false, nil
		}
		// Unmapped at once: a new ring may need the memory.
		closed := f.ring.Closed()
		_ = f.ring.Close() // leases that are held keep the memory until they end
		f.ring = nil
		if closed {
			return Frame{}, false, ErrEnded
		}
	}
	return Frame{}, false, nil
}

// over says that nothing of this run is left to read, or to come.
func (f *Frames) over() bool {
	f.looked = time.Now()
	return f.ring.Ended() && f.next >= f.ring.Published()
}

// rang throws the doorbells away that have rung: the ring knows more. It says
// whether there is something to look for. One is that of the last frame.
func (f *Frames) rang() (bool, error) {
	heard, err := f.in.discard()
	known := f.known
	f.known = false
	if f.ring == nil {
		return heard, err
	}
	return heard && !known || f.ring.Published() > f.next, err
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
	return time.Duration(min(max(1.5/f.geo.Hz, 0.005), 1) * float64(time.Second))
}

func (f *Frames) listen(ctx context.Context, until time.Time) error {
	if f.silent {
		if err := f.in.soc.SetSubscribe(f.doorbell()); err != nil {
			return fmt.Errorf("subscribe to doorbells: %w", err)
		}
		f.silent = false // one that rings before this arrives is made up for by patience
	}
	wake := time.Now().Add(f.patience())
	if !until.IsZero() && until.Before(wake) {
		wake = until
	}
	return f.in.sleep(ctx, wake, f.rang)
}

func (f *Frames) name() shm.Name { return ringName(f.from.Source, f.from.Stream) }

// attach opens the stream's present ring. A refusal takes 50 ms, and is not
// asked for again with each doorbell.
func (f *Frames) attach() bool {
	if time.Since(f.tried) < f.patience() {
		return false
	}
	err := f.open()
	if f.why = err; err != nil && !errors.Is(err, shm.ErrNoRing) {
		f.tried = time.Now()
	}
	return err == nil
}

func (f *Frames) open() error {
	if current, err := f.bus.dir.Current(f.name()); err != nil {
		return err
	} else if f.begun && current == f.epoch {
		return fmt.Errorf("frames of %s/%s: its run %s is over: %w", f.from.Source, f.from.Stream, current, shm.ErrNoRing)
	}
	ring, err := shm.OpenReader(f.bus.dir, f.name(), string(f.bus.cfg.Name), f.from.Pins)
	if err != nil {
		return err
	}
	meta, err := decodeMeta(f.name(), ring.Meta())
	if err == nil && meta.Kind != KindFrame {
		err = fmt.Errorf("%w: ring %s holds %s, want frames", ErrMalformed, f.name(), meta.Kind)
	}
	if err != nil {
		return errors.Join(err, ring.Close())
	}
	f.past = f.past.plus(f.count)
	f.count = Account{Topic: meta.Topic, Epoch: ring.Epoch()}
	f.ring, f.geo, f.next, f.looked = ring, *meta.Geometry, 0, time.Now()
	if !f.begun && ring.Created() < f.born {
		// The stream was running before this reader: it begins with the newest,
		// or if that run is over, with nothing of it.
		f.next = ring.Published()
		if !ring.Ended() {
			f.next -= min(f.next, 1)
		}
		f.count.Skipped = f.next
	}
	f.begun, f.epoch = true, ring.Epoch()
	return nil
}

func (f *Frames) frame(lease shm.Lease) Frame {
	f.next, f.looked = lease.Seq()+1, time.Now()
	f.count.Received++
	f.known = true
	i := lease.Info()
	return Frame{Geometry: f.geo, Epoch: f.epoch, Seq: Seq(lease.Seq()), lease: lease,
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

func (a Account) minus(b Account) Account {
	return Account{Topic: a.Topic, Epoch: a.Epoch, Sent: a.Sent - b.Received - b.Repaired - b.Lost - b.Skipped, Received: a.Received - b.Received,
		Repaired: a.Repaired - b.Repaired, Lost: a.Lost - b.Lost, Skipped: a.Skipped - b.Skipped}
}
