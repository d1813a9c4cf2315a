package msg

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Message is a message as it came: its header read, its body not yet.
type Message struct {
	Header
	raw     []byte // the header part, JSON
	Payload []byte // the optional third part
}

// Raw is the header part as it came: one JSON object.
func (m *Message) Raw() json.RawMessage { return m.raw }

// Reading reads the body of a reading.
func (m *Message) Reading() (Reading, error) {
	var r Reading
	if err := m.body(KindReading, &r); err != nil {
		return r, err
	}
	if err := r.check(); err != nil {
		return r, fmt.Errorf("%w: %s: %w", ErrMalformed, m.ID(), err)
	}
	return r, nil
}

// Frame reads the body of a frame's descriptor.
func (m *Message) Frame() (f FrameMessage, err error) { return f, m.body(KindFrame, &f) }

// Detection reads the body of a detection.
func (m *Message) Detection() (d Detection, err error) { return d, m.body(KindDetection, &d) }

// File reads the body of a file event.
func (m *Message) File() (f File, err error) { return f, m.body(KindFile, &f) }

// State reads the body of a worker's state.
func (m *Message) State() (s State, err error) { return s, m.body(KindState, &s) }

func (m *Message) body(want Kind, into any) error {
	if m.Kind != want {
		return fmt.Errorf("%w: %s is a %s: want a %s", ErrMalformed, m.ID(), m.Kind, want)
	}
	if err := json.Unmarshal(m.raw, into); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrMalformed, m.ID(), err)
	}
	return nil
}

// Decode reads a message's parts. It fails with ErrVersion or ErrMalformed and
// accepts nothing that is too large, badly named, or that says one thing in
// its topic and another in its header. Unknown header keys are left alone.
func Decode(parts [][]byte) (Message, error) {
	if len(parts) < 2 || len(parts) > 3 {
		return Message{}, fmt.Errorf("%w: %d parts: want topic, header and perhaps a payload", ErrMalformed, len(parts))
	}
	kind, source, stream, err := Topic(parts[0]).Split()
	if err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	m := Message{raw: parts[1]}
	if len(parts) == 3 {
		m.Payload = parts[2]
	}
	if len(m.raw) > maxHeader || len(m.Payload) > maxPayload {
		return Message{}, fmt.Errorf("%w: %s: header of %d and payload of %d bytes: want at most %d and %d",
			ErrMalformed, parts[0], len(m.raw), len(m.Payload), maxHeader, maxPayload)
	}
	if err := decodeHeader(m.raw, &m.Header); err != nil {
		return Message{}, fmt.Errorf("%s: %w", parts[0], err)
	}
	if m.Kind != kind || m.Source != source || m.Stream != stream {
		return Message{}, fmt.Errorf("%w: topic %s with a header of %s", ErrMalformed, parts[0], m.Topic())
	}
	return m, nil
}

func decodeHeader(raw []byte, h *Header) error {
	// The version decides before anything else is looked at: a later version
	// may give the other keys other types.
	var v struct {
		Version *int `json:"v"`
	}
	if err := json.Unmarshal(raw, h); err != nil || h.Version != Version {
		if json.Unmarshal(raw, &v) == nil && v.Version != nil && *v.Version != Version {
			return fmt.Errorf("%w %d: want %d", ErrVersion, *v.Version, Version)
		}
		if err == nil {
			return fmt.Errorf("%w: no version", ErrMalformed)
		}
		return fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	return nil
}

// headerPrefix is the part of a stream's headers that never changes, from the
// opening brace to before the sequence number.
func headerPrefix(kind Kind, node string, source Source, stream Stream, epoch Epoch, bootID string) []byte {
	quoted, err := json.Marshal(node)
	if err != nil {
		panic("msg: marshal a string: " + err.Error())
	}
	return fmt.Appendf(nil, `{"v":%d,"kind":%q,"node":%s,"source":%q,"stream":%q,"epoch":%q,"boot_id":%q,"seq":`,
		Version, kind, quoted, source, stream, epoch, bootID)
}

func appendStamp(b []byte, seq uint64, s Stamp) []byte {
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, `,"time":"`...)
	b = s.Wall.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","boot_ns":`...)
	b = strconv.AppendInt(b, int64(s.Boot), 10)
	b = append(b, `,"synced":`...)
	return strconv.AppendBool(b, s.Synced)
}
