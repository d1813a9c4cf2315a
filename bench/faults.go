package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/clock"
)

// faults is what readers see when something stops or dies, in frame intervals.
type faults struct {
	stalled  []float64 // age of the first frame after a reader stood still for two seconds
	restart  []float64 // from the kill of the writer to the last reader holding a frame of the next
	takeOver []float64 // from the next writer's first frame to the last reader holding one
}

// measureFaults stops readers and kills writers, several times.
func measureFaults(ctx context.Context, base string, s shape, readers, stalls, kills int) (f faults, err error) {
	c := &cell{shape: s, readers: readers}
	if c.dir, err = os.MkdirTemp(base, "c-"); err != nil {
		return f, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.startRing(ctx); err != nil {
		return f, err
	}
	for range stalls {
		ages, err := c.stall()
		if err != nil {
			return f, fmt.Errorf("stall: %w", err)
		}
		f.stalled = append(f.stalled, ages...)
	}
	for range kills {
		whole, own, err := c.kill(ctx)
		if err != nil {
			return f, fmt.Errorf("kill the writer: %w", err)
		}
		f.restart, f.takeOver = append(f.restart, whole), append(f.takeOver, own)
	}
	return f, nil
}

func intervals(nanos int64) float64 { return float64(nanos) / 1e9 * frameHz }

// stall stops all readers for two seconds while the writer goes on. The first
// frame that each holds after the gap is as old as it is at that moment.
func (c *cell) stall() (ages []float64, err error) {
	if err := tellAll(c.perch.readers, "begin"); err != nil {
		return nil, err
	}
	if err := c.perch.writer.tell("ring %d", 7*frameHz/2); err != nil {
		return nil, err
	}
	for _, order := range []struct {
		after time.Duration
		s     syscall.Signal
	}{{500 * time.Millisecond, syscall.SIGSTOP}, {2 * time.Second, syscall.SIGCONT}} {
		time.Sleep(order.after)
		for _, r := range c.perch.readers {
			if err := r.signal(order.s); err != nil {
				return nil, err
			}
		}
	}
	var sent report
	if err := c.perch.writer.hear(&sent); err != nil {
		return nil, err
	}
	captured := map[int64]int64{}
	for _, t := range sent.Times {
		captured[t[0]] = t[1]
	}
	heard, err := endAll(c.perch.readers)
	for _, h := range heard {
		first := afterGap(h.Times)
		ages = append(ages, intervals(first[1]-captured[first[0]]))
	}
	return ages, err
}

// afterGap is the frame that was held after the longest time without one.
func afterGap(times [][3]int64) (first [3]int64) {
	longest := int64(-1)
	for i := 1; i < len(times); i++ {
		if gap := times[i][1] - times[i-1][1]; gap > longest {
			longest, first = gap, times[i]
		}
	}
	return first
}

// kill kills the writer at some moment between two frames, while another
// process stands ready to take over, as after a restart.
func (c *cell) kill(ctx context.Context) (whole, own float64, err error) {
	next, err := c.startWriter(ctx)
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(tellAll(c.perch.readers, "begin"), c.perch.writer.tell("ring %d", 100*frameHz)); err != nil {
		return 0, 0, errors.Join(err, next.stop())
	}
	time.Sleep(500*time.Millisecond + rand.N(time.Second/frameHz))
	killed := int64(clock.Boot())
	if err := c.perch.writer.kill(); err != nil {
		return 0, 0, errors.Join(err, next.stop())
	}
	c.perch.writer = next
	var sent report
	if err := errors.Join(next.ask(nil, "open"), next.ask(&sent, "ring %d", frameHz)); err != nil {
		return 0, 0, err
	}
	heard, err := endAll(c.perch.readers)
	for i, h := range heard {
		held, ok := afterRestart(h.Times)
		if !ok {
			return 0, 0, fmt.Errorf("%s saw no frame of the next writer", readerName(i))
		}
		whole = max(whole, intervals(held-killed))
		own = max(own, intervals(held-sent.Times[0][1]))
	}
	return whole, own, err
}

// afterRestart is when the numbers of the frames began anew.
func afterRestart(times [][3]int64) (held int64, ok bool) {
	for i := 1; i < len(times); i++ {
		if times[i][0] < times[i-1][0] {
			return times[i][1], true
		}
	}
	return 0, false
}

func tellAll(children []*child, order string) error {
	for _, c := range children {
		if err := c.tell("%s", order); err != nil {
			return err
		}
	}
	return nil
}

// endAll ends the block of all readers and hears what they saw.
func endAll(readers []*child) (heard []report, err error) {
	for _, r := range readers {
		var h report
		if err := r.ask(&h, "end"); err != nil {
			return heard, err
		}
		if h.Bad > 0 {
			return heard, fmt.Errorf("%d words in frames that were not the frame's own: it is torn", h.Bad)
		}
		heard = append(heard, h)
	}
	return heard, nil
}
