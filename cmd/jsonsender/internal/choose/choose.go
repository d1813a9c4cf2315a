// Package choose leaves out what a receiver is not meant to have: kinds of messages, streams, and
// columns of readings.
//
//	message --> Wants --> yes --> Of --> a record, of a reading with the chosen columns alone
//
// A reading of which no column is chosen is left out. What is left out is not lost: it was never
// wanted, and the caller counts it apart.
package choose

import (
	"errors"
	"slices"
	"strings"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/names"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// Kinds are those that can be sent.
func Kinds() []msg.Kind {
	return []msg.Kind{msg.KindReading, msg.KindDetection, msg.KindFile, msg.KindState}
}

// defaults are the kinds that are sent where none are named: a state comes once a second.
func defaults() []msg.Kind { return []msg.Kind{msg.KindReading, msg.KindDetection, msg.KindFile} }

// Choice is what goes out.
type Choice struct {
	kinds   []msg.Kind
	streams []string // STREAM or SOURCE.STREAM; none: all
	columns []string // none: all
}

// New checks a choice: its kinds, streams (STREAM or SOURCE.STREAM) and columns; of each, none is
// the default. Sources are the workers that are read, as far as they are known. All errors come at
// once, each with its key (topology.Bad).
func New(kinds []msg.Kind, streams, columns []string, sources []msg.Source) (*Choice, error) {
	c := &Choice{kinds, streams, columns}
	if len(kinds) == 0 {
		c.kinds = defaults()
	}
	var errs []error
	for _, k := range kinds {
		if !slices.Contains(Kinds(), k) {
			errs = append(errs, topology.Bad("kinds", "%q cannot be sent%s", k, nearest.Hint(k, Kinds())))
		}
	}
	for _, s := range streams {
		errs = append(errs, checkStream(s, sources))
	}
	for _, column := range columns {
		if err := names.Stream(column); err != nil {
			errs = append(errs, topology.Bad("columns", "%w", err))
		}
	}
	if len(columns) > 0 && !slices.Contains(c.kinds, msg.KindReading) {
		errs = append(errs, topology.Bad("columns", "kinds has no reading, and only readings have columns: leave out one of the two"))
	}
	return c, errors.Join(errs...)
}

func checkStream(text string, sources []msg.Source) error {
	source, stream, both := strings.Cut(text, ".")
	if !both {
		source, stream = "", text
	}
	if err := names.Stream(stream); err != nil {
		return topology.Bad("streams", "%q: %w", text, err)
	}
	if both && len(sources) > 0 && !slices.Contains(sources, msg.Source(source)) {
		return topology.Bad("streams", "%q: %q is not among the sources%s", text, source, nearest.Hint(msg.Source(source), sources))
	}
	return nil
}

// Kinds are the chosen ones.
func (c *Choice) Kinds() []msg.Kind { return slices.Clone(c.kinds) }

// Wants reports whether messages of a header's kind and stream go out.
func (c *Choice) Wants(h *msg.Header) bool {
	return slices.Contains(c.kinds, h.Kind) &&
		(len(c.streams) == 0 || slices.Contains(c.streams, string(h.Stream)) || slices.Contains(c.streams, string(h.Source)+"."+string(h.Stream)))
}

// Reading is a reading with the chosen columns, in their order in the reading; ok is false where
// there is none.
func (c *Choice) Reading(r msg.Reading) (out msg.Reading, ok bool) {
	if c.all(r.Columns) {
		return r, true
	}
	out = msg.Reading{Header: r.Header}
	for i, column := range r.Columns {
		if !slices.Contains(c.columns, column) {
			continue
		}
		out.Columns, out.Values = append(out.Columns, column), append(out.Values, r.Values[i])
		if why, bad := r.Bad[column]; bad {
			if out.Bad == nil {
				out.Bad = map[string]string{}
			}
			out.Bad[column] = why
		}
	}
	return out, len(out.Columns) > 0
}

// Of is a message as a record; ok is false where it does not go out. A message of which nothing is
// left out keeps its JSON as it is; one that loses columns loses keys that this version does not know.
func (c *Choice) Of(m msg.Message) (r record.Record, ok bool, err error) {
	if !c.Wants(&m.Header) {
		return r, false, nil
	}
	if m.Kind != msg.KindReading || len(c.columns) == 0 {
		return record.Of(m), true, nil
	}
	reading, err := m.Reading()
	if err != nil {
		return r, false, err
	}
	if c.all(reading.Columns) {
		return record.Of(m), true, nil
	}
	chosen, ok := c.Reading(reading)
	if !ok {
		return r, false, nil
	}
	r, err = record.Reduced(&chosen, nil)
	return r, err == nil, err
}

// all reports whether every one of these columns is chosen.
func (c *Choice) all(columns []string) bool {
	return len(c.columns) == 0 || !slices.ContainsFunc(columns, func(s string) bool { return !slices.Contains(c.columns, s) })
}
