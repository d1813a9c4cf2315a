package main

import "fmt"

// bar is a figure with what it must be at most, and what it should be.
type bar struct {
	what  string
	unit  string
	value float64
	must  float64
	aim   float64
	note  string
}

func (b bar) verdict() string {
	switch {
	case b.value <= b.aim:
		return "PASS, aim reached"
	case b.value <= b.must:
		return "PASS"
	default: // NaN, not measured, is no pass
		return "MISS"
	}
}

// frameCells are the cells that the bars are about, measured in turn.
type frameCells struct {
	small, hd, uhd, hdMany *cell
}

// pairs is the median of what each round gives.
func pairs(rounds int, ratio func(i int) float64) float64 {
	var list []float64
	for i := range rounds {
		list = append(list, ratio(i))
	}
	return median(list)
}

func of(c *cell, m mode, round int) *block {
	b := c.rounds[round][m]
	return &b
}

func readerCPU(c *cell) float64 {
	return pairs(len(c.rounds), func(i int) float64 { return of(c, ring, i).perRead(c.readers) / of(c, message, i).perRead(c.readers) })
}

func (f frameCells) bars() []bar {
	n := len(f.hd.rounds)
	return []bar{
		{what: "1080p, 1 reader: descriptor / a 200-byte message in C after the same memcpy", must: 1.45, aim: 1.2,
			value: pairs(n, func(i int) float64 { return p50(of(f.hd, ring, i).wake) / p50(of(f.hd, message, i).wake) })},
		{what: "1080p, 1 reader: total / (memcpy + that message)", must: 1.3, aim: 1.1,
			value: pairs(n, func(i int) float64 { return p50(of(f.hd, ring, i).total) / p50(of(f.hd, message, i).held) })},
		{what: "1080p, 1 reader: total / pixels in the message", must: 0.35, aim: 0.2,
			value: pairs(n, func(i int) float64 { return p50(of(f.hd, ring, i).total) / p50(of(f.hd, pixels, i).total) }),
			note: fmt.Sprintf("%.2f where C sends them with one copy",
				pairs(n, func(i int) float64 { return p50(of(f.hd, ring, i).total) / p50(of(f.hd, pixelsC, i).total) }))},
		{what: "1 reader: descriptor at 4K / at 64 KiB", must: 1.5, aim: 1.1,
			value: pairs(n, func(i int) float64 { return p50(of(f.uhd, ring, i).wake) / p50(of(f.small, ring, i).wake) })},
		{what: "1080p: writer CPU with 8 readers / with 1", must: 1.5, aim: 1.2,
			value: pairs(n, func(i int) float64 { return of(f.hdMany, ring, i).perFrame() / of(f.hd, ring, i).perFrame() })},
		{what: "1080p, 1 reader: reader CPU a message / a C reader's", must: 2, aim: 1.5, value: readerCPU(f.hd),
			note: fmt.Sprintf("%.2f at 64 KiB, where there is little to verify", readerCPU(f.small))},
	}
}

func (l loops) bars() []bar {
	return []bar{
		{what: "pin + unpin", unit: "ns", value: l.PinUnpin.Nanos, must: 100, aim: 20},
		{what: "claim + publish", unit: "ns", value: l.ClaimPublish.Nanos, must: 100, aim: 20},
		{what: "allocations of pin + unpin, claim + publish", value: l.PinUnpin.Allocs + l.ClaimPublish.Allocs},
	}
}

func (f faults) bars() []bar {
	return []bar{
		{what: "age of the first frame after a 2 s stall, newest reader", unit: "intervals", must: 1.5, aim: 1,
			value: median(f.stalled), note: fmt.Sprintf("%d stalls, worst %.2f", len(f.stalled), quantile(f.stalled, 1))},
		{what: "writer killed: all readers hold a frame of the next one", unit: "intervals", must: 3, aim: 1,
			value: median(f.restart), note: fmt.Sprintf("%d kills, worst %.2f; from the next writer's own first frame %.2f",
				len(f.restart), quantile(f.restart, 1), median(f.takeOver))},
	}
}

func (r rowRun) bars() []bar {
	return []bar{{what: fmt.Sprintf("rows lost of %d at %d/s", r.rows, r.rate), value: float64(r.lost),
		note: fmt.Sprintf("published at %.0f/s, the last row in the file after %.0f ms", r.held, r.behind*1000)}}
}

// mib is the bar for a worker's memory.
const mib = 1 << 20

func (r fleetResult) bars() []bar {
	most, idle := footprint{}, 0.0
	for _, p := range r.memory {
		if p.resident > most.resident && !p.model {
			most = p
		}
	}
	for _, p := range r.idle {
		idle += p.part
	}
	return []bar{
		{what: "demo fleet: up to all ready", unit: "s", value: median(r.ready), must: 1, aim: 1,
			note: fmt.Sprintf("%d starts, worst %.2f", len(r.ready), quantile(r.ready, 1))},
		{what: "largest Go process, rings not counted", unit: "MiB", value: float64(most.resident) / mib, must: 25, aim: 25, note: most.name},
		{what: "idle fleet: CPU", unit: "% of a core", value: idle * 100, must: 1, aim: 1,
			note: fmt.Sprintf("sensor at 1 Hz, csvwriter, supervisor, over %.0f s", r.window.Seconds())},
	}
}

func p50(values []float64) float64 { return quantile(values, 0.5) }
