package main

import (
	"math"
	"time"

	"github.com/perch-edge/perch/pkg/pixel"
)

const (
	cellsAcross = 128 // points of brightness that are compared
	cellsDown   = 96
	averaged    = 4 // pixels beside each other that make a point, against noise
)

// gate compares a frame's brightness with that of the frame at which the model
// looked last. That is not the frame before: what moves slowly is noticed too. A
// change that the whole picture shares, as when a cloud comes, is taken out first.
type gate struct {
	cfg    Config
	looked bool
	change bool          // something moved in the last frame
	at     time.Duration // boot time of the frame that the model looked at last
	size   pixel.Size
	masked []bool
	last   []int16 // sums of averaged pixels; -1 is masked
	now    []int16
}

func newGate(cfg Config) *gate {
	const n = cellsAcross * cellsDown
	g := &gate{cfg: cfg, masked: make([]bool, n), last: make([]int16, n), now: make([]int16, n)}
	for i := range g.masked {
		g.masked[i] = cfg.Mask.Covers((float64(i%cellsAcross)+0.5)/cellsAcross, (float64(i/cellsAcross)+0.5)/cellsDown)
	}
	return g
}

// still says that the model need not look. When it says no, the frame is the one
// to which later ones are compared.
func (g *gate) still(img pixel.Image, at time.Duration) (bool, error) {
	luma, err := img.Plane(0)
	if err != nil {
		return false, err
	}
	step, first := 1, 0 // bytes from pixel to pixel, and to the first one's brightness
	switch img.Format {
	case pixel.YUYV:
		step = 2
	case pixel.RGB24:
		step, first = 3, 1
	}
	g.sample(luma, img.Size, step, first)
	g.change = g.looked && img.Size == g.size && g.moved()
	fresh := g.looked && img.Size == g.size && at >= g.at && at-g.at < g.cfg.AtLeastEvery.D()
	if fresh && !g.change {
		return true, nil
	}
	g.looked, g.size, g.at = true, img.Size, at
	g.last, g.now = g.now, g.last
	return false, nil
}

func (g *gate) sample(luma pixel.Rows, size pixel.Size, step, first int) {
	across := size.Width - averaged
	for j := range cellsDown {
		y := (2*j + 1) * size.Height / (2 * cellsDown)
		row := luma.Row(y)
		for i := range cellsAcross {
			x := (2*i + 1) * across / (2 * cellsAcross)
			sum := 0
			for k := range averaged {
				sum += int(row[(x+k)*step+first])
			}
			at := j*cellsAcross + i
			if g.masked[at] {
				sum = -1
			}
			g.now[at] = int16(sum)
		}
	}
}

// moved says whether enough of the points differ.
func (g *gate) moved() bool {
	shift, n := 0, 0
	for i, v := range g.now {
		if v >= 0 {
			shift += int(v) - int(g.last[i])
			n++
		}
	}
	if n == 0 {
		return false
	}
	shift /= n
	most, changed := int(g.cfg.GateLevels*averaged), 0
	for i, v := range g.now {
		if d := int(v) - int(g.last[i]) - shift; v >= 0 && (d > most || -d > most) {
			changed++
		}
	}
	return changed > 0 && float64(changed) >= g.cfg.GateArea*float64(n)
}

// rounded is v to the nearest 1/parts.
func rounded(v float32, parts float64) float64 { return math.Round(float64(v)*parts) / parts }
