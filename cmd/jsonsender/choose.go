package main

import (
	"slices"

	"github.com/perch-edge/perch/pkg/msg"
)

// chooser decides which messages are sent.
type chooser struct {
	kinds   []msg.Kind
	streams []string
}

func newChooser(c *Config) chooser {
	kinds := c.Kinds
	if len(kinds) == 0 {
		kinds = []msg.Kind{msg.KindReading, msg.KindDetection, msg.KindFile}
	}
	return chooser{kinds, c.Streams}
}

func (c chooser) wants(m *msg.Message) bool {
	return slices.Contains(c.kinds, m.Kind) && (len(c.streams) == 0 ||
		slices.Contains(c.streams, string(m.Stream)) || slices.Contains(c.streams, string(m.Source)+"."+string(m.Stream)))
}
