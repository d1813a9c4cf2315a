package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/perch-edge/perch/pkg/msg"
)

// view is how one verb shows a tally: to people by cells under heads, to
// programs by named figures.
type view struct {
	heads   []string
	cells   func(*tally) []string
	figures func(*tally) []figure
}

type figure struct {
	name  string // its unit last
	value float64
}

func hzView() view {
	return view{
		heads: []string{"HZ", "MIN", "MAX", "DEV"},
		cells: func(t *tally) []string {
			s := &t.intervals
			return []string{number(t.rate()), millis(s.least()), millis(s.most()), millis(s.deviation())}
		},
		figures: func(t *tally) []figure {
			s := &t.intervals
			return []figure{{"hz", t.rate()}, {"min_ms", s.least() * 1e3}, {"max_ms", s.most() * 1e3}, {"dev_ms", s.deviation() * 1e3}}
		},
	}
}

func bwView() view {
	return view{
		heads: []string{"FRAMES", "BUS", "A FRAME", "A MESSAGE"},
		cells: func(t *tally) []string {
			frames, each := "-", "-"
			if t.data > 0 {
				frames, each = bytesText(t.perSecond(t.data), "/s"), bytesText(t.data/float64(t.heard), "")
			}
			return []string{frames, bytesText(t.perSecond(t.bus), "/s"), each, bytesText(t.bus/float64(t.heard), "")}
		},
		figures: func(t *tally) []figure {
			return []figure{{"frame_bytes_per_s", t.perSecond(t.data)}, {"bus_bytes_per_s", t.perSecond(t.bus)},
				{"bytes_per_frame", t.data / float64(t.heard)}, {"bytes_per_message", t.bus / float64(t.heard)}}
		},
	}
}

func delayView() view {
	ends := func(h *histogram) (least, most float64) {
		return orNaN(h.min.Seconds(), h.n), orNaN(h.max.Seconds(), h.n)
	}
	return view{
		heads: []string{"MIN", "P50", "P99", "MAX"},
		cells: func(t *tally) []string {
			least, most := ends(&t.delays)
			return []string{millis(least), millis(t.delays.quantile(0.5)), millis(t.delays.quantile(0.99)), millis(most)}
		},
		figures: func(t *tally) []figure {
			least, most := ends(&t.delays)
			return []figure{{"min_ms", least * 1e3}, {"p50_ms", t.delays.quantile(0.5) * 1e3},
				{"p99_ms", t.delays.quantile(0.99) * 1e3}, {"max_ms", most * 1e3}}
		},
	}
}

// line lays a row out; the note comes last, so that columns stay in place.
func (p *printer) line(topic string, cells []string, missed, note string) string {
	text := fmt.Sprintf("%-*s", p.width, topic)
	for _, c := range cells {
		text += fmt.Sprintf("  %12s", c)
	}
	return strings.TrimRight(fmt.Sprintf("%s  %7s  %s", text, missed, note), " ") + "\n"
}

// note says what the figures cannot.
func (r *row) note() string {
	switch {
	case r.Summary && r.Runs > 1:
		return fmt.Sprintf("%d runs of its publisher", r.Runs)
	case r.Summary:
		return ""
	case r.tally.heard == 0:
		return fmt.Sprintf("silent for %.1f s", r.Silent.Seconds())
	case r.tally.newRun:
		return "new run, epoch " + r.Epoch.String()
	default:
		return ""
	}
}

// rowJSON is a row for programs; the verb's figures stand beside these keys,
// null where they are not known.
type rowJSON struct {
	Topic    msg.Topic `json:"topic"`
	Epoch    msg.Epoch `json:"epoch"`
	Runs     int       `json:"runs"` // of the publisher, that were heard
	Seq      msg.Seq   `json:"seq"`  // the last
	Summary  bool      `json:"summary"`
	Messages uint64    `json:"messages"`
	Missed   uint64    `json:"missed"`
	SilentS  float64   `json:"silent_s"` // since the last message
}

func (p *printer) printJSON(rows []row) error {
	var out []byte
	for _, r := range rows {
		text, err := json.Marshal(rowJSON{Topic: r.Topic, Epoch: r.Epoch, Runs: r.Runs, Seq: r.Seq, Summary: r.Summary,
			Messages: r.tally.heard, Missed: r.tally.missed, SilentS: max(r.Silent.Seconds(), 0)})
		if err != nil {
			return fmt.Errorf("print %s: %w", r.Topic, err)
		}
		out = append(out, text[:len(text)-1]...)
		for _, f := range p.view.figures(&r.tally) {
			out = fmt.Appendf(out, `,%q:%s`, f.name, numberJSON(f.value))
		}
		out = append(out, "}\n"...)
	}
	_, err := p.out.Write(out)
	return err
}

// numberJSON has six significant digits; not known is null.
func numberJSON(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "null"
	}
	return significant(v, 6)
}

// significant rounds to so many digits and writes no exponent.
func significant(v float64, digits int) string {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', digits-1, 64), 64)
	if err != nil {
		rounded = v
	}
	return strconv.FormatFloat(rounded, 'f', -1, 64)
}

// number shows a figure to people; not known is "-".
func number(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case v < 100:
		return strconv.FormatFloat(v, 'f', 3, 64)
	default:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
}

// millis shows seconds in milliseconds.
func millis(seconds float64) string {
	if text := number(seconds * 1e3); text != "-" {
		return text + " ms"
	}
	return "-"
}

// bytesText shows bytes in decimal units.
func bytesText(v float64, per string) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	unit, names := 0, []string{"B", "kB", "MB", "GB", "TB"}
	for ; v >= 1000 && unit < len(names)-1; unit++ {
		v /= 1000
	}
	digits := 1
	if unit == 0 {
		digits = 0
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + names[unit] + per
}
