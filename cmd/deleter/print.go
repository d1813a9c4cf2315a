package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// answer is what "deleter plan -o json" prints.
type answer struct {
	Files  []answerFile  `json:"files"`
	Places []answerPlace `json:"places"`
	Short  []short       `json:"short"`
	Rule   string        `json:"rule_error,omitempty"`
}

// answerFile is a file that would go, in the order of their going.
type answerFile struct {
	ID     sidecar.ID    `json:"id"`
	At     place         `json:"at"`
	State  spool.State   `json:"state"`
	Class  sidecar.Class `json:"class"`
	AgeS   *float64      `json:"age_s"` // null is not known
	Bytes  int64         `json:"bytes"` // with its sidecar, in blocks
	By     cause         `json:"by"`
	Reason string        `json:"reason"`
	Lost   bool          `json:"lost"` // no receiver has it
}

// answerPlace is how a place stands.
type answerPlace struct {
	At        place    `json:"at"`
	Dir       string   `json:"dir"`
	Absent    string   `json:"absent,omitempty"` // why there is nothing to be seen
	Files     int      `json:"files"`
	Used      int64    `json:"used_bytes"`
	Goes      int      `json:"go_files"`
	GoesBytes int64    `json:"go_bytes"`
	Lost      int      `json:"lost_files"`
	Free      int64    `json:"free_bytes"`
	Total     int64    `json:"total_bytes"`
	PerDay    *float64 `json:"bytes_a_day"` // null is not known
	FullIn    *float64 `json:"full_in_s"`
	FloorIn   *float64 `json:"min_free_in_s"` // null also where none is set
}

// printPlan is the verb plan: what the deleter would do now. It makes nothing,
// and holds nothing.
func printPlan(_ context.Context, of worker.Asked, cfg Config) error {
	now, err := clock.System()
	if err != nil {
		return err
	}
	p := planner{&cfg, now.Now(), now.BootID()}
	n := of.Topology.Node
	shelves := []*shelf{newShelf(ram, &cfg.RAM), newShelf(disk, &cfg.Disk)}
	if err := errors.Join(shelves[0].peek(n.CacheDir, ""), shelves[1].peek(n.StoreDir, n.StoreMount)); err != nil {
		return err
	}
	plan := p.plan(shelves...)
	a := p.answer(plan, shelves, map[place]string{ram: n.CacheDir, disk: n.StoreDir})
	if of.JSON {
		out := json.NewEncoder(of.Out)
		out.SetIndent("", "  ")
		return out.Encode(a)
	}
	return p.print(of.Out, a)
}

// peek looks at a place that may not be there.
func (s *shelf) peek(dir, mount string) error {
	sp, there, err := spool.Peek(dir, mount)
	switch {
	case errors.Is(err, spool.ErrNotMounted):
		s.gone(err)
		return nil
	case err != nil:
		return err
	case !there:
		s.gone(errors.New("there is no such folder"))
		return nil
	}
	if err = s.scan(sp, func() {}); err == nil {
		s.room, err = sp.Room()
	}
	return errors.Join(err, sp.Close())
}

func (p *planner) answer(of plan, shelves []*shelf, dirs map[place]string) answer {
	a := answer{Files: []answerFile{}, Short: append([]short{}, of.short...)}
	if of.rules != nil {
		a.Rule = of.rules.Error()
	}
	for _, d := range of.goes {
		f := answerFile{ID: d.id(), At: d.at, State: d.state, Class: d.class(), Bytes: d.bytes, By: d.by, Reason: d.reason, Lost: d.lost()}
		if age, known := d.end.Age(p.now, p.bootID); known {
			f.AgeS = seconds(age)
		}
		a.Files = append(a.Files, f)
	}
	for _, s := range shelves {
		a.Places = append(a.Places, p.place(s, a.Files, dirs[s.at]))
	}
	return a
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

func (p *planner) place(s *shelf, goes []answerFile, dir string) answerPlace {
	a := answerPlace{At: s.at, Dir: dir, Files: len(s.files), Used: s.used(), Free: s.room.Free, Total: s.room.Total}
	if s.absent != nil {
		a.Absent = s.absent.Error()
		return a
	}
	for _, f := range goes {
		if f.At == s.at {
			a.Goes, a.GoesBytes = a.Goes+1, a.GoesBytes+f.Bytes
		}
		if f.At == s.at && f.Lost {
			a.Lost++
		}
	}
	rate, known := forecastOf(s, p.now, p.bootID)
	if !known {
		return a
	}
	day := rate.perSecond * (24 * time.Hour).Seconds()
	a.PerDay, a.FullIn = &day, seconds(rate.in(s.room.Free))
	if floor := int64(s.limits.MinFree); floor > 0 {
		a.FloorIn = seconds(rate.in(s.room.Free - floor))
	}
	return a
}

// print prints tables for people.
func (p *planner) print(to io.Writer, a answer) error {
	if len(a.Files) > 0 {
		t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "ORDER\tAT\tSTATE\tCLASS\tAGE\tSIZE\tWHY\tID")
		for i, f := range a.Files {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i+1, f.At, f.State, f.Class, ageOf(f.AgeS), topology.Bytes(f.Bytes), f.why(), f.ID)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(to)
	}
	for _, at := range a.Places {
		if _, err := fmt.Fprintln(to, p.sentence(at)); err != nil {
			return err
		}
	}
	for _, s := range a.Short {
		fmt.Fprintln(to, s.Error())
	}
	if a.Rule != "" {
		fmt.Fprintln(to, a.Rule)
	}
	return nil
}

func (f answerFile) why() string {
	if f.Lost {
		return string(f.By) + ", a loss"
	}
	return string(f.By)
}

func ageOf(s *float64) string {
	if s == nil {
		return "not known"
	}
	return ageText(time.Duration(*s * float64(time.Second)))
}

// sentence says how a place stands, and when it will be full.
func (p *planner) sentence(a answerPlace) string {
	if a.Absent != "" {
		return fmt.Sprintf("%s: %s: %s", a.At, a.Dir, a.Absent)
	}
	text := fmt.Sprintf("%s: %s in %d files, of which %s in %d go", a.At, topology.Bytes(a.Used), a.Files, topology.Bytes(a.GoesBytes), a.Goes)
	if a.Lost > 0 {
		text += fmt.Sprintf(" (%d that no receiver has)", a.Lost)
	}
	text += fmt.Sprintf("; %s of %s free", topology.Bytes(a.Free), topology.Bytes(a.Total))
	if a.PerDay == nil {
		return text + "; when it will be full is not known"
	}
	text += fmt.Sprintf("; at %s a day it is full in %s", topology.Bytes(*a.PerDay), p.when(*a.FullIn))
	if a.FloorIn != nil {
		text += fmt.Sprintf(", and at min_free in %s", p.when(*a.FloorIn))
	}
	return text
}

// when is a moment ahead, with its date where the clock is right.
func (p *planner) when(s float64) string {
	text := ageOf(&s)
	if p.now.Synced {
		text += p.now.Wall.Add(time.Duration(s * float64(time.Second))).Local().Format(" (2 January 2006 15:04)")
	}
	return text
}
