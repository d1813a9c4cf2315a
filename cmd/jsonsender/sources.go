package main

import (
	"errors"
	"slices"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/choose"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// Reads are the kinds that are sent, so that a source with none of them is found before the start.
func (c *Config) Reads() []msg.Kind {
	choice, err := c.choice(nil)
	if err != nil {
		return choose.Kinds()
	}
	return choice.Kinds()
}

// choice is what is sent of the sources of an entry; nil is an entry that is not known yet.
func (c *Config) choice(entry *topology.Entry) (*choose.Choice, error) {
	var sources []msg.Source
	if entry != nil && !slices.ContainsFunc(entry.Sources, func(ref topology.Ref) bool { return ref.Endpoint != "" }) {
		for _, ref := range entry.Sources {
			sources = append(sources, msg.Source(ref.Name))
		}
	}
	return choose.New(c.Kinds, c.Streams, c.Columns, sources)
}

// ValidateIn checks what refers to other entries of the topology. A stream or a column that none of
// them has would leave the receiver without data, and nobody with an error.
func (c *Config) ValidateIn(top *topology.Topology, entry *topology.Entry) error {
	_, err := c.choice(entry)
	if err == nil {
		err = c.checkMeasured(top, entry)
	}
	return errors.Join(err, c.checkHome(top, entry))
}

// checkMeasured finds streams and columns that no source measures.
func (c *Config) checkMeasured(top *topology.Topology, entry *topology.Entry) error {
	m, ok := measuredBy(top, entry)
	if !ok {
		return nil
	}
	if slices.Contains(c.Kinds, msg.KindState) {
		m.streams = append(m.streams, "state")
	}
	var errs []error
	for _, stream := range c.Streams {
		if !slices.Contains(m.streams, stream) {
			errs = append(errs, topology.Bad("streams", "no source has the stream %q%s", stream, nearest.Hint(stream, m.streams)))
		}
	}
	for _, column := range c.Columns {
		if len(m.columns) > 0 && !slices.Contains(m.columns, column) {
			errs = append(errs, topology.Bad("columns", "no source has the column %q%s", column, nearest.Hint(column, m.columns)))
		}
	}
	return errors.Join(errs...)
}

// measured are the streams and columns of sensors. Columns are empty where a sensor has its usual
// ones, which only its program knows.
type measured struct {
	streams []string // STREAM and SOURCE.STREAM
	columns []string
}

// measuredBy collects what the sources of an entry measure. ok is false where one of them is not a
// sensor of the topology: what others publish is not written there.
func measuredBy(top *topology.Topology, entry *topology.Entry) (m measured, ok bool) {
	usual := false
	for _, ref := range entry.Sources {
		source := top.Entry(ref.Name)
		if source == nil || source.Role != topology.Sensor {
			return measured{}, false
		}
		keys := peek(source)
		for _, stream := range source.Streams {
			if ref.Stream != "" && ref.Stream != stream {
				continue
			}
			m.streams = append(m.streams, stream, ref.Name+"."+stream)
			m.columns = append(m.columns, keys.Streams[stream].Columns...)
			usual = usual || len(keys.Streams[stream].Columns) == 0
		}
	}
	if usual {
		m.columns = nil
	}
	return m, true
}
