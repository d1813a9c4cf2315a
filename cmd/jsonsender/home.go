package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// homeKeys are keys of other entries that Home Assistant is to know of. What an entry has besides is
// its program's business.
type homeKeys struct {
	Streams map[string]struct {
		CaptureHz float64  `toml:"capture_hz"`
		Columns   []string `toml:"columns"`
	} `toml:"stream"`
	Only   []string `toml:"only"`   // of a detector
	Labels any      `toml:"labels"` // likewise
	Dir    string   `toml:"dir"`    // of a jpegwriter
	Latest string   `toml:"latest"` // likewise
}

// peek reads those keys of an entry. Problems are for the entry's own program to report.
func peek(e *topology.Entry) homeKeys {
	k := homeKeys{Latest: "latest.jpg"}
	_ = e.Table.Bind(&k)
	return k
}

// newHome makes the format of Home Assistant, from what the topology has of the sources. What it does
// not have, such as the columns of a sensor that has defaults for them, is learned from the data.
func (c *Config) newHome(top *topology.Topology, entry *topology.Entry, log *slog.Logger) (*format.Home, error) {
	n := top.Node
	home := format.HomeConfig{
		Node: n.Name, Prefix: c.TopicPrefix, Discovery: c.Discovery, Version: version.String(), Area: n.Location.Site, Log: log,
	}
	for _, ref := range entry.Sources {
		source := top.Entry(ref.Name)
		if source == nil {
			continue
		}
		keys := peek(source)
		if filepath.Base(source.Program) == "detector" {
			home.Detectors = append(home.Detectors, format.HomeDetector{Source: msg.Source(ref.Name), Stream: "objects", Labels: keys.labels()})
		}
		for _, stream := range source.Streams {
			if ref.Stream != "" && ref.Stream != stream || !c.wantsStream(ref.Name, stream) {
				continue
			}
			s := keys.Streams[stream]
			home.Streams = append(home.Streams, format.HomeStream{
				Source: msg.Source(ref.Name), Stream: msg.Stream(stream), Period: c.period(s.CaptureHz), Columns: c.wantedColumns(s.Columns),
			})
		}
	}
	picture, err := c.homePicture(top)
	if err != nil {
		return nil, topology.Bad("picture", "%w", err)
	}
	home.Picture = picture
	return format.NewHome(home)
}

// checkHome finds what Home Assistant could not be sent about the box.
func (c *Config) checkHome(top *topology.Topology, entry *topology.Entry) error {
	if c.Format != "homeassistant" {
		return nil
	}
	_, err := c.newHome(top, entry, slog.New(slog.DiscardHandler))
	return errors.Join(err, c.checkAlone(top, entry))
}

// checkAlone refuses a second worker that announces the box to the same broker: each would take out
// what the other has announced.
func (c *Config) checkAlone(top *topology.Topology, entry *topology.Entry) error {
	for _, other := range top.Entries {
		if other == entry || filepath.Base(other.Program) != filepath.Base(entry.Program) {
			continue
		}
		theirs := DefaultConfig()
		if other.BindOwn(&theirs) == nil && theirs.Format == c.Format && theirs.To.String() == c.To.String() && theirs.Discovery == c.Discovery {
			return topology.Bad("format", "%q announces this box to the same broker: want one homeassistant worker with all sources, or another discovery_prefix", other.Name)
		}
	}
	return nil
}

// labels are those that a detector's settings name.
func (k *homeKeys) labels() (list []string) {
	if len(k.Only) > 0 {
		return k.Only
	}
	all, _ := k.Labels.([]any)
	for _, label := range all {
		if text, ok := label.(string); ok {
			list = append(list, text)
		}
	}
	return list
}

// wantsStream reports whether a stream is sent.
func (c *Config) wantsStream(source, stream string) bool {
	return len(c.Streams) == 0 || slices.Contains(c.Streams, stream) || slices.Contains(c.Streams, source+"."+stream)
}

// wantedColumns are those of a stream that are sent.
func (c *Config) wantedColumns(columns []string) []string {
	if len(c.Columns) == 0 {
		return columns
	}
	return slices.DeleteFunc(slices.Clone(columns), func(column string) bool { return !slices.Contains(c.Columns, column) })
}

// period is the time from reading to reading, as they are sent; 0 is not known.
func (c *Config) period(hz float64) time.Duration {
	if c.Every > 0 {
		return c.Every.D()
	}
	if hz <= 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / hz)
}

// homePicture is where the jpegwriter named in picture keeps its newest picture.
func (c *Config) homePicture(top *topology.Topology) (*format.Picture, error) {
	if c.Picture == "" {
		return nil, nil
	}
	writer := top.Entry(c.Picture)
	switch {
	case writer == nil:
		return nil, fmt.Errorf("%q: there is no worker of that name%s", c.Picture, nearest.Hint(c.Picture, top.Names()))
	case filepath.Base(writer.Program) != "jpegwriter":
		return nil, fmt.Errorf("%q runs %s: want a worker that runs jpegwriter", c.Picture, writer.Program)
	}
	keys := peek(writer)
	if keys.Latest == "" {
		return nil, fmt.Errorf(`%q keeps no newest picture: want latest = "NAME.jpg" there`, c.Picture)
	}
	if keys.Dir == "" {
		keys.Dir = top.Node.CacheDir
	}
	return &format.Picture{Source: msg.Source(c.Picture), Dir: keys.Dir, File: keys.Latest}, nil
}
