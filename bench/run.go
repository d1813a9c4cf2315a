package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// runCommand measures everything, or some parts.
type runCommand struct {
	Quick bool     `help:"In two minutes: fewer sizes, fewer rounds."`
	Only  []string `enum:"frames,ring,faults,readings,fleet,video,jpeg,detector,files,jsonsender" placeholder:"PART" help:"Measure only frames, ring, faults, readings, fleet, video, jpeg, detector, files or jsonsender; may be repeated."`
	Write bool     `help:"Put the tables into docs/BENCHMARKS.md; not with --only."`
	Bin   string   `default:"bin" type:"existingdir" help:"Where the programs are (make build)."`
	Disk  string   `type:"existingdir" help:"A folder on the disk that rows are written to; default: the system's folder for temporary files."`
}

// document is what --write writes to.
const document = "docs/BENCHMARKS.md"

// effort is how much is measured.
type effort struct {
	rounds, frames         int // of the cells that the bars are about
	moreRounds, moreFrames int // of all others; 0 is not at all
	stalls, kills, ups     int
	rowSeconds             int
	ceilingSeconds         int // 0 is not at all
	idle                   time.Duration
	videoRounds            int
	segment                time.Duration // of video, and how long each way is measured
	jpegRounds             int
	looks                  int // of the detector
	loads                  []load
	fileRounds             int
	sends, sendRounds      int // records, and how often
}

func (c *runCommand) effort() effort {
	if c.Quick {
		return effort{rounds: 3, frames: 10, stalls: 1, kills: 2, ups: 1, rowSeconds: 2, idle: 8 * time.Second,
			videoRounds: 1, segment: 2 * time.Second, jpegRounds: 3, looks: 5, loads: loads(100, 8), fileRounds: 1,
			sends: 20_000, sendRounds: 1}
	}
	return effort{rounds: 12, frames: 20, moreRounds: 4, moreFrames: 15, stalls: 3, kills: 7, ups: 5, rowSeconds: 5,
		ceilingSeconds: 3, idle: 30 * time.Second, videoRounds: 4, segment: 5 * time.Second, jpegRounds: 12, looks: 20, loads: loads(300, 30),
		fileRounds: 4, sends: 20_000, sendRounds: 5}
}

func (c *runCommand) wants(part string) bool {
	return len(c.Only) == 0 || slices.Contains(c.Only, part)
}

// Run measures, prints, and writes.
func (c *runCommand) Run(ctx context.Context) (err error) {
	if c.Write && len(c.Only) > 0 {
		return errors.New("--write takes all parts: leave --only out")
	}
	if c.Disk == "" {
		c.Disk = os.TempDir()
	}
	dir, err := folder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r, err := c.measure(ctx, dir, c.effort())
	if err != nil {
		return err
	}
	sections := r.sections(machine(ctx, strings.Join(append([]string{"go run ./bench"}, os.Args[1:]...), " ")))
	for _, s := range sections {
		if s.text != "" {
			fmt.Printf("\n%s\n", s.text)
		}
	}
	if c.Write {
		return write(document, sections)
	}
	return nil
}

// results is all that was measured.
type results struct {
	bars  []bar
	cells []*cell
	rows  []rowRun
	fleet fleetResult
	video videoResult
	jpeg  jpegResult
	looks looksResult
	files filesResult
	sends sendResult
}

func (r *results) sections(machine string) []section {
	return []section{{"machine", machine}, {"bars", barTable(r.bars)}, {"frames", frameTable(r.cells)},
		{"readings", rowTable(r.rows)}, {"fleet", r.fleet.table()}, {"video", r.video.table()}, {"jpeg", r.jpeg.table()},
		{"detector", r.looks.table()}, {"files", r.files.table()}, {"jsonsender", r.sends.table()}, {"jsonsender-idle", r.sends.idleTable()}}
}

// say tells how far it is.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (c *runCommand) measure(ctx context.Context, dir string, e effort) (r results, err error) {
	for _, part := range []struct {
		name string
		do   func(context.Context, string, effort, *results) error
	}{{"frames", c.frames}, {"ring", c.ring}, {"faults", c.faults}, {"readings", c.readings}, {"fleet", c.fleet},
		{"video", c.video}, {"jpeg", c.jpeg}, {"detector", c.detector}, {"files", c.files},
		{"jsonsender", c.jsonsender}} {
		if !c.wants(part.name) {
			continue
		}
		if err := errors.Join(part.do(ctx, dir, e, &r), ctx.Err()); err != nil {
			return r, fmt.Errorf("measure %s: %w", part.name, err)
		}
	}
	return r, nil
}

func (c *runCommand) frames(ctx context.Context, dir string, e effort, r *results) error {
	peer, err := compilePeer(ctx, dir)
	if err != nil {
		return err
	}
	small, medium, hd, uhd := shapes()
	first := []cell{{shape: small, readers: 1}, {shape: hd, readers: 1}, {shape: uhd, readers: 1}, {shape: hd, readers: 8}}
	got, err := stage(ctx, dir, peer, first, e.rounds, e.frames)
	if err != nil {
		return err
	}
	r.bars = append(r.bars, frameCells{small: got[0], hd: got[1], uhd: got[2], hdMany: got[3]}.bars()...)
	r.cells = append(r.cells, got...)
	if e.moreRounds == 0 {
		return nil
	}
	for _, s := range []shape{small, medium, hd, uhd} {
		var more []cell
		for _, readers := range []int{1, 4, 8} {
			if !slices.ContainsFunc(first, func(c cell) bool { return c.shape.name == s.name && c.readers == readers }) {
				more = append(more, cell{shape: s, readers: readers})
			}
		}
		got, err := stage(ctx, dir, peer, more, e.moreRounds, e.moreFrames)
		if err != nil {
			return err
		}
		r.cells = append(r.cells, got...)
	}
	slices.SortStableFunc(r.cells, func(a, b *cell) int {
		if a.shape.name != b.shape.name {
			return a.shape.bytes() - b.shape.bytes()
		}
		return a.readers - b.readers
	})
	return nil
}

func (c *runCommand) ring(ctx context.Context, dir string, _ effort, r *results) error {
	l, err := measureLoops(ctx, dir)
	r.bars = append(r.bars, l.bars()...)
	return err
}

func (c *runCommand) faults(ctx context.Context, dir string, e effort, r *results) error {
	_, _, hd, _ := shapes()
	say("faults: %d stalls of 2 s, %d kills", e.stalls, e.kills)
	f, err := measureFaults(ctx, dir, hd, 3, e.stalls, e.kills)
	r.bars = append(r.bars, f.bars()...)
	return err
}

func (c *runCommand) readings(ctx context.Context, dir string, e effort, r *results) error {
	const bar = 50_000
	say("readings: %d/s for %d s", bar, e.rowSeconds)
	run, err := measureRows(ctx, dir, c.Disk, c.Bin, bar, bar*e.rowSeconds)
	r.rows, r.bars = append(r.rows, run), append(r.bars, run.bars()...)
	if err != nil || e.ceilingSeconds == 0 {
		return err
	}
	good, bad, err := ceiling(ctx, dir, c.Disk, c.Bin, e.ceilingSeconds)
	r.rows = append(r.rows, good, bad)
	return err
}

func (c *runCommand) fleet(ctx context.Context, dir string, e effort, r *results) (err error) {
	say("fleet: up %d times, then idle for %s", e.ups, e.idle)
	r.fleet, err = measureFleet(ctx, dir, c.Disk, c.Bin, e.ups, e.idle)
	r.bars = append(r.bars, r.fleet.bars()...)
	return err
}

// inStudio does something with a camera's frames at hand.
func (c *runCommand) inStudio(dir string, segment time.Duration, do func(*studio) error) error {
	s, err := openStudio(dir, c.Disk, c.Bin, segment)
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.close())
}

func (c *runCommand) video(ctx context.Context, dir string, e effort, r *results) error {
	return c.inStudio(dir, e.segment, func(s *studio) (err error) {
		r.video, err = measureVideo(ctx, s, e.videoRounds)
		r.bars = append(r.bars, r.video.bars()...)
		return err
	})
}

func (c *runCommand) jpeg(ctx context.Context, dir string, e effort, r *results) (err error) {
	_, _, hd, _ := shapes()
	say("jpeg: %d rounds", e.jpegRounds)
	r.jpeg, err = measureJPEG(ctx, dir, hd, e.jpegRounds, 10)
	r.bars = append(r.bars, r.jpeg.bars()...)
	return err
}

func (c *runCommand) detector(ctx context.Context, dir string, e effort, r *results) error {
	return c.inStudio(dir, e.segment, func(s *studio) (err error) {
		if s.model == "" {
			return nil
		}
		say("detector: %d looks with %s, %d stalls", e.looks, s.model, e.stalls)
		r.looks, err = measureLooks(ctx, s, e.looks, e.stalls)
		r.bars = append(r.bars, r.looks.bars()...)
		return err
	})
}

func (c *runCommand) files(ctx context.Context, dir string, e effort, r *results) (err error) {
	r.files, err = measureFiles(ctx, dir, c.Disk, c.Bin, e.loads, e.fileRounds)
	r.bars = append(r.bars, r.files.bars()...)
	return err
}

func (c *runCommand) jsonsender(ctx context.Context, dir string, e effort, r *results) (err error) {
	say("jsonsender: %d readings, %d rounds", e.sends, e.sendRounds)
	r.sends, err = measureSends(ctx, dir, c.Bin, sendSchemes(), sendWays(), e.sends, e.sendRounds)
	if err == nil {
		r.sends.wear, err = measureWear(ctx, dir, c.Disk, c.Bin, e.idle)
	}
	if err == nil {
		r.sends.idle, err = measureIdleSends(ctx, dir, c.Disk, c.Bin, e.idle)
	}
	r.bars = append(r.bars, r.sends.bars()...)
	return err
}
