package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

// cloudEvents writes CloudEvents 1.0 in the JSON format, structured mode. The attributes are what
// a broker chooses by; the data are the bus header, and of a reading also "row", its values by column.
type cloudEvents struct{}

// eventType is what the record's kind is added to: the project's name in reverse DNS.
const eventType = "io.github.perch-edge.perch."

// event is the JSON of one event (CloudEvents JSON format 1.0 section 3). Names of extensions are
// lower-case letters and digits.
type event struct {
	SpecVersion string `json:"specversion"`
	ID          string `json:"id"`
	Source      string `json:"source"`
	Type        string `json:"type"`
	Subject     string `json:"subject"`
	// Time is left out where the clock was not synchronised: brokers would order by it.
	Time        string `json:"time,omitempty"`
	ContentType string `json:"datacontenttype"`

	Node   string `json:"node"`
	Epoch  string `json:"epoch"`
	Synced bool   `json:"synced"`
	// Sequence is the sequence extension: as long for all, so that its order is that of the text.
	Sequence string `json:"sequence"`

	Data json.RawMessage `json:"data"`
}

// Encode returns one event, also of a state.
func (cloudEvents) Encode(r *record.Record) ([]byte, error) {
	data, err := eventData(r)
	if err != nil {
		return nil, err
	}
	e := event{
		SpecVersion: "1.0",
		ID:          eventText(r.ID()),
		Source:      "/perch/" + url.PathEscape(r.Node) + "/" + string(r.Source),
		Type:        eventType + string(r.Kind),
		Subject:     string(r.Stream),
		ContentType: "application/json",
		Node:        eventText(r.Node),
		Epoch:       r.Epoch.String(),
		Synced:      r.Synced,
		Sequence:    fmt.Sprintf("%016d", r.Seq),
		Data:        data,
	}
	if r.Synced {
		e.Time = r.Time.String()
	}
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", r.ID(), err)
	}
	return text, nil
}

// Batch is the JSON batch format (CloudEvents JSON format 1.0 section 4).
func (cloudEvents) Batch() Batch {
	return Batch{
		MediaType: "application/cloudevents-batch+json; charset=utf-8", Open: "[", Separator: ",", Close: "]",
		Alone: "application/cloudevents+json; charset=utf-8",
	}
}

// eventData is the bus header. That of a reading has a first key "row" with the values by column,
// since rules and queries of receivers cannot pair two lists.
func eventData(r *record.Record) (json.RawMessage, error) {
	raw := r.Raw()
	if r.Kind != msg.KindReading {
		return raw, nil
	}
	reading, err := r.Reading()
	if err != nil {
		return nil, err
	}
	var has struct {
		Row json.RawMessage `json:"row"`
	}
	if err := json.Unmarshal(raw, &has); err != nil || has.Row != nil { // a publisher's own key stays as it is
		return raw, err
	}
	inner := bytes.TrimLeft(raw, " \t\r\n")[1:]
	return append(append(appendRow([]byte(`{"row":`), &reading), ','), inner...), nil
}

// appendRow appends {"column":value, …}: all columns, in their order, null where there is no value.
func appendRow(b []byte, r *msg.Reading) []byte {
	b = append(b, '{')
	for i, column := range r.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), column...), `":`...)
		value, _ := r.Values[i : i+1].MarshalJSON() // never fails; [value]
		b = append(b, value[1:len(value)-1]...)
	}
	return append(b, '}')
}

// eventText is a text without the characters that an attribute cannot have (CloudEvents 1.0, type
// system: C1 controls and code points that are no characters); each becomes its bytes as %XX.
func eventText(text string) string {
	var b strings.Builder
	for _, c := range text {
		if c < ' ' || 0x7f <= c && c <= 0x9f || 0xfdd0 <= c && c <= 0xfdef || c&0xfffe == 0xfffe {
			for _, octet := range []byte(string(c)) {
				fmt.Fprintf(&b, "%%%02X", octet)
			}
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}
