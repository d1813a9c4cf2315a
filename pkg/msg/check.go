package msg

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/perch-edge/perch/internal/names"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/shm"
)

// What is checked here is checked on both sides: a publisher refuses to send
// what a subscriber would refuse to take.

func (h *Header) check() error {
	for _, err := range []error{h.Kind.check(), h.Source.Check(), h.Stream.Check(), checkNode(h.Node), checkBootID(h.BootID)} {
		if err != nil {
			return err
		}
	}
	switch {
	case h.Epoch == 0:
		return errors.New("epoch 0: want a run's own")
	case h.Seq > maxSeq:
		return fmt.Errorf("seq %d: want %d at most", h.Seq, uint64(maxSeq))
	case h.BootNS < 0:
		return fmt.Errorf("boot_ns %d: want 0 or more", h.BootNS)
	}
	return nil
}

func checkNode(node string) error {
	if node == "" || len(node) > maxLabel {
		return fmt.Errorf("node %.80q: want 1 to %d bytes", node, maxLabel)
	}
	for _, r := range node {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("node %.80q: want no control characters", node)
		}
	}
	return nil
}

func checkBootID(id string) error {
	if !plain(id, maxLabel, "-") {
		return fmt.Errorf("boot_id %.80q: want 1 to %d of a-z, A-Z, 0-9 and -", id, maxLabel)
	}
	return nil
}

// plain says whether s is 1 to most letters, digits and other bytes.
func plain(s string, most int, others string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !slices.Contains([]byte(others), c) {
			return false
		}
	}
	return s != "" && len(s) <= most
}

func checkStamp(s Stamp) error {
	if year := s.Wall.UTC().Year(); year < 1 || year > 9999 || s.Boot < 0 {
		return fmt.Errorf("stamp %s, %v after boot: want a year of four digits, and no time before the boot", s.Wall.UTC(), s.Boot)
	}
	return nil
}

func checkColumns(columns []string) error {
	if len(columns) == 0 || len(columns) > maxColumns {
		return fmt.Errorf("%d columns: want 1 to %d", len(columns), maxColumns)
	}
	for i, c := range columns {
		if names.Stream(c) != nil || slices.Contains(columns[:i], c) {
			return fmt.Errorf("column %.60q: want distinct names of 1 to 32 of a-z, 0-9, - and _, the unit last", c)
		}
	}
	return nil
}

func checkBad(bad map[string]string, columns []string) error {
	for c, why := range bad {
		if !slices.Contains(columns, c) || why == "" {
			return fmt.Errorf("bad says %.60q of %.60q: want a reason, of a column", why, c)
		}
	}
	return nil
}

func (r *Reading) check() error {
	if err := checkColumns(r.Columns); err != nil {
		return err
	}
	if len(r.Columns) != len(r.Values) {
		return fmt.Errorf("%d values for %d columns", len(r.Values), len(r.Columns))
	}
	return checkBad(r.Bad, r.Columns)
}

// check compares the geometry with the least that its format needs
// (pixel.Layout); a frame has at most room bytes.
func (g *Geometry) check(room int) error {
	format, err := pixel.ParseFormat(g.Format)
	if err != nil {
		return err
	}
	if g.Hz < 0 || g.Hz > 1e6 || math.IsNaN(g.Hz) {
		return fmt.Errorf("hz %g: want 0 (not known) to 1000000", g.Hz)
	}
	if err := (pixel.Colour{Range: g.ColourRange, Matrix: g.ColourMatrix}).Check(); err != nil {
		return err
	}
	if format == pixel.RGB24 && (g.ColourRange != "" || g.ColourMatrix != "") {
		return errors.New("colour range or matrix: want none for rgb24")
	}
	tight, _, err := pixel.Layout(format, pixel.Size{Width: g.Width, Height: g.Height})
	if err != nil {
		return err
	}
	if len(g.Planes) != len(tight) {
		return fmt.Errorf("%d planes: want %d for %s", len(g.Planes), len(tight), format)
	}
	for i, p := range g.Planes {
		if p.Rows < tight[i].Rows || p.Stride < tight[i].Stride || p.Stride > room/p.Rows || p.Offset < 0 || p.Offset > room-p.Stride*p.Rows {
			return fmt.Errorf("plane %d of %d rows of %d bytes from byte %d: want %d of %d at least, within %d bytes",
				i, p.Rows, p.Stride, p.Offset, tight[i].Rows, tight[i].Stride, room)
		}
	}
	return nil
}

func (f *FrameMessage) check() error {
	if want := string(ringName(f.Source, f.Stream)); f.Ring != want {
		return fmt.Errorf("ring %.80q: want %s", f.Ring, want)
	}
	if f.Slot < 0 || f.Slot >= shm.MaxSlots || f.Size < 0 || f.Size > maxFrame {
		return fmt.Errorf("slot %d, %d bytes: want a slot under %d, %d bytes at most", f.Slot, f.Size, shm.MaxSlots, maxFrame)
	}
	return f.Geometry.check(maxFrame)
}

func (d *Detection) check() error {
	if err := d.FrameSource.Check(); err != nil {
		return fmt.Errorf("frame_source: %w", err)
	}
	if d.FrameEpoch == 0 || d.FrameSeq > maxSeq || d.FrameBootNS < 0 || d.CoveredUntil < 0 {
		return fmt.Errorf("frame %s/%d at %d ns, covered until %d ns: want an epoch, a number under 2^53, and times since boot",
			d.FrameEpoch, d.FrameSeq, d.FrameBootNS, d.CoveredUntil)
	}
	if len(d.Gate) > maxLabel {
		return fmt.Errorf("gate %.80q: want at most %d bytes", d.Gate, maxLabel)
	}
	for i, o := range d.Objects {
		if err := o.check(); err != nil {
			return fmt.Errorf("object %d: %w", i, err)
		}
	}
	return nil
}

func (o *Object) check() error {
	if o.Label == "" || len(o.Label) > maxLabel {
		return fmt.Errorf("label %.80q: want 1 to %d bytes", o.Label, maxLabel)
	}
	if !(o.Score >= 0 && o.Score <= 1) {
		return fmt.Errorf("score %g: want 0 to 1", o.Score)
	}
	if !(o.Box[0] <= o.Box[2] && o.Box[1] <= o.Box[3]) {
		return fmt.Errorf("box %v: want x0, y0, x1, y1 with x0 <= x1 and y0 <= y1", o.Box)
	}
	return nil
}

func (f *File) check() error {
	if !plain(f.ID, maxID, "._-+,=@") || f.ID[0] == '.' {
		return fmt.Errorf("file id %.80q: want 1 to %d of a-z, A-Z, 0-9 and . _ - + , = @, no . first", f.ID, maxID)
	}
	if !slices.Contains(FileStates(), f.State) {
		return fmt.Errorf("file state %.80q: want one of %v", f.State, FileStates())
	}
	if len(f.Sidecar) > 0 && f.Sidecar[0] != '{' && string(f.Sidecar) != "null" {
		return fmt.Errorf("sidecar %.40s: want a JSON object, or null", f.Sidecar)
	}
	return nil
}

func (s *State) check() error {
	if s.PID < 0 || s.ProgressNS < 0 {
		return fmt.Errorf("pid %d, progress_ns %d: want 0 or more", s.PID, s.ProgressNS)
	}
	return nil
}
