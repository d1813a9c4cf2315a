package format

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/names"
	"github.com/perch-edge/perch/pkg/msg"
)

// line writes InfluxDB line protocol, times in nanoseconds. A reading is one line: its stream is the
// measurement, node, source and the site are tags, each good column is a field. A detection is one
// line with the number of objects, and one for each label. A state is a line of its counters and
// gauges. Files have no numbers worth a series.
type line struct{ site string }

// firstTime is the least Unix time, in seconds, that is taken for one: SenML reads smaller numbers
// as relative to now (RFC 8428 section 4.5.3), and databases with a retention period refuse them.
// A clock that has not been set since the boot is below it.
const firstTime = 1 << 28 // July 1978

func newLine(o Options) (Format, error) {
	if err := tagError(o.Node); err != nil {
		return nil, fmt.Errorf("node name %q: %w: use another format, or another name", o.Node, err)
	}
	if err := tagError(o.Site); err != nil {
		return nil, fmt.Errorf("site %q: %w: use another format, or other words", o.Site, err)
	}
	return line{o.Site}, nil
}

// Encode returns one line, or several of a detection, without a line feed at the end.
func (f line) Encode(r *record.Record) ([]byte, error) {
	at := r.Time.Time
	if at.Unix() < firstTime || at.Unix() >= math.MaxInt64/1_000_000_000 {
		return nil, skip("its time is not one that a database takes: want 1978 to 2262")
	}
	if err := tagError(r.Node); err != nil {
		return nil, skip(err.Error())
	}
	switch r.Kind {
	case msg.KindReading:
		return f.reading(r)
	case msg.KindDetection:
		return f.detection(r)
	case msg.KindState:
		return f.state(r)
	}
	return nil, skip("it takes readings, detections and states only")
}

// Batch is lines; the media type is the one that InfluxDB's own clients send.
func (line) Batch() Batch {
	return Batch{MediaType: "text/plain; charset=utf-8", Separator: "\n", Close: "\n"}
}

func (f line) reading(r *record.Record) ([]byte, error) {
	reading, err := r.Reading()
	if err != nil {
		return nil, err
	}
	// The lines of detections have texts where a stream of that name might have numbers.
	measurement := string(r.Stream)
	if slices.Contains(msg.Kinds(), msg.Kind(measurement)) {
		measurement += ".readings"
	}
	b := appendTags([]byte(measurement), "node", r.Node, "site", f.site, "source", string(r.Source))
	head := len(b)
	for column, value := range good(&reading) {
		b = appendField(b, len(b) == head, fieldName(column), value)
	}
	if len(b) == head {
		return nil, skip("no column has a good value")
	}
	return appendEnd(b, r), nil
}

// detection has the number of objects without a label, so that a graph falls to zero, and the
// number and the best score of each label that there is.
func (f line) detection(r *record.Record) ([]byte, error) {
	d, err := r.Detection()
	if err != nil {
		return nil, err
	}
	count, best := map[string]float64{}, map[string]float64{}
	var labels []string
	for _, o := range d.Objects {
		if count[o.Label] == 0 {
			labels = append(labels, o.Label)
		}
		count[o.Label]++
		best[o.Label] = max(best[o.Label], o.Score)
	}
	tags := []string{"node", r.Node, "site", f.site, "source", string(r.Source), "stream", string(r.Stream), "frame_source", string(d.FrameSource)}
	b := appendTags([]byte("detection"), tags...)
	b = appendEnd(appendField(b, true, "objects", float64(len(d.Objects))), r)
	for _, label := range labels {
		if err := tagError(label); err != nil {
			return nil, skip(fmt.Sprintf("label %q: %v", label, err))
		}
		b = appendTags(append(b, "\ndetection"...), append(slices.Clip(tags), "label", label)...)
		b = appendField(b, true, "objects", count[label])
		b = appendEnd(appendField(b, false, "score", best[label]), r)
	}
	return b, nil
}

// state has 1 or 0 as ready, and all counters and gauges; a counter with the name of a gauge is left
// out, as is a name that no worker of ours would give.
func (f line) state(r *record.Record) ([]byte, error) {
	s, err := r.State()
	if err != nil {
		return nil, err
	}
	if err := tagError(s.Program); err != nil {
		return nil, skip(fmt.Sprintf("program %q: %v", s.Program, err))
	}
	values := maps.Clone(s.Gauges)
	if values == nil {
		values = map[string]float64{}
	}
	for name, n := range s.Counters {
		if _, gauge := values[name]; !gauge {
			values[name] = float64(n)
		}
	}
	ready := 0.0
	if s.Ready {
		ready = 1
	}
	b := appendTags([]byte("state"), "node", r.Node, "site", f.site, "source", string(r.Source), "program", s.Program)
	b = appendField(b, true, "ready", ready)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if name != "ready" && name != "program" && names.Stream(name) == nil {
			b = appendField(b, false, fieldName(name), values[name])
		}
	}
	return appendEnd(b, r), nil
}

// appendTags appends ",key=value" of each pair; a tag without value is not allowed and left out.
func appendTags(b []byte, pairs ...string) []byte {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		b = append(append(append(b, ','), pairs[i]...), '=')
		for _, c := range []byte(pairs[i+1]) {
			if c == ',' || c == '=' || c == ' ' {
				b = append(b, '\\')
			}
			b = append(b, c)
		}
	}
	return b
}

func appendField(b []byte, first bool, name string, value float64) []byte {
	mark := byte(',')
	if first {
		mark = ' '
	}
	b = append(append(append(b, mark), name...), '=')
	return strconv.AppendFloat(b, value, 'g', -1, 64)
}

// appendEnd appends the time, and before it a field that says when that time is in doubt.
func appendEnd(b []byte, r *record.Record) []byte {
	if !r.Synced {
		b = append(b, ",synced=false"...)
	}
	return strconv.AppendInt(append(b, ' '), r.Time.UnixNano(), 10)
}

// fieldName is the column's name, with ".value" behind one that a table has already: InfluxDB 3
// refuses a field with the name of a tag, all versions one called time.
func fieldName(column string) string {
	if slices.Contains([]string{"time", "node", "site", "source", "synced"}, column) {
		return column + ".value"
	}
	return column
}

// tagError says why a text cannot be a tag's value. There is no way to write a backslash before
// what follows an escaping one: a comma, a space, an equals sign, or the end.
func tagError(text string) error {
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return errors.New("line protocol has no line feeds, tabs or other control characters in a tag")
	}
	for i := range len(text) {
		if text[i] == '\\' && (i+1 == len(text) || strings.IndexByte(`,= \`, text[i+1]) >= 0) {
			return errors.New(`line protocol has no \ before a comma, a space, =, another \ or the end of a tag`)
		}
	}
	return nil
}
