package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

const (
	// slots of each ring: eight readers with a pin each, the one to fill, the
	// latest, and two to spare. The same for all, so that all have the same
	// memory to go through.
	slots = 12
	// page is how far apart the words are by which a frame is verified.
	page = 4096
)

// report is what a process says of a block of frames.
type report struct {
	CPU   float64    `json:"cpu_us"`
	Bad   uint64     `json:"bad"`   // words that were not the frame's number
	Times [][3]int64 `json:"times"` // number and two moments, CLOCK_BOOTTIME ns
}

// place is where a child's bus is.
type place struct {
	Dir string `required:""`
}

func (p place) open(name string) (*msg.Bus, error) {
	return msg.Open(msg.Config{Node: "bench", Name: msg.Source(name), RunDir: p.Dir + "/run", ShmDir: p.Dir + "/shm"})
}

// The names on the bus.
const (
	cameraName = "camera"
	streamName = "video"
)

func readerName(i int) string { return fmt.Sprintf("reader-%d", i) }

// frameWriterCommand publishes frames as a camera does. It is told:
//
//	open        make the stream
//	gate N      wait for N readers
//	ring N      publish N frames, paced
type frameWriterCommand struct {
	place
	Format pixel.Format `required:""`
	Width  int          `required:""`
	Height int          `required:""`
	Hz     float64      `required:""`

	bus    *msg.Bus
	stream *msg.FrameStream
	source []byte
	next   msg.Seq
}

// Run obeys until stdin ends.
func (w *frameWriterCommand) Run(ctx context.Context) (err error) {
	defer func() {
		if w.bus != nil {
			err = errors.Join(err, w.bus.Close())
		}
	}()
	ctx, lines := orders(ctx)
	if err := answer(report{}); err != nil {
		return err
	}
	for line := range lines {
		var r report
		if r, err = w.obey(ctx, line); err == nil {
			err = answer(r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}

func (w *frameWriterCommand) obey(ctx context.Context, line string) (report, error) {
	verb, n := split(line)
	switch verb {
	case "open":
		return report{}, w.open()
	case "gate":
		return report{}, w.gate(ctx, n)
	case "ring":
		return w.block(ctx, n)
	}
	return report{}, errors.New("no such order")
}

func split(line string) (verb string, n int) {
	if _, err := fmt.Sscanf(line, "%s %d", &verb, &n); err != nil {
		return line, 0
	}
	return verb, n
}

func (w *frameWriterCommand) open() error {
	planes, bytes, err := pixel.Layout(w.Format, pixel.Size{Width: w.Width, Height: w.Height})
	if err != nil {
		return err
	}
	w.source = make([]byte, bytes)
	if w.bus, err = w.place.open(cameraName); err != nil {
		return err
	}
	pub, err := w.bus.Publisher()
	if err != nil {
		return err
	}
	w.stream, err = pub.Frames(streamName, msg.Geometry{Format: string(w.Format), Width: w.Width, Height: w.Height,
		Planes: planes, Hz: w.Hz}, slots, bytes)
	return err
}

func (w *frameWriterCommand) gate(ctx context.Context, readers int) error {
	var names []string
	for i := range readers {
		names = append(names, readerName(i))
	}
	if missing := w.stream.Gate(names, 5*time.Second, ctx.Done()); len(missing) > 0 {
		return fmt.Errorf("no sign of %s", strings.Join(missing, ", "))
	}
	return nil
}

// block publishes n frames.
func (w *frameWriterCommand) block(ctx context.Context, n int) (report, error) {
	return paced(ctx, w.Hz, n, func(watch stopwatch, tick func() error) ([3]int64, error) {
		number := w.next
		mark(w.source, uint64(number))
		if err := tick(); err != nil {
			return [3]int64{}, err
		}
		stamp := w.bus.Clock().Now()
		slot, err := w.stream.Claim()
		if err != nil {
			return [3]int64{}, err
		}
		copy(slot.Bytes(), w.source)
		filled := watch.now()
		_, err = slot.Publish(len(w.source), stamp)
		w.next++
		return [3]int64{int64(number), int64(stamp.Boot), filled}, err
	})
}

// paced makes n frames at their deadlines. What a frame costs besides, to stamp
// its number on each page of the source, is done ahead of its tick, as the
// peers do it.
func paced(ctx context.Context, hz float64, n int, frame func(watch stopwatch, tick func() error) ([3]int64, error)) (r report, err error) {
	watch, before := startWatch(), cpuMicros()
	timer, err := newTicker(hz)
	if err != nil {
		return r, err
	}
	defer timer.close()
	tick := func() error {
		_, err := timer.wait()
		return errors.Join(err, ctx.Err())
	}
	for range n {
		times, err := frame(watch, tick)
		if err != nil {
			return r, err
		}
		r.Times = append(r.Times, times)
	}
	err = tick() // what a frame causes may come after it
	r.CPU = cpuMicros() - before
	return r, err
}

func mark(frame []byte, number uint64) {
	for at := 0; at < len(frame); at += page {
		binary.LittleEndian.PutUint64(frame[at:], number)
	}
}

func verify(frame []byte, number uint64) (bad uint64) {
	for at := 0; at < len(frame); at += page {
		if binary.LittleEndian.Uint64(frame[at:]) != number {
			bad++
		}
	}
	return bad
}

// frameReaderCommand reads frames as jpegwriter and detector do: the newest, in
// place. It is told "begin", and "end".
type frameReaderCommand struct {
	place
	Name string `required:""`
}

// Run obeys until stdin ends.
func (c *frameReaderCommand) Run(ctx context.Context) (err error) {
	bus, err := c.open(c.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bus.Close()) }()
	frames, err := bus.Frames(msg.FrameSource{Source: cameraName, Stream: streamName})
	if err != nil {
		return err
	}
	return obeyReader(ctx, func(ctx context.Context, r *report) error { return read(ctx, frames, r) })
}

// obeyReader reads from each "begin" to the "end" after it, until stdin ends.
func obeyReader(ctx context.Context, read func(context.Context, *report) error) error {
	ctx, lines := orders(ctx)
	if err := answer(report{}); err != nil {
		return err
	}
	for range lines {
		block, end := context.WithCancel(ctx)
		done := make(chan error)
		r := report{Times: make([][3]int64, 0, 1024)}
		go func() { done <- read(block, &r) }()
		<-lines
		end()
		if err := <-done; err != nil {
			return fmt.Errorf("read frames: %w", err)
		}
		if err := answer(r); err != nil {
			return err
		}
	}
	return nil
}

func read(ctx context.Context, frames *msg.Frames, r *report) error {
	watch, before := startWatch(), cpuMicros()
	for {
		f, ok, err := frames.Newest(ctx, time.Time{})
		if ctx.Err() != nil {
			f.Release()
			r.CPU = cpuMicros() - before
			return nil
		}
		if errors.Is(err, msg.ErrEnded) {
			continue
		}
		if err != nil || !ok {
			return err
		}
		held := watch.now()
		r.Bad += verify(f.Bytes(), uint64(f.Seq))
		r.Times = append(r.Times, [3]int64{int64(f.Seq), held, watch.now()})
		f.Release()
	}
}
