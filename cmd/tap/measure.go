package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

type (
	hz struct {
		where
		until
	}
	bw struct {
		where
		until
	}
	delay struct {
		where
		until
	}
)

// Validate asks for what a rate needs.
func (c *hz) Validate() error {
	if c.messages() == 1 {
		return errors.New("a rate needs two messages: want --count 2 or more, or --for 2s")
	}
	return c.until.Validate()
}

// Run prints rates.
func (c *hz) Run(ctx context.Context, to worker.Streams) error {
	return measure(ctx, to, c.where, c.until, hzView())
}

// Run prints bandwidths.
func (c *bw) Run(ctx context.Context, to worker.Streams) error {
	return measure(ctx, to, c.where, c.until, bwView())
}

// Run prints delays.
func (c *delay) Run(ctx context.Context, to worker.Streams) error {
	return measure(ctx, to, c.where, c.until, delayView())
}

// maxTopics bounds what is measured: a peer can invent any number.
const maxTopics = 256

// board holds the meters of all topics, for the one who hears and the one who
// prints.
type board struct {
	bootID string

	mu     sync.Mutex
	meters map[msg.Topic]*meter
	left   uint64 // messages of topics beyond maxTopics, or of another boot
}

// add measures a message. The pixels of a frame are not looked at: its
// descriptor says how many bytes it has.
func (b *board) add(m *msg.Message, at time.Duration) {
	s := sample{epoch: m.Epoch, seq: m.Seq, boot: time.Duration(m.BootNS), at: at}
	s.bus = len(m.Topic()) + len(m.Raw()) + len(m.Payload)
	if m.Kind == msg.KindFrame {
		f, err := m.Frame()
		if err != nil {
			b.leave()
			return
		}
		s.data = f.Size
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.meters[m.Topic()]
	if m.BootID != b.bootID || one == nil && len(b.meters) == maxTopics {
		b.left++
		return
	}
	if one == nil {
		one = &meter{}
		b.meters[m.Topic()] = one
	}
	one.add(s)
}

func (b *board) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left++
}

// rows are what there is to say of each topic since the last look, or in all.
func (b *board) rows(now time.Duration, all bool) (list []row) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, topic := range slices.Sorted(maps.Keys(b.meters)) {
		m := b.meters[topic]
		r := row{Topic: topic, Epoch: m.last.epoch, Runs: m.runs, Seq: m.last.seq, Summary: all, Silent: now - m.last.at}
		if r.tally = m.all; !all {
			r.tally = m.look()
		}
		list = append(list, r)
	}
	return list
}

// row is a line of output.
type row struct {
	Topic   msg.Topic
	Epoch   msg.Epoch
	Runs    int
	Seq     msg.Seq
	Summary bool
	Silent  time.Duration
	tally   tally
}

// measure hears messages and prints a row a topic each second, and one of all
// at the end.
func measure(ctx context.Context, to worker.Streams, w where, u until, v view) error {
	sel, err := w.selection()
	if err != nil {
		return err
	}
	system, err := clock.System()
	if err != nil {
		return err
	}
	e, err := newEar(sel, u.Timeout, u.messages() > 0)
	if err != nil {
		return err
	}
	b := &board{bootID: system.BootID(), meters: map[msg.Topic]*meter{}}
	each := func(m *msg.Message, at time.Duration) bool {
		b.add(m, at)
		return u.messages() == 0 || e.heard < u.messages()
	}
	p := printer{out: to.Out, view: v, json: w.Output == "json"}
	err = u.listen(ctx, e, each, func(done <-chan error) error { return p.eachSecond(b, done) })
	if b.left > 0 {
		fmt.Fprintf(to.Err, "tap: left out %d messages: of another boot, malformed, or of more than %d topics\n", b.left, maxTopics)
	}
	return errors.Join(err, e.close(to.Err))
}

// printer prints rows.
type printer struct {
	out   io.Writer
	view  view
	json  bool
	width int // of the topic column; 0 before the first row
}

func (p *printer) eachSecond(b *board, done <-chan error) error {
	began := clock.Boot()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := p.print(b.rows(clock.Boot(), false)); err != nil {
				return err
			}
		case err := <-done:
			now := clock.Boot()
			return errors.Join(p.summary(b.rows(now, true), now-began), err)
		}
	}
}

func (p *printer) summary(rows []row, ran time.Duration) error {
	if len(rows) > 0 && !p.json {
		if _, err := fmt.Fprintf(p.out, "\nin all, in %.1f s:\n", ran.Seconds()); err != nil {
			return err
		}
		p.width = 0 // with the header again
	}
	return p.print(rows)
}

func (p *printer) print(rows []row) error {
	if p.json {
		return p.printJSON(rows)
	}
	widest := 0
	for _, r := range rows {
		widest = max(widest, len(r.Topic))
	}
	text := ""
	if widest > p.width {
		p.width = max(widest, 24)
		text = p.line("TOPIC", p.view.heads, "MISSED", "")
	}
	for _, r := range rows {
		text += p.line(string(r.Topic), p.view.cells(&r.tally), fmt.Sprint(r.tally.missed), r.note())
	}
	_, err := io.WriteString(p.out, text)
	return err
}
