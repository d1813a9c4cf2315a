package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
)

// going is a file that is held and about to be removed.
type going struct {
	doomed
	held *spool.Held
	side *sidecar.Sidecar // with its last event
}

// remove deletes some files: each is held, told of, and only then removed.
// What fails is left where it is, for a later pass.
func (c *cleaner) remove(some []doomed) error {
	var errs []error
	var all []going
	for _, d := range some {
		c.w.Progress()
		g, ok, err := c.hold(d)
		errs = append(errs, err)
		if ok {
			all = append(all, g)
		}
	}
	told, lossErr := c.tellLosses(all)
	told, goneErr := c.tellGone(told)
	errs = append(errs, lossErr, goneErr)
	for _, g := range told {
		c.w.Progress()
		errs = append(errs, c.finish(g))
	}
	for _, g := range all {
		errs = append(errs, g.held.Release())
	}
	return few(errs)
}

// few says what failed, of much that may have failed alike.
func few(errs []error) error {
	const most = 3
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if more := len(errs) - most; more > 0 {
		errs = append(errs[:most], fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}

// hold takes a file, if it still is what was decided about.
func (c *cleaner) hold(d doomed) (going, bool, error) {
	sp := c.spool(d.at)
	if sp == nil {
		return going{}, false, nil
	}
	h, err := sp.Hold(d.state, d.id())
	switch {
	case errors.Is(err, spool.ErrHeld):
		c.w.Counter("skipped_held").Add(1)
		return going{}, false, nil
	case errors.Is(err, fs.ErrNotExist):
		c.shelf(d.at).look(sp, d.id())
		return going{}, false, nil
	case err != nil:
		return going{}, false, err
	}
	side := h.Sidecar()
	if now := newFile(d.at, d.state, d.told, side); !now.same(d.file) {
		c.shelf(d.at).files[d.id()] = now // to be decided about anew
		return going{}, false, h.Release()
	}
	e := c.files.Event("gone", d.reason)
	if d.by == byWhen {
		e.Rule = c.shelf(d.at).limits.When.String()
	}
	side.Add(e)
	return going{d, h, side}, true, nil
}

// tellLosses writes the losses among them down. It returns those that may go on.
func (c *cleaner) tellLosses(all []going) ([]going, error) {
	var lost, rest []going
	for _, g := range all {
		if g.lost() && !c.told[g.id()] {
			lost = append(lost, g)
		} else {
			rest = append(rest, g)
		}
	}
	if len(lost) == 0 {
		return all, nil
	}
	if c.disk == nil {
		return rest, fmt.Errorf("%d unsent files are not deleted: the store is not there to tell of them", len(lost))
	}
	if err := c.losses.add(lost); err != nil {
		return rest, err
	}
	for _, g := range lost {
		c.told[g.id()] = true
	}
	return all, nil
}

// tellGone writes all of them to the log. Where that fails it returns those that
// must go nevertheless.
func (c *cleaner) tellGone(all []going) ([]going, error) {
	var sides []*sidecar.Sidecar
	for _, g := range all {
		if !c.logged[g.id()] {
			sides = append(sides, g.side)
		}
	}
	err := c.logGone(sides)
	if err == nil {
		for _, side := range sides {
			c.logged[side.ID] = true
		}
		return all, nil
	}
	var must []going
	for _, g := range all {
		if room := c.shelf(g.at).room; c.logged[g.id()] || g.urgent() || room.Free < room.Total/4 {
			must = append(must, g)
		}
	}
	return must, err
}

// finish removes a file that has been told of.
func (c *cleaner) finish(g going) error {
	err := g.held.Remove()
	if err != nil && !errors.Is(err, spool.ErrLitter) {
		return err
	}
	if !c.logged[g.id()] {
		c.w.Counter("unrecorded_files").Add(1)
	}
	delete(c.shelf(g.at).files, g.id())
	delete(c.told, g.id())
	delete(c.logged, g.id())
	what := []string{"deleted", "deleted_" + string(g.by), "deleted_" + string(g.class())}
	if g.lost() {
		what = append(what, "lost")
	}
	for _, name := range what {
		c.w.Counter(name + "_files").Add(1)
		c.w.Counter(name + "_bytes").Add(int(g.side.Bytes))
	}
	c.w.Log.Debug("deleted", "file", g.side.Name, "at", string(g.at), "reason", g.reason)
	c.files.Tell(g.side)
	return err
}
