package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/perch-edge/perch/pkg/pixel"
)

// shape is a size of frame.
type shape struct {
	name   string
	format pixel.Format
	size   pixel.Size
}

func (s shape) bytes() int {
	_, n, err := pixel.Layout(s.format, s.size)
	if err != nil {
		panic("bench: " + err.Error()) // all shapes are written down below
	}
	return n
}

func shapes() (small, medium, hd, uhd shape) {
	return shape{"64 KiB", pixel.YUYV, pixel.Size{Width: 256, Height: 128}},
		shape{"1 MiB", pixel.YUYV, pixel.Size{Width: 1024, Height: 512}},
		shape{"1080p", pixel.YUV420, pixel.Size{Width: 1920, Height: 1080}},
		shape{"4K", pixel.YUV420, pixel.Size{Width: 3840, Height: 2160}}
}

// mode is a way of bringing a frame to its readers.
type mode string

const (
	ring    mode = "ring"       // perch
	copying mode = "copy, C"    // a memcpy into shared memory, and no reader
	message mode = "message, C" // that, and a message of 200 bytes
	pixels  mode = "pixels"     // the frame in the message, with the binding that perch uses
	pixelsC mode = "pixels, C"  // the same, copied only once
)

func modes() []mode { return []mode{ring, copying, message, pixels, pixelsC} }

// order is what a writer is told, "order N".
func (m mode) order() string {
	word, _, _ := strings.Cut(string(m), ",")
	return word
}

const frameHz = 30

// block is what some frames in one mode took, in microseconds. Of each frame
// and reader: the copy; from when it is filled to a reader holding it; from
// before the copy to that, and to the reader having verified its pages.
type block struct {
	copy, wake, held, total []float64
	sent, received          int
	writerCPU, readerCPU    float64 // µs in all, one reader's on average
}

func (b *block) add(c block) {
	b.copy, b.wake = append(b.copy, c.copy...), append(b.wake, c.wake...)
	b.held, b.total = append(b.held, c.held...), append(b.total, c.total...)
	b.sent, b.received = b.sent+c.sent, b.received+c.received
	b.writerCPU, b.readerCPU = b.writerCPU+c.writerCPU, b.readerCPU+c.readerCPU
}

// perFrame is the writer's CPU time a frame, perRead each reader's.
func (b *block) perFrame() float64 { return b.writerCPU / float64(b.sent) }
func (b *block) perRead(readers int) float64 {
	return b.readerCPU * float64(readers) / float64(b.received)
}

// cell is one size and number of readers: its processes, which stay, and what
// they have told, round by round.
type cell struct {
	shape   shape
	readers int
	dir     string

	perch, peer, whole group
	rounds             []map[mode]block
}

// group is a writer and its readers.
type group struct {
	writer  *child
	readers []*child
}

// gate waits until the writer has heard of all its readers.
func (g *group) gate() error { return g.writer.ask(nil, "gate %d", len(g.readers)) }

// group is who takes part in a mode.
func (c *cell) group(m mode) group {
	switch m {
	case ring:
		return c.perch
	case pixels:
		return c.whole
	case copying:
		return group{writer: c.peer.writer}
	default:
		return c.peer
	}
}

// openCell starts the processes of a cell.
func openCell(ctx context.Context, base, peer string, s shape, readers int) (c *cell, err error) {
	c = &cell{shape: s, readers: readers}
	if c.dir, err = os.MkdirTemp(base, "c-"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if err := c.start(ctx, peer); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cell) start(ctx context.Context, peer string) (err error) {
	if err := c.startRing(ctx); err != nil {
		return err
	}
	size, hz := fmt.Sprint(c.shape.bytes()), fmt.Sprint(frameHz)
	if c.peer.writer, err = start(ctx, peer, "writer", c.dir, size, fmt.Sprint(slots), hz); err != nil {
		return err
	}
	if c.whole.writer, err = self(ctx, "pixel-writer", "--dir", c.dir, "--bytes", size, "--hz", hz); err != nil {
		return err
	}
	for range c.readers {
		r, err := start(ctx, peer, "reader", c.dir, size, fmt.Sprint(slots))
		if err != nil {
			return err
		}
		c.peer.readers = append(c.peer.readers, r)
		if r, err = self(ctx, "pixel-reader", "--dir", c.dir, "--bytes", size); err != nil {
			return err
		}
		c.whole.readers = append(c.whole.readers, r)
	}
	return errors.Join(c.peer.gate(), c.whole.gate())
}

// startRing starts perch's side.
func (c *cell) startRing(ctx context.Context) (err error) {
	if c.perch.writer, err = c.startWriter(ctx); err != nil {
		return err
	}
	if err := c.perch.writer.ask(nil, "open"); err != nil {
		return err
	}
	for i := range c.readers {
		r, err := self(ctx, "frame-reader", "--dir", c.dir, "--name", readerName(i))
		if err != nil {
			return err
		}
		c.perch.readers = append(c.perch.readers, r)
	}
	return c.perch.gate()
}

// startWriter starts a frame writer that has not opened its stream yet.
func (c *cell) startWriter(ctx context.Context) (*child, error) {
	return self(ctx, "frame-writer", "--dir", c.dir, "--format", string(c.shape.format),
		"--width", fmt.Sprint(c.shape.size.Width), "--height", fmt.Sprint(c.shape.size.Height), "--hz", fmt.Sprint(frameHz))
}

func (c *cell) close() error {
	var errs []error
	for _, g := range []group{c.perch, c.peer, c.whole} {
		errs = append(errs, stopAll(g.readers))
		if g.writer != nil {
			errs = append(errs, g.writer.stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// round measures one block in each mode, every other time in reverse.
func (c *cell) round(frames int) error {
	order := modes()
	if len(c.rounds)%2 == 1 {
		slices.Reverse(order)
	}
	got := map[mode]block{}
	for _, m := range order {
		b, err := c.measure(m, frames)
		if err != nil {
			return fmt.Errorf("%s to %d readers, %s: %w", c.shape.name, c.readers, m, err)
		}
		got[m] = b
	}
	c.rounds = append(c.rounds, got)
	return nil
}

func (c *cell) measure(m mode, frames int) (block, error) {
	g := c.group(m)
	if err := tellAll(g.readers, "begin "+m.order()); err != nil {
		return block{}, err
	}
	var sent report
	if err := g.writer.ask(&sent, "%s %d", m.order(), frames); err != nil {
		return block{}, err
	}
	heard, err := endAll(g.readers)
	if err != nil {
		return block{}, err
	}
	return join(sent, heard)
}

// join puts together what the writer and the readers saw of each frame.
func join(sent report, heard []report) (block, error) {
	b := block{sent: len(sent.Times), writerCPU: sent.CPU}
	written := map[int64][3]int64{}
	for _, w := range sent.Times {
		written[w[0]] = w
		b.copy = append(b.copy, micros(w[1], w[2]))
	}
	for _, h := range heard {
		b.readerCPU += h.CPU / float64(len(heard))
		for _, r := range h.Times {
			w, ok := written[r[0]]
			if !ok {
				continue // of the block before
			}
			b.received++
			b.wake, b.held = append(b.wake, micros(w[2], r[1])), append(b.held, micros(w[1], r[1]))
			b.total = append(b.total, micros(w[1], r[2]))
		}
	}
	if len(heard) > 0 && b.received == 0 {
		return b, errors.New("no frame arrived")
	}
	return b, nil
}

func micros(from, to int64) float64 { return float64(to-from) / 1000 }

// all is everything that a cell has measured in a mode.
func (c *cell) all(m mode) block {
	var sum block
	for _, r := range c.rounds {
		sum.add(r[m])
	}
	return sum
}

// stage measures cells in turn, round after round. The first round is not
// counted: caches and socket buffers are cold.
func stage(ctx context.Context, base, peer string, cells []cell, rounds, frames int) (done []*cell, err error) {
	defer func() {
		for _, c := range done {
			err = errors.Join(err, c.close())
		}
	}()
	for _, want := range cells {
		c, err := openCell(ctx, base, peer, want.shape, want.readers)
		if err != nil {
			return done, err
		}
		done = append(done, c)
	}
	start := time.Now()
	for i := range rounds + 1 {
		for _, c := range done {
			if err := c.round(frames); err != nil {
				return done, err
			}
			if i == 0 {
				c.rounds = nil
			}
		}
		say("frames: %d sizes and readers, round %d of %d, %.0f s", len(done), i, rounds, time.Since(start).Seconds())
	}
	return done, nil
}

// folder is where sockets and rings are: in RAM, and with a short path, since
// a unix socket's has 107 bytes at most.
func folder() (string, error) {
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = os.TempDir()
	}
	dir, err := os.MkdirTemp(base, "perch-bench-")
	if err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	return filepath.Clean(dir), nil
}
