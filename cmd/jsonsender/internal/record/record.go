// Package record is what leaves the box: one message of the bus, or several readings reduced to
// one, as a JSON object with an id that never changes.
//
//	bus message --> Of ------------------> Record --> a format, a sink, or the backlog
//	backlog     --> Parse(topic, JSON) --^
//
// A record fails to parse when it is no message that the bus would accept.
package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/perch-edge/perch/pkg/msg"
)

// Record is one thing that leaves the box. Its JSON (Raw) is the header of the bus message, as
// docs/PROTOCOL.md has it; a reduced reading also has the key "window".
type Record struct {
	msg.Message
	// Window is what a reduced reading stands for; nil for one that is as it was measured.
	Window *Window
}

// Window is what a reduced reading stands for. Counts, Bad and Null are in the order of the
// reading's columns: how many values were used, how many were marked bad, and how many were null
// without being marked. The last two are never part of the value.
type Window struct {
	Reduce   string   `json:"reduce"`    // mean, min, max or last
	Start    msg.Time `json:"start"`     // of the first reading in it
	End      msg.Time `json:"end"`       // of the last reading in it, which is also the record's time
	FirstSeq msg.Seq  `json:"first_seq"` // of the first reading in it; the record's seq is the last one's
	Readings uint64   `json:"readings"`  // how many there were
	Counts   []uint64 `json:"counts"`
	Bad      []uint64 `json:"bad"`
	Null     []uint64 `json:"null"`
}

// ID names the record, for ever: <node>/<source>/<stream>/<epoch>/<seq>.
func (r *Record) ID() string {
	return r.Node + "/" + string(r.Source) + "/" + string(r.Stream) + "/" + r.Epoch.String() + "/" + strconv.FormatUint(uint64(r.Seq), 10)
}

// Of is a message as a record.
func Of(m msg.Message) Record { return Record{Message: m} }

// Reduced is a reading that stands for those of a window.
func Reduced(r *msg.Reading, w *Window) (Record, error) {
	return encode(r.Topic(), struct {
		*msg.Reading
		Window *Window `json:"window,omitempty"`
	}{r, w})
}

// Of a reading from which columns were left out.
func encode(topic msg.Topic, body any) (Record, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return Record{}, fmt.Errorf("encode record of %s: %w", topic, err)
	}
	return Parse(topic, text)
}

// Parse reads a record that was stored: its topic and its JSON.
func Parse(topic msg.Topic, text []byte) (Record, error) {
	m, err := msg.Decode([][]byte{[]byte(topic), text})
	if err != nil {
		return Record{}, fmt.Errorf("parse record of %s: %w", topic, err)
	}
	r := Record{Message: m}
	if m.Kind != msg.KindReading || !bytes.Contains(text, []byte(`"window"`)) {
		return r, nil
	}
	var reduced struct {
		Window *Window `json:"window"`
	}
	if err := json.Unmarshal(text, &reduced); err != nil {
		return Record{}, fmt.Errorf("parse record of %s: window: %w", topic, err)
	}
	r.Window = reduced.Window
	return r, nil
}
